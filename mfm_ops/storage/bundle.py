"""The form of an export: a POSIX tar of which every byte is determined by what it carries; pure.

    mfm-export.json                 what this is, which run, how many runs and artifacts
    artifacts/<sha256>              each artifact, in the order of their ids
    runs/<run id>/events.jsonl      each run, in the order of their ids; one event a line
    sha256                          the digest of all bytes before this member

Any `tar` reads it. A line is `{"event":…,"running_hash":"…"}`, with the stored bytes of the event.
Times, owners and modes are constant, nothing is compressed, nothing comes after the end: the same
runs give the same bytes everywhere, and a reader need accept no others. Which runs and artifacts go
in is left to `transfer`, reading to `bundle_reader`.
"""

from hashlib import sha256
from typing import BinaryIO, Final

from mfm_ops.machine.canonical import canonical_json_bytes
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.machine.stores import RunHead
from mfm_ops.storage.failures import export_too_large

__all__ = [
    "ARTIFACTS",
    "BLOCK",
    "BundleWriter",
    "DIGEST",
    "END",
    "EVENTS",
    "FORMAT",
    "HEADER",
    "MAX_ARTIFACT_BYTES",
    "MAX_EVENT_BYTES",
    "MAX_HEADER_BYTES",
    "RUNS",
    "VERSION",
    "event_line",
    "line_overhead",
    "member_header",
    "next_hash",
]

FORMAT: Final = "mfm-export"
VERSION: Final = 1

HEADER: Final = "mfm-export.json"
ARTIFACTS: Final = "artifacts/"
RUNS: Final = "runs/"
EVENTS: Final = "/events.jsonl"
DIGEST: Final = "sha256"

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
"""Two blocks of zeros end a tar."""

MAX_HEADER_BYTES: Final = 4096
MAX_ARTIFACT_BYTES: Final = 256 << 20
MAX_EVENT_BYTES: Final = 64 << 20
"""What may be held in memory; more is refused by the writer and by the reader."""

_OCTAL_LIMIT: Final = 8**11


def member_header(name: str, size: int) -> bytes:
    """The one header that a member of this name and size has (POSIX ustar; base-256 from 8 GiB)."""
    # From there on the octal digits do not suffice, and GNU tar and others write it like this.
    length = b"%011o\0" % size if size < _OCTAL_LIMIT else b"\x80" + size.to_bytes(11, "big")
    before = name.encode().ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + length
    before += b"00000000000\0"
    after = (b"0" + bytes(100) + b"ustar\x0000").ljust(BLOCK - 156, b"\0")
    checksum = sum(before) + sum(after) + 8 * ord(" ")
    return before + b"%06o\0 " % checksum + after


def event_line(body: bytes, running_hash: bytes) -> bytes:
    """The line of a stored event, which is canonical JSON too."""
    return b'{"event":%b,"running_hash":"%b"}\n' % (body, running_hash.hex().encode())


def next_hash(previous: bytes, body: bytes) -> bytes:
    """The running hash of an event after one whose running hash is `previous`."""
    return sha256(previous + body).digest()


def line_overhead() -> int:
    """How many bytes a line has beside the event's own."""
    return len(event_line(b"", bytes(32)))


class BundleWriter:
    """Writes an export, member by member, in the order of the format."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._digest = sha256()
        self.size = 0

    def header(self, run_id: RunId, head: RunHead, *, runs: int, artifacts: int) -> None:
        """What the export is of: one run up to its head, with what belongs to it."""
        document = {
            "artifacts": artifacts,
            "events": head.seq,
            "format": FORMAT,
            "run_id": str(run_id),
            "running_hash": head.running_hash,
            "runs": runs,
            "version": VERSION,
        }
        self._member(HEADER, canonical_json_bytes(document) + b"\n")

    def artifact(self, artifact_id: ArtifactId, data: bytes) -> None:
        """One artifact.

        Raises:
            StorageFailure: `export_too_large`.
        """
        if len(data) > MAX_ARTIFACT_BYTES:
            raise export_too_large(f"{ARTIFACTS}{artifact_id}", MAX_ARTIFACT_BYTES)
        self._member(f"{ARTIFACTS}{artifact_id}", data)

    def open_run(self, run_id: RunId, size: int) -> None:
        """Begin the member of a run whose lines have `size` bytes together."""
        self._write(member_header(f"{RUNS}{run_id}{EVENTS}", size))

    def lines(self, lines: bytes) -> None:
        """Lines of the run that was begun."""
        self._write(lines)

    def close_run(self) -> None:
        """End the member of a run."""
        self._pad()

    def close(self) -> str:
        """Write the digest and the end; the digest of the whole file."""
        self._member(DIGEST, self._digest.hexdigest().encode() + b"\n")
        self._write(END)
        return self._digest.hexdigest()

    def _member(self, name: str, data: bytes) -> None:
        self._write(member_header(name, len(data)))
        self._write(data)
        self._pad()

    def _pad(self) -> None:
        self._write(bytes(-self.size % BLOCK))

    def _write(self, data: bytes) -> None:
        self._sink.write(data)
        self._digest.update(data)
        self.size += len(data)
