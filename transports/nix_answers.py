"""Reads what Nix's commands print as JSON, of 2.8 and of the newer forms; pure.

Only looks at what it needs and takes nothing for granted: an answer of another shape is an
`AnswerError`. Running the commands is left to `nix_process`.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import orjson

__all__ = [
    "AnswerError",
    "EvaluatedApp",
    "FlakeMetadata",
    "MAX_CONTEXT",
    "PathInfo",
    "parse_app",
    "parse_metadata",
    "parse_path_info",
    "parse_realised",
    "store_path_of",
]

MAX_CONTEXT: Final = 256
"""More store paths than this no program's name can mean."""

_STORE: Final = "/nix/store/"
_STORE_PATH: Final = re.compile(r"/nix/store/[0-9a-df-np-sv-z]{32}-[0-9A-Za-z+._?=-]{1,211}")
_OUTPUT: Final = re.compile(r"[0-9A-Za-z+._?=-]{1,100}")
_REV: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_HASH: Final = re.compile(r"[a-z0-9]{1,16}[-:][A-Za-z0-9+/=]{1,128}")
_VERSION: Final = re.compile(r"[0-9A-Za-z.+_ ()-]{1,64}")
_MADE_LONG: Final = re.compile(r"%(?:ffffff)+([89a-f][0-9a-f])")
_FAULTS: Final = frozenset({"missing_attribute", "not_an_app", "program_type"})
_KINDS: Final = frozenset({"app", "package"})


class AnswerError(ValueError):
    """What Nix printed has not the form that this version of mfm knows."""


class FlakeMetadata(NamedTuple):
    """A flake as `nix flake metadata` found it.

    `url` is the ref that leads to these very contents again. `dirty`: a git tree with changes that
    no commit holds; then `url` leads to the copy in the store. `rev` and `nar_hash` may be None.
    """

    url: str
    rev: str | None
    nar_hash: str | None
    dirty: bool


class EvaluatedApp(NamedTuple):
    """What a flake says an app is. Nothing of it is checked but its form.

    `installables` is what has to be realised, in the notation of `nix-store`; `fault` is a word
    of a closed set where there is no app, and then the rest is empty.
    """

    program: str = ""
    kind: str = ""
    installables: tuple[str, ...] = ()
    nix_version: str = ""
    fault: str | None = None


class PathInfo(NamedTuple):
    """What the store knows of a path; `deriver` is None for what was not built."""

    nar_hash: str
    deriver: str | None


def store_path_of(path: str) -> str | None:
    """The store path that normalised `path` lies in; None outside the store.

    >>> store_path_of("/nix/store/" + "0" * 32 + "-jq-1.7/bin/jq")[-7:]
    '-jq-1.7'
    """
    found = _STORE_PATH.match(path)
    if found is None or path[found.end() : found.end() + 1] not in ("", "/"):
        return None
    return found[0]


def parse_metadata(stdout: bytes) -> FlakeMetadata:
    """The answer of `nix flake metadata --json`.

    Raises:
        AnswerError: it is not one.
    """
    answer = _object(stdout)
    locked = answer.get("locked")
    if not isinstance(locked, dict):
        raise AnswerError("locked")
    url = _text(answer.get("lockedUrl") or answer.get("url"), "url")
    # Nix 2.8 escapes the bytes of what is not ASCII as if they were negative numbers.
    url = _MADE_LONG.sub(r"%\1", url)
    nar_hash = locked.get("narHash")
    if nar_hash is not None:
        nar_hash = _matching(_HASH, nar_hash, "narHash")
    # Only a git tree has one of its own; what a path or an archive claims, nobody checked.
    rev = None if locked.get("type") in ("path", "tarball", "file") else locked.get("rev")
    if rev is not None:
        return FlakeMetadata(url, _matching(_REV, rev, "rev"), nar_hash, dirty=False)
    if nar_hash is None:
        raise AnswerError("narHash")
    if locked.get("type") == "git":
        return FlakeMetadata(_stored(answer, nar_hash, locked), None, nar_hash, dirty=True)
    if "narHash=" not in url:
        url += ("&" if "?" in url else "?") + f"narHash={quote(nar_hash, safe='')}"
    return FlakeMetadata(url, None, nar_hash, dirty=False)


