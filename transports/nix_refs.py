"""App refs, `<flake>#<name>`: their form, the allowlist, and what `path:.` stands for; pure.

Strict on purpose: whatever could make a ref point elsewhere than its text says is refused. What a
ref comes to in the end is asked of Nix by `nix_resolver`.
"""

import posixpath
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import quote

__all__ = [
    "AppRef",
    "RefError",
    "Workspace",
    "flake_target",
    "is_plausible_entry",
    "parse_app_ref",
    "require_allowed",
]

_MAX_CHARS: Final = 2048
_CHARACTERS: Final = re.compile(r"[A-Za-z0-9._~+:/?#=&@-]*")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]{0,127}")
# Never `-` in front: git and ssh would read an option.
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~+][A-Za-z0-9._~+-]*")
_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_REV: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PARAMETER: Final = re.compile(r"([A-Za-z][A-Za-z0-9]*)=([A-Za-z0-9._~+/=-]+)")

_FORGES: Final = frozenset({"github", "gitlab", "sourcehut"})
_REMOTE: Final = frozenset(
    {"git+http", "git+https", "git+ssh", "http", "https", "tarball+http", "tarball+https"}
)
_LOCAL: Final = frozenset({"file", "git+file", "tarball+file"})
_SCHEMES: Final = _FORGES | _REMOTE | _LOCAL | {"path"}
# A revision of what the entry names. Elsewhere `rev` is a mere claim; `dir` and `host` name another
# flake, and with `narHash` Nix takes whatever lies in the store under that hash.
_REVISIONED: Final = frozenset({*_FORGES, "git+file", "git+http", "git+https", "git+ssh"})
_FREE_PARAMETERS: Final = frozenset({"ref", "rev"})
# What every Nix takes for an archive without being told; 2.8 knows no other way to say so.
_ENDING: Final = re.compile(r"\.(tar|tgz|zip|tar\.gz|tar\.xz|tar\.bz2|tar\.zst)$")

# What needs no escape in a URL's path: with one, Nix 2.8 does not see that the tree is a local one.
_PLAIN: Final = "/!$&'()*+,;=:@"


class RefError(ValueError):
    """A ref that is refused; `reason` is a word of a closed set (docs/nix.md lists them)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class AppRef(NamedTuple):
    """`<flake>#<name>`; `parameters` are those of the flake's query."""

    flake: str
    name: str
    scheme: str
    parameters: Mapping[str, str]

    @property
    def text(self) -> str:
        """The ref as it was written."""
        return f"{self.flake}#{self.name}"

    @property
    def in_workspace(self) -> bool:
        """Whether it is relative to the workspace: `path:.` and below."""
        return self.scheme == "path" and not self.flake.startswith("path:/")


class Workspace(NamedTuple):
    """Where mfm was started: the flake's directory, and the git tree's top that holds it, if any.

    Absolute and without symbolic links. `shallow`: the tree's history is not all there.
    """

    directory: str
    git_top: str | None
    shallow: bool = False


def parse_app_ref(text: str) -> AppRef:
    """The ref, its form checked.

    Raises:
        RefError: `character`, `app_name`, `scheme`, `location` or `parameter`.

    >>> parse_app_ref("github:willyrgf/mfm/main#tool").name
    'tool'
    """
    if len(text) > _MAX_CHARS or not _CHARACTERS.fullmatch(text):
        raise RefError("character")
    flake, _, name = text.partition("#")
    if not _NAME.fullmatch(name):
        raise RefError("app_name")
    scheme, colon, rest = flake.partition(":")
    if not colon or scheme not in _SCHEMES:
        raise RefError("scheme")
    location, mark, query = rest.partition("?")
    _check_location(scheme, location)
    parameters = _parameters(query) if mark else {}
    return AppRef(flake, name, scheme, MappingProxyType(parameters))


