"""docs/provenance.md names every field, every word and every reason that there is."""

import ast
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from mfm_ops.machine.config import (
    BuildProvenance,
    FlakeProvenance,
    LockState,
    RunsFrom,
    WorkspaceProvenance,
)

TOP = Path(__file__).parents[2]
TEXT = (TOP / "docs/provenance.md").read_text(encoding="utf-8")


def table(head: str) -> dict[str, str]:
    """Name: meaning, of the table whose first cell is `head`; a cell may name several."""
    found = re.search(rf"^\| {re.escape(head)} \|.*\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert found, head
    rows = [line.strip("|\n").split(" | ", 1) for line in found[1].splitlines()[1:]]
    return {name: row[1] for row in rows for name in re.findall(r"`([^`]+)`", row[0])}


@pytest.mark.parametrize(
    ("head", "model"),
    [
        ("Field of `build`", BuildProvenance),
        ("Field of `workspace`", WorkspaceProvenance),
        ("Field of `flake`", FlakeProvenance),
    ],
)
def test_every_field_is_described(head: str, model: type[BaseModel]) -> None:
    assert table(head).keys() == model.model_fields.keys()


def test_every_word_is_described() -> None:
    assert table("`lock`").keys() == set(LockState)
    places = re.findall(r"`([^`]+)`", table("Field of `build`")["runs_from"])
    assert set(places) == set(RunsFrom)


def test_every_reason_is_described() -> None:
    source = ast.parse((TOP / "mfm_ops/sdk/requirements.py").read_text(encoding="utf-8"))
    functions = {node.name: node for node in source.body if isinstance(node, ast.FunctionDef)}
    for code, name in {
        "workspace_dirty": "require_clean",
        "workspace_unlocked": "require_locked",
    }.items():
        words = {
            node.value
            for statement in functions[name].body[1:]
            for node in ast.walk(statement)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"[a-z_]+", node.value)
        } - {code}
        described = set(table(f"`{code}`, reason")) - {"file"}
        judged = set() if code == "workspace_dirty" else set(LockState) - {"committed"}
        # A lock of a workspace is never overridden: only a build's inputs can be.
        assert described == words | judged - {"overridden"}, code
