"""Coverage-guided fuzzing of the doors that take bytes; run by `make fuzz` where atheris is there.

`python -m tests.fuzz.atheris_doors SECONDS`.  Atheris is no dependency, and is asked for only when
this runs: it has no wheel for every Python.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any

from mfm_ops.machine.canonical import CanonicalError, canonical_json_bytes, parse_strict
from mfm_ops.machine.errors import TransportFailure
from mfm_ops.machine.secrets import find_secret, find_secret_in_canonical, text_has_secret
from transports.exec import parse_request
from transports.keystore_format import entry_of
from transports.keystore_warnings import KeystoreRefused
from transports.nix_refs import RefError, parse_app_ref


def _json(data: bytes) -> None:
    try:
        value = parse_strict(data)
    except CanonicalError:
        return
    again = canonical_json_bytes(value)
    assert parse_strict(again) == value
    assert find_secret_in_canonical(again) == find_secret(value)
    try:
        parse_request(value)
    except TransportFailure:
        return


def _text(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    text_has_secret(text)
    try:
        parse_app_ref(text)
    except RefError:
        return


def _keystore(data: bytes) -> None:
    try:
        entry_of("a.json", data)
    except KeystoreRefused:
        return


_DOORS: tuple[Callable[[bytes], None], ...] = (_json, _text, _keystore)


def one(data: bytes) -> None:
    """Feed one input to the door that its first byte chooses."""
    if data:
        _DOORS[data[0] % len(_DOORS)](data[1:])


def main() -> None:
    """Fuzz for as many seconds as the first argument says."""
    atheris: Any = importlib.import_module("atheris")
    # Imported late otherwise, and not instrumented.
    importlib.import_module("mfm_ops.machine.secrets.search")
    atheris.instrument_all()
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-max_len=2048"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
