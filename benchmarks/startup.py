"""How long `mfm` takes to start, against `python -c pass`.

Prints JSON. Rounds are interleaved and medians compared: `mfm --version` may take at most 2 times
as long, `mfm op keystore_list` on ten keystores, a whole recorded run, at most 20 times.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What the console script of an installation does.
ENTRY = "import sys; from mfm_ops.cli.main import main; sys.exit(main())"
KEYSTORES = 10


def make_keystores(directory: Path) -> None:
    """Ten files as geth would write them; their ciphertexts are of no use."""
    directory.mkdir()
    for number in range(KEYSTORES):
        address = f"{number:040x}"
        keystore = {
            "address": address,
            "crypto": {
                "cipher": "aes-128-ctr",
                "ciphertext": "00" * 32,
                "cipherparams": {"iv": "00" * 16},
                "kdf": "scrypt",
                "kdfparams": {"dklen": 32, "n": 2, "p": 1, "r": 8, "salt": "00" * 32},
                "mac": "00" * 32,
            },
            "id": f"00000000-0000-4000-8000-{number:012x}",
            "version": 3,
        }
        name = f"UTC--2024-01-02T03-04-{number:02d}.000000000Z--{address}"
        (directory / name).write_text(json.dumps(keystore))


def seconds(command: list[str], environ: dict[str, str], cwd: Path) -> float:
    """How long one run of `command` takes; it must succeed."""
    start = time.perf_counter()
    subprocess.run(command, env=environ, cwd=cwd, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        make_keystores(home / "keys")
        environ = {
            "HOME": name,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        }
        mfm = [sys.executable, "-c", ENTRY]
        commands = {
            "python_pass": [sys.executable, "-c", "pass"],
            "version": [*mfm, "--version"],
            "keystore_list": [*mfm, "op", "keystore_list", "--keystore", str(home / "keys")],
        }
        times: dict[str, list[float]] = {key: [] for key in commands}
        for command in commands.values():
            # Byte code is compiled and the store made.
            seconds(command, environ, home)
        for _ in range(rounds):
            for key, command in commands.items():
                times[key].append(seconds(command, environ, home))
    median = {key: statistics.median(values) for key, values in times.items()}
    base = median["python_pass"]
    report = {
        "benchmark": "startup",
        "rounds": rounds,
        "median_ms": {key: round(value * 1000, 1) for key, value in median.items()},
        "ratios": {
            "version": round(median["version"] / base, 2),
            "keystore_list": round(median["keystore_list"] / base, 2),
        },
        "goals": {"version": 2, "keystore_list": 20},
        "versions": {"python": platform.python_version(), "system": platform.system()},
    }
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
