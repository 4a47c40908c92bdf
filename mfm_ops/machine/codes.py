"""The catalogue of error codes: for each its variant, category, retry, safe details and hint.

One row a code; `docs/errors.md` is checked against it. Only the details that a row declares safe
are ever persisted. Deciding which code applies is left to whoever meets the failure.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.errors import ErrorCategory, ErrorInfo
from mfm_ops.machine.ids import ErrorCode

__all__ = ["CATALOGUE", "CodeRow", "error_info", "hint_for"]


class CodeRow(NamedTuple):
    """What a code means to those who handle it; `hint` says what to do next."""

    code: str
    variant: str
    category: ErrorCategory
    retryable: bool
    safe_details: frozenset[str]
    hint: str


_PARSING, _STORAGE = ErrorCategory.ParsingInput, ErrorCategory.Storage
_CONTEXT, _OFFCHAIN = ErrorCategory.Context, ErrorCategory.OffChain
_RPC, _UNKNOWN = ErrorCategory.Rpc, ErrorCategory.Unknown

_Row = tuple[str, str, ErrorCategory, bool, str, str]

_CONTRACT: tuple[_Row, ...] = (
    # code, variant, category, retryable, safe details, hint
    ("invalid_plan", "RunError.InvalidPlan", _PARSING, False,
     "reason op_id state_id missing missing_tag cycle exception",
     "The op expanded to a graph that cannot be executed; report it to the op's author."),
    ("manifest_mismatch", "RunError.Other", _PARSING, False, "field",
     "Manifest, plan and run config must describe one run; plan it again."),
    ("config_unsupported", "RunError.Other", _PARSING, False, "field",
     "This version does not support that setting of the run config."),
    ("run_not_found", "StorageError.NotFound", _STORAGE, False, "run_id",
     "`mfm run list` shows the runs of this store; `--store` names another one."),
    ("run_id_ambiguous", "SettingsFailure", _PARSING, False, "prefix matches",
     "Give more digits of the run id."),
    ("run_exists", "RunError.Other", _STORAGE, False, "run_id",
     "A run with this id was started from another manifest; use another run key."),
    ("run_busy", "RunError.Other", _STORAGE, True, "run_id driver_id pid host",
     "Another process drives this run. Wait for it, or `mfm run resume --take-over` to take it."),
    ("run_fenced", "RunError.Other", _STORAGE, False, "run_id driver_id pid host",
     "Another driver took this run over; this process stopped its programs and left it."),
    ("run_cancelled", "RunError.Other", _UNKNOWN, False, "run_id", "The run was cancelled."),
    ("run_over", "RunError.Other", _PARSING, False, "run_id phase",
     "The run has ended; `mfm run fork` makes a new one that goes on from its completed states."),
    ("run_deadline_exceeded", "StateError", _UNKNOWN, False, "deadline_ms",
     "The run took longer than its deadline allows; `mfm run fork` goes on with a new run."),
    ("state_deadline_exceeded", "StateError", _UNKNOWN, True, "deadline_ms",
     "The attempt took longer than the run's state deadline allows."),
    ("state_cancelled", "StateError", _UNKNOWN, False, "failed",
     "The state was stopped because another one failed; `mfm run fork` goes on from there."),
    ("effect_failed", "StateError", _OFFCHAIN, False, "key",
     "Somebody found that the side effect failed; `mfm run fork` goes on from there."),
    ("child_run_invalid", "IoError.Transport", _PARSING, False, "pointer reason op_id",
     "Correct the request at the named place; docs/child-runs.md describes it."),
    ("child_run_unknown", "IoError.Transport", _PARSING, False, "child_run_id",
     "A run can only await the children that it spawned itself."),
    ("child_run_depth", "IoError.Transport", _PARSING, False, "depth limit",
     "Runs are nested too deep; start such a run by itself."),
    ("child_run_cycle", "IoError.Transport", _PARSING, False, "run_id manifest_id",
     "A run may not be its own descendant; the named ancestor has the same manifest."),
    ("child_run_failed", "StateError", _UNKNOWN, False, "child_run_id child_code child_state_id",
     "`mfm run status` of the child shows why; `mfm run fork` goes on from a failed run."),
    ("child_run_cancelled", "StateError", _UNKNOWN, False, "child_run_id",
     "Somebody cancelled the child run; `mfm run fork` goes on from a cancelled run."),
    ("effect_not_unknown", "RunError.Other", _PARSING, False, "run_id state_id key keys",
     "`mfm run status` shows which effects wait to be resolved."),
    ("fork_invalid", "RunError.Other", _PARSING, False, "run_id state_id key reason",
     "`--from` names a state of `mfm run status` that the op still has, `--set` a key it sees."),
    ("plan_changed", "RunError.Other", _PARSING, False, "run_id field op_id expected found",
     "The op changed: resume with the build that started the run, or go on by `mfm run fork`."),
    ("replay_diverged", "RunError.Other", _UNKNOWN, False,
     "run_id state_id attempt kind key index recorded replayed diff verdict",
     "Compare the op's code with the one that recorded the run; docs/replay.md tells the kinds."),
    ("replay_timeout", "RunError.Other", _UNKNOWN, False, "run_id state_id timeout_ms",
     "The named state's handler did not end in time; allow more, or look for an endless loop."),
    ("op_unknown", "SettingsFailure", _PARSING, False, "op_id",
     "`mfm ops list` shows the ops that are installed."),
    ("op_config_invalid", "SettingsFailure", _PARSING, False, "op_id pointer reason",
     "`mfm ops show OP` prints the config's JSON Schema."),
    ("pipeline_invalid", "SettingsFailure", _PARSING, False, "pointer reason",
     "Correct the pipeline, or its input, at the named place; docs/writing-an-op.md has the form."),
    ("import_unresolved", "SettingsFailure", _PARSING, False, "op_id step_id key",
     "An earlier step must export the key, or the pipeline's input must hold it."),
    ("unsupported_format", "StorageError.Other", _STORAGE, False, "found supported seq",
     "The data was written by a newer mfm; use that version or a later one."),
    ("history_invalid", "StorageError.Corruption", _STORAGE, False, "run_id seq reason",
     "The event stream breaks the rules of its kind; restore the store from a backup."),
    ("state_panicked", "StateError", _UNKNOWN, False, "exception",
     "The state's code raised an unexpected exception; the log has the traceback."),
    ("state_outcome_invalid", "StateError", _UNKNOWN, False, "",
     "The state's handler must return a StateOutcome."),
    ("attempt_orphaned", "StateError", _UNKNOWN, True, "driver_id",
     "The driver left or was killed during this attempt; the run went on with the next."),
    ("effect_unknown", "StateError", _OFFCHAIN, False, "key request_id",
     "A side effect was begun and its outcome is unknown; find out, then resolve it."),
    ("event_name_reserved", "RunError.Other", _PARSING, False, "name",
     "Names that begin with `mfm.` or `child_run_`, and `fact_recorded`, are the engine's."),
    ("event_invalid", "RunError.Other", _PARSING, False, "name pointer reason",
     "An event's payload needs a canonical JSON form, and what it names must be stored."),
    ("secrets_detected", "by the place", _PARSING, False, "pointer rule",
     "A value that looks like a secret was about to be stored; pass secrets by reference."),
    ("error_redacted", "StateError", _UNKNOWN, False, "",
     "The error's own message held something that looks like a secret."),
    ("context_missing_key", "ContextError.MissingKey", _CONTEXT, False, "key",
     "A state before this one must write the key."),
    ("context_deserialize_failed", "ContextError.Serialization", _CONTEXT, False, "key",
     "The value in the context has another type than the state expects."),
    ("context_serialize_failed", "ContextError.Serialization", _CONTEXT, False,
     "key pointer reason",
     "Context values need a canonical JSON form: no floats, no huge integers."),
    ("context_write_conflict", "ContextError.Other", _CONTEXT, False, "key states",
     "Two states that no path orders wrote different values; order them or use two keys."),
    ("context_key_forbidden", "ContextError.Other", _CONTEXT, False, "key",
     "A state may read its op's own keys and imports, and write its own keys."),
    ("missing_fact_key", "IoError.MissingFactKey", _RPC, False, "namespace",
     "Replay needs a fact key on every call."),
    ("missing_fact", "IoError.MissingFact", _RPC, False, "key",
     "The run that is replayed never recorded this fact."),
    ("fact_request_mismatch", "IoError.Other", _RPC, False, "key",
     "The key is bound to the answer of another request; give each request its own key."),
    ("fact_payload_conflict", "IoError.Other", _RPC, False, "key",
     "The key is bound to another value already; facts never change."),
    ("io_unknown_namespace", "IoError.Other", _PARSING, False, "",
     "No transport serves that namespace; `mfm doctor` lists the transports."),
    ("io_namespace_invalid", "SettingsFailure", _PARSING, False, "group reason",
     "A transport's namespace group must be non-empty and registered once."),
    ("io_pure_state", "IoError.Other", _PARSING, False, "",
     "A state that calls a transport must declare ReadOnlyIo or ApplySideEffect."),
    ("io_request_invalid", "IoError.Other", _PARSING, False, "pointer reason",
     "A request must have a canonical JSON form: no floats, no huge integers."),
    ("io_response_invalid", "IoError.Other", _RPC, False, "pointer reason",
     "The transport's answer has no canonical JSON form and was not recorded."),
    ("io_transport_crashed", "IoError.Transport", _UNKNOWN, False, "exception",
     "The transport's code raised an unexpected exception; the log has the traceback."),
    ("io_attempt_over", "IoError.Other", _PARSING, False, "",
     "A task outlived its state's handler; a handler waits for all that it starts."),
    ("io_size_invalid", "IoError.Other", _PARSING, False, "",
     "Ask for 0 to 1048576 random bytes."),
)  # fmt: skip

_STORE: tuple[_Row, ...] = (
    ("concurrency", "StorageError.Concurrency", _STORAGE, True, "run_id expected_seq head_seq",
     "Another driver appended to this run first."),
    ("append_invalid", "StorageError.Other", _STORAGE, False, "run_id reason",
     "Events must carry the run's id and go on from the expected sequence number."),
    ("artifact_not_found", "StorageError.NotFound", _STORAGE, False, "artifact_id",
     "The store does not hold this artifact; was it copied whole?"),
    ("artifact_corrupt", "StorageError.Corruption", _STORAGE, False, "artifact_id",
     "The stored bytes do not hash to their id; restore the store from a backup."),
    ("artifact_id_ambiguous", "SettingsFailure", _PARSING, False, "prefix matches",
     "Give more digits of the artifact id."),
    ("event_corrupt", "StorageError.Corruption", _STORAGE, False, "run_id seq reason",
     "A stored event was changed; restore the store from a backup."),
    ("store_corrupt", "StorageError.Corruption", _STORAGE, False, "path reason",
     "The file is damaged, or was emptied; restore it from a backup."),
    ("store_not_mfm", "StorageError.Other", _STORAGE, False, "path reason",
     "`--store` must name another file; an empty one becomes a store with the first run."),
    ("store_unavailable", "StorageError.Other", _STORAGE, False, "path reason",
     "The store's file cannot be opened; check the path, its owner and its permissions."),
    ("store_read_only", "StorageError.Other", _STORAGE, False, "path",
     "The store cannot be written; check permissions and mounts."),
    ("store_full", "StorageError.Other", _STORAGE, True, "path",
     "The disk is full; free some space and resume the run."),
    ("store_busy", "StorageError.Other", _STORAGE, True, "path",
     "Another process holds the store's write lock for long; try again."),
    ("store_io_error", "StorageError.Other", _STORAGE, False, "path reason",
     "The disk failed a read or a write; look at the system's log."),
    ("verify_failed", "StorageError.Corruption", _STORAGE, False,
     "path runs events artifacts bytes found findings strays",
     "The findings name what is damaged; restore it from a backup, or import it from an export."),
    ("export_not_mfm", "StorageError.Other", _STORAGE, False, "place offset reason",
     "The file is no export of mfm, or its beginning is damaged."),
    ("export_corrupt", "StorageError.Corruption", _STORAGE, False,
     "place offset reason run_id seq artifact_id",
     "The file is not what `mfm run export` wrote; fetch it, or make it, again."),
    ("export_too_large", "StorageError.Other", _STORAGE, False, "place limit_bytes",
     "One event or artifact is larger than an export may hold; copy the whole store instead."),
    ("import_conflict", "StorageError.Other", _STORAGE, False, "run_id seq",
     "The store holds another history of this run; import into another store with `--store`."),
)  # fmt: skip

_EXEC: tuple[_Row, ...] = (
    ("exec_request_invalid", "IoError.Transport", _PARSING, False, "pointer reason",
     "Correct the request at the named place; docs/exec.md describes it."),
    ("exec_program_not_allowed", "IoError.Transport", _PARSING, False, "program_path reason",
     ("Add the program's directory, or a script's interpreter, to `[exec] allow_prefixes` in your "
      "own configuration.")),
    ("exec_program_missing", "IoError.Transport", _PARSING, False, "",
     ("There is no such file; give the absolute path of a program. If Nix collected it since it "
      "was resolved, fork from the state that resolves it.")),
    ("exec_program_not_executable", "IoError.Transport", _PARSING, False, "program_path",
     "The path must name a regular file with execute permission."),
    ("exec_spawn_failed", "IoError.Transport", _OFFCHAIN, False, "program_path reason",
     "The system could not start the program."),
    ("exec_stdin_write_failed", "IoError.Transport", _OFFCHAIN, False, "program_path",
     "Writing the program's standard input failed."),
    ("exec_stdin_too_large", "IoError.Transport", _PARSING, False, "limit_bytes",
     "Standard input is limited to 1 MiB; hand large data over by file."),
    ("exec_timeout", "IoError.Transport", _OFFCHAIN, True, "program_path timeout_ms",
     "The program did not end in time and was killed; raise timeout_ms or look into the program."),
    ("exec_failed", "IoError.Transport", _OFFCHAIN, False, "program_path exit_code signal",
     "The program failed; --show-stderr shows what it says when it is run again."),
    ("exec_stdout_invalid_json", "IoError.Transport", _OFFCHAIN, False, "program_path",
     "The program must print exactly one JSON value on standard output."),
    ("exec_stdout_not_canonical", "IoError.Transport", _OFFCHAIN, False,
     "program_path pointer reason",
     ("The output has no canonical form (a float, a huge integer, a duplicate key); "
      '`numbers: "string"` keeps numbers as text.')),
    ("exec_stdout_too_large", "IoError.Transport", _OFFCHAIN, False, "program_path limit_bytes",
     "Standard output is limited to 1 MiB; write large results elsewhere."),
    ("exec_stderr_too_large", "IoError.Transport", _OFFCHAIN, False, "program_path limit_bytes",
     "Standard error is limited to 1 MiB; make the program less talkative."),
    ("exec_limit_exceeded", "IoError.Transport", _OFFCHAIN, False, "program_path limit mechanism",
     "The program exceeded a limit of the policy; see `[exec.limits]`."),
    ("exec_sandbox_unavailable", "IoError.Transport", _OFFCHAIN, False, "reason",
     "Install bubblewrap and let it create user namespaces; `mfm doctor` says what is missing."),
    ("exec_effect_undeclared", "IoError.Transport", _PARSING, False, "reason",
     ("With network, writable paths or no sandbox a program can have effects: give --effect; a "
      "state of one's own declares ApplySideEffect.")),
)  # fmt: skip

_NIX: tuple[_Row, ...] = (
    ("nix_request_invalid", "IoError.Transport", _PARSING, False, "pointer reason",
     "Correct the request at the named place; docs/nix.md describes it."),
    ("nix_app_not_allowed", "IoError.Transport", _PARSING, False, "reason",
     "docs/nix.md says what each reason asks for; --allow-flake REF is for `not_in_allowlist`."),
    ("nix_manifest_lookup_failed", "IoError.Transport", _STORAGE, False, "",
     "The store does not hold the run's manifest; restore it from a backup."),
    ("nix_manifest_invalid", "IoError.Transport", _STORAGE, False, "",
     "The manifest was written by another version of mfm; use that version."),
    ("nix_eval_failed", "IoError.Transport", _OFFCHAIN, False, "reason",
     "docs/nix.md explains each reason; --show-stderr shows what Nix says."),
    ("nix_build_failed", "IoError.Transport", _OFFCHAIN, False, "reason",
     "docs/nix.md explains each reason; --show-stderr shows what Nix says."),
    ("nix_run_failed", "IoError.Transport", _OFFCHAIN, False,
     "program_path reason exit_code signal",
     "The app's program failed; run it again with its standard error shown."),
    ("nix_host_env_missing", "IoError.Transport", _PARSING, False, "variable",
     "Set the variable in the environment of mfm, to something."),
    ("nix_timeout", "IoError.Transport", _OFFCHAIN, True, "program_path reason timeout_ms",
     "What was going on did not end in time and was stopped; raise timeout_ms."),
    ("nix_stdout_too_large", "IoError.Transport", _OFFCHAIN, False,
     "program_path reason limit_bytes",
     "Standard output is limited to 1 MiB; write large results elsewhere."),
    ("nix_stderr_too_large", "IoError.Transport", _OFFCHAIN, False,
     "program_path reason limit_bytes",
     "Standard error is limited to 1 MiB; --show-stderr shows what is so long."),
    ("nix_stdout_invalid_json", "IoError.Transport", _OFFCHAIN, False, "program_path reason",
     "The program, or Nix, must print exactly one JSON value of a known form."),
    ("nix_stdin_write_failed", "IoError.Transport", _OFFCHAIN, False, "program_path reason",
     "Writing the program's standard input failed."),
    ("nix_unavailable", "IoError.Transport", _OFFCHAIN, False, "reason",
     "Nix must be installed and usable by this user; `mfm doctor` shows which one is found."),
)  # fmt: skip

_KEYSTORE: tuple[_Row, ...] = (
    ("keystore_request_invalid", "IoError.Transport", _PARSING, False, "pointer reason",
     "Correct the request at the named place."),
    ("keystore_dir_missing", "IoError.Transport", _PARSING, False, "dir",
     "There is no such directory; give --keystore or set MFM_KEYSTORE."),
    ("keystore_dir_not_directory", "IoError.Transport", _PARSING, False, "dir",
     "The path must name a directory of keystore files."),
    ("keystore_dir_unreadable", "IoError.Transport", _PARSING, False, "dir",
     "The directory cannot be read; check its permissions."),
    ("keystore_dir_too_many_files", "IoError.Transport", _PARSING, False, "dir",
     "Name the directory that holds the keystores themselves."),
    ("keystore_filter_invalid", "StateError", _PARSING, False, "pattern reason",
     "--filter-label takes a regular expression."),
)  # fmt: skip

_SETTINGS: tuple[_Row, ...] = (
    ("settings_invalid", "SettingsFailure", _PARSING, False, "source key reason",
     "Correct the named setting; docs/configuration.md lists them all."),
    ("settings_not_trusted", "SettingsFailure", _PARSING, False, "source key",
     ("A mfm.toml found in a directory can only tighten; put it into your own configuration, or "
      "name the file with --config.")),
    ("workspace_dirty", "SettingsFailure", _PARSING, False, "reason",
     "Commit or undo what `git status` shows, or leave out --require-clean."),
    ("workspace_unlocked", "SettingsFailure", _PARSING, False, "file reason",
     "Make the lock (`nix flake lock`) and commit it, or leave out --require-locked."),
    ("usage", "SettingsFailure", _PARSING, False, "", "`mfm --help` shows the commands."),
    ("internal_error", "RunError.Other", _UNKNOWN, False, "exception",
     "This is a bug in mfm; run again with --log-level debug and report it."),
    ("interrupted", "RunError.Other", _UNKNOWN, True, "signal run_id",
     "`mfm run resume last` goes on."),
)  # fmt: skip


def _rows(*families: tuple[_Row, ...]) -> Mapping[str, CodeRow]:
    return MappingProxyType(
        {
            code: CodeRow(code, variant, category, retryable, frozenset(safe.split()), hint)
            for family in families
            for code, variant, category, retryable, safe, hint in family
        }
    )


CATALOGUE: Final[Mapping[str, CodeRow]] = _rows(
    _CONTRACT, _STORE, _EXEC, _NIX, _KEYSTORE, _SETTINGS
)


def error_info(code: str, message: str, **details: Json) -> ErrorInfo:
    """An `ErrorInfo` whose category and retryability are the catalogue's.

    `message` is a fixed sentence: no request text, no output, no secret. A code that is not in
    the catalogue is a mistake in the caller and raises KeyError.
    """
    row = CATALOGUE[code]
    return ErrorInfo(
        code=ErrorCode(code),
        category=row.category,
        retryable=row.retryable,
        message=message,
        details=details or None,
    )


def hint_for(code: str) -> str | None:
    """What to do next about `code`; None for a code of somebody else's."""
    row = CATALOGUE.get(code)
    return row.hint if row else None
