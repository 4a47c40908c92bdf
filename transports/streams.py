"""The pipes of a child: what goes in, what comes out, and how much of it at most.

Non-blocking ends on the event loop. What an overflow or a failed write means is left to
`process_exec`.
"""

import asyncio
import os
from collections.abc import Callable

import orjson

__all__ = ["BoundedReader", "Feeder", "parse_status"]

_CHUNK_BYTES = 256 * 1024


class BoundedReader:
    """Collects what comes out of `fd` up to `max_bytes`; one byte more is an overflow.

    With a `sink` each chunk is handed on as it comes; a sink that raises is not asked again, since
    a closed terminal must not end a run.
    """

    def __init__(
        self, fd: int, max_bytes: int, sink: Callable[[bytes], None] | None = None
    ) -> None:
        self.fd = fd
        self.data = bytearray()
        self.overflowed = False
        self._max_bytes = max_bytes
        self._sink = sink

    def read_some(self) -> bool:
        """Read one chunk; False when there is none now or never again."""
        try:
            chunk = os.read(self.fd, min(_CHUNK_BYTES, self._max_bytes + 1 - len(self.data)))
        except BlockingIOError:
            return False
        self.data += chunk
        self.overflowed = len(self.data) > self._max_bytes
        if chunk and self._sink is not None:
            try:
                self._sink(chunk)
            except Exception:  # noqa: BLE001 - whatever it is, the run is worth more
                self._sink = None
        return bool(chunk)

    def drain(self) -> None:
        """Read what is still in the pipe once all its writers are dead."""
        while not self.overflowed and self.read_some():
            pass


class Feeder:
    """Writes `data` to `fd` and closes it.

    What fits into the pipe is written at once, before there is a reader; the rest once `start` is
    called. A reader that closes early is content with what it got.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        data: bytes,
        on_failure: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._fd = fd
        self._left = memoryview(data)
        self._on_failure = on_failure
        self._open = True
        self._write()

    def start(self) -> None:
        """Go on in the background with what did not fit."""
        if self._open:
            self._loop.add_writer(self._fd, self._write)

    def close(self) -> None:
        """Stop, and let the reader see the end of input."""
        if self._open:
            self._open = False
            self._loop.remove_writer(self._fd)
            os.close(self._fd)

    def _write(self) -> None:
        try:
            while self._left:
                self._left = self._left[os.write(self._fd, self._left) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass
        except OSError:
            self.close()
            self._on_failure()
            return
        self.close()


def parse_status(line: bytes) -> dict[str, int] | None:
    """One document of the launcher's, None where it is none."""
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict):
        return None
    return {key: value for key, value in document.items() if type(value) is int}
