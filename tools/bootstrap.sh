#!/bin/sh
# Make what a fresh clone lacks: `bootstrap.sh system` the programs that the tests run,
# `bootstrap.sh venv run|dev` the virtual environment, from a lock with hashes; `clean` removes that.
# Says what it does, does nothing twice, and needs the network only while it installs.
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
venv=${VENV:-.venv}
marker=.made-by-bootstrap
# program:package, as Debian and Ubuntu name them.
system_programs="bwrap:bubblewrap nix:nix-bin busybox:busybox-static git:git"

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
    say "$@"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }
can_apt() { [ "$(id -u)" = 0 ] && have apt-get; }

apt_install() {
    say "installing the system packages: $*"
    log=$(mktemp)
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    # The package lists of a fresh machine are empty, those of an old one name files long gone.
    if ! apt-get install -y --no-install-recommends "$@" </dev/null >"$log" 2>&1 &&
        ! { apt-get update && apt-get install -y --no-install-recommends "$@"; } </dev/null >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        fail "apt-get could not install: $*"
    fi
    rm -f "$log"
}

check_python() {
    have "$python" || fail "there is no '$python' on PATH. Python 3.11 or newer is needed: install one, or name it: PYTHON=python3.12 make ..."
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "'$python' is $("$python" --version 2>&1 || true), and 3.11 or newer is needed. Name another: PYTHON=python3.12 make ..."
    "$python" -c 'import venv, ensurepip' 2>/dev/null && return
    # Debian ships venv apart from Python, one package for each version.
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if can_apt; then
        apt_install "$package"
        "$python" -c 'import venv, ensurepip' 2>/dev/null && return
    fi
    fail "'$python' has no venv module. On Debian and Ubuntu: sudo apt-get install $package"
}

system() {
    missing=
    for pair in $system_programs; do
        have "${pair%%:*}" || missing="$missing ${pair#*:}"
    done
    [ -n "$missing" ] || return 0
    if can_apt; then
        # shellcheck disable=SC2086  # a list of package names
        apt_install $missing
        return
    fi
    say "the tests run real programs that are not on this machine. Debian and Ubuntu have them:"
    say "    sudo apt-get install --no-install-recommends$missing"
    fail "install them, and run the same command again"
}

# VENV may come from somebody's environment and name their own: only what was made here goes.
clear_venv() {
    if [ -e "$venv" ] && [ "$venv" != .venv ] && [ -n "$(ls -A "$venv")" ]; then
        # Where the marker is missing, a stamp of an earlier version tells as much.
        [ -e "$venv/$marker" ] || [ -e "$venv/.stamp-run" ] || [ -e "$venv/.stamp-dev" ] ||
            fail "VENV names '$venv', which was not made here: name another place, unset VENV, or remove it"
    fi
    rm -rf "$venv"
}

venv() {
    set=$1
    # `dev` holds all that `run` does, so it stands for both.
    case $set in
    run) lock=requirements.lock stamps="run dev" ;;
    dev) lock=requirements-dev.lock stamps="dev" ;;
    *) fail "unknown set '$set': run or dev" ;;
    esac
    check_python
    # The path counts as well: scripts in a venv that was moved name an interpreter that is gone.
    identity=$({
        "$python" -c 'import sys; print(sys.version, sys.base_prefix)'
        pwd
        cat requirements.lock requirements-dev.lock pyproject.toml tools/bootstrap.sh
    } | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
    for stamp in $stamps; do
        [ "$(cat "$venv/.stamp-$stamp" 2>/dev/null || true)" != "$identity" ] || return 0
    done

    say "making $venv from $lock"
    clear_venv
    mkdir -p "$venv"
    : >"$venv/$marker"
    "$python" -m venv "$venv" || fail "'$python -m venv' failed (its words stand above)"
    set -- "$venv/bin/python" -m pip --disable-pip-version-check --no-input install --quiet
    "$@" --require-hashes --requirement "$lock" </dev/null ||
        fail "the packages of $lock could not be installed (pip's words stand above). This step needs the network, or a mirror in pip's own settings; nothing after it does"
    "$@" --no-deps --no-build-isolation --no-index --editable . </dev/null ||
        fail "the project itself could not be installed (pip's words stand above)"
    # Where Python is told to write no bytecode, every start would compile the whole project again.
    "$venv/bin/python" -m compileall -q mfm_ops transports || true
    printf '%s\n' "$identity" >"$venv/.stamp-$set"
}

case ${1:-} in
system) system ;;
venv) venv "${2:-run}" ;;
clean) clear_venv ;;
*) fail "usage: bootstrap.sh system | venv run | venv dev | clean" ;;
esac
