"""Reads an export front to back and believes nothing of it: each byte must be the one expected.

Holds one artifact or one event at a time. What the events mean, and whether all that they name is
there, is left to `transfer`.
"""

from collections.abc import Iterator
from hashlib import sha256
from io import SEEK_END
from typing import BinaryIO, Final, NamedTuple

from mfm_ops.machine.canonical import CanonicalError, parse_canonical
from mfm_ops.machine.ids import ArtifactId, IdValidationError, RunId
from mfm_ops.storage import bundle
from mfm_ops.storage.failures import export_corrupt, export_not_mfm, unsupported_export
from mfm_ops.storage.progress import Progress, silent

__all__ = ["BundleReader", "Header", "Member"]

_CHUNK_BYTES: Final = 1 << 20
_LINE_START: Final = b'{"event":'
_LINE_MIDDLE: Final = b',"running_hash":"'
_LINE_END: Final = b'"}\n'
_HASH_DIGITS: Final = 64
_TAIL: Final = len(_LINE_MIDDLE) + _HASH_DIGITS + len(_LINE_END)
_FIELDS: Final = frozenset(
    {"artifacts", "events", "format", "run_id", "running_hash", "runs", "version"}
)
_DIGITS: Final = frozenset("0123456789abcdef")


class Header(NamedTuple):
    """What an export says of itself."""

    run_id: RunId
    events: int
    running_hash: str
    runs: int
    artifacts: int


class Member(NamedTuple):
    """One member: its name, how many bytes it has, and where in the file they begin."""

    name: str
    size: int
    offset: int


