#!/bin/sh
# Run tests with the oldest versions that pyproject.toml allows: a bound that is too low shows here,
# and not at somebody who has that version. Arguments go to pytest. Needs the network.
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -c '
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
for line in project["dependencies"]:
    print(line.replace(">=", "=="))
' >"$work/oldest.txt"
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint "$work/oldest.txt" --editable '.[dev]' hatchling editables
"$work/venv/bin/python" -m pytest -p no:cacheprovider "$@"
