"""From what Nix says on failing to a reason; the texts are those of 2.8 and of newer releases."""

import re
from pathlib import Path

import pytest

from mfm_ops.machine.codes import CATALOGUE
from transports.nix_commands import Step
from transports.nix_failures import REASONS, nix_failure, reason_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "nix.md"
GIT_128 = b"error: program 'git' failed with exit code 128"


@pytest.mark.parametrize(
    ("step", "exit_code", "stderr", "reason"),
    [
        ("metadata", 1, b"error: unable to download 'https://x': Couldn't resolve host name (6)",
         "fetch_failed"),
        ("metadata", 1, b"error: unable to download 'https://x': HTTP error 404", "not_found"),
        ("metadata", 1, b"error: unable to download 'https://x': HTTP error 403", "access_denied"),
        ("metadata", 1, b"error: unable to download 'https://x': HTTP error 429", "fetch_failed"),
        ("metadata", 1, b"fatal: unable to access 'https://x/': Failed\n" + GIT_128,
         "fetch_failed"),
        ("metadata", 1, b"fatal: '/x' does not appear to be a git repository\n" + GIT_128,
         "not_found"),
        ("metadata", 1, b"fatal: could not read Username for 'https://x'\n" + GIT_128,
         "access_denied"),
        ("metadata", 1, GIT_128, "git_failed"),
        ("metadata", 1, b"error: program 'git' failed with exit code 129", "git_owner"),
        ("metadata", 1, b"error: repository path '/x' is not owned by current user", "git_owner"),
        ("metadata", 1, (b"error: getting status of '/nix/store/x-source/flake.nix': No such file "
         b"or directory"), "not_a_flake"),
        ("metadata", 1, (b"error: source tree referenced by 'x' does not contain a '/flake.nix' "
         b"file\nerror: path '/x/flake.nix' does not exist"), "not_a_flake"),
        ("metadata", 1, b"error: getting status of '/srv/x': No such file or directory",
         "not_found"),
        ("metadata", 1, b"error: Cannot find Git revision '0' in ref 'x'", "rev_not_found"),
        ("metadata", 1, b"error: flake 'x' requires lock file changes but they're not allowed",
         "lock_incomplete"),
        ("metadata", 1, b"error: 'flake:x' is an indirect flake reference, but registry lookups",
         "indirect_input"),
        ("metadata", 1, b"error: cannot find flake 'flake:x' in the flake registries",
         "indirect_input"),
        ("metadata", 1, b"error: Git tree '/x' is dirty", "dirty"),
        ("metadata", 1, b"error: input 'tarball+https://x/y' is unsupported", "unsupported"),
        ("metadata", 1, b"error: failed to open archive: truncated gzip input", "bad_archive"),
        ("metadata", 1, b"error: unable to download 'file:///x': Couldn't read a file:// file (37)",
         "not_found"),
        ("metadata", 102, b"error: NAR hash mismatch in input", "hash_mismatch"),
        ("evaluate", 1, b"error: cannot call 'getFlake' on unlocked flake reference 'x'",
         "unlocked_input"),
        ("evaluate", 1, (b"error: cannot build during evaluation because the option "
         b"'allow-import-from-derivation' is disabled"), "import_from_derivation"),
        ("evaluate", 1, b"error: access to absolute path '/x' is forbidden in pure eval mode",
         "impure"),
        ("evaluate", 1, b"error: infinite recursion encountered", "recursion"),
        ("evaluate", 1, b"error: stack overflow; max-call-depth exceeded", "recursion"),
        ("evaluate", 1, b"error: syntax error, unexpected IN", "syntax_error"),
        ("evaluate", 1, b"error: boom", "eval_error"),
        ("evaluate", 134, b"", "crashed"),
        ("evaluate", -11, b"", "crashed"),
        ("realise", 100, b"error: builder for '/nix/store/x.drv' failed", "builder_failed"),
        ("realise", 1, b"error: Cannot build '/nix/store/x.drv'.", "builder_failed"),
        ("realise", 101, b"", "build_timeout"),
        ("realise", 102, b"", "build_hash_mismatch"),
        ("realise", 1, (b"error: a 'aarch64-linux' is required to build 'x', but I "
         b"am a 'x86_64-linux'"), "wrong_system"),
        ("realise", 1, b"Required system: 'aarch64-linux' with features {}", "wrong_system"),
        ("realise", 1, b"error: cannot build missing derivation '/nix/store/x.drv'", "collected"),
        ("realise", 1, b"error: unable to download 'https://x'", "build_fetch_failed"),
        ("realise", 1, (b"error: this system does not support the kernel namespaces that are "
         b"required for sandboxing"), "build_sandbox"),
        ("realise", 1, b"error: writing to file: No space left on device", "disk_full"),
        ("realise", 1, b"?", "build_error"),
        ("metadata", 1, b"error: cannot connect to socket at '/nix/var/x': refused", "daemon"),
        ("metadata", 1, b"error: illegal configuration line 'x' in 'NIX_CONFIG'", "configuration"),
        ("metadata", 1, b"error: could not set permissions on '/nix/var/x'", "permission"),
        ("metadata", 1, b"error: creating directory '/home/x/.cache': Read-only file system",
         "cache_directory"),
        ("metadata", 1, b"error: unrecognised flag '--json'", "too_old"),
        ("path_info", 1, b"?", "eval_error"),
    ],
)  # fmt: skip
def test_what_nix_says_has_its_reason(
    step: Step, exit_code: int, stderr: bytes, reason: str
) -> None:
    assert reason_of(step, exit_code, stderr) == reason


def test_a_builders_own_words_do_not_speak_for_nix() -> None:
    assert reason_of("realise", 100, b"builder: No space left on device") == "builder_failed"


def test_every_reason_becomes_an_error_that_keeps_nothing_but_it() -> None:
    for name, row in REASONS.items():
        info = nix_failure(name).info
        assert info.code == row.code
        assert info.retryable is row.retryable
        assert info.details == {"reason": name}
        assert "reason" in CATALOGUE[row.code].safe_details


def test_every_reason_stands_in_the_guide_as_it_is() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (yes|no) \|", text, flags=re.MULTILINE))
    assert rows == {name: "yes" if row.retryable else "no" for name, row in REASONS.items()}
