"""Built-in defaults, mfm.toml files, environment and options, laid over each other.

Holds the rule of trust (the contract, section 10). Reads files only inside `load_settings`; what a
key may hold is left to `keys`, using the settings to `app`.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import SettingsFailure
from mfm_ops.settings.keys import KEYS, Source, expand
from transports.policy import ExecPolicy, NixPolicy, is_below

__all__ = ["CONFIG_NAME", "Origin", "Settings", "load_settings"]

CONFIG_NAME: Final = "mfm.toml"
MAX_CONFIG_BYTES: Final = 1 << 20
_MAX_TABLES: Final = 16
"""How deep tables may lie in each other; the deepest setting lies in two."""


class Origin(NamedTuple):
    """One setting as `mfm doctor` shows it: its key, its value, and which layer it came from."""

    key: str
    value: Any
    source: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What the site and the caller have chosen; the same for the whole process.

    `store_path` is None where neither an option nor HOME says where the store lies, `keystore_dir`
    where nothing says where keystores lie; it may be missing unless `keystore_named`.
    """

    store_path: Path | None = None
    keystore_dir: Path | None = None
    keystore_named: bool = False
    output_format: str = "text"
    log_level: str = "warning"
    log_format: str = "text"
    env_allowlist: tuple[str, ...] = ()
    exec_policy: ExecPolicy = field(default_factory=ExecPolicy)
    nix_policy: NixPolicy = field(default_factory=NixPolicy)
    origins: tuple[Origin, ...] = ()

    def site_policy(self) -> dict[str, Json]:
        """The whole policy as it is stored, its digest standing in every fact."""
        return {**self.exec_policy.to_json(), "nix": self.nix_policy.to_json()}

    def require_store_path(self) -> Path:
        """The store's file.

        Raises:
            SettingsFailure: `settings_invalid`, there is none, or none that SQLite takes.
        """
        if self.store_path is None:
            raise _invalid(
                "defaults", "store.path", "HOME is not set; give --store or set MFM_STORE"
            )
        try:
            str(self.store_path).encode()
        except UnicodeEncodeError:
            source = next((o.source for o in self.origins if o.key == "store.path"), "defaults")
            reason = "is not UTF-8, which SQLite needs; give --store or set MFM_STORE"
            raise _invalid(source, "store.path", reason) from None
        return self.store_path


def load_settings(
    environ: Mapping[str, str], cwd: Path | None, options: Mapping[str, str] | None = None
) -> Settings:
    """Read every layer once; `options` are the command line's, by key (`config` names a file).

    Without `cwd` (it may have been removed) nothing is found in it, and relative paths are refused.

    Raises:
        SettingsFailure: `settings_invalid` or `settings_not_trusted`, naming source and key.
    """
    given = dict(options or {})
    home = _absolute(environ.get("HOME"))
    below, above = _file_layers(environ, cwd, home, given.pop("config", None))
    above.append(_environment(environ, cwd, home))
    above.append((Source("option", cwd, home, is_text=True), given))
    parsed = [(source, _read_all(source, values)) for source, values in (*below, *above)]

    defaults = _defaults(environ)
    allowed = dict(defaults)
    for source, values in parsed:
        if source.trusted:
            allowed.update(values)
    current = dict(defaults)
    sources = dict.fromkeys(current, "default")
    for source, values in parsed:
        for name, value in values.items():
            # A layer above that the user controls may allow more than the layers below do; then
            # its own value wins in the end, and the file is no attempt to widen anything.
            narrows = KEYS[name].narrows
            if not source.trusted and not (
                narrows(value, current[name]) or narrows(value, allowed[name])
            ):
                raise SettingsFailure(
                    error_info(
                        "settings_not_trusted",
                        "A mfm.toml that was found in a directory may not widen what is allowed.",
                        source=source.name,
                        key=name,
                    )
                )
            current[name] = value
            sources[name] = source.name
    current["exec.read_only_paths"] += _guards(current, allowed)
    policy = {key.policy_field: current[key.name] for key in KEYS.values() if key.policy_field}
    return Settings(
        store_path=current["store.path"],
        keystore_dir=current["keystore.dir"],
        keystore_named=sources["keystore.dir"] != "default",
        output_format=current["output.format"],
        log_level=current["log.level"],
        log_format=current["log.format"],
        env_allowlist=current["provenance.env_allowlist"],
        exec_policy=ExecPolicy(**policy),
        nix_policy=NixPolicy(
            **{name: current[f"nix.{name}"] for name in NixPolicy._fields},
        ),
        origins=tuple(Origin(name, current[name], sources[name]) for name in KEYS),
    )


def _guards(current: Mapping[str, Any], allowed: Mapping[str, Any]) -> tuple[str, ...]:
    """What the operator has read-only inside of writable paths, and `current` leaves out.

    A found file with a shorter list would otherwise have it written to.
    """
    writable = current["exec.read_write_paths"]
    return tuple(
        path
        for key in ("exec.read_only_paths", "exec.allow_prefixes")
        for path in allowed[key]
        if path not in (*current[key], *writable)
        and any(is_below(path, place) for place in writable)
    )


_Layer = tuple[Source, Mapping[str, Any]]


