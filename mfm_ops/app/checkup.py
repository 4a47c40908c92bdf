"""What works on this host and what does not, for `mfm doctor`.

Changes nothing: a store that is not there is not made. How to lay it out is left to the caller.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, cast

from mfm_ops.machine.errors import MfmFailure
from mfm_ops.machine.secrets import redact_text

if TYPE_CHECKING:
    from mfm_ops.app.core import App
    from mfm_ops.machine.canonical import Json

__all__ = ["check_up"]

Grade = Literal["ok", "warning", "failed", "absent"]

_LIBRARIES: Final = (
    *("anyio", "apsw", "click", "orjson", "psutil"),
    *("pydantic", "rfc8785", "structlog"),
)
_NIX_TIMEOUT_S: Final = 10.0
_MAX_VERSION_BYTES: Final = 200
_NIX_VERSION: Final = re.compile(r"(\d+)\.(\d+)")
_OLDEST_NIX: Final = (2, 8)
_BUILD_USERS_HINT: Final = (
    "Apps that are built, or that a cache has, work. To build others, install Nix for several "
    "users, which makes the group; or set `build-users-group =` in nix.conf, and root builds; or "
    "run mfm as another user."
)


def check_up(app: App) -> dict[str, Json]:
    """Checks by name, versions, settings, transports and ops.

    A check is `{"name", "grade", "summary", "details": [str], "hint"}`. `healthy` says whether
    nothing that every run needs has failed.
    """
    checks = [_store(app), _sandbox(app), _nix(app), _git()]
    transports = app.transports()
    transports.search()
    ops: list[Json] = []
    for op_id in app.ops:
        try:
            op = app.ops[op_id]
        except Exception as error:  # noqa: BLE001 - the doctor reports what is broken
            checks.append(_check(f"op {op_id}", "failed", f"{type(error).__name__} on loading"))
            continue
        ops.append(
            {"op_id": str(op_id), "op_version": op.op_version, "from": app.ops.origin(op_id)}
        )
    checks += [
        _check(
            f"{broken.group} {broken.name}",
            "warning",
            broken.reason,
            details=[broken.value],
            hint="Repair or remove the package that offers this entry point.",
        )
        for broken in (*app.ops.broken, *transports.broken)
    ]
    report: Json = {
        "healthy": all(check["grade"] != "failed" for check in checks),
        "checks": list(checks),
        "versions": _versions(),
        "settings": [
            {"key": o.key, "value": _plain(o.value), "source": o.source}
            for o in app.settings.origins
        ],
        "transports": list(transports.groups),
        "ops": ops,
    }
    # A report is made to be passed on, and a path or a name may hold what must not be.
    return cast("dict[str, Json]", _redacted(report))


def _redacted(value: Json) -> Json:
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, list):
        return [_redacted(item) for item in value]
    if isinstance(value, dict):
        return {name: _redacted(item) for name, item in value.items()}
    return value


def _check(
    name: str,
    grade: Grade,
    summary: str,
    *,
    details: list[str] | None = None,
    hint: str | None = None,
) -> dict[str, Json]:
    lines: list[Json] = list(details or ())
    return {"name": name, "grade": grade, "summary": summary, "details": lines, "hint": hint}


def _store(app: App) -> dict[str, Json]:
    import apsw

    from mfm_ops.machine.codes import CATALOGUE, hint_for
    from mfm_ops.storage.blobs import blob_directory
    from mfm_ops.storage.sqlite import open_sqlite_store

    engine = f"SQLite {apsw.sqlite_lib_version()}, apsw {apsw.apsw_version()}"
    try:
        path = app.settings.require_store_path()
        if not path.exists():
            return _missing_store(path, engine)
        with_warnings = open_sqlite_store(path, create=False, read_only=True)
        try:
            warnings = list(with_warnings.warnings)
        finally:
            with_warnings.close()
    except MfmFailure as failure:
        code, about = failure.info.code, failure.info.details
        about = about if isinstance(about, dict) else {}
        if about.get("reason") == "empty":
            details = [str(about["path"]), engine]
            return _check("store", "ok", "empty; the first run makes it a store", details=details)
        # Which file or setting, and what is the matter with it.
        shown = CATALOGUE[code].safe_details
        details = [f"{name}: {value}" for name, value in about.items() if name in shown]
        summary = f"{code}: {failure.info.message}"
        return _check("store", "failed", summary, details=[*details, engine], hint=hint_for(code))
    details = [str(path), engine, *warnings]
    # Not `access()` alone: SQLite writes a log beside the file.
    places = [path, path.parent, *(p for p in [blob_directory(path)] if p.exists())]
    if not all(os.access(place, os.W_OK) for place in places):
        hint = "Runs can be looked at but not started; check the owner of file and directory."
        return _check("store", "failed", "cannot be written", details=details, hint=hint)
    return _check("store", "warning" if warnings else "ok", "can be written", details=details)


def _missing_store(path: Path, engine: str) -> dict[str, Json]:
    above = next((parent for parent in path.parents if parent.exists()), Path("/"))
    details = [str(path), engine]
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        hint = f"{above} cannot be written; choose another place with --store or MFM_STORE."
        return _check("store", "failed", "cannot be made", details=details, hint=hint)
    return _check("store", "ok", "not there yet; the first run makes it", details=details)


def _sandbox(app: App) -> dict[str, Json]:
    import asyncio

    from transports.probe import probe_sandbox

    policy = app.settings.exec_policy
    probe = asyncio.run(probe_sandbox(policy))
    details = [f"not on this host: {path}" for path in probe.absent_paths]
    if probe.backend == "off":
        return _check("sandbox", "warning", "turned off", details=details, hint=probe.hint)
    name = f"bubblewrap {probe.version}" if probe.version else "bubblewrap"
    if probe.works:
        return _check("sandbox", "ok", f"{name} works", details=details, hint=probe.hint)
    summary = f"{name}: {probe.reason}"
    return _check("sandbox", "failed", summary, details=details, hint=probe.hint)


def _nix(app: App) -> dict[str, Json]:
    found = shutil.which(app.settings.nix_policy.program or "nix")
    if found is None:
        hint = "Only flakes need it; run_program works without."
        return _check("nix", "absent", "not found", hint=hint)
    try:
        done = _asked(found, "--version")
        version = done.stdout[:_MAX_VERSION_BYTES].decode("utf-8", "replace").strip()
        if done.returncode != 0 or not version:
            return _check("nix", "warning", f"exit code {done.returncode}", details=[found])
        number = _NIX_VERSION.search(version)
        if number is None or (int(number[1]), int(number[2])) < _OLDEST_NIX:
            hint = "nix_app needs Nix 2.8 or later; run_program works without."
            return _check("nix", "warning", f"{version} is too old", details=[found], hint=hint)
        # The version tells nothing of the store: that may be another user's.
        pinged = _asked(found, "--extra-experimental-features", "nix-command", "store", "ping")
    except (OSError, subprocess.TimeoutExpired) as error:
        return _check("nix", "warning", f"cannot be run: {type(error).__name__}", details=[found])
    if pinged.returncode != 0:
        hint = "nix_app needs a Nix store that this user may use; `nix store ping` says why not."
        summary = f"{version}, but its store cannot be used"
        return _check("nix", "warning", summary, details=[found], hint=hint)
    if os.geteuid() == 0 and b"daemon" not in pinged.stdout + pinged.stderr:
        lacking = _lacking_build_users(found)
        if lacking is not None:
            summary = f"{version}, but as root it can build nothing: {lacking}"
            return _check("nix", "warning", summary, details=[found], hint=_BUILD_USERS_HINT)
    return _check("nix", "ok", version, details=[found])


def _lacking_build_users(nix: str) -> str | None:
    """What root's Nix lacks for building; None when it lacks nothing, or does not say."""
    import grp
    import json

    try:
        told = _asked(nix, "--extra-experimental-features", "nix-command", "show-config", "--json")
        # Nix's numbers are larger than canonical JSON has them.
        config = json.loads(told.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    about = config.get("build-users-group") if isinstance(config, dict) else None
    group = about.get("value") if isinstance(about, dict) else None
    if not isinstance(group, str) or not group:
        return None
    try:
        members = grp.getgrnam(group).gr_mem
    except KeyError:
        return f"there is no group {group}"
    return None if members else f"the group {group} has no members"


def _asked(*command: str) -> subprocess.CompletedProcess[bytes]:
    from transports.nix_commands import nix_environment

    return subprocess.run(
        command,
        # What a run would give it.
        env=nix_environment(os.environ),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=_NIX_TIMEOUT_S,
        check=False,
    )


def _git() -> dict[str, Json]:
    found = shutil.which("git")
    if found is None:
        hint = "Install git: without it a manifest cannot say whether your repository is dirty."
        return _check("git", "absent", "not found", hint=hint)
    try:
        done = _asked(found, "--version")
    except (OSError, subprocess.TimeoutExpired) as error:
        return _check("git", "warning", f"cannot be run: {type(error).__name__}", details=[found])
    version = done.stdout[:_MAX_VERSION_BYTES].decode("utf-8", "replace").strip()
    if done.returncode == 0 and not version.startswith("git version "):
        hint = "Without git a manifest cannot say whether your repository is dirty."
        summary = "does not answer as git does"
        return _check("git", "warning", summary, details=[found], hint=hint)
    if done.returncode != 0:
        hint = "Without it a manifest cannot say whether your repository is dirty."
        return _check("git", "warning", f"exit code {done.returncode}", details=[found], hint=hint)
    return _check("git", "ok", version, details=[found])


def _versions() -> dict[str, Json]:
    import importlib.metadata

    from mfm_ops import __version__

    versions: dict[str, Json] = {
        "mfm": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "executable": sys.executable,
    }
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _plain(value: object) -> Json:
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return value if isinstance(value, bool | int | None) else str(value)
