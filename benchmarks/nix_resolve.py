"""Resolving an app with a warm store, against the bare commands of Nix that it needs.

usage: nix_resolve.py [ROUNDS]. Prints JSON; times in milliseconds, the ratio of medians, both sides
interleaved in one process. The flake is a git tree and its app is built before anything is timed.
"""

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from transports import nix_commands
from transports.nix_commands import NixCommand, nix_environment, nix_system
from transports.nix_refs import parse_app_ref
from transports.nix_resolver import NixSite, Resolver
from transports.policy import NixPolicy

WARM_UP = 2
GOAL = 1.3

NIX_CONFIG = """
build-users-group =
sandbox-paths = /bin/sh=/bin/busybox
substituters =
"""
FLAKE = """
{
  outputs = _: {
    apps.@system@.x = {
      type = "app";
      program = "${derivation {
        name = "x-1.0";
        system = "@system@";
        builder = "/bin/sh";
        args = [ "-c" "mkdir -p $out/bin; cp /bin/sh $out/bin/x" ];
      }}/bin/x";
    };
  };
}
"""


def plain(command: NixCommand, environment: dict[str, str]) -> float:
    """The same command run by the standard library; seconds."""
    began = time.perf_counter()
    subprocess.run(
        [command.program, *command.arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment,
        check=True,
    )
    return time.perf_counter() - began


def make_flake(directory: Path, system: str, environ: dict[str, str]) -> None:
    directory.mkdir()
    (directory / "flake.nix").write_text(FLAKE.replace("@system@", system))
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.invalid")
    for arguments in (("init", "-q"), ("add", "-A"), (*identity, "commit", "-q", "-m", "x")):
        subprocess.run(["git", *arguments], cwd=directory, env=environ, check=True)


async def measure(directory: Path, rounds: int) -> tuple[str, dict[str, list[float]]]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(directory), "NIX_CONFIG": NIX_CONFIG}
    system = nix_system(os.uname().sysname, os.uname().machine)
    make_flake(directory / "flake", system, environ)
    roots = directory / "roots"
    resolver = Resolver(NixSite(NixPolicy(), environ, str(roots)))
    target = f"git+file://{directory}/flake"
    ref = parse_app_ref(f"{target}#x")
    found = await resolver.resolve(ref, run="run", timeout_ms=60_000)
    assert found.deriver is not None
    commands = (
        nix_commands.metadata(target),
        nix_commands.evaluate(found.url, "x", system),
        nix_commands.realise((f"{found.deriver}!out",), str(roots / "run" / "plain")),
        nix_commands.path_info(found.store_path),
    )
    environment = nix_environment(environ)
    times: dict[str, list[float]] = {"resolve": [], "commands": []}
    for _ in range(WARM_UP + rounds):
        began = time.perf_counter()
        await resolver.resolve(ref, run="run", timeout_ms=60_000)
        times["resolve"].append(time.perf_counter() - began)
        times["commands"].append(sum(plain(command, environment) for command in commands))
    return found.nix_version, {name: all_[WARM_UP:] for name, all_ in times.items()}


async def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        nix_version, times = await measure(Path(directory), rounds)
    medians = {name: statistics.median(all_) for name, all_ in times.items()}
    print(
        json.dumps(
            {
                "benchmark": "nix_resolve",
                "rounds": rounds,
                "median_ms": {name: round(value * 1e3, 1) for name, value in medians.items()},
                "ratio": round(medians["resolve"] / medians["commands"], 3),
                "goal": GOAL,
                "nix": nix_version,
                "python": platform.python_version(),
                "kernel": platform.release(),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
