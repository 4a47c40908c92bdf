"""Finds bubblewrap on this host, learns what it can do, and explains why it failed.

The command that it is given is `sandbox`'s, running it `process_exec`'s.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from transports.descriptors import is_shortage

__all__ = ["Bubblewrap", "Complaint", "explain_refusal", "find_bubblewrap", "read_complaint"]

_ASK_TIMEOUT_S = 10

Trouble = Literal["exec", "refused", "setup"]


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """An installed bubblewrap.

    `bind_fd`: it can bind an open file (from 0.10 on, or as distributions patched it).
    """

    path: str
    version: str
    bind_fd: bool


def find_bubblewrap(search_path: str | None = None) -> Bubblewrap | None:
    """The first `bwrap` on `search_path` (default: PATH), if it runs at all; asks it twice.

    Raises:
        OSError: no descriptor, process or memory is left to ask it with.
    """
    found = shutil.which("bwrap", path=search_path)
    if found is None:
        return None
    path = str(Path(found).absolute())
    try:
        version = _ask(path, "--version").removeprefix("bubblewrap ").strip()
        options = _ask(path, "--help")
    except OSError as exc:
        if is_shortage(exc):
            raise
        return None
    except subprocess.SubprocessError:
        return None
    return Bubblewrap(path, version[:40], "--ro-bind-fd" in options)


def _ask(path: str, option: str) -> str:
    done = subprocess.run(
        [path, option],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_ASK_TIMEOUT_S,
        check=True,
        env={},
        cwd="/",
        start_new_session=True,
    )
    return done.stdout.decode("utf-8", "replace") + done.stderr.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why the program was not started; `reason` is one of a closed set of words."""

    trouble: Trouble
    reason: str


_EXEC_REASONS = MappingProxyType(
    {
        b"No such file or directory": "not_found",
        b"Exec format error": "exec_format",
        b"Argument list too long": "too_long",
        b"Permission denied": "permission",
    }
)
_REFUSALS = (b"Permission denied", b"Operation not permitted", b"No permissions")


def read_complaint(stderr: bytes) -> Complaint:
    """What bubblewrap says when it did not get as far as the program.

    Only for a run whose status stream tells that the program never ran: else the text would be
    the program's own.
    """
    if b"bwrap: execvp " in stderr:
        reasons = (word for text, word in _EXEC_REASONS.items() if text in stderr)
        return Complaint("exec", next(reasons, "exec"))
    # A path that it names may hold any word, and one that is closed to us is not the kernel's no.
    if b"bwrap: Can't find source path " in stderr:
        return Complaint("setup", "setup_failed")
    if b"namespace" in stderr.partition(b"/")[0] or any(text in stderr for text in _REFUSALS):
        return Complaint("refused", "refused")
    return Complaint("setup", "setup_failed")


def explain_refusal(root: Path = Path("/")) -> tuple[str, str]:
    """Why this kernel refuses user namespaces, as far as it can be seen: (reason, what to do)."""
    if _read(root, "proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" or (
        _is_recent_ubuntu(_read(root, "etc/os-release"))
    ):
        return "apparmor", (
            "AppArmor restricts user namespaces (Ubuntu 23.10 and later): give bwrap a profile "
            "with `userns,`, or set kernel.apparmor_restrict_unprivileged_userns=0"
        )
    if _read(root, "proc/sys/user/max_user_namespaces") == "0":
        return "userns_disabled", "user namespaces are disabled: raise user.max_user_namespaces"
    if _read(root, "proc/sys/kernel/unprivileged_userns_clone") == "0":
        return (
            "userns_disabled",
            "user namespaces are disabled: set kernel.unprivileged_userns_clone=1",
        )
    if (root / ".dockerenv").exists() or (root / "run/.containerenv").exists():
        return "container", (
            "the container's runtime forbids namespaces: allow them with its seccomp and AppArmor "
            "options, or run outside of it"
        )
    return "refused", "the kernel refused the namespaces that the sandbox needs"


def _read(root: Path, name: str) -> str:
    try:
        return (root / name).read_text().strip()
    except (OSError, ValueError):
        return ""


def _is_recent_ubuntu(os_release: str) -> bool:
    fields = dict(
        line.split("=", 1) for line in os_release.splitlines() if line.count("=") and line[0] != "#"
    )
    major, _, minor = fields.get("VERSION_ID", "").strip('"').partition(".")
    return (
        fields.get("ID", "").strip('"') == "ubuntu"
        and major.isdigit()
        and minor.isdigit()
        and (int(major), int(minor)) >= (23, 10)
    )