class BundleReader:
    """An export in `source`, which can be sought. Every fault is `export_corrupt`, with its place.

    `header`, `artifacts`, `runs` and `close` are called in this order, each read to its end.
    """

    def __init__(self, source: BinaryIO, progress: Progress = silent) -> None:
        self._source = source
        self._progress = progress
        self._told = 0
        self._size = source.seek(0, SEEK_END)
        source.seek(0)
        self._digest = sha256()
        self._offset = 0
        self._place = bundle.HEADER
        self._next: Member | None = None

    def header(self) -> Header:
        """The first member.

        Raises:
            StorageFailure: `export_not_mfm`, or `unsupported_format` for a newer version's.
        """
        block = self._source.read(bundle.BLOCK)
        size = _size(block)
        if size is None or block != bundle.member_header(bundle.HEADER, size):
            raise export_not_mfm(bundle.HEADER, "no_header")
        if size > bundle.MAX_HEADER_BYTES:
            raise export_not_mfm(bundle.HEADER, "header_too_long")
        self._took(block)
        data = self._take(size)
        self._padding()
        try:
            found = parse_canonical(data.removesuffix(b"\n"))
        except CanonicalError as error:
            raise export_not_mfm(bundle.HEADER, error.code) from None
        if not isinstance(found, dict) or found.get("format") != bundle.FORMAT:
            raise export_not_mfm(bundle.HEADER, "another_format")
        version = found.get("version")
        if type(version) is not int or version != bundle.VERSION:
            raise unsupported_export(version if type(version) is int else None, bundle.VERSION)
        run_id, running_hash = found.get("run_id"), found.get("running_hash")
        counts = [found.get(name) for name in ("events", "runs", "artifacts")]
        if (
            found.keys() != _FIELDS
            or not data.endswith(b"\n")
            or not all(type(count) is int and count >= 0 for count in counts)
            or not isinstance(running_hash, str)
        ):
            raise self._fault("header", 0)
        events, runs, artifacts = (int(str(count)) for count in counts)
        header = Header(self._run_id(run_id, 0), events, running_hash, runs, artifacts)
        self._next = self._member()
        return header

    def artifacts(self) -> Iterator[tuple[ArtifactId, Member, bytes]]:
        """The artifacts, each with its bytes, which were verified against its id."""
        last = ""
        while self._next is not None and self._next.name.startswith(bundle.ARTIFACTS):
            member = self._next
            name = member.name.removeprefix(bundle.ARTIFACTS)
            if len(name) != _HASH_DIGITS or not _DIGITS.issuperset(name) or name <= last:
                raise self._fault("member_unexpected", member.offset - bundle.BLOCK)
            if member.size > bundle.MAX_ARTIFACT_BYTES:
                raise self._fault("too_large", member.offset - bundle.BLOCK)
            last = name
            data = self._take(member.size)
            if sha256(data).hexdigest() != name:
                raise self._fault("artifact_bytes", member.offset)
            self._padding()
            self._next = self._member()
            yield ArtifactId(name), member, data

    def runs(self) -> Iterator[tuple[RunId, Member]]:
        """The runs; the events of each are to be read before the next one."""
        last = ""
        while self._next is not None and self._next.name.startswith(bundle.RUNS):
            member = self._next
            name = member.name.removeprefix(bundle.RUNS).removesuffix(bundle.EVENTS)
            run_id = self._run_id(name, member.offset - bundle.BLOCK)
            if member.name != f"{bundle.RUNS}{run_id}{bundle.EVENTS}" or name <= last:
                raise self._fault("member_unexpected", member.offset - bundle.BLOCK)
            last = name
            yield run_id, member
            self._padding()
            self._next = self._member()

    def events(self, member: Member) -> Iterator[tuple[bytes, bytes]]:
        """The events of a run: `(body, running hash)`, the chain verified, nothing else."""
        end, running, seq = member.offset + member.size, b"", 0
        while self._offset < end:
            seq += 1
            at = self._offset
            line = self._line(min(end - at, bundle.MAX_EVENT_BYTES + _TAIL + len(_LINE_START)))
            body = line[len(_LINE_START) : -_TAIL]
            running = sha256(running + body).digest()
            if line != bundle.event_line(body, running):
                raise self._fault("event_line", at, seq)
            yield body, running

    def again(self, member: Member) -> Iterator[bytes]:
        """The bodies of a run that was read, from its beginning; moves the source, not the reader.

        Nothing is verified: who stores them compares the running hash at the end.
        """
        self._source.seek(member.offset)
        left = member.size
        while left > 0:
            line = self._source.readline(left)
            left -= len(line) or left
            yield line[len(_LINE_START) : -_TAIL]

    def data(self, member: Member) -> bytes:
        """The bytes of an artifact that was read; whoever stores them verifies them again."""
        self._source.seek(member.offset)
        return self._source.read(member.size)

    def back(self) -> None:
        """Go on where `again` and `data` interrupted."""
        self._source.seek(self._offset)

    def close(self) -> None:
        """The digest, and that nothing comes after the end."""
        member, before = self._next, self._before
        if member is None or member.name != bundle.DIGEST or member.size != _HASH_DIGITS + 1:
            place = self._offset if member is None else member.offset - bundle.BLOCK
            raise self._fault("member_unexpected", place)
        if self._take(member.size) != before.encode() + b"\n":
            raise self._fault("digest", member.offset)
        self._padding()
        self._place, at = "end", self._offset
        if self._take(len(bundle.END)) != bundle.END or self._source.read(1):
            raise self._fault("end", at)

    def fault(self, reason: str, **where: str | int) -> Exception:
        """A fault of the member that is being read, found by the caller."""
        return export_corrupt(self._place, self._offset, reason, **where)

    def contradiction(self, reason: str, **where: str | int) -> Exception:
        """The file holds something else than its header says."""
        return export_corrupt(bundle.HEADER, 0, reason, **where)

    def _member(self) -> Member:
        """The next member's header; only the one form that we write."""
        at = self._offset
        self._before = self._digest.hexdigest()
        block = self._take(bundle.BLOCK)
        name = block[:100].rstrip(b"\0").decode("ascii", "replace")
        size = _size(block)
        if size is None or "\N{REPLACEMENT CHARACTER}" in name:
            raise self._fault("member_header", at)
        if block != bundle.member_header(name, size):
            raise self._fault("member_header", at)
        self._place = name
        return Member(name, size, self._offset)

    def _line(self, limit: int) -> bytes:
        at = self._offset
        line = self._source.readline(limit)
        if not line.endswith(b"\n"):
            raise self._fault("truncated" if len(line) < limit else "event_line", at)
        return self._took(line)

    def _take(self, size: int) -> bytes:
        # In pieces: what a hostile header announces is not reserved in advance.
        pieces = []
        at, left = self._offset, size
        while left:
            piece = self._source.read(min(left, _CHUNK_BYTES))
            if not piece:
                raise self._fault("truncated", at)
            pieces.append(self._took(piece))
            left -= len(piece)
        return b"".join(pieces)

    def _took(self, data: bytes) -> bytes:
        self._digest.update(data)
        self._offset += len(data)
        if self._offset - self._told >= _CHUNK_BYTES or self._offset == self._size:
            self._told = self._offset
            self._progress("bytes read", self._offset, self._size)
        return data

    def _padding(self) -> None:
        at = self._offset
        if self._take(-at % bundle.BLOCK).strip(b"\0"):
            raise self._fault("padding", at)

    def _run_id(self, text: object, offset: int) -> RunId:
        try:
            run_id = RunId(text) if isinstance(text, str) else None
        except IdValidationError:
            run_id = None
        if run_id is None or run_id != text:
            raise self._fault("run_id", offset)
        return run_id

    def _fault(self, reason: str, offset: int, seq: int | None = None) -> Exception:
        where = {} if seq is None else {"seq": seq}
        # A name out of a damaged header may be anything.
        place = self._place if self._place.isprintable() else ascii(self._place)
        return export_corrupt(place, offset, reason, **where)


def _size(block: bytes) -> int | None:
    """The size in a member's header, in either of its two forms."""
    field = block[124:136]
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.removesuffix(b"\0")
    return int(digits, 8) if len(digits) == 11 and digits.isdigit() and max(digits) < 56 else None
