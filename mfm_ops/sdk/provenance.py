"""What a manifest says of the mfm that runs and of the operator's repository.

No timestamp, no absolute path, nothing of HOME, working directory or host: the same config,
toolchain and clean commit give the same manifest id anywhere (the contract, section 10). Looking
at git is left to `git`, at lock files to `locks`, at mfm itself to `installation`, and whether a
workspace is fit to run in to `requirements`.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mfm_ops import __version__
from mfm_ops.machine.canonical import CanonicalError, canonical_json_bytes, parse_strict
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import BuildProvenance, FlakeProvenance, WorkspaceProvenance
from mfm_ops.machine.errors import SettingsFailure
from mfm_ops.sdk.files import read_regular, written_path
from mfm_ops.sdk.git import GitProbe, Repository, find_repository
from mfm_ops.sdk.installation import (
    BAKED_BUILD_NAME,
    PACKAGE,
    checkout_top,
    runs_from,
    target_triple,
)
from mfm_ops.sdk.locks import lock_hashes, lock_state

__all__ = ["collect_build", "collect_provenance", "collect_workspace"]

_MAX_BAKED_BYTES = 1 << 20


def collect_provenance(
    cwd: Path,
    env_allowlist: Iterable[str],
    environ: Mapping[str, str],
    *,
    probe: GitProbe | None = None,
    uses_nix: bool = False,
) -> tuple[BuildProvenance, WorkspaceProvenance | None]:
    """Build and workspace; git is asked once where they are one repository.

    Raises:
        SettingsFailure: as the two functions below.
    """
    names, probe = tuple(env_allowlist), probe or GitProbe(environ)
    return (
        collect_build(names, environ, probe=probe, uses_nix=uses_nix),
        collect_workspace(cwd, names, environ, probe=probe),
    )


def collect_build(
    env_allowlist: Iterable[str],
    environ: Mapping[str, str],
    *,
    probe: GitProbe | None = None,
    package: Path = PACKAGE,
    uses_nix: bool = False,
) -> BuildProvenance:
    """The build of mfm that runs: what was baked into it, else its checkout, else its version.

    With `uses_nix`, a build that names no Nix of its own names the one on the search path: a run
    that uses none does not depend on it, and need not wait for its answer.

    Raises:
        SettingsFailure: `settings_invalid` when the baked description cannot be read.
    """
    build = _baked(package)
    if build is None:
        top = checkout_top(package)
        build = (
            BuildProvenance(env_allowlist=())
            if top is None
            else _checkout(top, probe or GitProbe(environ))
        )
    if uses_nix and build.nix_version is None:
        from mfm_ops.sdk.nix import nix_system, nix_version

        version = nix_version(environ)
        if version is not None:
            update = {"nix_version": version, "nix_system": nix_system()}
            build = build.model_copy(update=update)
    return build.model_copy(
        update={
            "env_allowlist": tuple(sorted(set(env_allowlist))),
            "mfm_version": build.mfm_version or __version__,
            "python_version": ".".join(map(str, sys.version_info[:3])),
            "runs_from": runs_from(package),
            "target_triple": target_triple(),
        }
    )


def collect_workspace(
    cwd: Path,
    env_allowlist: Iterable[str],
    environ: Mapping[str, str],
    *,
    probe: GitProbe | None = None,
) -> WorkspaceProvenance | None:
    """The repository that `cwd` lies in, and the allowlisted variables that are set.

    Lock files count at the repository's top and in every directory from there down to `cwd`:
    those are the ones that a tool started there uses; its flake is the nearest one of these
    directories. Outside a repository only a flake in `cwd` itself counts. None when there is
    nothing to say.

    Raises:
        SettingsFailure: `settings_invalid` for a variable whose value is not Unicode text.
    """
    values = {name: _text(name, environ[name]) for name in env_allowlist if name in environ}
    env = dict(sorted(values.items())) or None
    probe = probe or GitProbe(environ)
    here = cwd.resolve()
    repository = find_repository(here)
    if repository is None:
        if not _holds_flake(here):
            return WorkspaceProvenance(env=env) if env else None
        return WorkspaceProvenance(
            lock_hashes=lock_hashes(here, [here]) or None,
            flake=_flake(here, [here], None, probe),
            env=env,
        )
    chain = [path for path in (here, *here.parents) if path.is_relative_to(repository.top)]
    return WorkspaceProvenance(env=env, **_repository(repository, chain, probe))


def _repository(repository: Repository, chain: list[Path], probe: GitProbe) -> dict[str, Any]:
    """The fields that describe a repository; `chain` are the directories that count."""
    # Hashed first: a lock that changes meanwhile is then called modified, not committed.
    hashes = lock_hashes(repository.top, chain)
    state = probe.look(repository, hashes)
    return {
        "git_commit": state.commit,
        "dirty": state.dirty,
        "lock_hashes": hashes or None,
        "flake": _flake(repository.top, chain, repository, probe),
    }


def _flake(
    top: Path, chain: Iterable[Path], repository: Repository | None, probe: GitProbe
) -> FlakeProvenance | None:
    """The nearest flake in `chain`, which goes upwards."""
    directory = next(filter(_holds_flake, chain), None)
    if directory is None:
        return None
    state = probe.look(repository) if repository else None
    relative = written_path(directory.relative_to(top))
    return FlakeProvenance(
        url=relative if relative == "." else f"./{relative}",
        rev=state.commit if state and state.dirty is False else None,
        lock=lock_state(repository, directory / "flake.lock", probe),
    )


def _holds_flake(directory: Path) -> bool:
    return (directory / "flake.nix").is_file()


def _checkout(top: Path, probe: GitProbe) -> BuildProvenance:
    # Not upwards: a repository that merely has mfm's source somewhere in it is another project.
    repository = find_repository(top, upwards=False)
    if repository is None:
        found: dict[str, Any] = {"lock_hashes": lock_hashes(top, [top]) or None}
        found["flake"] = _flake(top, [top], None, probe)
    else:
        found = _repository(repository, [top], probe)
    hash_of_lock = (found["lock_hashes"] or {}).get("flake.lock")
    return BuildProvenance(env_allowlist=(), flake_lock_hash=hash_of_lock, **found)


def _baked(package: Path) -> BuildProvenance | None:
    path = package / BAKED_BUILD_NAME
    if not path.exists():
        return None
    try:
        value = parse_strict(read_regular(path, _MAX_BAKED_BYTES) or b"")
        if isinstance(value, dict):
            value = {"env_allowlist": [], **value}
        return BuildProvenance.model_validate_json(canonical_json_bytes(value))
    except (CanonicalError, ValidationError):
        raise SettingsFailure(
            error_info(
                "settings_invalid",
                "the description of this build that was installed with it cannot be read",
                source=BAKED_BUILD_NAME,
                reason="it must be a JSON object of BuildProvenance's fields",
            )
        ) from None


def _text(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SettingsFailure(
            error_info(
                "settings_invalid",
                "an allowlisted environment variable does not hold Unicode text",
                source="environment",
                key=name,
                reason="its bytes are not UTF-8",
            )
        ) from None
    return value