def _file_layers(
    environ: Mapping[str, str], cwd: Path | None, home: Path | None, named: str | None
) -> tuple[list[_Layer], list[_Layer]]:
    """The files below --config (the user's, then those found, outermost first), and that one."""
    below: list[_Layer] = []
    user = _user_file(environ, "XDG_CONFIG_HOME", ".config", CONFIG_NAME)
    if user is not None and _present(user):
        below.append((Source(str(user), user.parent, home), _parse_file(user)))
    if named is None:
        # An empty variable counts as one that is not set; an empty option is a mistake.
        named = environ.get("MFM_CONFIG") or None
    chosen = None if named is None else _chosen(named, cwd, home)
    for directory in () if cwd is None else (*reversed(cwd.parents), cwd):
        path = directory / CONFIG_NAME
        if path not in (user, chosen) and _present(path):
            below.append((Source(str(path), directory, home, trusted=False), _parse_file(path)))
    if chosen is None:
        return below, []
    return below, [(Source(str(chosen), chosen.parent, home), _parse_file(chosen))]


def _chosen(text: str, cwd: Path | None, home: Path | None) -> Path:
    try:
        if not text or "\0" in text:
            raise ValueError("must be a path")
        return expand(text, cwd, home)
    except ValueError as error:
        raise _invalid("option", "config", str(error)) from None


def _present(path: Path) -> bool:
    try:
        # A link that leads nowhere is there: what it led to may have tightened something.
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        # It may be there, too: `_parse_file` tells why it cannot be read.
        return True
    return True


def _parse_file(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        # A FIFO must not block the command, and only a descriptor can prove what was opened.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise _invalid(str(path), "", "not a regular file")
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise _invalid(str(path), "", error.strerror or "cannot be read") from None
    if len(data) > MAX_CONFIG_BYTES:
        raise _invalid(str(path), "", "longer than 1 MiB")
    try:
        return _flatten(tomllib.loads(data.decode()))
    except UnicodeDecodeError:
        raise _invalid(str(path), "", "not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        # The parser's message may quote the file, its position does not.
        _, _, position = str(error).rpartition("(at ")
        raise _invalid(str(path), "", f"not TOML, see {position.rstrip(')')}") from None
    except ValueError:
        raise _invalid(str(path), "", "a number has too many digits") from None
    except RecursionError:
        raise _invalid(str(path), "", "nested too deeply") from None


def _flatten(document: Mapping[str, Any], depth: int = _MAX_TABLES) -> dict[str, Any]:
    """Tables of settings as dotted keys; a table is no value of any setting."""
    if not depth:
        raise RecursionError
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{key}": item for key, item in _flatten(value, depth - 1).items()})
        else:
            flat[name] = value
    return flat


def _environment(environ: Mapping[str, str], cwd: Path | None, home: Path | None) -> _Layer:
    names = {key.variable: key.name for key in KEYS.values()}
    values = {names[name]: text for name, text in environ.items() if text and name in names}
    for name in environ:
        # A misspelt limit that is passed over would be a limit that is not there.
        if name.startswith(("MFM_EXEC_", "MFM_NIX_")) and name not in names:
            raise _invalid("environment", name, "no such setting" + _suggest(name, names))
    return Source("environment", cwd, home, is_text=True), values


def _read_all(source: Source, values: Mapping[str, Any]) -> dict[str, Any]:
    read = {}
    for name, value in values.items():
        key = KEYS.get(name)
        if key is None:
            raise _invalid(source.name, name, "no such setting" + _suggest(name, KEYS))
        try:
            read[name] = key.read(value, source)
        except ValueError as error:
            raise _invalid(source.name, name, str(error)) from None
    return read


def _suggest(name: str, known: Mapping[str, object]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _invalid(source: str, key: str, reason: str) -> SettingsFailure:
    return SettingsFailure(
        error_info(
            "settings_invalid", "A setting cannot be used.", source=source, key=key, reason=reason
        )
    )


def _absolute(text: str | None) -> Path | None:
    """An absolute path, else nothing: the XDG specification has relative ones ignored."""
    return Path(text) if text and text.startswith("/") else None


def _user_file(environ: Mapping[str, str], variable: str, fallback: str, name: str) -> Path | None:
    base = _absolute(environ.get(variable))
    if base is None:
        home = _absolute(environ.get("HOME"))
        if home is None:
            return None
        base = home / fallback
    return base / "mfm" / name


def _defaults(environ: Mapping[str, str]) -> dict[str, Any]:
    policy = ExecPolicy()
    values: dict[str, Any] = {
        key.name: getattr(policy, key.policy_field) for key in KEYS.values() if key.policy_field
    }
    values["store.path"] = _user_file(environ, "XDG_STATE_HOME", ".local/state", "mfm.sqlite")
    values["keystore.dir"] = _user_file(environ, "XDG_DATA_HOME", ".local/share", "keystore")
    values["output.format"] = "text"
    values["log.level"] = "warning"
    values["log.format"] = "text"
    values["provenance.env_allowlist"] = ()
    values |= {f"nix.{name}": value for name, value in NixPolicy()._asdict().items()}
    return values
