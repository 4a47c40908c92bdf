"""`mfm_ops.runtime.replay_io`: recorded facts answer, and nothing else does."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from mfm_ops.machine.canonical import Json, artifact_id_for_json
from mfm_ops.machine.errors import IoFailure
from mfm_ops.machine.ids import FactKey
from mfm_ops.machine.meta import SideEffectKind
from mfm_ops.runtime.facts import FactIndex
from mfm_ops.runtime.replay_io import ReplayIo
from mfm_ops.storage.memory import MemoryStore
from tests.support import CANARY, IoBench, ask, config

pytestmark = pytest.mark.anyio

READS = SideEffectKind.ReadOnlyIo
KEY = FactKey("k")


@dataclass
class Recorded:
    """A live attempt that recorded, and the replay of it by another run."""

    live: IoBench = field(default_factory=lambda: IoBench(MemoryStore()))

    def replay(
        self,
        side_effects: SideEffectKind = READS,
        *,
        attempt: int = 0,
        source_attempt: int = 0,
        missing_retryable: bool = False,
    ) -> ReplayIo:
        later = IoBench(self.live.store)
        run_config = config(missing_retryable=missing_retryable)
        return ReplayIo(
            FactIndex(list(self.live.run.facts)),
            later.run.persister,
            later.env(side_effects, attempt=attempt, run_config=run_config),
            source_run_id=self.live.run_id,
            source_attempt=source_attempt,
        )


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


async def refusal(awaited: Any) -> IoFailure:
    with pytest.raises(IoFailure) as refused:
        await awaited
    return refused.value


async def test_a_recorded_answer_is_given_without_a_call(recorded: Recorded) -> None:
    live = await recorded.live.io().call(ask({"b": 1, "a": 2}, "k"))
    again = await recorded.replay().call(ask({"b": 1, "a": 2}, "k"))
    assert again == live
    assert repr(again.response) == repr(live.response)
    assert len(recorded.live.world.calls) == 1


@pytest.mark.parametrize("key", [None, ""])
async def test_a_call_without_a_key_finds_what_the_live_run_gave_one(
    recorded: Recorded, key: str | None
) -> None:
    live = await recorded.live.io().call(ask("q", key))
    assert await recorded.replay().call(ask("q", key)) == live


async def test_a_call_without_a_key_that_was_not_recorded_is_a_missing_key(
    recorded: Recorded,
) -> None:
    refused = await refusal(recorded.replay().call(ask("q")))
    assert refused.error.variant == "MissingFactKey"
    assert refused.info.code == "missing_fact_key"
    assert not refused.info.retryable


@pytest.mark.parametrize("retryable", [False, True])
async def test_an_unknown_key_is_a_missing_fact_retryable_only_by_the_run_config(
    recorded: Recorded, *, retryable: bool
) -> None:
    refused = await refusal(recorded.replay(missing_retryable=retryable).call(ask("q", "k")))
    assert refused.error.variant == "MissingFact"
    assert refused.error.MissingFact.key == "k"
    assert refused.info.code == "missing_fact"
    assert refused.info.retryable is retryable


async def test_another_request_under_a_recorded_key_is_a_mismatch(recorded: Recorded) -> None:
    await recorded.live.io().call(ask("q", "k"))
    refused = await refusal(recorded.replay().call(ask("r", "k")))
    assert refused.info.code == "fact_request_mismatch"


async def test_a_pure_state_may_not_call_in_a_replay_either(recorded: Recorded) -> None:
    await recorded.live.io().call(ask("q", "k"))
    refused = await refusal(recorded.replay(SideEffectKind.Pure).call(ask("q", "k")))
    assert refused.info.code == "io_pure_state"


async def test_a_request_with_a_secret_is_refused_as_it_was_live(recorded: Recorded) -> None:
    refused = await refusal(recorded.replay().call(ask(CANARY, "k")))
    assert refused.info.code == "secrets_detected"


async def test_a_value_must_be_the_recorded_one(recorded: Recorded) -> None:
    await recorded.live.io().record_value(KEY, {"a": 1})
    replay = recorded.replay()
    assert await replay.record_value(KEY, {"a": 1}) == artifact_id_for_json({"a": 1})
    refused = await refusal(replay.record_value(KEY, {"a": 2}))
    assert refused.info.code == "fact_payload_conflict"


async def test_a_value_that_was_not_recorded_is_a_missing_fact(recorded: Recorded) -> None:
    refused = await refusal(recorded.replay().record_value(KEY, 1))
    assert refused.error.variant == "MissingFact"


@pytest.mark.parametrize(
    ("value", "code"), [(1.5, "io_response_invalid"), (CANARY, "secrets_detected")]
)
async def test_a_value_that_may_not_be_recorded_is_refused(
    recorded: Recorded, value: Any, code: str
) -> None:
    refused = await refusal(recorded.replay().record_value(KEY, value))
    assert refused.info.code == code


async def test_recorded_facts_can_be_looked_up(recorded: Recorded) -> None:
    bound = await recorded.live.io().record_value(KEY, 1)
    replay = recorded.replay()
    assert await replay.get_recorded_fact(KEY) == bound
    assert await replay.get_recorded_fact(FactKey("other")) is None


async def test_clock_and_randomness_are_those_of_the_recorded_attempt(recorded: Recorded) -> None:
    await recorded.live.io(attempt=0).now_millis()
    live = recorded.live.io(attempt=1)
    seen: list[Json] = [await live.now_millis(), await live.now_millis()]
    data = await live.random_bytes(8)
    replay = recorded.replay(attempt=0, source_attempt=1)
    assert [await replay.now_millis(), await replay.now_millis()] == seen
    assert await replay.random_bytes(8) == data


async def test_more_looks_at_the_clock_than_were_recorded_are_missing(recorded: Recorded) -> None:
    await recorded.live.io().now_millis()
    replay = recorded.replay()
    await replay.now_millis()
    assert (await refusal(replay.now_millis())).error.variant == "MissingFact"


async def test_another_number_of_random_bytes_is_a_mismatch(recorded: Recorded) -> None:
    await recorded.live.io().random_bytes(8)
    refused = await refusal(recorded.replay().random_bytes(9))
    assert refused.info.code == "fact_request_mismatch"


async def test_a_size_that_was_refused_live_is_refused_and_counts_for_nothing(
    recorded: Recorded,
) -> None:
    data = await recorded.live.io().random_bytes(8)
    replay = recorded.replay()
    assert (await refusal(replay.random_bytes(-1))).info.code == "io_size_invalid"
    assert await replay.random_bytes(8) == data


async def test_a_key_that_holds_a_secret_is_refused_as_it_was_live(recorded: Recorded) -> None:
    refused = await refusal(recorded.replay().call(ask("q", CANARY)))
    assert refused.info.code == "secrets_detected"


async def test_a_replay_writes_nothing(recorded: Recorded) -> None:
    await recorded.live.io().call(ask("q", "k"))
    commits = recorded.live.store.commits
    await recorded.replay().call(ask("q", "k"))
    assert recorded.live.store.commits == commits
