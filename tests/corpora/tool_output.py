"""What real tools print that looks like a secret and is none.

Each file under `tools/` is one family; a record is `==> command` and a piece of its output.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.corpora.kinds import is_held_out

__all__ = ["ToolOutput", "tool_outputs", "unseen_outputs"]

_FOLDER = Path(__file__).parent / "tools"
_MARK = "==> "


class ToolOutput(NamedTuple):
    """One piece of one command's output: a few lines."""

    family: str
    command: str
    text: str

    @property
    def held_out(self) -> bool:
        """Whether the rules may not be fitted to this family."""
        return is_held_out(f"tool_{self.family}")


def tool_outputs() -> Iterator[ToolOutput]:
    """All records, family by family."""
    for path in sorted(_FOLDER.glob("*.txt")):
        yield from _records(path)


def unseen_outputs() -> Iterator[ToolOutput]:
    """The records that were made when the rules were done."""
    yield from _records(_FOLDER.with_name("unseen_tools.txt"))


def _records(path: Path) -> Iterator[ToolOutput]:
    text = path.read_text(encoding="utf-8")
    for record in text.removeprefix(_MARK).split("\n" + _MARK):
        command, _, output = record.partition("\n")
        yield ToolOutput(path.stem, command, output.removesuffix("\n"))
