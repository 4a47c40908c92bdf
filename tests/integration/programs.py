"""Small real programs for the tests of `exec`: scripts of a static shell in a directory of its own.

Nothing of the host is needed to run them, so a policy that allows the directory shows all there is.
"""

import shutil
import sys
import uuid
from pathlib import Path

import pytest

from mfm_ops.machine.codes import CATALOGUE
from mfm_ops.machine.errors import TransportFailure
from mfm_ops.machine.meta import SideEffectKind
from mfm_ops.machine.transport import TransportReply
from transports.policy import ExecPolicy
from transports.runner import ProgramCall, ProgramRunner

APPLETS = ("sh", "cat", "dd", "env", "ls", "head", "id", "kill", "setsid", "sleep", "touch", "yes")

# Where this Python and its libraries lie, whichever way it was installed.
PYTHON = Path(sys.executable).resolve()
PYTHON_PATHS = tuple(
    path
    for path in dict.fromkeys(("/usr", "/lib", "/lib64", "/nix", sys.base_prefix))
    if Path(path).is_dir()
)


class Programs:
    """Makes programs below `root` and runs them; `marker` is in the environment of each call."""

    def __init__(self, root: Path) -> None:
        self.bin = root / "bin"
        self.bin.mkdir(parents=True)
        busybox = shutil.which("busybox")
        assert busybox is not None
        shutil.copy(busybox, self.bin / "busybox")
        for applet in APPLETS:
            (self.bin / applet).symlink_to("busybox")
        self.marker = uuid.uuid4().hex

    def script(self, name: str, body: str, *, directory: Path | None = None) -> str:
        path = (directory or self.bin) / name
        path.write_text(f"#!{self.bin}/sh\nPATH={self.bin}\n{body}\n")
        path.chmod(0o755)
        return str(path)

    def policy(self, **changes: object) -> ExecPolicy:
        fields: dict[str, object] = {"allow_prefixes": (str(self.bin),), **changes}
        return ExecPolicy(**fields)  # type: ignore[arg-type]

    async def run(
        self,
        program: str,
        *argv: str,
        policy: ExecPolicy | None = None,
        side_effects: SideEffectKind | None = None,
        **fields: object,
    ) -> TransportReply:
        chosen = policy or self.policy()
        effects = SideEffectKind.ReadOnlyIo
        if chosen.may_have_effects:
            effects = SideEffectKind.ApplySideEffect
        env = {"MARKER": self.marker}
        given = fields.pop("env", {})
        assert isinstance(given, dict)
        call = ProgramCall(program, argv, env={**env, **given}, **fields)  # type: ignore[arg-type]
        return await ProgramRunner(chosen, "policy").run(call, side_effects=side_effects or effects)

    async def failure(self, program: str, *argv: str, **fields: object) -> TransportFailure:
        """The failure that running `program` ends in; all its details are declared safe."""
        with pytest.raises(TransportFailure) as caught:
            await self.run(program, *argv, **fields)  # type: ignore[arg-type]
        info = caught.value.info
        assert set(info.details or {}) <= CATALOGUE[info.code].safe_details
        return caught.value

    def alive(self) -> list[int]:
        """The processes on this host that a call of ours left behind."""
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return [pid for pid in pids if self._is(pid)]

    def _is(self, pid: int) -> bool:
        try:
            found = Path(f"/proc/{pid}/environ").read_bytes()
            state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
        except OSError:
            return False
        return f"MARKER={self.marker}".encode() in found and state not in (b"Z", b"X")


def python(programs: Programs, body: str) -> str:
    """A program in Python; run it with `python_policy`."""
    path = programs.bin / "program"
    path.write_text(f"#!{PYTHON} -ISB\n{body}\n")
    path.chmod(0o755)
    return str(path)


def python_policy(programs: Programs, **changes: object) -> ExecPolicy:
    return programs.policy(read_only_paths=PYTHON_PATHS, **changes)
