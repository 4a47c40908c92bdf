"""The exact JSON parser behind `strict_json`: slow, byte for byte, names the first fault.

It alone decides what is refused and where; every step moves forward in the input, so that hostile
bytes cost linear time.
"""

from __future__ import annotations

import json
import re
from typing import Final, Literal

from mfm_ops.machine.json_rules import MAX_INTEGER, CanonicalError, Json, fault

__all__ = ["parse_exactly"]

_BOM: Final = b"\xef\xbb\xbf"
_BLANKS: Final = re.compile(rb"[ \t\n\r]*")
_NUMBER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)((?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
_STRING_STOP: Final = re.compile(rb'["\\\x00-\x1f]')
_WORDS: Final[tuple[tuple[bytes, Json], ...]] = (
    (b"true", True),
    (b"false", False),
    (b"null", None),
)
_NOT_FINITE: Final = (b"NaN", b"Infinity", b"-Infinity")
_MAX_INTEGER_CHARS: Final = len(str(-MAX_INTEGER))


def parse_exactly(data: bytes, *, max_depth: int, numbers: Literal["reject", "string"]) -> Json:
    """As `strict_json.parse_strict`, for bytes alone; the faults are raised from here."""
    return _Parser(data, max_depth, numbers).document()


class _Parser:
    """One pass over `data`: `at` is the next byte to read, `path` leads to the present value."""

    def __init__(self, data: bytes, max_depth: int, numbers: Literal["reject", "string"]) -> None:
        self.data = data
        self.max_depth = max_depth
        self.numbers = numbers
        self.at = 0
        self.path: list[str | int] = []

    def document(self) -> Json:
        if self.data.startswith(_BOM):
            raise CanonicalError("json_bom", offset=0)
        value = self.value()
        if self.peek():
            raise self.unexpected()
        return value

    def value(self) -> Json:
        first = self.peek()
        if first == b'"':
            return self.string()
        if first == b"{":
            return self.object()
        if first == b"[":
            return self.array()
        number = _NUMBER.match(self.data, self.at)
        if number is not None:
            return self.number(number)
        for word, meaning in _WORDS:
            if self.data.startswith(word, self.at):
                self.at += len(word)
                return meaning
        if self.data.startswith(_NOT_FINITE, self.at):
            raise self.refused("json_not_finite")
        raise self.unexpected()

    def array(self) -> list[Json]:
        self.open()
        items: list[Json] = []
        if self.take(b"]"):
            return items
        while True:
            self.path.append(len(items))
            items.append(self.value())
            self.path.pop()
            if self.take(b"]"):
                return items
            self.expect(b",")

    def object(self) -> dict[str, Json]:
        self.open()
        members: dict[str, Json] = {}
        if self.take(b"}"):
            return members
        while True:
            if self.peek() != b'"':
                raise self.unexpected()
            start = self.at
            key = self.string()
            self.path.append(key)
            if key in members:
                raise self.refused("json_duplicate_key", start)
            self.expect(b":")
            members[key] = self.value()
            self.path.pop()
            if self.take(b"}"):
                return members
            self.expect(b",")

    def open(self) -> None:
        if len(self.path) >= self.max_depth:
            raise self.refused("json_too_deep")
        self.at += 1

    def number(self, match: re.Match[bytes]) -> int | str:
        token = match[0]
        code = _number_fault(token, is_float=bool(match[1]) or token == b"-0")
        if code is None:
            self.at = match.end()
            return int(token)
        if self.numbers == "reject":
            raise self.refused(code)
        self.at = match.end()
        return token.decode("ascii")

    def string(self) -> str:
        start = self.at
        at = start + 1
        escaped = False
        while True:
            stop = _STRING_STOP.search(self.data, at)
            if stop is None:
                self.decoded(start, len(self.data))
                raise self.refused("json_syntax", len(self.data))
            at = stop.end()
            if stop[0] == b'"':
                break
            if stop[0] != b"\\":
                self.decoded(start, at)
                raise self.refused("json_syntax", at - 1)
            escaped = True
            at += 1
        token = self.decoded(start, at)
        self.at = at
        return self.unescaped(token, start) if escaped else token[1:-1]

    def decoded(self, start: int, end: int) -> str:
        try:
            return self.data[start:end].decode()
        except UnicodeDecodeError as error:
            raise self.refused("json_not_utf8", start + error.start) from None

    def unescaped(self, token: str, start: int) -> str:
        try:
            text: str = json.loads(token)
        except json.JSONDecodeError as error:
            offset = start + len(token[: error.pos].encode())
            raise self.refused("json_syntax", offset) from None
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self.refused("json_lone_surrogate", start) from None
        return text

    def peek(self) -> bytes:
        """The next byte after blanks, or b"" at the end."""
        blanks = _BLANKS.match(self.data, self.at)
        assert blanks is not None
        self.at = blanks.end()
        return self.data[self.at : self.at + 1]

    def take(self, mark: bytes) -> bool:
        found = self.peek() == mark
        self.at += found
        return found

    def expect(self, mark: bytes) -> None:
        if not self.take(mark):
            raise self.unexpected()

    def unexpected(self) -> CanonicalError:
        try:
            # Four bytes hold the whole next character, if it is one.
            self.data[self.at : self.at + 4].decode()
        except UnicodeDecodeError as error:
            if error.start == 0:
                return self.refused("json_not_utf8")
        return self.refused("json_syntax")

    def refused(self, code: str, offset: int | None = None) -> CanonicalError:
        return fault(code, self.path, self.at if offset is None else offset)


def _number_fault(token: bytes, *, is_float: bool) -> str | None:
    if is_float:
        return "json_float"
    # The length first: converting a million digits takes quadratic time.
    if len(token) > _MAX_INTEGER_CHARS or abs(int(token)) > MAX_INTEGER:
        return "json_integer_range"
    return None
