"""Looks at the host and decides what of it a program is to see, and under which path it runs.

The command that comes of it is `sandbox`'s, the checks were `program`'s.
"""

# Plain calls of os: pathlib knows no descriptors, and costs where this is called often.
# ruff: noqa: PTH115, PTH116, PTH118, PTH119, PTH208

import os
from dataclasses import dataclass

from transports.descriptors import is_shortage
from transports.policy import ExecPolicy, is_below, is_utf8
from transports.program import PinnedProgram
from transports.sandbox import PRIVATE_DIR, PRIVATE_TMP, Mounts, PinnedFile

__all__ = ["Neighbours", "ProgramView", "host_mounts", "program_view"]

# Up to this size a copy costs less than a millisecond and needs no bind, so that a program that is
# being replaced at that very moment still runs as it was when it was checked.
_COPY_BYTES = 1024 * 1024

# Directories with more entries than this are not mirrored.
_MAX_NEIGHBOURS = 64

_MAX_KNOWN_DIRECTORIES = 256


@dataclass(frozen=True, slots=True)
class ProgramView:
    """How a checked program appears in the sandbox; `path` is what is run there."""

    path: str
    pinned: PinnedFile | None
    links: tuple[tuple[str, str], ...]


class Neighbours:
    """The names in directories, remembered while inode and mtime stay the same.

    Listing `/usr/bin` at each call would cost a tenth of what the sandbox does.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, int, int], tuple[str, ...]]] = {}

    def names(self, directory: str) -> tuple[str, ...]:
        """What is in `directory`; nothing where that is too much, or cannot be read.

        Raises:
            OSError: no descriptor or memory is left to look with.
        """
        try:
            info = os.stat(directory)
            stamp = (info.st_dev, info.st_ino, info.st_mtime_ns)
            known = self._known.get(directory)
            if known is not None and known[0] == stamp:
                return known[1]
            # Others cannot be named in the sandbox's options, nor asked for by any request.
            names = tuple(sorted(name for name in os.listdir(directory) if is_utf8(name)))
        except OSError as exc:
            if is_shortage(exc):
                raise
            return ()
        if len(names) > _MAX_NEIGHBOURS:
            names = ()
        if len(self._known) >= _MAX_KNOWN_DIRECTORIES:
            self._known.clear()
        self._known[directory] = (stamp, names)
        return names


def host_mounts(policy: ExecPolicy, roots: tuple[str, ...]) -> Mounts:
    """What to bind for `policy` and the program's own `roots`.

    Each bind costs as much as a hundred links: paths inside others are dropped, and a path that
    is a symbolic link into another one (`/lib` → `usr/lib`) becomes the same link.

    The deepest path that holds a file decides whether it may be written, so what is read-only
    inside of a writable path is bound again. The allowed prefixes are: a program that writes there
    would decide what may run. What is named as both is writable.
    """
    writable = policy.read_write_paths
    guarded = {p for p in policy.allow_prefixes if any(is_below(p, w) for w in writable)}
    wanted = sorted(
        {*policy.read_only_paths, *roots, *guarded}.difference(writable),
        key=lambda path: (len(path), path),
    )
    binds: list[str] = []
    links: list[tuple[str, str]] = []
    for path in wanted:
        holders = (held for held in (*binds, *writable) if is_below(path, held))
        holder = max(holders, key=len, default=None)
        covered = holder is not None and _is_covered(path, holder)
        if holder in writable and not covered:
            binds += [place for place in _seen_at(path, writable) if place not in binds]
            continue
        if holder in binds and not covered:
            continue
        target = _link_target(path)
        if target is not None and any(
            is_below(os.path.realpath(path), other) for other in wanted if other != path
        ):
            links.append((target, path))
        else:
            binds.append(path)
    return Mounts(tuple(binds), writable, tuple(links))


def program_view(
    program: PinnedProgram, neighbours: Neighbours, mounts: Mounts, *, bind_fd_supported: bool
) -> ProgramView:
    """Under which path `program` runs, so that what was checked is what runs.

    A sealed program runs from its own path. Any other is pinned below `PRIVATE_DIR`, since a bind
    over its own path is undone by the kernel when the host replaces that path. Its neighbours, and
    those of its directory, are linked beside it as far as `mounts` show them: programs look for
    their parts there, and the names of others are none of their business.
    The name stays the requested one: some programs act by the name that they are called.
    """
    name = os.path.basename(program.requested) or os.path.basename(program.resolved)
    directory, own_name = os.path.split(program.resolved)
    if program.sealed:
        if name == own_name:
            return ProgramView(program.resolved, None, ())
        path = f"{PRIVATE_DIR}/bin/{name}"
        return ProgramView(path, None, ((program.resolved, path),))
    above, directory_name = os.path.split(directory)
    home = f"{PRIVATE_DIR}/{directory_name or 'bin'}"
    copy = program.readable and (program.size <= _COPY_BYTES or not bind_fd_supported)
    shown = (*mounts.read_only, *mounts.read_write, *(path for _, path in mounts.links))
    links = _mirror(_seen(neighbours.names(directory), directory, shown), directory, home, name)
    if directory_name:
        names = _seen(neighbours.names(above), above, shown)
        links += _mirror(names, above, PRIVATE_DIR, directory_name)
    return ProgramView(f"{home}/{name}", PinnedFile(program.fd, f"{home}/{name}", copy), links)


def _seen_at(path: str, writable: tuple[str, ...]) -> list[str]:
    """Where in `writable` paths that is seen to which `path`, inside of one, leads.

    A link in there is seen as itself, and nothing can be mounted on it. Where it leads out of them
    nothing is shown for it: whoever may write there may have made it.
    """
    real = os.path.realpath(path)
    roots = ((place, os.path.realpath(place)) for place in writable)
    seen = (
        os.path.normpath(os.path.join(place, os.path.relpath(real, root)))
        for place, root in roots
        if is_below(real, root)
    )
    return [place for place in seen if place not in writable]


def _is_covered(path: str, bound: str) -> bool:
    """Whether the sandbox's own `/tmp` hides what the bind of `bound` would show at `path`."""
    return is_below(path, PRIVATE_TMP) and not is_below(bound, PRIVATE_TMP)


def _seen(names: tuple[str, ...], directory: str, shown: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `names` in `directory` that are in the sandbox where `shown` paths are."""
    if any(is_below(directory, path) and not _is_covered(directory, path) for path in shown):
        return names
    start = directory.rstrip("/")
    return tuple(n for n in names if any(is_below(path, f"{start}/{n}") for path in shown))


def _mirror(
    names: tuple[str, ...], source: str, place: str, taken: str
) -> tuple[tuple[str, str], ...]:
    source = source.rstrip("/")
    return tuple((f"{source}/{n}", f"{place}/{n}") for n in names if n != taken)


def _link_target(path: str) -> str | None:
    try:
        target = os.readlink(path)
    except OSError:
        return None
    return target if is_utf8(target) else None
