#!/bin/sh
# Run one op twice, each time with a store of its own, and fail when the second run differs.
#
#   reproducible.sh OP [OPTIONS]        e.g. reproducible.sh keystore_list --keystore keys
#
# Two runs agree when their manifests (what was asked for, by which mfm, from which commit) and
# their final snapshots (all that the states wrote) have the same ids. The first is also replayed
# from what it recorded. Ends with 0, with 4 when something differs, else with mfm's own code.
#
#   MFM=path/to/mfm      the mfm to run (default: mfm on PATH)
#   MFM_EXPORT=FILE      keep the first run, with all that it recorded, for `mfm run import`
set -eu

if [ $# -eq 0 ]; then
    echo "usage: reproducible.sh OP [OPTIONS]" >&2
    exit 2
fi
mfm=${MFM:-mfm}
keep=${MFM_EXPORT:-}
unset MFM MFM_EXPORT
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# once N OP...: the run's document is $work/N.json, its manifest $work/N.manifest.
once() {
    n=$1
    shift
    code=0
    "$mfm" --store "$work/$n.sqlite" --json op "$@" >"$work/$n.json" || code=$?
    if [ "$code" -ne 0 ]; then
        echo "run $n of $1 failed:" >&2
        cat "$work/$n.json" >&2
        exit "$code"
    fi
    "$mfm" --store "$work/$n.sqlite" run manifest last >"$work/$n.manifest"
}

# id N NAME: an id of run N. The op's own outputs come last, and may hold anything.
id() {
    sed -e 's/,"outputs":.*//' -e "s/.*\"$2\":\"\([0-9a-f]*\)\".*/\1/" "$work/$1.json"
}

# compare NAME FILE: fail, and show how FILE differs, unless both runs have the same id.
compare() {
    first=$(id 1 "$1")
    second=$(id 2 "$1")
    if [ "${#first}" -ne 64 ] || [ "${#second}" -ne 64 ]; then
        echo "mfm printed no $1" >&2
        exit 1
    fi
    if [ "$first" != "$second" ]; then
        echo "the second run differs: $1 $first, then $second" >&2
        diff "$work/1.$2" "$work/2.$2" >&2 || true
        exit 4
    fi
    echo "$1 $first"
}

once 1 "$@"
once 2 "$@"
compare manifest_id manifest
compare final_snapshot_id json
"$mfm" --store "$work/1.sqlite" run replay last
if [ -n "$keep" ]; then
    "$mfm" --store "$work/1.sqlite" run export last -o "$keep"
fi
