"""`local.keystore` on real directories: real keystores, and everything else that may lie there."""

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from eth_account import Account

from mfm_ops.machine.canonical import canonical_json_bytes
from mfm_ops.machine.errors import TransportFailure
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.secrets import find_secret
from mfm_ops.machine.transport import LiveIoEnv, LiveIoTransport, LiveIoTransportFactory
from transports import keystore_dir
from transports.keystore import KeystoreFactory, KeystoreTransport
from transports.keystore_dir import MAX_FILES, opened

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent.parent
VECTORS: list[dict[str, Any]] = json.loads((ROOT / "tests/keystores/vectors.json").read_text())
SOUND = json.dumps(VECTORS[1]["document"]).encode()


async def listed(
    directory: Path | str | None, default_dir: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The response and the meta of listing `directory`, or the default one."""
    request = {"kind": "list_keystores_v1", "dir": directory and str(directory)}
    transport: LiveIoTransport = KeystoreTransport(default_dir)
    reply = await transport.call(IoCall(namespace="local.keystore", request=request))
    response = reply.response
    assert isinstance(response, dict)
    canonical_json_bytes(response)
    assert find_secret(response) is None
    return response, dict(reply.meta)


async def failure(request: Any) -> tuple[str, Any]:
    with pytest.raises(TransportFailure) as failed:
        await KeystoreTransport().call(IoCall(namespace="local.keystore", request=request))
    return failed.value.info.code, failed.value.info.details


async def dir_failure(directory: Path | str) -> str:
    code, details = await failure({"kind": "list_keystores_v1", "dir": str(directory)})
    assert details == {"dir": str(directory)}
    return code


async def reasons(directory: Path) -> dict[str, str]:
    response, _ = await listed(directory)
    return {one["file"]: one["reason"] for one in response["warnings"]}


@pytest.mark.parametrize(("kdf", "iterations"), [("scrypt", 2), ("pbkdf2", 1)])
async def test_keystores_made_by_eth_account_are_listed(
    tmp_path: Path, kdf: Any, iterations: int
) -> None:
    account = Account.create()
    keystore = Account.encrypt(account.key, "correct horse", kdf=kdf, iterations=iterations)
    file = f"UTC--2024-01-02T03-04-05.678901234Z--{account.address[2:].lower()}"
    (tmp_path / file).write_text(json.dumps(keystore))
    response, meta = await listed(tmp_path)
    assert response == {
        "entries": [
            {
                "file": file,
                "id": keystore["id"],
                "label": None,
                "address": account.address,
                "kdf": kdf,
                "cipher": "aes-128-ctr",
                "created": "2024-01-02T03:04:05.678901234Z",
            }
        ],
        "warnings": [],
    }
    assert meta == {"transport": "local.keystore", "dir": str(tmp_path), "files": 1}


async def test_published_keystores_of_all_tools_lie_side_by_side(tmp_path: Path) -> None:
    for vector in VECTORS:
        (tmp_path / vector["file"]).write_text(json.dumps(vector["document"]))
    response, _ = await listed(tmp_path)
    good = [vector["entry"] for vector in VECTORS if "entry" in vector]
    assert response["entries"] == sorted(good, key=lambda entry: str(entry["file"]))
    bad = {vector["file"]: vector["reason"] for vector in VECTORS if "reason" in vector}
    assert {one["file"]: one["reason"] for one in response["warnings"]} == bad


async def test_the_examples_are_listed_without_a_warning() -> None:
    response, meta = await listed(ROOT / "examples/keystore")
    assert response["warnings"] == []
    assert len(response["entries"]) == meta["files"] == 4
    assert {entry["label"] for entry in response["entries"]} == {
        None,
        "Faucet",
        "deployer",
        "treasury",
    }


async def test_nothing_encrypted_is_in_the_answer(tmp_path: Path) -> None:
    for vector in VECTORS:
        (tmp_path / vector["file"]).write_text(json.dumps(vector["document"]))
    response, meta = await listed(tmp_path)
    shown = json.dumps([response, meta])
    for vector in VECTORS:
        crypto = vector["document"].get("crypto") or vector["document"].get("Crypto") or {}
        hidden = [crypto.get("ciphertext"), crypto.get("mac")]
        hidden += [crypto.get("kdfparams", {}).get("salt")]
        assert not [text for text in hidden if text and text in shown]


async def test_a_broken_file_is_a_warning_and_the_rest_still_shows(tmp_path: Path) -> None:
    (tmp_path / "deployer").write_bytes(SOUND)
    (tmp_path / "notes.txt").write_text("the deployer's key is with Ada")
    response, _ = await listed(tmp_path)
    assert [entry["label"] for entry in response["entries"]] == ["deployer"]
    assert response["warnings"] == [
        {"file": "notes.txt", "reason": "not_json", "detail": "The content is not JSON."}
    ]


async def test_hidden_files_and_backups_are_passed_over(tmp_path: Path) -> None:
    for name in (".DS_Store", ".deployer.tmp123", "deployer~"):
        (tmp_path / name).write_bytes(b"\0")
    assert await listed(tmp_path) == (
        {"entries": [], "warnings": []},
        {"transport": "local.keystore", "dir": str(tmp_path), "files": 0},
    )


async def test_subdirectories_are_named_and_not_searched(tmp_path: Path) -> None:
    (tmp_path / "keystore").mkdir()
    (tmp_path / "keystore" / "deployer").write_bytes(SOUND)
    assert await reasons(tmp_path) == {"keystore": "directory"}


async def test_a_pipe_or_socket_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        directory = os.open(tmp_path, os.O_RDONLY)
        try:
            server.bind(f"/proc/self/fd/{directory}/socket")
        finally:
            os.close(directory)
        found = await reasons(tmp_path)
    assert found == {"pipe": "not_a_regular_file", "socket": "not_a_regular_file"}


async def test_a_link_within_the_directory_is_followed(tmp_path: Path) -> None:
    # So do clusters mount a secret: key -> ..data/key, ..data -> ..2024_01_02
    (tmp_path / "..2024_01_02").mkdir()
    (tmp_path / "..2024_01_02" / "deployer").write_bytes(SOUND)
    (tmp_path / "..data").symlink_to("..2024_01_02")
    (tmp_path / "deployer").symlink_to("..data/deployer")
    response, _ = await listed(tmp_path)
    assert [entry["file"] for entry in response["entries"]] == ["deployer"]
    assert response["warnings"] == []


async def test_a_link_out_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "keys-of-others"
    outside.mkdir()
    (outside / "deployer").write_bytes(SOUND)
    inside = tmp_path / "keys"
    inside.mkdir()
    (inside / "relative").symlink_to("../keys-of-others/deployer")
    (inside / "device").symlink_to("/dev/zero")
    (inside / "to-directory").symlink_to(outside)
    found = await reasons(inside)
    assert found == dict.fromkeys(("relative", "device", "to-directory"), "symlink_outside")


async def test_a_link_in_a_circle_or_to_nothing_is_broken(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    (tmp_path / "gone").symlink_to("nowhere")
    found = await reasons(tmp_path)
    assert found == dict.fromkeys(("one", "two", "gone"), "symlink_broken")


async def test_a_link_to_the_directory_itself_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "self").symlink_to(".")
    assert await reasons(tmp_path) == {"self": "directory"}


async def test_the_directory_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "deployer").write_bytes(SOUND)
    (tmp_path / "real" / "again").symlink_to("deployer")
    (tmp_path / "link").symlink_to("real")
    response, _ = await listed(tmp_path / "link")
    assert [entry["file"] for entry in response["entries"]] == ["again", "deployer"]


async def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 1 << 40)
    assert await reasons(tmp_path) == {"huge": "too_large"}


async def test_regular_files_that_lie_about_their_size_or_fail_are_warnings() -> None:
    # The files of /proc say that they are empty; the first page of a process is never mapped.
    found = await reasons(Path(f"/proc/{os.getpid()}"))
    assert found["status"] == "not_json"
    assert found["mem"] == "unreadable"
    assert found["root"] == "symlink_outside"


def is_open_to_all(directory: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in (directory, *directory.parents))


@pytest.fixture
def unprivileged_dir() -> Iterator[Path]:
    """A directory for a user who is not root, as whom the test goes on; `closed` is shut to it."""
    is_root = os.geteuid() == 0
    # Root's own directory for temporary files may be closed to others.
    bases = [tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]
    base = next(base for base in bases if not is_root or is_open_to_all(Path(base)))
    directory = Path(tempfile.mkdtemp(dir=base))
    try:
        if is_root:
            os.chown(directory, 65534, 65534)
            os.seteuid(65534)
        (directory / "closed").mkdir(mode=0)
        yield directory
    finally:
        if is_root:
            os.seteuid(0)
        (directory / "closed").chmod(0o700)
        shutil.rmtree(directory)


async def test_a_file_without_permission_is_unreadable(unprivileged_dir: Path) -> None:
    (unprivileged_dir / "deployer").write_bytes(SOUND)
    (unprivileged_dir / "shut").write_bytes(SOUND)
    (unprivileged_dir / "shut").chmod(0)
    response, _ = await listed(unprivileged_dir)
    assert [entry["file"] for entry in response["entries"]] == ["deployer"]
    assert [(one["file"], one["reason"]) for one in response["warnings"]] == [
        ("closed", "directory"),
        ("shut", "unreadable"),
    ]


async def test_a_link_through_a_closed_directory_is_unreadable(unprivileged_dir: Path) -> None:
    (unprivileged_dir / "link").symlink_to("closed/deployer")
    found = await reasons(unprivileged_dir)
    assert found == {"closed": "directory", "link": "unreadable"}


async def test_a_directory_that_only_shows_names_gives_a_warning_for_each(
    unprivileged_dir: Path,
) -> None:
    names_only = unprivileged_dir / "names"
    names_only.mkdir()
    (names_only / "deployer").write_bytes(SOUND)
    names_only.chmod(0o400)
    try:
        assert await reasons(names_only) == {"deployer": "unreadable"}
    finally:
        names_only.chmod(0o700)


async def test_a_file_that_is_removed_meanwhile_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "deployer").write_bytes(SOUND)
    with opened(str(tmp_path)) as directory:
        listing = directory.read((tmp_path / "deployer").unlink)
    assert listing == ([], [])


async def test_a_directory_without_permission_is_unreadable(unprivileged_dir: Path) -> None:
    assert await dir_failure(unprivileged_dir / "closed") == "keystore_dir_unreadable"


async def test_a_circle_of_links_for_a_directory_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    assert await dir_failure(tmp_path / "circle") == "keystore_dir_unreadable"


async def test_a_missing_directory_is_a_failure(tmp_path: Path) -> None:
    assert await dir_failure(tmp_path / "gone") == "keystore_dir_missing"


async def test_without_a_directory_the_default_one_is_listed(tmp_path: Path) -> None:
    (tmp_path / "deployer").write_bytes(SOUND)
    response, meta = await listed(None, default_dir=str(tmp_path))
    assert [entry["file"] for entry in response["entries"]] == ["deployer"]
    assert "missing" not in response
    assert meta["dir"] == str(tmp_path)


async def test_a_missing_default_is_an_empty_answer_that_says_where_it_was_sought(
    tmp_path: Path,
) -> None:
    gone = str(tmp_path / "gone")
    response, meta = await listed(None, default_dir=gone)
    assert response == {"entries": [], "warnings": [], "missing": {"dir": gone}}
    assert meta == {"transport": "local.keystore", "dir": gone, "files": 0}


async def test_without_any_default_place_the_answer_is_empty_too() -> None:
    response, meta = await listed(None)
    assert response == {"entries": [], "warnings": [], "missing": {"dir": None}}
    assert meta == {"transport": "local.keystore", "dir": None, "files": 0}


async def test_a_missing_default_that_somebody_named_is_a_failure(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    request = {"kind": "list_keystores_v1", "dir": None}
    with pytest.raises(TransportFailure) as failed:
        await KeystoreTransport(gone, default_named=True).call(
            IoCall(namespace="local.keystore", request=request)
        )
    assert failed.value.info.code == "keystore_dir_missing"
    assert failed.value.info.details == {"dir": gone}


async def test_a_default_that_is_no_directory_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(SOUND)
    with pytest.raises(TransportFailure, match="keystore_dir_not_directory"):
        await listed(None, default_dir=str(tmp_path / "file"))


async def test_a_relative_directory_starts_where_the_process_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "deployer").write_bytes(SOUND)
    (tmp_path / "keys" / "again").symlink_to("deployer")
    monkeypatch.chdir(tmp_path)
    response, meta = await listed("keys", default_dir="/nowhere")
    assert [entry["file"] for entry in response["entries"]] == ["again", "deployer"]
    assert meta["dir"] == f"{tmp_path}/keys"
    assert await failure({"kind": "list_keystores_v1", "dir": "gone"}) == (
        "keystore_dir_missing",
        {"dir": f"{tmp_path}/gone"},
    )


async def test_nothing_lies_below_a_working_directory_that_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    assert await dir_failure("keys") == "keystore_dir_missing"


async def test_a_place_that_is_not_utf8_is_told_escaped(tmp_path: Path) -> None:
    place = tmp_path / os.fsdecode(b"caf\xe9")
    response, meta = await listed(None, default_dir=str(place))
    assert response["missing"] == {"dir": rf"{tmp_path}/caf\xe9"}
    canonical_json_bytes(meta)
    place.mkdir()
    response, meta = await listed(None, default_dir=str(place))
    assert "missing" not in response
    canonical_json_bytes(meta)


@pytest.mark.parametrize("kind", ["file", "pipe", "below_a_file"])
async def test_another_thing_than_a_directory_is_a_failure(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(SOUND)
    named = path / "keystore" if kind == "below_a_file" else path
    assert await dir_failure(named) == "keystore_dir_not_directory"


async def test_names_that_are_not_utf8_are_shown_escaped(tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"red\x1b[31m", b"line\nbreak"):
        (tmp_path / os.fsdecode(name)).write_bytes(SOUND)
    response, _ = await listed(tmp_path)
    assert [entry["file"] for entry in response["entries"]] == [
        r"caf\xe9",
        r"line\u000abreak",
        r"red\u001b[31m",
    ]


async def test_thousands_of_files_are_listed_in_order(tmp_path: Path) -> None:
    names = [f"account-{n:04}" for n in range(2000)]
    for name in names:
        (tmp_path / name).write_bytes(SOUND)
    response, meta = await listed(tmp_path)
    assert [entry["file"] for entry in response["entries"]] == names
    assert meta["files"] == 2000


async def test_more_files_than_a_keystore_can_have_are_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_FILES == 10_000
    monkeypatch.setattr(keystore_dir, "MAX_FILES", 3)
    for name in "abcd":
        (tmp_path / name).write_bytes(SOUND)
    assert await dir_failure(tmp_path) == "keystore_dir_too_many_files"


async def test_the_reading_of_a_large_directory_can_be_cancelled(tmp_path: Path) -> None:
    for n in range(40):
        (tmp_path / f"account-{n}").write_bytes(SOUND)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await listed(tmp_path)
    assert scope.cancelled_caught


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


async def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    (tmp_path / "deployer").write_bytes(SOUND)
    (tmp_path / "keystore").mkdir()
    before = open_descriptors()
    await listed(tmp_path)
    await dir_failure(tmp_path / "gone")
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("request_", "pointer", "reason"),
    [
        (None, "", "not_an_object"),
        ([], "", "not_an_object"),
        ({"dir": "/"}, "/kind", "missing"),
        ({"kind": "list_keystores_v2", "dir": "/"}, "/kind", "unknown_kind"),
        ({"kind": 1, "dir": "/"}, "/kind", "unknown_kind"),
        ({"kind": "list_keystores_v1"}, "/dir", "missing"),
        ({"kind": "list_keystores_v1", "dir": 7}, "/dir", "wrong_type"),
        ({"kind": "list_keystores_v1", "dir": ""}, "/dir", "empty"),
        ({"kind": "list_keystores_v1", "dir": "/a\0b"}, "/dir", "nul_character"),
        ({"kind": "list_keystores_v1", "dir": "/", "a/b": 1}, "/a~1b", "unknown_field"),
    ],
)
async def test_a_malformed_request_names_the_place(
    request_: Any, pointer: str, reason: str
) -> None:
    assert await failure(request_) == (
        "keystore_request_invalid",
        {"pointer": pointer, "reason": reason},
    )


async def test_the_factory_serves_the_keystore_namespace_and_hands_the_default_on(
    tmp_path: Path,
) -> None:
    factory: LiveIoTransportFactory = KeystoreFactory(str(tmp_path / "gone"), default_named=True)
    assert factory.namespace_group == "local.keystore"
    request = {"kind": "list_keystores_v1", "dir": None}
    with pytest.raises(TransportFailure, match="keystore_dir_missing"):
        await factory.make(cast("LiveIoEnv", None)).call(
            IoCall(namespace="local.keystore", request=request)
        )
