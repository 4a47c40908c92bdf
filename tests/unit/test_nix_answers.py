"""What Nix prints as JSON: the forms of 2.8, seen, and those of newer releases, as documented."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transports.nix_answers import (
    AnswerError,
    EvaluatedApp,
    PathInfo,
    parse_app,
    parse_metadata,
    parse_path_info,
    parse_realised,
    store_path_of,
)

REV = "904732da15540dc46e0c53d8648c353911b2dd6e"
HASH = "sha256-gT3mIQkNWXo6KX7JcwhJfFevWZ8Yxx7a9ejxPptDeaM="
NAME = "k6dlzz3cwf7b88p0iq1kdshfxkd719m8-hello-1.0"
PATH = f"/nix/store/{NAME}"
DERIVER = "/nix/store/7s21qvh9cbl7z4xa1rkcsvz27yjzf8ax-hello-1.0.drv"
SOURCE = "/nix/store/py8bh3zsipsjcg4j2n5qjsrfr2h0ii82-source"

# `nix flake metadata --json git+file:///srv/w`, Nix 2.8.
GIT = {
    "lastModified": 1795376308,
    "locked": {
        "lastModified": 1795376308,
        "narHash": HASH,
        "ref": "master",
        "rev": REV,
        "revCount": 1,
        "type": "git",
        "url": "file:///srv/w",
    },
    "locks": {"nodes": {"root": {}}, "root": "root", "version": 7},
    "original": {"type": "git", "url": "file:///srv/w"},
    "originalUrl": "git+file:///srv/w",
    "path": SOURCE,
    "revCount": 1,
    "revision": REV,
    "url": f"git+file:///srv/w?ref=master&rev={REV}",
}
DIRTY: dict[str, Any] = {
    "locked": {"narHash": HASH, "type": "git", "url": "file:///srv/w"},
    "path": SOURCE,
    "url": "git+file:///srv/w",
}


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


def test_a_git_tree_is_locked_by_its_revision() -> None:
    flake = parse_metadata(encode(GIT))
    assert flake == (GIT["url"], REV, HASH, False)


def test_a_newer_nix_says_more_and_it_does_not_matter() -> None:
    # Nix 2.24 and later add a fingerprint; a forge's flake is named by its own scheme.
    locked = {"lastModified": 1, "narHash": HASH, "owner": "o", "repo": "r", "rev": REV}
    newer = {
        "description": "x",
        "fingerprint": "0" * 64,
        "lastModified": 1,
        "locked": {**locked, "type": "github", "__final": True},
        "path": SOURCE,
        "revision": REV,
        "url": f"github:o/r/{REV}?narHash=sha256-gT3m",
    }
    assert parse_metadata(encode(newer)) == (newer["url"], REV, HASH, False)


def test_a_lazy_tree_has_no_hash_and_its_revision_will_do() -> None:
    locked = {key: value for key, value in GIT["locked"].items() if key != "narHash"}  # type: ignore[attr-defined]
    assert parse_metadata(encode({**GIT, "locked": locked})).nar_hash is None


def test_a_dirty_tree_is_led_to_by_its_copy_in_the_store() -> None:
    flake = parse_metadata(encode(DIRTY))
    assert (flake.rev, flake.nar_hash, flake.dirty) == (None, HASH, True)
    assert flake.url == (
        f"path:{SOURCE}?narHash=sha256-gT3mIQkNWXo6KX7JcwhJfFevWZ8Yxx7a9ejxPptDeaM%3D"
    )


def test_a_newer_nix_names_a_dirty_revision_which_is_none() -> None:
    locked = {**DIRTY["locked"], "dirtyRev": f"{REV}-dirty", "dirtyShortRev": "904732d-dirty"}
    flake = parse_metadata(encode({**DIRTY, "locked": locked, "dirtyRevision": f"{REV}-dirty"}))
    assert (flake.rev, flake.dirty) == (None, True)


def test_a_flake_in_a_directory_of_a_dirty_tree_stays_in_it() -> None:
    locked = {**DIRTY["locked"], "dir": "sub/x"}
    assert parse_metadata(encode({**DIRTY, "locked": locked})).url.endswith("%3D&dir=sub/x")


def test_a_directory_is_locked_by_its_contents_whatever_revision_it_claims() -> None:
    answer = {
        "locked": {"narHash": HASH, "path": "/srv/w", "type": "path", "rev": REV},
        "path": SOURCE,
        "url": "path:/srv/w",
    }
    flake = parse_metadata(encode(answer))
    assert (flake.rev, flake.dirty) == (None, False)
    assert flake.url.startswith("path:/srv/w?narHash=sha256-")


@pytest.mark.parametrize(
    "change",
    [
        {"locked": None},
        {"locked": {**DIRTY["locked"], "narHash": 1}},
        {"locked": {"type": "git"}},
        {"locked": {"type": "git", "narHash": HASH, "rev": "main"}},
        {"url": None},
        {"path": "/etc"},
    ],
)
def test_metadata_of_another_form_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(AnswerError):
        parse_metadata(encode({**DIRTY, **change}))


def app(**changes: Any) -> bytes:
    answer = {
        "context": {DERIVER: {"outputs": ["out"]}},
        "kind": "app",
        "program": f"{PATH}/bin/hello",
        "version": "2.8.0",
    }
    return encode({**answer, **changes})


def test_an_app_says_what_has_to_be_built_for_it() -> None:
    assert parse_app(app()) == EvaluatedApp(
        f"{PATH}/bin/hello", "app", (f"{DERIVER}!out",), "2.8.0"
    )


@pytest.mark.parametrize(
    ("wanted", "installable"),
    [
        ({"path": True}, DERIVER),
        ({"allOutputs": True}, DERIVER),
        ({"allOutputs": True, "outputs": ["out"]}, DERIVER),
        ({"outputs": ["bin", "out"]}, f"{DERIVER}!bin,out"),
    ],
)
def test_a_context_becomes_what_nix_store_takes(wanted: object, installable: str) -> None:
    assert parse_app(app(context={DERIVER: wanted})).installables == (installable,)


def test_an_app_that_is_none_says_why() -> None:
    assert parse_app(b'{"fault":"not_an_app"}') == EvaluatedApp(fault="not_an_app")


@pytest.mark.parametrize(
    "changes",
    [
        {"fault": "whatever it likes"},
        {"kind": "shell"},
        {"program": None},
        {"context": []},
        {"context": {"--option": {"path": True}}},
        {"context": {f"{DERIVER} --x": {"path": True}}},
        {"context": {DERIVER: {"outputs": []}}},
        {"context": {DERIVER: {"outputs": ["out,x"]}}},
        {"context": {DERIVER: {"outputs": ["a b"]}}},
        {"context": {f"{PATH}{n}": {"path": True} for n in range(300)}},
        {"version": "2.8\n"},
    ],
)
def test_an_app_of_another_form_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(AnswerError):
        parse_app(app(**changes))


ROW = {"deriver": DERIVER, "narHash": HASH, "narSize": 1456, "references": []}


@pytest.mark.parametrize(
    "answer",
    [
        [{"path": PATH, **ROW, "registrationTime": 1, "ultimate": True}],
        {PATH: {**ROW, "ca": None, "signatures": []}},
        {
            "version": 2,
            "storeDir": "/nix/store",
            "info": {NAME: {**ROW, "deriver": DERIVER.rpartition("/")[2]}},
        },
        {
            "version": 3,
            "info": {
                NAME: {
                    **ROW,
                    "narHash": {"algorithm": "sha256", "format": "base64", "hash": HASH[7:]},
                }
            },
        },
    ],
    ids=["list, 2.8", "object, 2.19", "version 2, 2.33", "a hash in parts"],
)
def test_what_the_store_knows_is_read_in_every_form(answer: object) -> None:
    assert parse_path_info(encode(answer), PATH) == PathInfo(HASH, DERIVER)


def test_a_source_has_no_deriver() -> None:
    assert parse_path_info(encode([{"path": PATH, "narHash": HASH}]), PATH) == (HASH, None)
    assert parse_path_info(encode({PATH: {**ROW, "deriver": None}}), PATH) == (HASH, None)


@pytest.mark.parametrize("answer", [[{"path": PATH, "valid": False}], {PATH: None}])
def test_a_path_that_is_gone_is_told_though_the_command_succeeds(answer: object) -> None:
    assert parse_path_info(encode(answer), PATH) is None


@pytest.mark.parametrize("answer", [[], {}, 1, {PATH: 1}, {PATH: {"narHash": "x"}}, [1]])
def test_path_info_of_another_form_is_refused(answer: object) -> None:
    with pytest.raises(AnswerError):
        parse_path_info(encode(answer), PATH)


def test_what_was_realised_is_one_path_a_line() -> None:
    assert parse_realised(f"{PATH}\n/srv/roots/a-2\n".encode()) == (PATH, "/srv/roots/a-2")


@pytest.mark.parametrize("stdout", [b"", b"\n", b"relative\n", b"\xff"])
def test_realised_paths_of_another_form_are_refused(stdout: bytes) -> None:
    with pytest.raises(AnswerError):
        parse_realised(stdout)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (PATH, PATH),
        (f"{PATH}/bin/x", PATH),
        (f"{PATH}\n/bin/x", None),
        ("/nix/store/short-x/bin/x", None),
        ("/nix/storeevil/x", None),
        ("/bin/echo", None),
        ("/nix/store/.links/x", None),
    ],
)
def test_a_store_path_is_told_from_what_looks_like_one(path: str, found: str | None) -> None:
    assert store_path_of(path) == found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["locked", "url", "info", "context", "fault", PATH, "x"]), inner
        )
    ),
    max_leaves=8,
)


@given(JSON)
def test_no_answer_brings_a_parser_down(answer: object) -> None:
    for parse in (parse_metadata, parse_app, lambda stdout: parse_path_info(stdout, PATH)):
        try:
            parse(encode(answer))
        except AnswerError:
            continue


@given(st.binary(max_size=40))
def test_what_is_no_json_is_an_answer_of_another_form(stdout: bytes) -> None:
    for parse in (parse_metadata, parse_app):
        with pytest.raises(AnswerError):
            parse(b"{" + stdout)