def _stored(answer: Mapping[str, Any], nar_hash: str, locked: Mapping[str, Any]) -> str:
    """The copy that Nix made of a dirty tree: the tree itself may change at any time."""
    path = _matching(_STORE_PATH, answer.get("path"), "path")
    url = f"path:{path}?narHash={quote(nar_hash, safe='')}"
    inside = locked.get("dir")
    return url if inside is None else f"{url}&dir={quote(_text(inside, 'dir'))}"


def parse_app(stdout: bytes) -> EvaluatedApp:
    """The answer of the expression of `nix_commands`.

    Raises:
        AnswerError: it is not one.
    """
    answer = _object(stdout)
    fault = answer.get("fault")
    if fault is not None:
        if not isinstance(fault, str) or fault not in _FAULTS:
            raise AnswerError("fault")
        return EvaluatedApp(fault=fault)
    kind, context = _text(answer.get("kind"), "kind"), answer.get("context")
    if kind not in _KINDS:
        raise AnswerError("kind")
    if not isinstance(context, dict) or len(context) > MAX_CONTEXT:
        raise AnswerError("context")
    return EvaluatedApp(
        program=_text(answer.get("program"), "program", empty=True),
        kind=kind,
        installables=tuple(_installable(path, context[path]) for path in sorted(context)),
        nix_version=_matching(_VERSION, answer.get("version"), "version"),
    )


def _installable(path: str, wanted: object) -> str:
    if not _STORE_PATH.fullmatch(path) or not isinstance(wanted, dict):
        raise AnswerError("context")
    outputs = wanted.get("outputs")
    if outputs is None or wanted.get("allOutputs"):
        return path
    if not isinstance(outputs, list) or not outputs:
        raise AnswerError("outputs")
    return f"{path}!{','.join(_matching(_OUTPUT, output, 'outputs') for output in outputs)}"


def parse_realised(stdout: bytes) -> tuple[str, ...]:
    """What `nix-store --realise` lists: store paths, or with `--add-root` the roots.

    Raises:
        AnswerError: it lists nothing.
    """
    try:
        lines = tuple(line for line in stdout.decode().splitlines() if line)
    except UnicodeDecodeError:
        raise AnswerError("utf8") from None
    if not lines or not all(line.startswith("/") for line in lines):
        raise AnswerError("paths")
    return lines


def parse_path_info(stdout: bytes, store_path: str) -> PathInfo | None:
    """What `nix path-info --json` says of `store_path`; None where the store does not have it.

    A list of objects up to Nix 2.18, then an object by path; from 2.33 on, asked for, one by base
    name under `info`.

    Raises:
        AnswerError: it says nothing of it, or in another form.
    """
    try:
        answer = orjson.loads(stdout)
    except orjson.JSONDecodeError:
        raise AnswerError("json") from None
    by_path: dict[object, object]
    if isinstance(answer, list):
        by_path = {str(row.get("path")): row for row in answer if isinstance(row, dict)}
    elif isinstance(answer, dict) and isinstance(answer.get("info"), dict):
        by_path = answer["info"]
    elif isinstance(answer, dict):
        by_path = answer
    else:
        raise AnswerError("shape")
    name = store_path.removeprefix(_STORE)
    if store_path not in by_path and name not in by_path:
        raise AnswerError("path")
    row: object = by_path.get(store_path, by_path.get(name))
    if row is None:
        return None
    if not isinstance(row, dict):
        raise AnswerError("shape")
    if row.get("valid") is False:
        return None
    deriver = row.get("deriver")
    if deriver is not None:
        deriver = _text(deriver, "deriver")
        deriver = deriver if deriver.startswith(_STORE) else _STORE + deriver
        deriver = _matching(_STORE_PATH, deriver, "deriver")
    return PathInfo(_nar_hash(row.get("narHash")), deriver)


def _nar_hash(value: object) -> str:
    if isinstance(value, dict) and value.get("format") == "base64":
        value = f"{value.get('algorithm')}-{value.get('hash')}"
    return _matching(_HASH, value, "narHash")


def _object(stdout: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(stdout)
    except orjson.JSONDecodeError:
        raise AnswerError("json") from None
    if not isinstance(answer, dict):
        raise AnswerError("shape")
    return answer


def _text(value: object, what: str, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty) or "\0" in value:
        raise AnswerError(what)
    return value


def _matching(pattern: re.Pattern[str], value: object, what: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise AnswerError(what)
    return value
