"""What reaches a terminal: aligned, whole where nothing cuts it, and nothing but text."""

import io
import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfm_ops.cli.output import escape, escape_lines, json_document, table, write

TEXTS = st.text(st.characters(), max_size=30)


@given(TEXTS)
def test_escaped_text_is_printable_whatever_it_was(text: str) -> None:
    assert escape(text).isprintable()
    if text.isprintable():
        assert escape(text) == text


def test_what_commands_a_terminal_or_hides_is_written_out() -> None:
    assert escape("\x1b[2J\a\r\n\t") == "\\x1b[2J\\x07\\r\\n\\t"
    assert escape("\u202egnp.exe") == "\\u202egnp.exe"
    assert escape("\x9b31m\u200b\U000e0041") == "\\x9b31m\\u200b\\U000e0041"
    assert escape_lines("a\nb\x00") == "a\nb\\x00"


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ),
    st.booleans(),
)
def test_a_json_document_is_printable_and_means_the_same(value: Any, indent: bool) -> None:
    document = json_document(value, indent=indent)
    assert document.replace("\n", "").isprintable()
    assert json.loads(document) == value


def columns_of(line: str) -> int:
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in line
    )


def test_bytes_that_are_no_text_are_written_out_in_json() -> None:
    name = b"x\xff".decode("utf-8", "surrogateescape")
    assert json.loads(json_document({name: [name, 1, None]}, indent=False)) == {
        "x\\udcff": ["x\\udcff", 1, None]
    }


CELLS = st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=5)


@given(CELLS, st.integers(20, 100))
def test_a_table_fits_its_width(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = table(["A", "B", "C"], rows, width=width)
    assert len(lines) == len(rows) + 1
    assert all(columns_of(line) <= width for line in lines)
    assert all(line.isprintable() for line in lines)


@given(CELLS)
def test_without_a_width_nothing_is_cut(rows: list[tuple[str, str, str]]) -> None:
    lines = table(["A", "B", "C"], rows, width=None)
    for line, row in zip(lines[1:], rows, strict=True):
        for cell in row:
            assert escape(cell).rstrip() in line


def test_columns_are_aligned_by_what_is_seen() -> None:
    lines = table(["NAME", "X"], [["日本", "1"], ["e\u0301", "2"], ["abcde", "3"]], width=None)
    assert [
        columns_of(line[: line.index(mark)]) for line, mark in zip(lines, "X123", strict=True)
    ] == [7] * 4


def test_a_narrow_stream_gets_escapes_instead_of_an_error() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", newline="\n")
    write("größe", stream)
    stream.flush()
    assert raw.getvalue() == b"gr\\xf6\\xdfe\n"


@pytest.mark.parametrize(("width", "first"), [(60, "a" * 36), (20, "a" * 13 + "…"), (4, "aaa…")])
def test_the_column_that_people_copy_is_cut_last(width: int, first: str) -> None:
    rows = [["a" * 36, "b" * 60]]
    line = table(["ID", "TEXT"], rows, width=width, whole=0)[1]
    assert line.split()[0] == first


def test_a_table_of_one_column_is_cut_all_the_same() -> None:
    assert table(["ID"], [["a" * 9]], width=5, whole=0)[1] == "aaaa…"
