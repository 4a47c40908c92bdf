#!/bin/sh
# Write requirements.lock and requirements-dev.lock anew: every version pinned, with the hashes of all
# of its files, so that one lock serves every platform. No index, no URL and no path gets in. Extras
# stay: where a package asks for `coverage[toml]`, pip takes the pin of `coverage` alone for another
# requirement, and fails as soon as there is a newer release.
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check 'pip-tools==7.6.2'

compile() {
    "$work/venv/bin/pip-compile" --quiet --generate-hashes --allow-unsafe --no-strip-extras \
        --no-header --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
        --no-emit-options --annotation-style=line --all-build-deps "$@" pyproject.toml
}

# The tests' lock first, and the other one within it: both name one version of each package, so that
# what is tested is what is installed. A constraint must not name extras.
compile --upgrade --extra dev --output-file "$work/requirements-dev.lock"
sed -E 's/^([a-z0-9-]+)\[[^]]*\]==/\1==/' "$work/requirements-dev.lock" >"$work/constraint.lock"
compile --upgrade --constraint "$work/constraint.lock" --output-file "$work/requirements.lock"

for name in requirements.lock requirements-dev.lock; do
    if grep -nE '://|@ ?file|^-' "$work/$name"; then
        echo "lock: $name names an address or an option (above); nothing was written" >&2
        exit 1
    fi
    # pip-compile names the constraint's file, which is a temporary one.
    sed -E 's/, ?-c [^ ,]+//; s/-c [^ ,]+, ?//' "$work/$name" >"$name"
    echo "lock: wrote $name"
done
