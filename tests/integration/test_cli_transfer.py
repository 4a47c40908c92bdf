"""Verify, export and import at the command line."""

import hashlib
import json
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.integration.mfm_process import COMMAND, Mfm, on_terminal
from tests.integration.sqlite_stores import change


@pytest.fixture
def mfm(tmp_path: Path) -> Mfm:
    return Mfm(tmp_path)


@pytest.fixture
def finished(mfm: Mfm) -> dict[str, Any]:
    """A run that completed, as `--json` told it."""
    data = mfm(*mfm.program("echo", '{"hello":1}'), "--json").data
    assert isinstance(data, dict)
    return data


def elsewhere(mfm: Mfm) -> dict[str, str | None]:
    return {"MFM_STORE": str(mfm.directory / "elsewhere.sqlite")}


# mfm store verify


def test_a_whole_store_is_verified(mfm: Mfm, finished: dict[str, Any]) -> None:
    result = mfm("store", "verify")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("1 run, 6 events, 6 artifacts, ")
    data = mfm("store", "verify", "--json").data
    assert (data["runs"], data["events"], data["artifacts"]) == (1, 6, 6)
    assert (data["found"], data["findings"], data["strays"]) == (0, [], [])


def test_one_run_is_verified_and_its_hash_told(mfm: Mfm, finished: dict[str, Any]) -> None:
    data = mfm("store", "verify", "--run", "last", "--json").data
    exported = mfm("run", "export", "last", "-o", "run.tar", "--json").data
    assert data["run_id"] == finished["run_id"]
    assert data["running_hash"] == exported["running_hash"]


def test_progress_goes_to_standard_error(mfm: Mfm, finished: dict[str, Any]) -> None:
    result = mfm("store", "verify", "--progress")
    assert result.err.splitlines() == [".. artifacts 6/6", ".. events 6/6"]


def test_the_progress_of_one_run_is_that_of_its_own_events(
    mfm: Mfm, finished: dict[str, Any]
) -> None:
    mfm(*mfm.program("echo", "2"))
    result = mfm("store", "verify", "--run", "last", "--progress")
    assert result.err.splitlines() == [".. events 6/6"]


def test_exporting_importing_and_replaying_say_how_far_they_are_when_asked(
    mfm: Mfm, finished: dict[str, Any]
) -> None:
    export = mfm("run", "export", "last", "-o", "run.tar", "--progress", "--json")
    size = export.data["bytes"]
    lines = export.err.splitlines()
    assert lines[0] == ".. events read 6/6"
    assert lines[-2:] == [".. artifacts written 6/6", ".. events written 6/6"]
    imported = mfm("run", "import", "run.tar", "--progress", "--json", environ=elsewhere(mfm))
    assert imported.data["new_artifacts"] == 6
    lines = imported.err.splitlines()
    assert lines[0] == f".. bytes read {size}/{size}"
    assert lines[-2:] == [".. artifacts stored 6/6", ".. events stored 6/6"]
    replayed = mfm("run", "replay", "last", "--progress", "--json")
    assert replayed.data["verdict"] == "reproduced"
    assert replayed.err.splitlines() == [".. states replayed 0/1", ".. states replayed 1/1"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("store", "verify"),
        ("run", "export", "last", "-o", "run.tar"),
        ("run", "import", "run.tar"),
        ("run", "replay", "last"),
    ],
)
def test_progress_is_for_terminals_and_leaves_nothing_there(
    mfm: Mfm, finished: dict[str, Any], arguments: tuple[str, ...]
) -> None:
    if "import" in arguments:
        mfm("run", "export", "last", "-o", "run.tar")
    shown = on_terminal(mfm, *arguments, TERM="xterm")
    if "export" in arguments:
        (mfm.directory / "run.tar").unlink()
    whole = mfm(*arguments)
    assert whole.err == ""
    # What is drawn over and erased is gone.
    drawn, left = shown.rsplit("\r\x1b[K", 1)
    assert ".. " in drawn
    assert "\n" not in drawn
    if "export" in arguments:
        (mfm.directory / "run.tar").unlink()
    quiet = on_terminal(mfm, *arguments, "--no-progress", TERM="xterm")
    assert quiet == left
    assert ".. " not in quiet


