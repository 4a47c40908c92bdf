"""What a labelled corpus is made of, and how it is cut in two.

A kind is a family of samples with one name and one source.  The halves are cut by kind, not by
sample: what the rules were fitted to says nothing about a kind that they never met.
"""

import hashlib
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from mfm_ops.machine.json_rules import Json

__all__ = ["Kind", "is_held_out", "planted"]


class Kind(NamedTuple):
    """One family of credentials.

    `source` names the public document that describes the format.
    """

    name: str
    source: str
    make: Callable[[Random], Json]


def is_held_out(name: str) -> bool:
    """Whether a kind belongs to the half that the rules may not be fitted to."""
    return hashlib.sha256(name.encode()).digest()[0] % 2 == 1


_SENTENCES = (
    "{}",
    "deploying with {} to production",
    "2024-03-01T10:22:11Z INFO request sent, value {} accepted",
    "first line\nvalue: {}\nlast line",
    "'{}'",
    "<{}>",
    '{{"a":1,"b":"{}"}}',
    "https://example.com/hook?x={}&y=1",
    "run --with={}",
)


def planted(rng: Random, token: str) -> Json:
    """`token` alone, in an argument list, under a neutral key, or inside a text."""
    way = rng.randrange(4)
    if way == 0:
        return token
    if way == 1:
        return ["deploy", "--verbose", token]
    if way == 2:
        return {"step": {"value": token, "n": rng.randrange(9)}}
    return {"stdout": rng.choice(_SENTENCES).format(token)}
