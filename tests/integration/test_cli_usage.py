"""Wrong command lines and wrong settings: one record, exit code 2, and a way on."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from mfm_ops import __version__
from tests.integration.mfm_process import COMMAND, Mfm, on_terminal


@pytest.fixture
def mfm(tmp_path: Path) -> Mfm:
    return Mfm(tmp_path)


def test_the_version_is_told(mfm: Mfm) -> None:
    assert mfm("--version").out == f"mfm {__version__}\n"
    assert mfm("--json", "--version").data == {"version": __version__}


def test_the_version_is_the_projects(mfm: Mfm) -> None:
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{__version__}"' in pyproject


def test_help_lists_commands_and_exit_codes(mfm: Mfm) -> None:
    help_text = mfm("--help").out
    for word in ("op", "run", "ops", "artifact", "doctor", "completion"):
        assert f"\n  {word} " in help_text
    for code in ("0", "1", "2", "3", "4", "5", "6", "130"):
        assert f"\n    {code} " in help_text
    assert all(len(line) <= 80 for line in help_text.splitlines())


WRONG = [
    ((), "usage"),
    (("nope",), "usage"),
    (("run",), "usage"),
    (("run", "stats"), "usage"),
    (("run", "status"), "usage"),
    (("run", "status", "a", "b"), "usage"),
    (("run", "list", "--limit", "x"), "usage"),
    (("run", "list", "--limit", "9" * 23), "usage"),
    (("run", "replay", "last", "--timeout", "nan"), "usage"),
    (("run", "replay", "last", "--timeout", "inf"), "usage"),
    (("run", "cancel", "last", "--wait", "nan"), "usage"),
    (("run", "cancel", "last", "--wait", "1e30"), "usage"),
    (("run", "export", "last", "-o", ""), "usage"),
    (("run", "import", ""), "usage"),
    (("completion",), "usage"),
    (("--nope",), "usage"),
    (("--log-level", "loud", "run", "list"), "usage"),
    (("op", "nope"), "op_unknown"),
    (("ops", "show", "nope"), "op_unknown"),
    (("op", "run_program", "--nope"), "usage"),
    (("op", "run_program"), "op_config_invalid"),
    (("op", "run_program", "--program-path", "/x", "--timeout-ms", "abc"), "op_config_invalid"),
    (("op", "run_program", "--program-path", "/x", "--max-attempts", "0"), "usage"),
    (("op", "run_program", "--program-path", "/x", "--run-key", ""), "usage"),
]


@pytest.mark.parametrize(("arguments", "code"), WRONG)
def test_a_wrong_command_line_is_one_json_document_if_asked(
    mfm: Mfm, arguments: tuple[str, ...], code: str
) -> None:
    result = mfm("--json", *arguments)
    assert result.code == 2
    assert result.error["code"] == code
    assert result.error["hint"]


@pytest.mark.parametrize(
    ("arguments", "code"), [case for case in WRONG if case[0] not in ((), ("run",))]
)
def test_a_wrong_command_line_is_told_on_stderr(
    mfm: Mfm, arguments: tuple[str, ...], code: str
) -> None:
    result = mfm(*arguments)
    assert (result.code, result.out) == (2, "")
    assert f"error[{code}]: " in result.err
    assert "hint: " in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("--nope",), "mfm"),
        (("op", "run_program", "--program-path"), "mfm op run_program"),
        (("op", "run_program", "--program-path", "/x", "--allow-flake", "x"), "mfm op run_program"),
        (("run", "fork", "last", "--set", "x"), "mfm run fork"),
        (("run", "import", "/nowhere"), "mfm run import"),
    ],
)
def test_a_usage_error_points_at_the_help_of_its_command(
    mfm: Mfm, arguments: tuple[str, ...], command: str
) -> None:
    assert f"hint: `{command} --help` tells more.\n" in mfm(*arguments).err


def test_what_is_wrong_is_told_in_one_line(mfm: Mfm) -> None:
    first = mfm("completion").err.splitlines()[0]
    assert first == "error[usage]: Missing argument 'SHELL'. Choose from: bash, zsh, fish"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nope", "--json"),
        ("nope", "--output-format", "json"),
        ("nope", "--output-format=json"),
        ("run", "list", "--nope", "--json"),
    ],
)
def test_json_is_spoken_wherever_it_was_asked_for(mfm: Mfm, arguments: tuple[str, ...]) -> None:
    assert mfm(*arguments).error["code"] == "usage"


def test_json_can_be_asked_for_by_the_environment(mfm: Mfm) -> None:
    assert mfm("nope", environ={"MFM_OUTPUT_FORMAT": "json"}).error["code"] == "usage"


def test_an_option_beats_the_environment(mfm: Mfm) -> None:
    result = mfm("ops", "list", "--output-format", "text", environ={"MFM_OUTPUT_FORMAT": "json"})
    assert result.out.startswith("OP ")


def test_global_options_stand_before_or_after_the_command(mfm: Mfm, tmp_path: Path) -> None:
    before = mfm("--store", str(tmp_path / "a.sqlite"), "--json", "run", "list")
    after = mfm("run", "list", "--store", str(tmp_path / "a.sqlite"), "--json")
    assert before == after
    assert before.error["code"] == "store_unavailable"


NOT_UTF8 = b"/no/\xff".decode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    "before",
    [
        (),
        ("op",),
        ("ops", "show"),
        ("run", "status"),
        ("run", "list", "--config"),
        ("run", "list", "--store"),
        ("artifact", "get"),
        ("op", "run_program", "--program-path"),
        ("op", "run_program", "--program-path", "/x", "--argv"),
        ("op", "run_program", "--program-path", "/x", "--stdin-json"),
        ("op", "run_program", "--program-path", "/x", "--run-key"),
        ("op", "keystore_list", "--keystore"),
    ],
)
def test_an_argument_that_is_no_text_is_refused_in_text(mfm: Mfm, before: tuple[str, ...]) -> None:
    result = mfm("--json", *before, NOT_UTF8)
    assert result.code in (2, 3)
    assert result.error["code"] != "internal_error"
    assert f"error[{result.error['code']}]" in mfm(*before, NOT_UTF8).err


def test_a_misspelt_command_or_op_is_guessed(mfm: Mfm) -> None:
    assert "did you mean 'status'?" in mfm("run", "statsu", "last").err
    assert "did you mean 'keystore_list'?" in mfm("op", "keystore-list").err
    assert "did you mean 'run_program'?" in mfm("ops", "show", "run-program").err


def test_an_op_option_that_is_wrong_is_named(mfm: Mfm) -> None:
    error = mfm("--json", "op", "run_program", "--program-path", "/x", "--timeout-ms", "0").error
    assert error["details"]["pointer"] == "/timeout_ms"
    assert error["details"]["reason"].startswith("--timeout-ms: ")


def test_a_wrong_setting_names_its_source(mfm: Mfm, tmp_path: Path) -> None:
    (tmp_path / "mfm.toml").write_text('[exec]\nsandbox = "off"\n')
    result = mfm("run", "list", "--json")
    assert result.code == 2
    assert result.error["code"] == "settings_not_trusted"
    assert result.error["details"] == {
        "source": str(tmp_path / "mfm.toml"),
        "key": "exec.sandbox",
    }


def test_a_named_config_may_widen(mfm: Mfm, tmp_path: Path) -> None:
    (tmp_path / "mfm.toml").write_text('[exec]\nsandbox = "off"\n')
    assert mfm("run", "list", "--config", "mfm.toml", "--store", mfm.store).code == 3
    report = mfm("doctor", "--json", "--config", "mfm.toml").data
    setting = next(s for s in report["settings"] if s["key"] == "exec.sandbox")
    assert setting == {
        "key": "exec.sandbox",
        "value": "off",
        "source": str(tmp_path / "mfm.toml"),
    }


def test_without_a_home_the_error_says_what_to_set(mfm: Mfm) -> None:
    nowhere = {"HOME": None, "XDG_STATE_HOME": None, "MFM_STORE": None}
    result = mfm("run", "list", environ=nowhere)
    assert result.code == 2
    assert "--store" in result.err


def test_a_store_that_cannot_be_made_is_a_store_error(mfm: Mfm, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = mfm(*mfm.program("true"), "--store", tmp_path / "file" / "store.sqlite", "--json")
    assert result.code == 3
    assert result.error["code"] == "store_unavailable"


def test_another_applications_file_is_no_store(mfm: Mfm, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"not a database, and long enough to be read as one" * 20)
    result = mfm("run", "list", "--store", tmp_path / "other", "--json")
    assert result.code == 3
    assert result.error["code"] == "store_not_mfm"


def test_a_fresh_account_has_no_runs_rather_than_an_error(mfm: Mfm) -> None:
    result = mfm("run", "list", environ={"MFM_STORE": None})
    assert (result.code, result.out) == (0, "")
    assert "no runs" in result.err
    assert mfm("run", "list", "--json", environ={"MFM_STORE": None}).data == []
    assert mfm("run", "status", "last", environ={"MFM_STORE": None}).code == 3


@pytest.mark.parametrize("keys", ["absolute", "relative"])
def test_an_op_runs_where_the_working_directory_was_removed(
    mfm: Mfm, tmp_path: Path, keys: str
) -> None:
    (tmp_path / "gone").mkdir()
    (tmp_path / "keys").mkdir()
    named = f"{tmp_path}/keys" if keys == "absolute" else "keys"
    command = [*COMMAND, "--json", "op", "keystore_list", "--keystore", named]
    done = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", *command],
        env=mfm.environ,
        cwd=tmp_path / "gone",
        capture_output=True,
        check=False,
    )
    document = json.loads(done.stdout)
    if keys == "absolute":
        assert document["status"] == "success"
    else:
        assert document["error"]["code"] == "keystore_dir_missing"


def test_a_reader_that_leaves_early_is_no_failure(mfm: Mfm) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, "ops", "list"],
        env=mfm.environ,
        cwd=mfm.directory,
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_disk_is_told(mfm: Mfm) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "ops", "list"],
            env=mfm.environ,
            cwd=mfm.directory,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.count(b"error[usage]: The output cannot be written.") == 1
    assert b"Traceback" not in done.stderr


def test_a_closed_standard_output_is_told_once(mfm: Mfm) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "ops", "list"],
        env=mfm.environ,
        cwd=mfm.directory,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count(b"error[usage]: The output cannot be written.") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "cancel", "x", "--wait", "-1"), "seconds from 0 to 10000000."),
        (("run", "cancel", "x", "--wait", "soon"), "seconds from 0 to 10000000."),
        (("run", "cancel", "x", "--wait", "1e9"), "seconds from 0 to 10000000."),
        (("run", "replay", "x", "--timeout", "0"), "seconds more than 0 and at most 10000000."),
        (("run", "list", "--limit", "-1"), "number from 0 to 2147483647."),
        (("run", "list", "--limit", "1.5"), "number from 0 to 2147483647."),
        (("op", "run_program", "--parallel", "0"), "number from 1 to 4294967295."),
        (("op", "run_program", "--max-attempts", "4294967296"), "number from 1 to 4294967295."),
        (("op", "run_program", "--deadline-ms", "0"), "number from 1 to 4294967295."),
        (("op", "run_program", "--state-deadline-ms", "x"), "number from 1 to 4294967295."),
    ],
)
def test_a_number_out_of_range_is_refused_with_the_range(
    mfm: Mfm, arguments: tuple[str, ...], told: str
) -> None:
    result = mfm(*arguments, "--json")
    assert (result.code, result.error["code"]) == (2, "usage")
    option = next(word for word in arguments if word.startswith("--"))
    assert result.error["message"].startswith(f"Invalid value for '{option}': must be a ")
    assert result.error["message"].endswith(told)


def test_the_c_locale_can_print_everything(mfm: Mfm) -> None:
    result = mfm("ops", "show", "run_program", environ={"PYTHONIOENCODING": "ascii"})
    assert result.code == 0
    assert json.loads(result.out)["op_id"] == "run_program"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_each_shell(mfm: Mfm, shell: str) -> None:
    script = mfm("completion", shell)
    assert script.code == 0
    assert "_MFM_COMPLETE" in script.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mfm r", "run"),
        ("mfm run sta", "status"),
        ("mfm op key", "keystore_list"),
        ("mfm op keystore_list --so", "--sort-by"),
        ("mfm op keystore_list --sort-by a", "address"),
    ],
)
def test_words_are_completed(mfm: Mfm, words: str, expected: str) -> None:
    complete = {
        "_MFM_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    found = mfm(environ=complete).out.split("\n")
    assert f"plain,{expected}" in found


def test_tables_fit_the_terminal(mfm: Mfm) -> None:
    for columns in (40, 80):
        lines = on_terminal(mfm, "ops", "list", columns=columns).splitlines()
        assert len(lines) == 4
        assert all(len(line) <= columns for line in lines)
    assert "…" in lines[1]
    assert "…" not in mfm("ops", "list").out


def test_colour_is_for_terminals_that_want_it(mfm: Mfm) -> None:
    assert "\x1b[31m" in on_terminal(mfm, "nope", TERM="xterm")
    assert "\x1b" not in on_terminal(mfm, "nope", TERM="xterm", NO_COLOR="1")
    assert "\x1b" not in on_terminal(mfm, "nope", TERM="dumb")
    assert "\x1b" not in mfm("nope").err


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("redirection", "told"),
    [(">&-", True), (">/dev/full", True), (">&- 2>&-", False), (">/dev/full 2>/dev/full", False)],
)
@pytest.mark.parametrize("command", ["--version", "ops list", "nope"])
def test_an_output_that_cannot_be_written_is_a_failure(
    mfm: Mfm, command: str, redirection: str, told: bool, as_json: bool
) -> None:
    json_flag = "--json" if as_json else ""
    done = subprocess.run(
        ["sh", "-c", f'"$@" {json_flag} {command} {redirection}', "sh", *COMMAND],
        env=mfm.environ,
        cwd=mfm.directory,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Traceback" not in done.stderr
    assert done.stderr.startswith(b"error[usage]: ") == told
    assert done.stderr.count(b"error[") == told


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
def test_data_reaches_standard_output_whatever_becomes_of_the_other_streams(
    mfm: Mfm, redirection: str
) -> None:
    words = " ".join(mfm.program("echo", "1"))
    done = subprocess.run(
        ["sh", "-c", f'"$@" {words} --progress {redirection}', "sh", *COMMAND],
        env=mfm.environ,
        cwd=mfm.directory,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"1\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_document_is_json_in_every_encoding(mfm: Mfm, encoding: str) -> None:
    told = "\u00fc \u4e2d \U0001f600"
    (mfm.directory / "told").write_text(json.dumps(told))
    environ = {**mfm.environ, "PYTHONIOENCODING": encoding}
    for words in (mfm.program("cat", str(mfm.directory / "told")), ("run", "events", "last")):
        done = subprocess.run(
            [*COMMAND, "--json", *words],
            env={**environ, "MFM_EXEC_READ_ONLY_PATHS": str(mfm.directory)},
            cwd=mfm.directory,
            capture_output=True,
            timeout=120,
            check=False,
        )
        # RFC 8259 §8.1: UTF-8, whatever the locale says.
        document = json.loads(done.stdout.decode("utf-8"))
        assert document["status"] == "success", document
        if words[0] == "op":
            assert document["data"]["outputs"]["result"] == told


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ("ops list", 0, ""),
        ("op keystore_list --keystore x", 1, "keystore_dir_missing"),
        ("op run_program --program-path x --stdin-json @y", 2, "op_config_invalid"),
        ("--store x op keystore_list", 2, "settings_invalid"),
    ],
)
def test_a_working_directory_that_was_removed_is_survived(
    mfm: Mfm, arguments: str, code: int, told: str
) -> None:
    gone = mfm.directory / "gone"
    done = subprocess.run(
        ["sh", "-c", f'mkdir "$0" && cd "$0" && rmdir "$0" && "$@" {arguments}', gone, *COMMAND],
        env=mfm.environ,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code
    assert told.encode() in done.stderr
    assert not list(mfm.directory.glob("*gone*"))


def test_closed_standard_input_is_empty(mfm: Mfm) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" run import - <&-', "sh", *COMMAND],
        env=mfm.environ,
        cwd=mfm.directory,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.startswith(b"error[export_not_mfm]")


def test_a_failure_whose_reader_has_left_is_still_a_failure(mfm: Mfm) -> None:
    with subprocess.Popen(
        [*COMMAND, "nope", "--json"],
        env=mfm.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=120) == 2


def test_ctrl_c_while_an_op_is_looked_up_ends_mfm_at_once(mfm: Mfm) -> None:
    (mfm.directory / "slow.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "except BaseException:\n    pass\n"
    )
    about = mfm.directory / "slow-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: slow\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[mfm.ops]\nslow = slow:Slow\n")
    path = f"{mfm.environ['PYTHONPATH']}{os.pathsep}{mfm.directory}"
    result = mfm("op", "slow", environ={"PYTHONPATH": path})
    assert (result.code, result.out) == (130, "")
    assert result.err.startswith("error[interrupted]: ")