def test_damage_is_named_and_ends_with_3(mfm: Mfm, finished: dict[str, Any]) -> None:
    mfm(*mfm.program("echo", "2"))
    change(mfm.store, "UPDATE events SET body = replace(body, ':0', ':1') WHERE seq = 3")
    result = mfm("store", "verify")
    assert result.code == 3
    assert "error[verify_failed]" in result.err
    header, *lines = result.out.splitlines()
    assert header.split() == ["CODE", "RUN", "SEQ", "ARTIFACT", "REASON"]
    assert [line.split()[::2] for line in lines] == [["event_corrupt", "3"]] * 2
    result = mfm("store", "verify", "--json")
    assert result.code == 3
    details = result.error["details"]
    assert details["found"] == 2
    first = {"code": "event_corrupt", "run_id": finished["run_id"], "seq": 3}
    assert details["findings"][0] == {**first, "reason": "running_hash"}
    one = mfm("store", "verify", "--run", finished["run_id"], "--json")
    assert one.error["details"]["found"] == 1


def test_verify_changes_nothing(mfm: Mfm, finished: dict[str, Any]) -> None:
    before = mfm.store.read_bytes()
    mfm.store.chmod(0o400)
    mfm("store", "verify")
    assert mfm.store.read_bytes() == before


# mfm run export, mfm run import


def test_a_run_moves_to_another_store(mfm: Mfm, finished: dict[str, Any]) -> None:
    data = mfm("run", "export", "last", "-o", "run.tar", "--json").data
    assert (data["run_id"], data["complete"]) == (finished["run_id"], True)
    there = elsewhere(mfm)
    first = mfm("run", "import", "run.tar", "--json", environ=there).data
    (run,) = first["runs"]
    assert (run["run_id"], run["outcome"], run["events"]) == (finished["run_id"], "imported", 6)
    for command in ("status", "events", "facts", "manifest"):
        same = [mfm("run", command, "last", environ=where).out for where in (None, there)]
        assert same[0] == same[1]
    assert mfm("store", "verify", environ=there).code == 0
    second = mfm("run", "import", "run.tar", environ=there)
    assert second.code == 0
    assert "unchanged" in second.out
    assert "0 of 6 artifacts are new" in second.out


def test_two_stores_export_the_same_bytes(mfm: Mfm, finished: dict[str, Any]) -> None:
    mfm("run", "export", "last", "-o", "one.tar")
    mfm("run", "import", "one.tar", environ=elsewhere(mfm))
    mfm("run", "export", "last", "-o", "two.tar", environ=elsewhere(mfm))
    one, two = (Path(mfm.directory, name).read_bytes() for name in ("one.tar", "two.tar"))
    assert one == two


def test_exports_go_through_pipes(mfm: Mfm, finished: dict[str, Any]) -> None:
    command = [*COMMAND, "run", "export", "last", "-o", "-"]
    done = subprocess.run(
        command, env=mfm.environ, cwd=mfm.directory, capture_output=True, check=True
    )
    assert finished["run_id"].encode() in done.stderr
    result = mfm("run", "import", "-", stdin=done.stdout, environ=elsewhere(mfm))
    assert (result.code, result.err) == (0, "")


def test_any_tar_can_look_into_an_export(mfm: Mfm, finished: dict[str, Any]) -> None:
    mfm("run", "export", "last", "-o", "run.tar")
    with tarfile.open(mfm.directory / "run.tar") as archive:
        lines = archive.extractfile(f"runs/{finished['run_id']}/events.jsonl")
        assert lines is not None
        events = [json.loads(line)["event"] for line in lines]
        artifact = archive.extractfile(f"artifacts/{finished['manifest_id']}")
        assert artifact is not None
        assert json.load(artifact)["op_id"] == "run_program"
    assert events == mfm("run", "events", "last", "--json").data


