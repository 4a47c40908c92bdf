"""Secrets in the columns of tables: the name is the column's head, the value stands rows below.

Pure; tables of programs (blanks, `|`, tabs) and comma-separated values.
"""

import re
from typing import NamedTuple

from mfm_ops.machine.secrets.names import Strength, name_strength
from mfm_ops.machine.secrets.values import (
    is_sample,
    is_well_known,
    is_word_phrase,
    looks_generated,
    looks_random,
)

__all__ = ["is_tabled"]

_TELLING = re.compile(r"(?i)token|secret|pass|key|pwd|psk|credential")
_HEAD = re.compile(r"[A-Za-z][A-Za-z0-9 _./-]{0,39}", re.ASCII)
_BLANKS = re.compile(r"[ \t]{2,}|\t")
# How dumps of databases name their columns.
_COPY = re.compile(r"^COPY [^\s(]{1,128} \(([^()]{1,1000})\) FROM stdin", re.IGNORECASE)
_INSERT = re.compile(
    r"\bINSERT INTO [^\s(]{1,128} ?\(([^()]{1,1000})\) VALUES ?\((.{1,1000})", re.IGNORECASE
)
_BOX = "\u2502"
_RULE = re.compile(r"[\s|+=:_\u2500-\u253c-]*")
_PAIRED = re.compile(r"[\s|]*(?:Key|Field|Name|Property)[\s|]+Value[\s|]*")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}.*")
_MAX_LINE_CHARS = 2000
_MAX_CELLS = 40


class _Column(NamedTuple):
    at: int
    offset: int
    strength: Strength


class _Head(NamedTuple):
    divider: str
    cells: int
    columns: tuple[_Column, ...]


def is_tabled(text: str) -> bool:
    """Whether a cell below a telling head holds a secret; linear in the length of the text."""
    head: _Head | None = None
    before = ""
    paired = False  # below `Key  Value` each row is a name and its value
    judged: set[str] = set()
    ruled = False  # a line below the head: what follows are rows, whatever they say
    for line in text.split("\n"):
        if not line.strip():
            head, before, paired, ruled = None, "", False, False
        elif len(line) > _MAX_LINE_CHARS:
            continue
        elif _RULE.fullmatch(line):
            if before and not ruled:
                paired, ruled = _PAIRED.fullmatch(before) is not None, True
        elif head is not None:
            if _row_exposes(line, head):
                return True
        elif (sql := _COPY.search(line)) is not None:
            head = _head_in_sql(sql[1], "\t")
        elif "(" in line and (sql := _INSERT.search(line)) is not None:
            named = _head_in_sql(sql[1], ",")
            if named is not None and any(_row_exposes(row, named) for row in _rows(sql[2])):
                return True
        elif line in judged:
            before = line
        elif _TELLING.search(line):
            if (paired or _BOX in line) and _pair_exposes(line):
                return True
            if ruled:
                continue
            before, head = line, _head_of(line)
            if head is None:
                judged.add(line)
        else:
            before = line
    return False


def _head_in_sql(names: str, divider: str) -> _Head | None:
    cells = _cells(names, ",")
    columns = tuple(
        _Column(at, 0, strength)
        for at, cell in enumerate(cells)
        if (strength := name_strength(cell)) > Strength.KEYED
    )
    return _Head(divider, len(cells), columns) if columns else None


def _rows(values: str) -> list[str]:
    return values.rstrip(");").split("),(")


def _pair_exposes(line: str) -> bool:
    divider = next((mark for mark in (_BOX, "|") if mark in line), "")
    cells = [cell for cell in _cells(line, divider) if cell]
    if len(cells) != 2:
        return False
    strength = name_strength(cells[0].rstrip(":"))
    return strength > Strength.KEYED and _is_secret(cells[1], strength)


def _head_of(line: str) -> _Head | None:
    divider = next((mark for mark in "|," if mark in line), "")
    if divider == "," and (", " in line or line.endswith(",")):
        return None  # a sentence, or a list of a program's source
    cells = _cells(line, divider)
    cells[0] = cells[0].removeprefix("# ")
    if not 1 < len(cells) < _MAX_CELLS or not all(
        not cell or _HEAD.fullmatch(cell) for cell in cells
    ):
        return None
    columns = tuple(
        _Column(at, line.find(cell), strength)
        for at, cell in enumerate(cells)
        if (strength := name_strength(cell)) > Strength.KEYED
    )
    return _Head(divider, len(cells), columns) if columns else None


def _cells(line: str, divider: str) -> list[str]:
    cells = line.split(divider) if divider else _BLANKS.split(line.strip())
    return [cell.strip().strip("\"'`") for cell in cells]


def _row_exposes(line: str, head: _Head) -> bool:
    cells = _cells(line, head.divider)
    if len(cells) == head.cells:
        return any(_is_secret(cells[column.at], column.strength) for column in head.columns)
    if head.divider:
        return False
    return any(
        _is_secret(line[column.offset :].partition(" ")[0], column.strength)
        for column in head.columns
        if line[max(0, column.offset - 1) : column.offset].strip() == ""
    )


def _is_secret(cell: str, strength: Strength) -> bool:
    if strength is Strength.RANDOM:
        return looks_random(cell)
    if is_sample(cell) or _MOMENT.fullmatch(cell):
        return False
    if looks_random(cell) or is_well_known(cell) or is_word_phrase(cell):
        return True
    return len(cell) >= 8 and looks_generated(cell) and any(char.isdigit() for char in cell)
