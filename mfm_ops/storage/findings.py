"""What `verify` reports, and how far it has come in one run.

Plain records; what counts as damage is decided in `verify`.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, NamedTuple

from mfm_ops.machine.ids import RunId
from mfm_ops.storage.reading import Rules

__all__ = ["Finding", "MOST_FINDINGS", "RunSoFar", "Verified"]

MOST_FINDINGS: Final = 1000
"""So many findings are named; the rest are counted."""


class Finding(NamedTuple):
    """One thing that is wrong: an error code, and the place as far as it has one."""

    code: str
    run_id: str | None = None
    seq: int | None = None
    artifact_id: str | None = None
    reason: str | None = None


@dataclass(slots=True)
class Verified:
    """What was read, and what was found: all of it counted, the first of it named.

    `strays` are files that no row names, which is no fault. `running_hash` is that of the one run
    that was verified alone.
    """

    runs: int = 0
    events: int = 0
    artifacts: int = 0
    size_bytes: int = 0
    found: int = 0
    findings: list[Finding] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    running_hash: str | None = None

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep it if there is room."""
        self.found += 1
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(finding)


@dataclass(slots=True)
class RunSoFar:
    """How far a run was read. `in_order` while every byte of it was right.

    `lost` when what came before the next event could not be read, so that its running hash has
    nothing to be compared with; `other` is what the last running hash should have been.
    """

    run_id: RunId
    rules: Rules
    seq: int = 0
    running: bytes = b""
    in_order: bool = True
    doubtful: bool = False
    lost: bool = False
    other: bytes | None = None

    def lose_track(self) -> None:
        """Pass over an event that cannot be read."""
        self.seq += 1
        self.in_order, self.lost = False, True

    def forgives(self, body: bytes, stored: bytes) -> bool:
        """Whether a running hash that does not follow is the fault of the one before it."""
        lost, self.lost = self.lost, False
        other, self.other = self.other, None
        return lost or (other is not None and sha256(other + body).digest() == stored)
