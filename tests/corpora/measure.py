"""Counts what the scan finds and what it cries wolf about, kind by kind."""

from collections.abc import Iterable
from random import Random
from typing import NamedTuple

import orjson

from mfm_ops.machine.json_rules import Json
from mfm_ops.machine.secrets import find_secret_in_canonical
from tests.corpora.kinds import Kind
from tests.corpora.tool_output import ToolOutput

__all__ = ["Score", "false_alarms", "is_found", "recall"]


class Score(NamedTuple):
    """`share` of all samples; `by_kind` holds the share of each kind that is not perfect."""

    samples: int
    share: float
    by_kind: dict[str, float]


def is_found(value: Json) -> bool:
    """Whether the scan refuses `value` in its stored form."""
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return find_secret_in_canonical(data) is not None


def recall(kinds: Iterable[Kind], *, rounds: int) -> Score:
    """The share of planted credentials that is found, over `rounds` samples a kind."""
    samples = found = 0
    by_kind: dict[str, float] = {}
    for kind in kinds:
        # The name is part of the seed, so that a new kind does not move the others.
        hits = sum(is_found(kind.make(Random(f"{kind.name}:{at}"))) for at in range(rounds))
        samples += rounds
        found += hits
        if hits < rounds:
            by_kind[kind.name] = round(hits / rounds, 3)
    return Score(samples, round(found / samples, 4), by_kind)


def false_alarms(outputs: Iterable[ToolOutput]) -> Score:
    """The share of harmless outputs that the scan refuses."""
    seen: dict[str, int] = {}
    alarms: dict[str, int] = {}
    for output in outputs:
        seen[output.family] = seen.get(output.family, 0) + 1
        if is_found({"stdout": output.text}):
            alarms[output.family] = alarms.get(output.family, 0) + 1
    samples = sum(seen.values())
    by_kind = {family: round(count / seen[family], 3) for family, count in alarms.items()}
    return Score(samples, round(sum(alarms.values()) / samples, 4), by_kind)
