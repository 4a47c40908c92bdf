"""What a manifest says of the mfm that runs and of the operator's repository.

No timestamp, no absolute path, nothing of HOME, working directory or host: the same config,
toolchain and clean commit give the same manifest id anywhere (the contract, section 10). Looking
at git is left to `git`, at lock files to `locks`, at mfm itself to `installation`.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from mfm_ops import __version__
from mfm_ops.machine.canonical import CanonicalError, canonical_json_bytes, parse_strict
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import BuildProvenance, WorkspaceProvenance
from mfm_ops.machine.errors import SettingsFailure
from mfm_ops.sdk.files import read_regular
from mfm_ops.sdk.git import GitProbe, find_repository
from mfm_ops.sdk.installation import (
    BAKED_BUILD_NAME,
    PACKAGE,
    checkout_top,
    target_triple,
)
from mfm_ops.sdk.locks import lock_hashes

__all__ = ["collect_build", "collect_provenance", "collect_workspace"]

_MAX_BAKED_BYTES = 1 << 20


def collect_provenance(
    cwd: Path, env_allowlist: Iterable[str], environ: Mapping[str, str]
) -> tuple[BuildProvenance, WorkspaceProvenance | None]:
    """Build and workspace; git is asked once where they are one repository.

    Raises:
        SettingsFailure: as the two functions below.
    """
    names, probe = tuple(env_allowlist), GitProbe(environ)
    return (
        collect_build(names, environ, probe=probe),
        collect_workspace(cwd, names, environ, probe=probe),
    )


def collect_build(
    env_allowlist: Iterable[str],
    environ: Mapping[str, str],
    *,
    probe: GitProbe | None = None,
    package: Path = PACKAGE,
) -> BuildProvenance:
    """The build of mfm that runs: what was baked into it, else its checkout, else its version.

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
    return build.model_copy(
        update={
            "env_allowlist": tuple(sorted(set(env_allowlist))),
            "mfm_version": build.mfm_version or __version__,
            "python_version": ".".join(map(str, sys.version_info[:3])),
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
    those are the ones that a tool started there uses. None when there is nothing to say.

    Raises:
        SettingsFailure: `settings_invalid` for a variable whose value is not Unicode text.
    """
    values = {name: _text(name, environ[name]) for name in env_allowlist if name in environ}
    env = dict(sorted(values.items())) or None
    here = cwd.resolve()
    repository = find_repository(here)
    if repository is None:
        return WorkspaceProvenance(env=env) if env else None
    state = (probe or GitProbe(environ)).look(repository)
    top = repository.top
    chain = [path for path in (here, *here.parents) if path.is_relative_to(top)]
    return WorkspaceProvenance(
        git_commit=state.commit,
        dirty=state.dirty,
        lock_hashes=lock_hashes(top, chain) or None,
        env=env,
    )


def _checkout(top: Path, probe: GitProbe) -> BuildProvenance:
    hashes = lock_hashes(top, [top])
    # Not upwards: a repository that merely has mfm's source somewhere in it is another project.
    repository = find_repository(top, upwards=False)
    state = probe.look(repository) if repository else None
    return BuildProvenance(
        git_commit=state.commit if state else None,
        dirty=state.dirty if state else None,
        flake_lock_hash=hashes.get("flake.lock"),
        lock_hashes=hashes or None,
        env_allowlist=(),
    )


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
