"""An answer made ready to be recorded while its transport still brings the call to an end.

What is prepared is what would be stored: scanned, in canonical bytes or a copy made of them.
Whether and when it is stored is left to `live_io`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.transport import TransportReply
from mfm_ops.runtime.persist import DEPTH_OF_META, Persister, Refused, scanned_canonical_bytes

__all__ = ["Foretold"]

_NOTHING = TransportReply(None)


@dataclass(slots=True)
class Foretold:
    """What one call was told beforehand; it goes with the call unless it comes true."""

    persister: Persister
    _told: TransportReply = _NOTHING
    _payload: bytes | None = None
    _remarks: dict[str, Json] = field(default_factory=dict)

    def prepare(self, reply: TransportReply) -> None:
        """Prepare `reply`, which comes with further remarks if nothing goes wrong; raises nothing.

        What is refused, or is better scanned in a thread, has to wait until it is the answer.
        """
        try:
            payload = self.persister.scanned_at_once(reply.response, "io_response_invalid")
            remarks = _scanned_copy(reply.meta)
        except Refused:
            self._told, self._payload, self._remarks = _NOTHING, None, {}
        else:
            self._told, self._payload, self._remarks = reply, payload, remarks

    async def payload(self, reply: TransportReply) -> bytes:
        """The canonical bytes of the answer; raises as `Persister.scanned`."""
        if self._payload is not None and reply.response is self._told.response:
            return self._payload
        return await self.persister.scanned(reply.response, "io_response_invalid")

    def meta(self, reply: TransportReply) -> dict[str, Json]:
        """The transport's own remarks; left out whole where they may not be stored.

        By now the call has happened, so its answer must not be lost for the sake of a remark.
        """
        told = self._told.meta
        late = {
            name: remark
            for name, remark in reply.meta.items()
            if name not in told or remark is not told[name]
        }
        came_true = len(told) + len(late) == len(reply.meta)
        try:
            if came_true:
                return self._remarks | _scanned_copy(late)
            return _scanned_copy(reply.meta)
        except Refused as refused:
            return {"meta_refused": str(refused.info.code)}


def _scanned_copy(meta: Mapping[str, Json]) -> dict[str, Json]:
    data = scanned_canonical_bytes(dict(meta), "io_response_invalid", depth=DEPTH_OF_META)
    copy: dict[str, Json] = orjson.loads(data)
    return copy
