"""Prints, as JSON, what the secret scan finds, what it cries wolf about, and what it costs.

Recall and false alarms are those of the labelled corpus in `tests/corpora`; times are the best of
several rounds, in microseconds a document, for harmless documents of the sizes that runs persist.
"""

import json
import platform
import sys
import timeit
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import orjson

from mfm_ops.machine.json_rules import Json
from mfm_ops.machine.secrets import find_secret, find_secret_in_canonical, text_has_secret
from tests.corpora.credentials import credentials, harmless_lines, harmless_values

_ROUNDS = 20


def _canonical(value: Json) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _accuracy() -> dict[str, object]:
    missed: dict[str, int] = {}
    planted = alarms = harmless = 0
    for seed in range(_ROUNDS):
        for kind, value in credentials(Random(seed)):
            planted += 1
            if find_secret_in_canonical(_canonical(value)) is None:
                missed[kind] = missed.get(kind, 0) + 1
        for _, value in harmless_values(Random(seed)):
            harmless += 1
            alarms += find_secret_in_canonical(_canonical(value)) is not None
    lines = harmless_lines()
    line_alarms = sum(text_has_secret(line) is not None for line in lines)
    return {
        "credentials": planted,
        "recall": round(1 - sum(missed.values()) / planted, 4),
        "missed_kinds": missed,
        "harmless_values": harmless,
        "false_alarms_values": round(alarms / harmless, 4),
        "harmless_lines": len(lines),
        "false_alarms_lines": round(line_alarms / len(lines), 4),
    }


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
                "accuracy": _accuracy(),
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
