"""Numbers on the command line, and the one way to say which of them an option takes.

Which range an op's own field has is left to its model; `options` reads it from there.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

import click

__all__ = ["Seconds", "Whole", "range_text"]

if TYPE_CHECKING:
    _Integer = click.ParamType[int]
    _Float = click.ParamType[float]
else:
    # Older versions of click have no type argument.
    _Integer = _Float = click.ParamType

_MAX_U32: Final = 2**32 - 1
_MAX_SECONDS: Final = 10_000_000
_WHOLE = re.compile(r"[+-]?[0-9]{1,40}")


def range_text(least: float | None, most: float | None, *, above: bool = False) -> str:
    """What a number must be; `above` excludes `least` itself.

    >>> range_text(1, 9), range_text(0, 9, above=True), range_text(1, None), range_text(None, None)
    ('from 1 to 9', 'more than 0 and at most 9', 'at least 1', 'of any size')
    """
    if least is None:
        return "of any size" if most is None else f"at most {most}"
    if most is None:
        return f"more than {least}" if above else f"at least {least}"
    return f"more than {least} and at most {most}" if above else f"from {least} to {most}"


class Whole(_Integer):
    """An integer from `least` to `most`."""

    name = "integer"

    def __init__(self, least: int, most: int = _MAX_U32) -> None:
        self.least, self.most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The integer, or a failure that names the range."""
        number = int(value) if _WHOLE.fullmatch(str(value)) else None
        if number is None or not self.least <= number <= self.most:
            self.fail(f"must be a whole number {range_text(self.least, self.most)}.", param, ctx)
        return number


class Seconds(_Float):
    """A number of seconds that every clock can count: finite, and at most some months."""

    name = "seconds"

    def __init__(self, *, above_zero: bool = False) -> None:
        self.above_zero = above_zero

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The seconds, or a failure that names the range."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        # Nothing is in a range with a NaN.
        if not 0 <= seconds <= _MAX_SECONDS or (self.above_zero and not seconds):
            text = range_text(0, _MAX_SECONDS, above=self.above_zero)
            self.fail(f"must be a number of seconds {text}.", param, ctx)
        return seconds
