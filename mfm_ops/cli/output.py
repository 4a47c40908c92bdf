"""How data reaches a terminal or a pipe: tables, JSON, and nothing that a terminal would obey.

What is printed is decided by the commands; this module decides only how.
"""

import os
import select
import sys
from collections.abc import Sequence
from typing import Final, TextIO

from mfm_ops.machine.canonical import Json
from mfm_ops.sdk.columns import columns, fitted

__all__ = [
    "Painter",
    "escape",
    "escape_lines",
    "has_reader",
    "is_terminal",
    "json_document",
    "screen_width",
    "table",
    "time_text",
    "write",
]

DEFAULT_WIDTH: Final = 80
PIPE_WIDTH: Final = 1000
"""Nothing is cut where no screen is: wide enough for any line that an op lays out."""


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at `stream`."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def has_reader(stream: TextIO) -> bool:
    """Whether somebody may still read `stream`: a pipe says so once its reader has left."""
    poller = select.poll()
    try:
        poller.register(stream, 0)
        return not poller.poll(0)
    except (OSError, ValueError):
        return False


def screen_width(stream: TextIO) -> int | None:
    """The columns of the terminal behind `stream`; None where there is none."""
    if not is_terminal(stream):
        return None
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns[:6]) > 0:
        return int(columns[:6])
    try:
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_WIDTH
    except OSError:
        return DEFAULT_WIDTH


def escape(text: str) -> str:
    r"""`text` with all that is not printable written out, line breaks included.

    So nothing in it commands a terminal, reorders what is read, or hides.

    >>> escape("\x1b[31mred\n")
    '\\x1b[31mred\\n'
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _written_out(char) for char in text)


def escape_lines(text: str) -> str:
    """As `escape`, line by line: for text that was laid out in lines on purpose."""
    return "\n".join(map(escape, text.split("\n")))


def _written_out(char: str) -> str:
    short = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char)
    code = ord(char)
    return short or (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def json_document(value: Json, *, indent: bool) -> str:
    """`value` as one JSON text in which all is printable; `indent` for people.

    Where standard output does not take UTF-8, it is ASCII: JSON has escapes for the rest, while
    bytes of another encoding, or Python's own escapes, would make it no JSON.
    """
    import orjson

    option = orjson.OPT_INDENT_2 if indent else 0
    try:
        text = orjson.dumps(value, option=option).decode()
    except TypeError:
        text = orjson.dumps(_as_unicode(value), option=option).decode()
    utf8 = (sys.stdout.encoding or "").lower() in ("utf-8", "utf8")
    if text.replace("\n", "").isprintable() and (utf8 or text.isascii()):
        return text
    # Outside of strings JSON has no other such characters than line breaks.
    return "".join(
        char
        if char == "\n" or (char.isprintable() and (utf8 or char.isascii()))
        else _json_escape(char)
        for char in text
    )


def _as_unicode(value: Json) -> Json:
    """`value` with bytes that an argument or a path had and that are no UTF-8 written out."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_as_unicode(item) for item in value]
    if isinstance(value, dict):
        return {str(_as_unicode(key)): _as_unicode(item) for key, item in value.items()}
    return value


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def write(text: str, stream: TextIO | None = None) -> None:
    """Write `text` and a line break, whatever the stream's encoding can express."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "ascii"
    # In the C locale a label with an umlaut must not end the command.
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def time_text(millis: int | None) -> str:
    """A point in time in UTC, to the second; the number itself where it is no such point."""
    from datetime import UTC, datetime

    if millis is None:
        return "-"
    try:
        when = datetime.fromtimestamp(millis / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return str(millis)
    return when.strftime("%Y-%m-%d %H:%M:%S")


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int | None,
    whole: int | None = None,
) -> list[str]:
    """Lines of aligned columns; cells are escaped here.

    Where they are wider than `width` the widest columns are cut, with an ellipsis; None cuts
    nothing. The column `whole` is cut last: it holds what people copy.
    """
    cells = [list(headers), *([escape(cell) for cell in row] for row in rows)]
    widths = [max(columns(row[i]) for row in cells) for i in range(len(headers))]
    if width is not None:
        widths = _fit(widths, width - 2 * (len(widths) - 1), whole)
    return [
        "  ".join(fitted(cell, size) for cell, size in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _fit(widths: list[int], room: int, whole: int | None) -> list[int]:
    """Column widths whose sum is at most `room`: wide ones give first, none goes below 4."""
    fitted = list(widths)
    others = [column for column in range(len(fitted)) if column != whole]
    for giving in (others, range(len(fitted))):
        while giving and sum(fitted) > room:
            widest = max(giving, key=fitted.__getitem__)
            if fitted[widest] <= 4:
                break
            fitted[widest] -= 1
    return fitted


class Painter:
    """Colour where a person looks and did not refuse it (NO_COLOR, TERM=dumb)."""

    def __init__(self, stream: TextIO) -> None:
        self._on = (
            is_terminal(stream)
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
        )

    def _paint(self, text: str, code: int) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._on else text

    def bad(self, text: str) -> str:
        """In red."""
        return self._paint(text, 31)

    def good(self, text: str) -> str:
        """In green."""
        return self._paint(text, 32)

    def warn(self, text: str) -> str:
        """In yellow."""
        return self._paint(text, 33)

    def dim(self, text: str) -> str:
        """Fainter than the rest."""
        return self._paint(text, 2)
