"""`mfm op keystore_list` as its user meets it: in a terminal, in a pipe, and when it goes wrong."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mfm_ops.machine.canonical import Json

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "keystore"
COMMAND = (sys.executable, "-m", "mfm_ops.cli.main", "op", "keystore_list")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that mfm is run in; the examples are in `keys`."""
    place = tmp_path / "here"
    shutil.copytree(EXAMPLES, place / "keys")
    monkeypatch.chdir(place)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return place


def mfm(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def outputs(*arguments: str, **environ: str) -> Any:
    """The outputs of a run that has to succeed, from its JSON document."""
    done = mfm(*arguments, "--json", **environ)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["status"] == "success"
    return document["data"]["outputs"]


def refusal(exit_code: int, *arguments: str, **environ: str) -> dict[str, Json]:
    done = mfm(*arguments, "--json", **environ)
    assert (done.returncode, done.stderr) == (exit_code, "")
    document = json.loads(done.stdout)
    assert document["status"] == "error"
    return dict(document["error"])


def on_terminal(columns: int, *arguments: str) -> list[str]:
    """The lines that a terminal of that width gets on standard output."""
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [*COMMAND, *arguments],
            env={**os.environ, "COLUMNS": str(columns)},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        os.close(theirs)
        theirs = -1
        shown = b""
        try:
            while data := os.read(ours, 1 << 16):
                shown += data
        except OSError:
            pass  # how Linux says that the other end is closed
    finally:
        os.close(ours)
        if theirs != -1:
            os.close(theirs)
    return shown.decode().replace("\r\n", "\n").splitlines()


def test_a_pipe_gets_every_column_whole_and_nothing_else(here: Path) -> None:
    done = mfm("--keystore", "keys")
    assert (done.returncode, done.stderr) == (0, "")
    heading, *rows = [line.split() for line in done.stdout.splitlines()]
    assert heading == ["LABEL", "ADDRESS", "CREATED", "KDF", "CIPHER", "ID"]
    assert [row[0] for row in rows] == ["deployer", "Faucet", "treasury", "-"]
    assert rows[1] == [
        "Faucet",
        "0x302AE744980d7D067586D99844e5592c2CDFcfb6",
        "2022-11-05T16:20:00Z",
        "pbkdf2",
        "aes-128-ctr",
        "39a51dcd-b76f-4f30-85f7-e83f9a94b466",
    ]


@pytest.mark.parametrize("columns", [40, 80, 120, 200])
def test_a_terminal_gets_lines_that_fit(here: Path, columns: int) -> None:
    lines = on_terminal(columns, "--keystore", "keys")
    assert len(lines) == 5
    assert max(map(len, lines)) <= columns
    assert lines[0].split()[:2] == ["LABEL", "ADDRESS"]


def test_the_options_filter_sort_and_hide(here: Path) -> None:
    shown = outputs("--keystore", "keys", "--filter-label", "^[a-z]", "--no-show-addresses")
    assert [one["label"] for one in shown["keystores"]] == ["deployer", "treasury"]
    assert all("address" not in one for one in shown["keystores"])
    by_time = outputs("--keystore", "keys", "--sort-by", "created")["keystores"]
    assert [one["label"] for one in by_time] == ["Faucet", None, "deployer", "treasury"]
    by_address = outputs("--keystore", "keys", "--sort-by", "address")["keystores"]
    assert [one["label"] for one in by_address] == ["Faucet", "treasury", None, "deployer"]


def test_the_variable_names_the_default_directory(here: Path) -> None:
    assert len(outputs(MFM_KEYSTORE="keys")["keystores"]) == 4
    assert outputs("--keystore", ".", MFM_KEYSTORE="keys")["keystores"] == []


def test_without_any_directory_xdg_says_where_to_look(here: Path) -> None:
    place = here / "data" / "mfm" / "keystore"
    place.parent.mkdir(parents=True)
    (here / "keys").rename(place)
    assert len(outputs(XDG_DATA_HOME=str(here / "data"))["keystores"]) == 4


def test_a_missing_default_is_no_data_and_a_hint_on_standard_error(here: Path) -> None:
    done = mfm()
    assert (done.returncode, done.stdout) == (0, "")
    place = f"{os.environ['HOME']}/.local/share/mfm/keystore"
    assert done.stderr == (
        f"hint: {place} does not exist: name a directory with --keystore or MFM_KEYSTORE.\n"
    )


@pytest.mark.parametrize("named", ["option", "variable"])
def test_a_missing_directory_that_was_named_is_an_error(here: Path, named: str) -> None:
    error = (
        refusal(1, "--keystore", "gone") if named == "option" else refusal(1, MFM_KEYSTORE="gone")
    )
    assert error["code"] == "keystore_dir_missing"
    assert isinstance(error["details"], dict)
    assert error["details"]["dir"] == str(here / "gone")
    assert "--keystore" in str(error["hint"])


def test_a_broken_file_is_told_on_standard_error_beside_the_rest(here: Path) -> None:
    (here / "keys" / "bro\x1b[31mken").write_text("{")
    done = mfm("--keystore", "keys")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 5
    assert done.stderr == "warning: bro\\u001b[31mken: The content is not JSON.\n"


def test_a_pattern_that_does_not_compile_is_an_error_of_usage(here: Path) -> None:
    error = refusal(2, "--keystore", "keys", "--filter-label", "pro(d")
    assert error["code"] == "op_config_invalid"
    assert isinstance(error["details"], dict)
    assert error["details"]["reason"] == (
        "--filter-label: not a regular expression: missing ), unterminated subpattern at position 3"
    )


def test_the_command_loads_nothing_that_it_does_not_need(here: Path) -> None:
    """Starting is most of what it costs: no other op, no other transport, no logs."""
    script = (
        "import sys; from mfm_ops.cli.root import run\n"
        "code = run(['op', 'keystore_list', '--keystore', 'keys'])\n"
        "print(code, *sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    code, *loaded = done.stderr.split()
    assert code == "0"
    needless = {
        "mfm_ops.app.checkup",
        "mfm_ops.ops.programs",
        "mfm_ops.storage.memory",
        "structlog",
        "transports.exec",
        "transports.process_exec",
    }
    assert needless.isdisjoint(loaded)
