"""Requests, refs, answers and keystore files of any kind: taken, or refused by a code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfm_ops.machine.canonical import CanonicalError, canonical_json_bytes
from mfm_ops.machine.codes import CATALOGUE
from mfm_ops.machine.errors import TransportFailure
from tests.fuzz.mutations import STRANGE_TEXTS, broken_bytes, examples, outcome, varied
from transports import exec as exec_transport
from transports import nix_answers, nix_requests
from transports.keystore import requested_dir
from transports.keystore_format import entry_of
from transports.keystore_warnings import KeystoreRefused
from transports.nix_refs import RefError, is_plausible_entry, parse_app_ref, require_allowed

_PROGRAM = {
    "kind": "run_program_v1",
    "program_path": "/nix/store/x/bin/x",
    "argv": ["a"],
    "stdin_json": {"a": [1]},
    "timeout_ms": 1000,
    "env": {"LANG": "C"},
    "numbers": "string",
}
_RESOLVE = {"kind": "resolve_flake_app_v1", "app": "github:a/b#c", "timeout_ms": 1000}
_RUN = {
    "kind": "run_flake_app_v1",
    "app": "github:a/b#c",
    "argv": ["a"],
    "stdin_json": None,
    "timeout_ms": 1000,
    "env": {"LANG": "C"},
    "host_env_bindings": {"A": "B"},
}
_KEYSTORE = {"kind": "list_keystores_v1", "dir": "/keystore"}
_DOORS: list[tuple[Callable[[Any], Any], Any]] = [
    (exec_transport.parse_request, _PROGRAM),
    (nix_requests.parse_request, _RESOLVE),
    (nix_requests.parse_request, _RUN),
    (requested_dir, _KEYSTORE),
]
_FILES = [
    path.read_bytes()
    for path in sorted((Path(__file__).parents[2] / "examples" / "keystore").iterdir())
    if path.is_file()
]


@examples(300)
@given(st.sampled_from(_DOORS).flatmap(lambda door: st.tuples(st.just(door[0]), varied(door[1]))))
def test_a_request_is_taken_or_refused_by_a_documented_code(
    case: tuple[Callable[[Any], Any], Any],
) -> None:
    door, request = case
    try:
        # What reaches a transport is canonical.
        canonical_json_bytes(request)
    except CanonicalError:
        return
    taken = outcome(lambda: door(request), TransportFailure)
    if isinstance(taken, TransportFailure):
        assert taken.info.code in CATALOGUE
        json.dumps(taken.info.model_dump(mode="json"))


@examples(300)
@given(
    st.one_of(STRANGE_TEXTS, st.text("abc:/#?&=+.@%~-_ \\\0", max_size=30)),
    st.lists(STRANGE_TEXTS, max_size=3),
)
def test_a_flake_ref_is_parsed_or_refused(text: str, allowlist: list[str]) -> None:
    for entry in allowlist:
        is_plausible_entry(entry)
    try:
        ref = parse_app_ref(text)
        require_allowed(ref, allowlist)
    except (RefError, TransportFailure):
        return
    # Allowed: an entry is a prefix of what was written, whole parts of it.
    assert any(text.startswith(entry) for entry in allowlist)


_ANSWERS = [
    json.dumps(answer).encode()
    for answer in (
        {"url": "github:a/b/0123", "locked": {"narHash": "sha256-x", "rev": "0" * 40}},
        {"type": "app", "program": "/nix/store/x/bin/x"},
        [{"path": "/nix/store/x", "narHash": "sha256:0"}],
        [{"drvPath": "/nix/store/x.drv", "outputs": {"out": "/nix/store/x"}}],
    )
]


@examples(200)
@given(st.sampled_from(_ANSWERS).flatmap(lambda data: st.one_of(st.just(data), broken_bytes(data))))
def test_an_answer_of_nix_is_read_or_refused(data: bytes) -> None:
    for read in (
        nix_answers.parse_metadata,
        nix_answers.parse_app,
        nix_answers.parse_realised,
        lambda answer: nix_answers.parse_path_info(answer, "/nix/store/x"),
    ):
        try:
            read(data)
        except nix_answers.AnswerError:
            continue


@examples(300)
@given(
    st.one_of(STRANGE_TEXTS, st.just("UTC--2024-01-02T03-04-05.6Z--" + "a" * 40)),
    st.sampled_from(_FILES),
    st.data(),
)
def test_a_keystore_file_is_listed_or_refused(name: str, file: bytes, data: st.DataObject) -> None:
    try:
        document = json.loads(file)
    except ValueError:
        content = data.draw(broken_bytes(file))
    else:
        content = data.draw(
            st.one_of(
                broken_bytes(file),
                varied(document).map(lambda value: json.dumps(value).encode("utf-8", "replace")),
            )
        )
    try:
        entry, _ = entry_of(name, content)
    except KeystoreRefused:
        return
    canonical_json_bytes(dict(entry))


@pytest.mark.parametrize("door", [door for door, _ in _DOORS])
def test_a_request_that_is_no_object_is_refused(door: Callable[[Any], Any]) -> None:
    requests: tuple[Any, ...] = (None, True, 1, "x", [], [1], {})
    for request in requests:
        with pytest.raises(TransportFailure):
            door(request)
