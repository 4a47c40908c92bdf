"""Command lines of any kind, in this process: one JSON document and a documented code, always."""

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mfm_ops.cli.errors import ExitCode
from mfm_ops.cli.root import root, run
from mfm_ops.machine.codes import CATALOGUE
from tests.fuzz.mutations import STRANGE_TEXTS, examples

_VALUES = st.one_of(
    STRANGE_TEXTS.map(lambda text: text.replace("\0", "").replace("\ud800", "")),
    st.sampled_from(
        [
            *("{}", "[]", '{"a":1}', '{"a":1.5}', '{"a":1,"a":2}', "null", "@missing.json", "-"),
            *("keystore_list", "run_program", "latest", "last", "fail_fast", "completed", "bash"),
            *("1", "99999999999999999999", "a" * 64, "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
            *("/nix/store/x", "/", ".", "/dev/null", "/proc/self/mem", "k=v", "k=", "=v", "\x7f"),
        ]
    ),
)


def _commands(
    command: click.Command, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    options = [
        name
        for param in command.params
        if isinstance(param, click.Option)
        for name in (*param.opts, *param.secondary_opts)
    ]
    yield path, [*options, "--json", "--store", "--config", "--help", "--nonsense"]
    if isinstance(command, click.Group):
        context = click.Context(command, info_name="mfm")
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from _commands(found, (*path, name))


_TREE = list(_commands(root, ()))


@st.composite
def _command_lines(draw: st.DrawFn) -> list[str]:
    path, options = draw(st.sampled_from(_TREE))
    words = [*path]
    for _ in range(draw(st.integers(0, 4))):
        words.append(draw(st.one_of(st.sampled_from(options), _VALUES)))
        if draw(st.booleans()):
            words.append(draw(_VALUES))
    return words


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own, with nothing that a command may run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MFM_STORE", str(tmp_path / "store.sqlite"))
    monkeypatch.setenv("MFM_KEYSTORE", str(tmp_path / "keystore"))
    monkeypatch.setenv("MFM_OUTPUT_FORMAT", "json")
    monkeypatch.setenv("MFM_EXEC_ALLOW_PREFIXES", str(tmp_path / "nothing"))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"{}")))
    return tmp_path


def _run(arguments: list[str]) -> tuple[int, str, str]:
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(arguments)
    return code, _text(out), _text(err)


def _text(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


def _judge(arguments: list[str]) -> None:
    code, out, err = _run(arguments)
    assert code in set(ExitCode), (arguments, code)
    assert "Traceback" not in err, err
    if code == ExitCode.DONE:
        return
    document: Any = json.loads(out)
    if document["status"] == "error":
        assert document["error"]["code"] in CATALOGUE, document
        assert document["error"]["code"] != "internal_error", (arguments, document)


@examples(150)
@given(arguments=_command_lines())
@example(arguments=["run", "status", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")])
def test_a_command_line_ends_with_a_document_and_a_code(site: Path, arguments: list[str]) -> None:
    _judge([*arguments, "--json"])
    _judge(arguments)


@pytest.mark.parametrize("path", [path for path, _ in _TREE], ids="-".join)
def test_each_command_takes_bytes_that_are_no_text(site: Path, path: tuple[str, ...]) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    _judge([*path, odd, "--json"])
    _judge([*path, f"--{odd}", "--json"])
