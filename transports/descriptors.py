"""The descriptors of one run: opened, listened to on the event loop, and closed once."""

import asyncio
import errno
import os
from collections.abc import Callable
from typing import Final

__all__ = ["Descriptors", "is_shortage"]

_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})


def is_shortage(exc: OSError) -> bool:
    """Whether something ran out here, which says nothing about the file that was asked for."""
    return exc.errno in _SHORTAGES


class Descriptors:
    """Owns what it opened or was told to `keep`. `on_error` is given what a callback raises."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_error: Callable[[Exception], None]
    ) -> None:
        self._loop = loop
        self._on_error = on_error
        self._open: set[int] = set()
        self._heard: set[int] = set()

    def pipe(self) -> tuple[int, int]:
        """A new pipe, (reading end, writing end)."""
        ends = os.pipe2(os.O_CLOEXEC)
        self._open.update(ends)
        return ends

    def keep(self, fd: int) -> int:
        """Own `fd` from now on."""
        self._open.add(fd)
        return fd

    def listen(self, fd: int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever there is something to read."""
        self._heard.add(fd)
        self._loop.add_reader(fd, self._heed, callback)

    def unlisten(self, fd: int | None) -> None:
        """Listen no more, if anybody did."""
        if fd in self._heard:
            self._heard.remove(fd)
            self._loop.remove_reader(fd)

    def close(self, fd: int) -> None:
        """Close `fd` if it is still owned."""
        if fd in self._open:
            self._open.remove(fd)
            self.unlisten(fd)
            os.close(fd)

    def close_all(self) -> None:
        """Close what is left."""
        for fd in tuple(self._open):
            self.close(fd)

    def _heed(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as exc:  # noqa: BLE001 - whoever waits must not wait for ever
            self._on_error(exc)
