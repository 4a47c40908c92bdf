#!/bin/sh
# Write requirements.lock and requirements-dev.lock anew: every version pinned, with the hashes of all
# of its files, so that one lock serves every platform. No index, no URL and no path gets in.
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check 'pip-tools==7.6.2'

compile() {
    "$work/venv/bin/pip-compile" --quiet --generate-hashes --allow-unsafe --strip-extras \
        --no-header --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
        --no-emit-options --annotation-style=line --all-build-deps "$@" pyproject.toml
}

# The tests' lock first, and the other one within it: both name one version of each package, so that
# what is tested is what is installed.
compile --upgrade --extra dev --output-file "$work/requirements-dev.lock"
compile --upgrade --constraint "$work/requirements-dev.lock" --output-file "$work/requirements.lock"

for name in requirements.lock requirements-dev.lock; do
    if grep -nE '://|@ ?file|^-' "$work/$name"; then
        echo "lock: $name names an address or an option (above); nothing was written" >&2
        exit 1
    fi
    # pip-compile names the constraint's file, which is a temporary one.
    sed -E 's/, ?-c [^ ,]+//; s/-c [^ ,]+, ?//' "$work/$name" >"$name"
    echo "lock: wrote $name"
done
