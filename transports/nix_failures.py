"""From the exit status and messages of Nix to a code, a reason of a closed set, and advice; pure.

No text of Nix's reaches an error: a message could quote anything. Where none of the known words
occurs, the reason says only which step failed.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import TransportFailure
from transports.nix_commands import Step

__all__ = ["REASONS", "Reason", "nix_failure", "reason_of"]


class Reason(NamedTuple):
    """A cause: the code that it belongs to, whether trying again can help, what to say of it."""

    code: str
    retryable: bool
    message: str


_ALLOWED, _EVAL, _BUILD = "nix_app_not_allowed", "nix_eval_failed", "nix_build_failed"
_UNAVAILABLE = "nix_unavailable"

REASONS: Final[Mapping[str, Reason]] = MappingProxyType(
    {
        name: Reason(code, retryable, message)
        for name, code, retryable, message in (
            # The ref, before Nix or right after it has said what the ref means.
            ("not_in_allowlist", _ALLOWED, False,
             "the run's allowlist has no entry for the app: start it with --allow-flake"),
            ("parameter", _ALLOWED, False,
             ("a parameter of the ref could lead away from the flake that is allowed: "
              "allow the flake with this very parameter")),
            ("workspace_unknown", _ALLOWED, False,
             "there is no workspace that path:. could mean"),
            ("workspace_changed", _ALLOWED, False,
             ("the workspace stands at another commit than the run's manifest says: "
              "check that commit out, or start a new run")),
            ("outside_workspace", _ALLOWED, False,
             "the ref leads out of the workspace through a symbolic link"),
            ("dirty", _ALLOWED, False,
             ("the flake's git tree has changes that are not committed: commit them, or let "
              "[nix] allow_dirty have them")),
            ("no_locked_rev", _ALLOWED, False,
             "the policy wants a revision, and this kind of flake has none: use a git ref"),
            # Fetching and evaluating.
            ("fetch_failed", _EVAL, True,
             "something could not be fetched: look at the network and the address"),
            ("access_denied", _EVAL, False,
             "the server refused: look at the credentials of git, or in netrc-file"),
            ("not_found", _EVAL, False,
             "there is no such directory, repository or address"),
            ("rev_not_found", _EVAL, False,
             "the repository has no such revision or branch"),
            ("git_owner", _EVAL, False,
             "git does not trust the repository's owner: set safe.directory, or chown it"),
            ("git_failed", _EVAL, False,
             "git could not read the repository: run it with its standard error shown"),
            ("bad_archive", _EVAL, False,
             "the archive is damaged, or does not hold exactly one directory at its top"),
            ("unsupported", _EVAL, False,
             "this Nix does not know such refs: an archive needs its ending, such as .tar.gz"),
            ("not_a_flake", _EVAL, False,
             "there is no flake.nix, or git does not track it: git add it"),
            ("missing_attribute", _EVAL, False,
             "the flake has no app and no package of this name for this system"),
            ("not_an_app", _EVAL, False,
             'the attribute is no app of type "app", and no derivation'),
            ("program_type", _EVAL, False,
             "the app's program is not a string"),
            ("program_outside_store", _EVAL, False,
             "the app's program does not lie in the Nix store"),
            ("program_not_normal", _EVAL, False,
             "the app's program has a path with '.', '..' or '//'"),
            ("context_missing", _EVAL, False,
             ("the app's program does not say which build it comes from: do not discard its "
              "string context")),
            ("syntax_error", _EVAL, False, "the flake has a syntax error"),
            ("lock_incomplete", _EVAL, False,
             "flake.lock is missing or does not fit the inputs: run nix flake lock, and commit it"),
            ("unlocked_input", _EVAL, False,
             "the flake, or an input of it, is not locked: run nix flake lock, and commit it"),
            ("indirect_input", _EVAL, False,
             "the flake names an input by an alias of the registry: give its inputs a url"),
            ("hash_mismatch", _EVAL, False,
             "an input's contents are not those that flake.lock names"),
            ("import_from_derivation", _EVAL, False,
             "the flake wants something built while it is evaluated, which is not allowed"),
            ("impure", _EVAL, False,
             "the flake wants something that pure evaluation forbids"),
            ("recursion", _EVAL, False, "the evaluation does not end"),
            ("crashed", _EVAL, False, "Nix crashed: run it with its standard error shown"),
            ("eval_error", _EVAL, False,
             "the flake could not be evaluated: run it with Nix's standard error shown"),
            # Building, and what came of it.
            ("builder_failed", _BUILD, False,
             "a build failed: look at its log with nix log"),
            ("build_timeout", _BUILD, True,
             "a build took longer than Nix's own limits allow"),
            ("build_hash_mismatch", _BUILD, False,
             "a fixed output has another hash than it declares"),
            ("wrong_system", _BUILD, False,
             "a build needs another kind of machine: give Nix a builder of that system"),
            ("build_fetch_failed", _BUILD, True,
             "something that a build needs could not be fetched: look at the network"),
            ("collected", _BUILD, True,
             "the store's garbage collector came in between"),
            ("build_sandbox", _BUILD, False,
             "Nix could not set up its own build sandbox on this host"),
            ("disk_full", _BUILD, True, "there is no space left for the store or for builds"),
            ("build_error", _BUILD, False,
             "the app could not be built: run it with Nix's standard error shown"),
            ("program_missing", _BUILD, False,
             "the app was built, and its program is not there"),
            ("program_not_executable", _BUILD, False,
             "the app's program is not a regular file that may be executed"),
            ("program_leaves_store", _BUILD, False,
             "the app's program is a link that leads out of the Nix store"),
            ("context_wrong", _BUILD, False,
             "the app's program lies in a store path that was not built for it"),
            # Nix itself.
            ("missing", _UNAVAILABLE, False,
             "there is no nix: install it, put it on PATH, or name it in [nix] program"),
            ("not_started", _UNAVAILABLE, False, "nix could not be started"),
            ("daemon", _UNAVAILABLE, True, "the Nix daemon does not answer: is it running?"),
            ("permission", _UNAVAILABLE, False,
             "this user may not use the Nix store: run the daemon, or be its owner"),
            ("cache_directory", _UNAVAILABLE, False,
             "a directory that Nix needs cannot be made: look at HOME and XDG_CACHE_HOME"),
            ("configuration", _UNAVAILABLE, False,
             "Nix refuses its configuration: correct nix.conf or NIX_CONFIG"),
            ("too_old", _UNAVAILABLE, False, "this Nix is too old: 2.8 or later is needed"),
            ("root_failed", _UNAVAILABLE, False,
             "the directory for garbage-collector roots, beside the store, cannot be written"),
        )
    }
)  # fmt: skip


class _Sign(NamedTuple):
    text: bytes
    reason: str


# In this order: the special before the general. Each is of Nix 2.8 or of a later release.
_OF_NIX: Final = tuple(
    _Sign(text, reason)
    for reason, texts in (
        ("daemon", (b"cannot connect to socket at", b"cannot open connection to remote store")),
        ("configuration", (b"illegal configuration line", b"syntax error in configuration line")),
        (
            "permission",
            (
                b"could not set permissions on",
                b"opening lock file '/nix/",
                b"creating directory '/nix/",
                b'opening lock file "/nix/',
                b"does not have permission to access the Nix daemon",
            ),
        ),
        ("cache_directory", (b"error: creating directory '", b'error: creating directory "')),
        ("too_old", (b"unrecognised flag", b"is not a recognised command", b"unknown operation")),
        ("disk_full", (b"No space left on device", b"database or disk is full")),
    )
    for text in texts
)
_OF_EVALUATION: Final = tuple(
    _Sign(text, reason)
    for reason, texts in (
        ("import_from_derivation", (b"allow-import-from-derivation",)),
        ("lock_incomplete", (b"requires lock file changes", b"does not contain a lock file")),
        (
            "indirect_input",
            (b"indirect flake reference", b"in the flake registries", b"registry lookups are not"),
        ),
        (
            "unlocked_input",
            (b"unlocked flake reference", b"mutable flake reference", b"unlocked reference"),
        ),
        ("hash_mismatch", (b"NAR hash mismatch", b"hash mismatch in")),
        (
            "git_owner",
            (
                b"detected dubious ownership",
                b"is not owned by current user",
                b"failed with exit code 129",
            ),
        ),
        (
            "bad_archive",
            (
                b"unexpected number of top-level files",
                b"failed to open archive",
                b"failed to extract archive",
            ),
        ),
        ("not_found", (b"Couldn't read a file://",)),
        ("unsupported", (b"' is unsupported",)),
        (
            "not_a_flake",
            (
                b"flake.nix': No such file or directory",
                b"flake.nix' does not exist",
                b"flake.nix': Not a directory",
                b"does not contain a 'flake.nix'",
                b"flake.nix' is not tracked by Git",
                b"lacks attribute 'outputs'",
            ),
        ),
        ("rev_not_found", (b"Cannot find Git revision", b"unknown revision", b"bad object")),
        (
            "not_found",
            (
                b"does not appear to be a git repository",
                b"HTTP error 404",
                b"Repository not found",
                b"getting status of '",
                b"No such file or directory",
            ),
        ),
        (
            "access_denied",
            (
                b"HTTP error 401",
                b"HTTP error 403",
                b"Authentication failed",
                b"could not read Username",
                b"Permission denied (",
            ),
        ),
        (
            "fetch_failed",
            (
                b"unable to download",
                b"unable to access",
                b"Could not resolve host",
                b"Couldn't resolve host",
                b"Failed to connect",
                b"Couldn't connect to server",
                b"Could not read from remote repository",
                b"Connection refused",
                b"Connection timed out",
                b"HTTP error 429",
                b"HTTP error 5",
            ),
        ),
        ("git_failed", (b"program 'git' failed", b"executing 'git'", b"Git repository")),
        ("dirty", (b"is dirty",)),
        ("impure", (b"in pure eval mode", b"in pure evaluation mode")),
        ("recursion", (b"infinite recursion", b"stack overflow", b"max-call-depth exceeded")),
        ("syntax_error", (b"syntax error,", b"undefined variable", b"invalid token")),
        ("missing_attribute", (b"does not provide attribute",)),
    )
    for text in texts
)
_OF_BUILDING: Final = tuple(
    _Sign(text, reason)
    for reason, texts in (
        (
            "wrong_system",
            (b"required to build", b"Required system", b"platform mismatch"),
        ),
        (
            "collected",
            (
                b"cannot build missing derivation",
                b"is not valid",
                b"don't know how to build these paths",
            ),
        ),
        (
            "build_sandbox",
            (
                b"does not support the kernel namespaces",
                b"sandboxing builds is not supported",
                b"cloning builder process",
                b"unable to start build process",
                b"setting up a private mount namespace",
                b"the build users group",
                b"build-users-group",
            ),
        ),
        ("build_timeout", (b"timed out after",)),
        ("build_hash_mismatch", (b"hash mismatch in fixed-output derivation",)),
        ("build_fetch_failed", (b"unable to download", b"Couldn't resolve host", b"of substitut")),
        ("builder_failed", (b"error: builder for", b"error: build of", b"Cannot build '")),
    )
    for text in texts
)
# `nix-store --realise` says by its status why a build failed, in bits over 100.
_BUILD_STATUS: Final = MappingProxyType(
    {100: "builder_failed", 101: "build_timeout", 102: "build_hash_mismatch"}
)
_CRASHES: Final = frozenset({132, 134, 135, 136, 137, 139})


def reason_of(step: Step, exit_code: int, stderr: bytes) -> str:
    """The word for a command that failed; `exit_code` is negative for a signal."""
    if exit_code < 0 or exit_code in _CRASHES:
        return "crashed"
    if step == "realise":
        # A builder's own words end up in the same stream, so the status goes first.
        known = _BUILD_STATUS.get(exit_code) or _first(_OF_NIX + _OF_BUILDING, stderr)
        return known or "build_error"
    if exit_code == 102:
        return "hash_mismatch"
    return _first(_OF_NIX + _OF_EVALUATION, stderr) or "eval_error"


def _first(signs: tuple[_Sign, ...], stderr: bytes) -> str | None:
    return next((sign.reason for sign in signs if sign.text in stderr), None)


def nix_failure(reason: str, **details: Json) -> TransportFailure:
    """The exception for `reason`, with the code, the message and the retries that it has."""
    row = REASONS[reason]
    info = error_info(row.code, row.message, reason=reason, **details)
    return TransportFailure(info.model_copy(update={"retryable": row.retryable}))
