"""Parses a program's output, as a rule while the program still ends and its tree dies.

What is parsed early was not accepted for it: whether it is the whole output of a program that ended
well is known at the end, and is for `outcome` and `runner` to judge.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.errors import TransportFailure
from mfm_ops.machine.transport import TransportReply
from transports.outcome import parse_response

__all__ = ["Answer"]

# Most programs print what they have to say at once. Those that do not may not cost a parse for
# each of their lines, and what is long is parsed once.
_TRIES: Final = 4
_MAX_EARLY_BYTES: Final = 64 * 1024


@dataclass(slots=True)
class Answer:
    """The answer of one run. `foretell` is told what it most likely is, with the `remarks`."""

    numbers: Literal["reject", "string"]
    where: Mapping[str, Json]
    remarks: Mapping[str, Json]
    foretell: Callable[[TransportReply], None] | None
    _tries: int = _TRIES
    _so_far: bytes = b""
    _early: bytes | None = None
    _response: Json = None

    def take(self, chunk: bytes) -> None:
        """See whether the output is a whole value with what has just come."""
        if not self._tries or len(self._so_far) + len(chunk) > _MAX_EARLY_BYTES:
            self._tries = 0
            return
        self._tries -= 1
        self._so_far += chunk
        # What is no value may become one, and is complained of when nothing more can come.
        with suppress(TransportFailure):
            self._response = parse_response(self._so_far, self.numbers, self.where)
            self._early = self._so_far
            if self.foretell is not None:
                self.foretell(TransportReply(self._response, self.remarks))

    def response(self, stdout: bytes) -> Json:
        """What a program that ended well and wrote `stdout` answered.

        Raises:
            TransportFailure: exec_stdout_invalid_json, exec_stdout_not_canonical.
        """
        if stdout == self._early:
            return self._response
        return parse_response(stdout, self.numbers, self.where)
