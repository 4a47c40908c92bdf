"""Canonical encoding and strict parsing against rfc8785 and orjson; prints one JSON object.

Times are medians over rounds that take turns in one process, so that the ratios hold on a busy
machine. Run: `python -m benchmarks.canonical_json [--rounds N]`.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import orjson
import rfc8785

from mfm_ops.machine.canonical import canonical_json_bytes, parse_canonical, parse_strict
from mfm_ops.machine.ids import ContextKey

MEBIBYTE = 2**20
# Long enough for the clock, short enough that the contestants meet the same load.
ROUND_S = 0.002


def documents() -> dict[str, Any]:
    """The measured documents by name; the same on every machine."""
    source = random.Random(8785)
    words = [f"w{source.randrange(36**4):x}" for _ in range(500)]

    def text(count: int) -> str:
        return " ".join(source.choices(words, k=count))

    def record(index: int) -> dict[str, Any]:
        digest = f"{source.getrandbits(256):064x}"
        return {"id": digest, "index": index, "label": text(8), "text": text(40), "url": "a://b:1"}

    def grown(item: Callable[[int], Any]) -> list[Any]:
        sample = [item(index) for index in range(200)]
        count = MEBIBYTE * 200 // len(orjson.dumps(sample))
        return [item(index) for index in range(count)]

    context = {f"op.main.key_{index:02}": text(12) for index in range(40)}
    return {
        "string_heavy_1MiB": grown(record),
        "emoji_text_1MiB": grown(lambda i: {"n": i, "text": "\u2764\ufe0f\U0001f600 " + text(30)}),
        "dense_1MiB": grown(
            lambda i: {"id": i, "name": f"n{i}", "ok": True, "tags": ["a", "b"], "up": None}
        ),
        "small_values_1MiB": grown(
            lambda _: {f"k{key}": source.randrange(1000) for key in range(10)}
        ),
        "small_table_1MiB": {f"k{source.getrandbits(40):x}": index for index in range(58_000)},
        "integer_list_1MiB": grown(lambda _: source.randrange(10**5)),
        "context_4KiB": context,
        "context_4KiB_id_keys": {ContextKey(key): value for key, value in context.items()},
        "event_250B": {
            "run_id": "0b1c7f0e-5d2a-4a5e-9d3e-6f1c2b3a4d5e",
            "seq": 12,
            "ts_millis": 1_700_000_000_000,
            "event": {
                "Kernel": {
                    "StateEntered": {
                        "state_id": "keystore_list.main.list",
                        "attempt": 0,
                        "base_snapshot_id": f"{source.getrandbits(256):064x}",
                    }
                }
            },
        },
    }


def medians(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Microseconds per call of each, by rounds in which all take their turn."""
    repeats = {}
    for name, call in contestants.items():
        start = time.perf_counter()
        call()
        repeats[name] = max(1, round(ROUND_S / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            # Untimed: whoever comes next must not pay for what the one before left in the caches.
            call()
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return {name: statistics.median(taken) * 1e6 for name, taken in times.items()}


def measure(value: Any, rounds: int) -> dict[str, Any]:
    """Times and ratios of one document."""
    reference = rfc8785.dumps(value)
    if canonical_json_bytes(value) != reference:
        raise SystemExit("the encoder and rfc8785 disagree")
    plain = orjson.loads(reference)
    # orjson knows no keys of our id types; otherwise both get the same objects, equally scattered.
    alike = plain if any(type(key) is not str for key in value) else value
    spaced = json.dumps(plain, ensure_ascii=False).encode()
    taken = medians(
        {
            "canonical": lambda: canonical_json_bytes(value),
            "rfc8785": lambda: rfc8785.dumps(value),
            "orjson_sorted": lambda: orjson.dumps(alike, option=orjson.OPT_SORT_KEYS),
            "parse_strict": lambda: parse_strict(spaced),
            "parse_canonical": lambda: parse_canonical(reference),
            "orjson_loads": lambda: orjson.loads(spaced),
        },
        rounds,
    )
    return {
        "bytes": len(reference),
        "us": {name: round(us, 2) for name, us in taken.items()},
        "times_faster_than_rfc8785": round(taken["rfc8785"] / taken["canonical"], 1),
        "time_over_orjson_sorted": round(taken["canonical"] / taken["orjson_sorted"], 2),
        "parse_time_over_orjson_loads": round(taken["parse_strict"] / taken["orjson_loads"], 2),
    }


def measure_exact_parser(rounds: int) -> dict[str, Any]:
    """The slow path that numbers as strings can take: a list of nothing but floats."""
    floats = orjson.dumps([random.Random(index).random() for index in range(MEBIBYTE // 19)])
    taken = medians({"parse": lambda: parse_strict(floats, numbers="string")}, rounds)
    return {"bytes": len(floats), "us": round(taken["parse"], 2)}


def main() -> None:
    """Measure all and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    report = {
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("orjson", "rfc8785")},
        },
        "rounds": rounds,
        "documents": {name: measure(value, rounds) for name, value in documents().items()},
        "floats_as_strings_1MiB": measure_exact_parser(rounds),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
