"""How those that work for long say how far they are. Showing it is left to the caller."""

from collections.abc import Callable

__all__ = ["Progress", "silent"]

Progress = Callable[[str, int, int], None]
"""Told what is done, how much of it so far, and of how much; the last may grow meanwhile."""


def silent(what: str, done: int, total: int) -> None:
    """Nobody looks on."""