def test_a_file_that_is_there_is_replaced_only_by_force(mfm: Mfm, finished: dict[str, Any]) -> None:
    target = mfm.directory / "run.tar"
    target.write_text("precious")
    refused = mfm("run", "export", "last", "-o", "run.tar")
    assert refused.code == 2
    assert "--force" in refused.err
    assert target.read_text() == "precious"
    assert mfm("run", "export", "last", "-o", "run.tar", "--force").code == 0
    assert tarfile.is_tarfile(target)


def test_a_directory_is_no_file_to_export_to(mfm: Mfm, finished: dict[str, Any]) -> None:
    for force in ((), ("--force",)):
        result = mfm("run", "export", "last", "-o", ".", *force)
        assert result.code == 2
        assert "error[usage]: That is a directory" in result.err
        assert "--force" not in result.err


def test_a_failed_export_leaves_no_file(mfm: Mfm, finished: dict[str, Any]) -> None:
    change(mfm.store, "DELETE FROM artifacts WHERE artifact = 3")
    result = mfm("run", "export", "last", "-o", "run.tar")
    assert result.code == 3
    assert "error[artifact_not_found]" in result.err
    assert {path.name.partition("-")[0] for path in mfm.directory.iterdir()} == {"store.sqlite"}
    for place in ("missing/run.tar", "."):
        assert mfm("run", "export", "last", "-o", place, "--force").code in (2, 3)


def test_a_damaged_export_is_refused_with_its_place(mfm: Mfm, finished: dict[str, Any]) -> None:
    mfm("run", "export", "last", "-o", "run.tar")
    path = mfm.directory / "run.tar"
    path.write_bytes(path.read_bytes().replace(b'"StateEntered"', b'"StateExited!"', 1))
    result = mfm("run", "import", "run.tar", "--json", environ=elsewhere(mfm))
    assert result.code == 3
    assert result.error["code"] == "export_corrupt"
    details = result.error["details"]
    assert details["place"] == f"runs/{finished['run_id']}/events.jsonl"
    assert mfm("run", "list", "--json", environ=elsewhere(mfm)).data == []


@pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04", b"\x1f\x8b" + bytes(600)])
def test_another_file_is_no_export(mfm: Mfm, content: bytes) -> None:
    (mfm.directory / "file").write_bytes(content)
    result = mfm("run", "import", "file", "--json")
    assert (result.code, result.error["code"]) == (3, "export_not_mfm")


def test_a_file_that_is_missing_makes_no_store(mfm: Mfm) -> None:
    result = mfm("run", "import", "nowhere.tar")
    assert result.code == 2
    assert not mfm.store.exists()


def test_another_history_is_a_conflict(mfm: Mfm, finished: dict[str, Any]) -> None:
    mfm("run", "export", "last", "-o", "run.tar")
    text = "UPDATE events SET body = replace(body, 'Completed', 'Cancelled')"
    change(mfm.store, f"{text} WHERE seq = 6")
    # With a right hash it is another history, and no damage.
    with apsw.Connection(str(mfm.store)) as connection:
        rows = list(connection.execute("SELECT CAST(body AS BLOB), running_hash FROM events"))
    digest = hashlib.sha256(rows[4][1] + rows[5][0]).hexdigest()
    change(mfm.store, f"UPDATE events SET running_hash = x'{digest}' WHERE seq = 6")
    result = mfm("run", "import", "run.tar", "--json")
    assert (result.code, result.error["code"]) == (3, "import_conflict")
    assert result.error["details"] == {"run_id": finished["run_id"], "seq": 6}


def test_a_run_that_goes_on_is_exported_and_resumed_elsewhere(mfm: Mfm) -> None:
    with mfm.started(*mfm.program("sh", "-c", "sleep 60"), "--progress") as process:
        assert process.stderr is not None
        assert "started" in process.stderr.readline()
        assert ".." in process.stderr.readline()
        exported = mfm("run", "export", "last", "-o", "run.tar")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert exported.code == 0
    assert "has not ended" in exported.out
    there = elsewhere(mfm)
    assert mfm("run", "import", "run.tar", environ=there).code == 0
    assert mfm("run", "status", "last", "--json", environ=there).data["phase"] == "Running"
