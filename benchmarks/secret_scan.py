"""Prints, as JSON, what the secret scan finds, what it cries wolf about, and what it costs.

Recall and false alarms are those of the labelled corpora in `tests/corpora`, half by half and kind
by kind. Costs are the best of several rounds, in microseconds a document, for harmless documents of
the sizes that runs persist, and in seconds for a hostile mebibyte.
"""

import json
import platform
import sys
import timeit
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import orjson

from mfm_ops.machine.json_rules import Json
from mfm_ops.machine.secrets import find_secret, find_secret_in_canonical, text_has_secret
from tests.corpora.all_kinds import ALL_KINDS
from tests.corpora.credentials import credentials, harmless_lines, harmless_values
from tests.corpora.kinds import Kind, is_held_out
from tests.corpora.measure import false_alarms, is_found, recall
from tests.corpora.tool_output import ToolOutput, tool_outputs, unseen_outputs
from tests.corpora.unseen import UNSEEN

_ROUNDS = 12
_MIB = 1 << 20
_HOSTILE = (
    *("password=", "token token='", "Bearer ", "-----BEGIN PRIVATE KEY-----", "zoo abandon "),
    *("mysql -p ", "curl -u ", "://::::", "%2525", "add act age ", "A1b2-", "<password>", "SUlJ"),
    *("password: \n\n\n", " -p x;", "https://a/t/", "[1,2,", "stringData:\n a: b\n"),
    *(
        "api_key  name\n",
        "key = ",
        "token as token ",
        "$1$$1$",
        "login aaaaaaaaaaaaaaaa ",
        'Client("',
        "token a,",
    ),
)


def _canonical(value: Json) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _half(*, held_out: bool) -> dict[str, object]:
    kinds = [kind for kind in ALL_KINDS if is_held_out(kind.name) is held_out]
    return _figures(kinds, (one for one in tool_outputs() if one.held_out is held_out))


def _figures(kinds: Sequence[Kind], outputs: Iterable[ToolOutput]) -> dict[str, object]:
    found = recall(kinds, rounds=_ROUNDS)
    alarms = false_alarms(outputs)
    return {
        "credential_kinds": len(kinds),
        "credentials": found.samples,
        "recall": found.share,
        "recall_of_kinds_below_1": found.by_kind,
        "tool_outputs": alarms.samples,
        "false_alarms": alarms.share,
        "false_alarms_by_tool": alarms.by_kind,
    }


def _first_corpus() -> dict[str, object]:
    """The corpus that the first rules were made with: lines, and values of many names."""
    drawn = [value for seed in range(_ROUNDS) for _, value in credentials(Random(seed))]
    harmless = [value for seed in range(_ROUNDS) for _, value in harmless_values(Random(seed))]
    lines = harmless_lines()
    return {
        "credentials": len(drawn),
        "recall": round(sum(map(is_found, drawn)) / len(drawn), 4),
        "harmless": len(harmless) + len(lines),
        "false_alarms": round(
            (
                sum(map(is_found, harmless))
                + sum(text_has_secret(line) is not None for line in lines)
            )
            / (len(harmless) + len(lines)),
            4,
        ),
    }


def _hostile() -> dict[str, object]:
    """Seconds for one mebibyte, and how much longer twice as much takes: 2 is linear."""
    shown: dict[str, object] = {}
    for piece in _HOSTILE:
        small, large = (
            min(timeit.repeat(lambda data=data: find_secret_in_canonical(data), number=1, repeat=3))  # type: ignore[misc]
            for data in (
                _canonical({"text": piece * (size // len(piece))}) for size in (_MIB, 2 * _MIB)
            )
        )
        shown[piece] = {"mib_s": round(small, 3), "doubling": round(large / small, 2)}
    return shown


def _event(rng: Random) -> Json:
    return {
        "event": {
            "Kernel": {
                "StateCompleted": {
                    "context_snapshot": rng.randbytes(32).hex(),
                    "state_id": "keystore_list.main.scan",
                }
            }
        },
        "run_id": "3b9c1c1e-8a49-4c52-9d7e-2f1b6c0f4e11",
        "seq": 12,
        "ts_millis": 1732300000000,
    }


def _context(rng: Random, *, bytes_wanted: int, store_paths: bool) -> Json:
    entries: dict[str, Json] = {}
    while len(_canonical(entries)) < bytes_wanted:
        entry: dict[str, Json] = {
            "address": "0x" + rng.randbytes(20).hex(),
            "created": 1700000000000 + len(entries),
            "kdf": "scrypt",
            "label": f"main wallet number {len(entries)}",
        }
        if store_paths:
            entry["program"] = "/nix/store/" + "abcdfghijklmnpqrsvwxyz0123456789" + "-hello-2.12"
        entries[f"list.main.entry_{len(entries)}"] = entry
    return entries


def _cost_us(data: bytes) -> float:
    rounds = max(20, 2_000_000 // len(data))
    timer = timeit.Timer(lambda: find_secret_in_canonical(data))
    return round(min(timer.repeat(5, rounds)) / rounds * 1e6, 2)


def main() -> None:
    """Measure and print."""
    rng = Random(1)
    documents = {
        "event": _canonical(_event(rng)),
        "context_4_kib": _canonical(_context(rng, bytes_wanted=4096, store_paths=False)),
        "context_4_kib_store_paths": _canonical(_context(rng, bytes_wanted=4096, store_paths=True)),
        "context_11_kib": _canonical(_context(rng, bytes_wanted=11_000, store_paths=False)),
        "output_text": _canonical({"stdout": "\n".join(harmless_lines())[:4000]}),
        "mentions_a_token": _canonical(
            {"token_count": 3, "rest": _context(rng, bytes_wanted=4000, store_paths=False)}
        ),
    }
    assert all(find_secret(orjson.loads(data)) is None for data in documents.values())
    print(
        json.dumps(
            {
                "python": platform.python_version(),
                "orjson": orjson.__version__,
                "development": _half(held_out=False),
                "held_out": _half(held_out=True),
                "last_set": _figures(UNSEEN, unseen_outputs()),
                "first_corpus": _first_corpus(),
                "hostile": _hostile(),
                "cost_us": {
                    name: {"bytes": len(data), "us": _cost_us(data)}
                    for name, data in documents.items()
                },
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
