"""One sandboxed `exec` call, warm, against `subprocess.run` of the very same bubblewrap command.

usage: exec_call.py [ROUNDS]. Prints JSON; times in microseconds, the ratio is of medians, both
sides interleaved in one process. The fact's recording is not part of it.
"""

import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mfm_ops.machine.meta import SideEffectKind
from transports.bubblewrap import Bubblewrap, find_bubblewrap
from transports.launch import sandboxed_command
from transports.policy import ExecPolicy
from transports.program import pin_program
from transports.runner import ProgramCall, ProgramRunner
from transports.view import Neighbours

WARM_UP = 5


def plain(bubblewrap: Bubblewrap, policy: ExecPolicy, program: str) -> float:
    """The same command run by the standard library, its gate open from the beginning; seconds."""
    with (
        pin_program(program, policy) as pinned,
        sandboxed_command(bubblewrap, policy, pinned, (), {}, neighbours=Neighbours()) as make,
    ):
        status_read, status = os.pipe()
        gate, gate_write = os.pipe()
        os.write(gate_write, b"\n")
        command = make(status, gate)
        began = time.perf_counter()
        done = subprocess.run(
            command.argv,
            input=b"1",
            capture_output=True,
            pass_fds=(*command.pass_fds, status, gate),
            env={},
            check=True,
        )
        took = time.perf_counter() - began
        for fd in (status_read, status, gate, gate_write):
            os.close(fd)
    assert done.stdout == b"1"
    return took


async def main(rounds: int) -> None:
    bubblewrap = find_bubblewrap()
    assert bubblewrap is not None
    times: dict[str, list[float]] = {"exec": [], "subprocess_run": []}
    with tempfile.TemporaryDirectory() as directory:
        # A directory of the usual shape: what lies beside a program's directory is linked as well.
        program = Path(directory) / "bin" / "cat"
        program.parent.mkdir()
        shutil.copy(shutil.which("busybox") or "", program)
        policy = ExecPolicy(allow_prefixes=(directory,))
        runner = ProgramRunner(policy, "policy")
        call = ProgramCall(str(program), stdin_json=1)
        for _ in range(WARM_UP + rounds):
            began = time.perf_counter()
            await runner.run(call, side_effects=SideEffectKind.ReadOnlyIo)
            times["exec"].append(time.perf_counter() - began)
            times["subprocess_run"].append(plain(bubblewrap, policy, str(program)))
    medians = {name: statistics.median(all_[WARM_UP:]) for name, all_ in times.items()}
    print(
        json.dumps(
            {
                "benchmark": "exec_call",
                "rounds": rounds,
                "median_us": {name: round(value * 1e6) for name, value in medians.items()},
                "ratio": round(medians["exec"] / medians["subprocess_run"], 3),
                "python": platform.python_version(),
                "kernel": platform.release(),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
