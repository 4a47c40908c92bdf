"""The table of settings: each key's type, its environment variable, and what narrows it.

Which layer may say what is left to `layers`, the rules of a policy's fields to
`transports.policy`.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from transports.policy import ExecPolicy, is_below

__all__ = ["KEYS", "Key", "Source", "expand"]

_NO_LIMIT: Final = "none"


class Source(NamedTuple):
    """Where values come from; relative paths in them start at `base`, and mean nothing without.

    `is_text` where there are only texts: numbers and lists are written as such. `trusted` unless
    it is a file that was merely found.
    """

    name: str
    base: Path | None
    home: Path | None
    is_text: bool = False
    trusted: bool = True


class Key(NamedTuple):
    """One setting.

    `read(value, source)` makes the setting's own type of a value, or raises ValueError with the
    reason. `narrows(new, allowed)` says whether an untrusted file may put `new` where `allowed`
    is what the operator allows.
    """

    name: str
    read: Callable[[Any, Source], Any]
    narrows: Callable[[Any, Any], bool]
    variable: str
    policy_field: str | None = None


def expand(text: str, base: Path | None, home: Path | None) -> Path:
    """`text` as a path from `base`, a leading `~` being `home`; ValueError without such a one."""
    if text == "~" or text.startswith("~/"):
        if home is None:
            raise ValueError("HOME is not set")
        return home / text[2:]
    if base is None and not text.startswith("/"):
        raise ValueError("is relative, and the working directory was removed")
    return (base or Path("/")) / text


def _path(value: Any, source: Source) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be a path")
    return expand(value, source.base, source.home)


def _program(value: Any, source: Source) -> str:
    return os.path.normpath(_path(value, source))


def _flag(value: Any, source: Source) -> bool:
    if source.is_text:
        value = {"true": True, "1": True, "false": False, "0": False}.get(value, value)
    if type(value) is not bool:
        raise ValueError("must be true or false")
    return value


def _choice(value: Any, _: Source, *, of: tuple[str, ...]) -> str:
    if value not in of:
        raise ValueError(f"must be one of {', '.join(of)}")
    return str(value)


def _texts(value: Any, source: Source, what: str) -> tuple[str, ...]:
    if source.is_text and isinstance(value, str):
        value = value.split(":")
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"must be a list of {what}")
    return tuple(value)


def _names(value: Any, source: Source) -> tuple[str, ...]:
    names = _texts(value, source, "names of environment variables")
    if not all(name.replace("_", "a").isalnum() and name.isascii() for name in names):
        raise ValueError("must be a list of names of environment variables")
    return names


def _policy(value: Any, source: Source, *, name: str) -> Any:
    """A field of the policy, checked and cleaned by the policy itself."""
    default = getattr(ExecPolicy(), name)
    if isinstance(default, tuple):
        value = _texts(value, source, "paths")
    elif isinstance(default, bool):
        value = _flag(value, source)
    elif isinstance(default, int):
        if value == _NO_LIMIT:
            return None
        if source.is_text and value.isascii() and value.isdigit():
            # Longer ones are out of range anyway, and converting them takes quadratic time.
            value = int(value[:12])
        if type(value) is not int or not 0 < value < 2**31:
            raise ValueError('must be a positive integer, or "none"')
    return getattr(ExecPolicy(**{name: value}), name)


def _within(new: tuple[str, ...], allowed: tuple[str, ...]) -> bool:
    """Whether all of `new` lies below `allowed`, by name and where links lead.

    The sandbox shows what a path leads to, and whoever wrote the file may have made a link as well.
    """
    return _all_below(new, allowed) and _all_below(
        tuple(map(os.path.realpath, new)), tuple(map(os.path.realpath, allowed))
    )


def _all_below(paths: tuple[str, ...], roots: tuple[str, ...]) -> bool:
    return all(any(is_below(path, root) for root in roots) for path in paths)


def _lower(new: int | None, allowed: int | None) -> bool:
    return allowed is None or (new is not None and new <= allowed)


def _free(_new: Any, _allowed: Any) -> bool:
    return True


def _same(new: Any, allowed: Any) -> bool:
    return bool(new == allowed)


def _stricter_sandbox(new: str, allowed: str) -> bool:
    return new == "bubblewrap" or allowed == "off"


def _off(new: bool, allowed: bool) -> bool:
    return allowed or not new


def _on(new: bool, allowed: bool) -> bool:
    return new or not allowed


def _fewer(new: tuple[str, ...], allowed: tuple[str, ...]) -> bool:
    return set(new) <= set(allowed)


def _key(name: str, read: Callable[[Any, Source], Any], narrows: Callable[[Any, Any], bool]) -> Key:
    return Key(name, read, narrows, f"MFM_{name.replace('.', '_').upper()}")


def _exec_key(name: str, narrows: Callable[[Any, Any], bool]) -> Key:
    policy_field = name.rpartition(".")[2]
    variable = f"MFM_{name.replace('.', '_').upper()}"
    return Key(name, partial(_policy, name=policy_field), narrows, variable, policy_field)


_FORMATS: Final = ("text", "json")
_LEVELS: Final = ("debug", "info", "warning", "error")
_LIMITS: Final = ("memory_mb", "processes", "cpu_s", "open_files", "file_size_mb")

KEYS: Final[Mapping[str, Key]] = {
    key.name: key
    for key in (
        # Evidence must not be led elsewhere by the directory that one happens to stand in.
        Key("store.path", _path, _same, "MFM_STORE"),
        Key("keystore.dir", _path, _same, "MFM_KEYSTORE"),
        _key("output.format", partial(_choice, of=_FORMATS), _free),
        _key("log.level", partial(_choice, of=_LEVELS), _free),
        _key("log.format", partial(_choice, of=_FORMATS), _free),
        _key("provenance.env_allowlist", _names, _fewer),
        _exec_key("exec.allow_prefixes", _within),
        _exec_key("exec.sandbox", _stricter_sandbox),
        _exec_key("exec.read_only_paths", _within),
        _exec_key("exec.read_write_paths", _within),
        _exec_key("exec.network", _off),
        *(_exec_key(f"exec.limits.{name}", _lower) for name in _LIMITS),
        _key("nix.program", _program, _same),
        _key("nix.allow_dirty", _flag, _off),
        _key("nix.require_locked_rev", _flag, _on),
    )
}
