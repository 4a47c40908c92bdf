"""Peak memory of this process while a program writes 1 GiB to standard output through `exec`.

Prints JSON; the program is stopped at the bound of 1 MiB, so the peak is hardly above the start's.
"""

import asyncio
import json
import platform
import resource
import shutil
import tempfile
from pathlib import Path

from mfm_ops.machine.errors import TransportFailure
from mfm_ops.machine.meta import SideEffectKind
from transports.policy import ExecPolicy
from transports.runner import ProgramCall, ProgramRunner


async def main() -> None:
    code = "none"
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "dd"
        shutil.copy(shutil.which("busybox") or "", program)
        runner = ProgramRunner(ExecPolicy(allow_prefixes=(directory,)), "policy")
        call = ProgramCall(str(program), ("if=/dev/zero", "bs=1M", "count=1024"))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            await runner.run(call, side_effects=SideEffectKind.ReadOnlyIo)
        except TransportFailure as exc:
            code = str(exc.info.code)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "benchmark": "exec_output_memory",
                "code": code,
                "start_mib": before // 1024,
                "peak_mib": after // 1024,
                "python": platform.python_version(),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
