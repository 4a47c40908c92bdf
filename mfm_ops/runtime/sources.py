"""Where the clock and randomness come from: the only two, so that tests can put in their own."""

import os
import time
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Sources"]


def _now_millis() -> int:
    return time.time_ns() // 1_000_000


class Sources(NamedTuple):
    """`now_millis()`: milliseconds since the epoch; `random_bytes(n)`: n random bytes."""

    now_millis: Callable[[], int] = _now_millis
    random_bytes: Callable[[int], bytes] = os.urandom