def _check_location(scheme: str, location: str) -> None:
    if scheme == "path":
        if location == ".":
            return
        start = "./" if location.startswith("./") else "/"
        if not location.startswith(start):
            raise RefError("location")
        _check_segments(location.removeprefix(start))
    elif scheme in _FORGES:
        _check_segments(location)
        if location.count("/") < 1:
            raise RefError("location")
    elif scheme in _LOCAL:
        if scheme == "file" and not _ENDING.search(location):
            raise RefError("scheme")
        absolute = location.removeprefix("//")
        if not absolute.startswith("/"):
            raise RefError("location")
        _check_segments(absolute[1:])
    else:
        authority, slash, path = location.removeprefix("//").partition("/")
        user, at, host = authority.rpartition("@")
        if not location.startswith("//") or not slash or not _HOST.fullmatch(host):
            raise RefError("location")
        if at and (scheme != "git+ssh" or not _USER.fullmatch(user)):
            raise RefError("location")
        _check_segments(path)


def _check_segments(path: str) -> None:
    for segment in path.split("/"):
        if not _SEGMENT.fullmatch(segment) or segment in (".", ".."):
            raise RefError("location")


def _parameters(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in query.split("&"):
        match = _PARAMETER.fullmatch(part)
        if match is None or match[1] in found:
            raise RefError("parameter")
        key, value = match[1], match[2]
        if key == "rev" and not _REV.fullmatch(value):
            raise RefError("parameter")
        if key in ("dir", "ref") and not all(
            _SEGMENT.fullmatch(segment) and segment != "." and ".." not in segment
            for segment in value.split("/")
        ):
            raise RefError("parameter")
        found[key] = value
    return found


def require_allowed(ref: AppRef, allowlist: Iterable[str]) -> None:
    """Return if an entry allows `ref`.

    An entry matches when the ref equals it or goes on with `#`, `?` or `/` (the contract,
    section 8), and what it goes on with cannot lead away from what the entry names: of parameters
    only `ref` and `rev`, and only where a version control answers for them.

    Raises:
        RefError: `not_in_allowlist`, or `parameter` where only the parameters stand against it.
    """
    refusal = "not_in_allowlist"
    text = ref.text
    for entry in allowlist:
        if text == entry:
            return
        rest = text[len(entry) :]
        if not text.startswith(entry) or rest[0] not in "#?/" or "#" in entry:
            continue
        if "?" in entry:
            # What follows a query's last value would only be more of that value.
            if rest[0] == "#":
                return
        elif not ref.parameters or (
            ref.scheme in _REVISIONED and ref.parameters.keys() <= _FREE_PARAMETERS
        ):
            return
        refusal = "parameter"
    raise RefError(refusal)


def is_plausible_entry(entry: str) -> bool:
    """Whether `entry` could ever allow anything: the beginning of a ref with an explicit scheme.

    >>> is_plausible_entry("github:willyrgf"), is_plausible_entry("nixpkgs")
    (True, False)
    """
    scheme, colon, rest = entry.partition(":")
    return bool(colon and rest) and scheme in _SCHEMES and bool(_CHARACTERS.fullmatch(entry))


def flake_target(ref: AppRef, workspace: Workspace | None) -> str:
    """The flake ref that Nix is given: `ref`'s, as any Nix knows it, or where the workspace is.

    A git tree is asked of git, so that only what is tracked counts.

    Raises:
        RefError: `workspace_unknown`, there is none.

    >>> ref = parse_app_ref("path:./tools#x")
    >>> flake_target(ref, Workspace("/srv/my work", "/srv/my work"))
    'git+file:///srv/my%20work?dir=tools'
    """
    if not ref.in_workspace:
        location = ref.flake.partition("?")[0]
        return ref.flake.removeprefix("tarball+") if _ENDING.search(location) else ref.flake
    if workspace is None:
        raise RefError("workspace_unknown")
    below = ref.flake.removeprefix("path:.").removeprefix("/")
    directory = posixpath.join(workspace.directory, below) if below else workspace.directory
    if workspace.git_top is None:
        return f"path:{quote(directory)}"
    inside = posixpath.relpath(directory, workspace.git_top)
    parameters = [] if inside == "." else [f"dir={quote(inside)}"]
    if workspace.shallow:
        # Nix takes no such tree for a whole one without being told.
        parameters.append("shallow=1")
    url = f"git+file://{quote(workspace.git_top, safe=_PLAIN)}"
    return f"{url}?{'&'.join(parameters)}" if parameters else url
