"""IO for real, each answer recorded once as a fact (the contract, section 6).

The order is the promise: request stored, effect announced, call made, payload stored, key bound,
event durable, and only then does the handler see the answer. Choosing the transport is left to
`router`, what a crash leaves behind to `history`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import anyio
import orjson

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import Json, artifact_id_for_bytes
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import (
    ErrorInfo,
    IoError,
    IoFailure,
    StorageFailure,
    TransportFailure,
)
from mfm_ops.machine.events import (
    DOMAIN_EVENT_FACT_RECORDED,
    EVENT_IO_INTENT,
    EVENT_IO_REFUSED,
    DomainEvent,
)
from mfm_ops.machine.ids import ArtifactId, FactKey
from mfm_ops.machine.io import IoCall, IoResult
from mfm_ops.machine.meta import SideEffectKind
from mfm_ops.machine.transport import LiveIoEnv, LiveIoTransport, TransportReply
from mfm_ops.runtime.fact_keys import (
    ambient_key,
    default_key,
    one_at_a_time,
    refuse_key,
    request_bytes_aside,
)
from mfm_ops.runtime.facts import BoundFact, FactIndex, remarks_of
from mfm_ops.runtime.linked import EngineTransport, LinkedReply
from mfm_ops.runtime.persist import Persister, Refused
from mfm_ops.runtime.redact import log_unexpected
from mfm_ops.runtime.router import Router
from mfm_ops.runtime.sources import Sources
from mfm_ops.runtime.writer import CancelRequested, RunWriter

__all__ = ["EffectInDoubt", "LiveIo", "RunIo"]

MAX_RANDOM_BYTES = 1 << 20

log = logging.getLogger(__name__)


class EffectInDoubt(Exception):
    """An effect was begun and no outcome of it is recorded: the run must be parked.

    Raised for a child's effect too, which is then for the child to name.
    """


@dataclass(slots=True)
class RunIo:
    """What all attempts of a run share."""

    facts: FactIndex
    persister: Persister
    writer: RunWriter
    sources: Sources
    policy_id: ArtifactId | None
    in_flight: dict[FactKey, anyio.Event | None] = field(default_factory=dict)


class LiveIo:
    """The `IoProvider` of one attempt of a live run."""

    def __init__(self, run: RunIo, router: Router, env: LiveIoEnv) -> None:
        self._run = run
        self._router = router
        self._env = env
        self._ordinals = {"now_millis": 0, "random_bytes": 0}
        # Effects that were begun and are not settled: key to request. Kept here too, since a
        # handler that swallows an exception does not undo an effect.
        self.in_doubt: dict[FactKey, ArtifactId] = {}
        # Called when the last of them is settled.
        self.when_settled: Callable[[], None] | None = None
        self._over = self._waits_for_child = False
        # An effect that failed may be half done: without an idempotency key nothing repeats it.
        self.may_repeat = True
        self._effect = env.side_effects is SideEffectKind.ApplySideEffect

    @property
    def must_park(self) -> bool:
        """Whether the attempt cannot end before somebody resolves an effect."""
        return bool(self.in_doubt) or self._waits_for_child

    def close(self) -> None:
        """The attempt is over: what its handler left running may record nothing any more."""
        self._over = True

    async def call(self, call: IoCall) -> IoResult:
        """See `IoProvider.call`."""
        self._refuse_when_over()
        if self._env.side_effects is SideEffectKind.Pure:
            raise IoFailure(IoError(Other=error_info("io_pure_state", "a pure state called out")))
        request = await request_bytes_aside(call)
        key = call.fact_key or default_key(
            call.namespace, self._env, artifact_id_for_bytes(request)
        )
        refuse_key(key)
        async with one_at_a_time(self._run.in_flight, key):
            bound = self._run.facts.get(key)
            if bound is not None:
                if bound.request_id != artifact_id_for_bytes(request):
                    raise _conflict("fact_request_mismatch", key)
                return await self._recorded(bound)
            transport = self._router.transport_for(call.namespace)
            request_id = await self._run.persister.trusted(REQUEST_KIND, request)
            self._refuse_when_over()
            if self._effect and not isinstance(transport, EngineTransport):
                await self._announce(key, request_id)
            # What was recorded is what is asked: the caller may still hold the request.
            frozen = IoCall.of_valid(
                namespace=call.namespace,
                request=orjson.loads(request)["request"],
                fact_key=key,
            )
            try:
                reply = await self._perform(transport, frozen)
                # It has happened: whoever is cancelled now still says so first.
                with anyio.CancelScope(shield=True):
                    payload, payload_id = await self._record_reply(call, key, request_id, reply)
            except IoFailure:
                self._settled(key)
                raise
            self._settled(key)
            # Read back, so that a handler sees what a replay will, the order of keys included.
            return IoResult.of_valid(response=orjson.loads(payload), recorded_payload_id=payload_id)

    async def _perform(self, transport: LiveIoTransport, call: IoCall) -> TransportReply:
        try:
            reply = await transport.call(call)
            if not isinstance(reply, TransportReply):
                raise TypeError("a transport returns a TransportReply")
        except EffectInDoubt:
            self._waits_for_child = True
            raise
        except TransportFailure as failure:
            raise self._failed(failure.info, transport, failure.rate_limited) from None
        except Exception as error:
            if isinstance(error, StorageFailure) and isinstance(transport, EngineTransport):
                self._run.writer.break_off(error)
                raise
            log_unexpected(log, "a transport raised an unexpected exception", error)
            crashed = error_info(
                "io_transport_crashed",
                "the transport raised an unexpected exception",
                exception=type(error).__name__,
            )
            raise self._failed(crashed, transport) from None
        return reply

    async def record_value(self, key: FactKey, value: Json) -> ArtifactId:
        """See `IoProvider.record_value`."""
        refuse_key(key)
        try:
            payload = await self._run.persister.scanned(value, "io_response_invalid")
        except Refused as refused:
            raise IoFailure(IoError(Other=refused.info)) from None
        async with one_at_a_time(self._run.in_flight, key):
            return await self._bind_value(key, payload, "record_value")

    async def get_recorded_fact(self, key: FactKey) -> ArtifactId | None:
        """See `IoProvider.get_recorded_fact`."""
        bound = self._run.facts.get(key)
        return None if bound is None else bound.payload_id

    async def now_millis(self) -> int:
        """See `IoProvider.now_millis`."""
        key = self._next_key("now_millis")
        bound = self._run.facts.get(key)
        if bound is not None:
            return cast(int, await self._run.persister.load_json(bound.payload_id))
        now = self._run.sources.now_millis()
        await self._bind_value(key, str(now).encode("ascii"), "now_millis")
        return now

    async def random_bytes(self, n: int) -> bytes:
        """See `IoProvider.random_bytes`."""
        if not 0 <= n <= MAX_RANDOM_BYTES:
            raise IoFailure(IoError(Other=error_info("io_size_invalid", "not a size to ask for")))
        key = self._next_key("random_bytes")
        bound = self._run.facts.get(key)
        if bound is not None:
            return await self._run.persister.load_bytes(bound.payload_id)
        data = self._run.sources.random_bytes(n)
        await self._bind_value(key, data, "random_bytes")
        return data

    def _next_key(self, kind: str) -> FactKey:
        ordinal = self._ordinals[kind]
        self._ordinals[kind] = ordinal + 1
        env = self._env
        return ambient_key(kind, env.run_id, env.state_id, env.attempt, ordinal)

    async def _recorded(self, bound: BoundFact) -> IoResult:
        response = await self._run.persister.load_json(bound.payload_id)
        return IoResult(response=response, recorded_payload_id=bound.payload_id)

    async def _announce(self, key: FactKey, request_id: ArtifactId) -> None:
        """Make it durable that an effect is about to happen, before it happens."""
        payload: dict[str, Json] = {"key": str(key), "request_id": str(request_id)}
        self._add(DomainEvent(name=EVENT_IO_INTENT, payload=payload))
        await self._run.writer.flush()
        # The attempt may have ended meanwhile: it waits for no effect that has not begun.
        self._refuse_when_over()
        self.in_doubt[key] = request_id

    def _settled(self, key: FactKey) -> None:
        """What came of an effect is known."""
        if self.in_doubt.pop(key, None) and not self.in_doubt and self.when_settled is not None:
            self.when_settled()

    def _refuse_when_over(self) -> None:
        if self._over:
            info = error_info("io_attempt_over", "the attempt that this belongs to has ended")
            raise IoFailure(IoError(Other=info))

    def _failed(
        self, info: ErrorInfo, transport: LiveIoTransport, rate_limited: bool = False
    ) -> IoFailure:
        """A failed effect may have happened all the same: repeating it needs its key."""
        effect = self._effect and not isinstance(transport, EngineTransport)
        if effect and self._env.idempotency_key is None:
            self.may_repeat = False
            info = info.model_copy(update={"retryable": False})
        return IoFailure(IoError(RateLimited=info) if rate_limited else IoError(Transport=info))

    async def _record_reply(
        self, call: IoCall, key: FactKey, request_id: ArtifactId, reply: TransportReply
    ) -> tuple[bytes, ArtifactId]:
        try:
            payload = await self._run.persister.scanned(reply.response, "io_response_invalid")
        except Refused as refused:
            await self._refuse(key, request_id, refused)
        try:
            payload_id = await self._run.persister.trusted(ArtifactKind.FactPayload, payload)
        except StorageFailure as lost:
            # A handler that swallows this must not go on, nor call again.
            self._run.writer.break_off(lost)
            raise
        meta = remarks_of(reply)
        meta.update(transport=call.namespace, request_id=str(request_id))
        fact = BoundFact(key, payload_id, request_id, self._under_policy(meta))
        await self._bind(fact, reply if isinstance(reply, LinkedReply) else None)
        return payload, payload_id

    async def _refuse(self, key: FactKey, request_id: ArtifactId, refused: Refused) -> None:
        """Say durably that an answer came and could not be kept; nothing of it is stored."""
        payload: dict[str, Json] = {
            "key": str(key),
            "request_id": str(request_id),
            "pointer": refused.pointer,
            "code": str(refused.info.code),
        }
        self._add(DomainEvent(name=EVENT_IO_REFUSED, payload=payload))
        await self._run.writer.flush()
        if key in self.in_doubt:
            raise EffectInDoubt
        raise IoFailure(IoError(Other=refused.info))

    async def _bind_value(self, key: FactKey, payload: bytes, source: str) -> ArtifactId:
        payload_id = artifact_id_for_bytes(payload)
        bound = self._run.facts.get(key)
        if bound is not None:
            if bound.payload_id != payload_id:
                raise _conflict("fact_payload_conflict", key)
            return payload_id
        await self._run.persister.trusted(ArtifactKind.FactPayload, payload)
        meta = self._under_policy({"source": source})
        # Past a cancellation: what was drawn from the world is not to be drawn again.
        with anyio.CancelScope(shield=True):
            await self._bind(BoundFact(key, payload_id, None, meta))
        return payload_id

    def _under_policy(self, meta: dict[str, Json]) -> dict[str, Json]:
        """Every fact says under which policy it came to be."""
        if self._run.policy_id is not None:
            meta["policy_digest"] = str(self._run.policy_id)
        return meta

    async def _bind(self, fact: BoundFact, linked: LinkedReply | None = None) -> None:
        """Bind, and make it durable; a failed append leaves the key free. Callers shield it."""
        self._refuse_when_over()
        self._run.facts.bind(fact)
        self._add(
            DomainEvent.of_valid(
                name=DOMAIN_EVENT_FACT_RECORDED,
                payload={
                    "key": str(fact.key),
                    "payload_id": str(fact.payload_id),
                    "meta": fact.meta,
                },
            )
        )
        event = linked.event() if linked is not None else None
        if event is not None:
            self._add(event)
        try:
            await self._run.writer.flush()
        except CancelRequested:
            # It is written; only the run is to end.
            self._settled(fact.key)
            if linked is not None:
                linked.recorded()
            raise
        except BaseException:
            self._run.facts.unbind(fact.key)
            raise
        if linked is not None:
            linked.recorded()

    def _add(self, event: DomainEvent) -> None:
        self._run.writer.add_domain(event, self._env.state_id, self._env.attempt)


REQUEST_KIND = ArtifactKind.other("IoRequest")


def _conflict(code: str, key: FactKey) -> IoFailure:
    return IoFailure(
        IoError(Other=error_info(code, "the fact key is bound to something else", key=str(key)))
    )
