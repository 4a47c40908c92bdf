"""`exec` on real programs in the real sandbox: each way to misbehave, and its exact code."""

# The tests look at small local files while the loop waits for them anyway; ASYNC110: the event to
# wait for happens in another process.
# ruff: noqa: ASYNC110, ASYNC240

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from mfm_ops.machine.codes import CATALOGUE
from mfm_ops.machine.errors import TransportFailure
from mfm_ops.machine.meta import SideEffectKind
from tests.integration.programs import Programs
from transports.exec import ExecFactory, parse_request
from transports.policy import ExecPolicy
from transports.probe import probe_sandbox
from transports.runner import ProgramCall, ProgramRunner

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


@pytest.fixture(params=["bubblewrap", "off"])
def policy(request: pytest.FixtureRequest, programs: Programs) -> ExecPolicy:
    return programs.policy(sandbox=request.param)


def code(failure: TransportFailure) -> str:
    return str(failure.info.code)


# What a program gets and what becomes of its output.


async def test_the_response_is_the_value_on_standard_output(
    programs: Programs, policy: ExecPolicy
) -> None:
    program = programs.script("echo", "cat")
    reply = await programs.run(program, policy=policy, stdin_json={"a": [1, "ä"]})
    assert reply.response == {"a": [1, "ä"]}


async def test_a_large_input_and_output_pass_through(
    programs: Programs, policy: ExecPolicy
) -> None:
    value = "x" * (MIB - 2)
    program = programs.script("echo", "cat")
    reply = await programs.run(program, policy=policy, stdin_json=value)
    assert reply.response == value


async def test_what_a_program_prints_after_a_whole_value_counts(
    programs: Programs, policy: ExecPolicy
) -> None:
    program = programs.script("more", "printf 1; sleep 0.1; printf 2")
    assert (await programs.run(program, policy=policy)).response == 12
    program = programs.script("worse", "echo 1; sleep 0.1; echo 2")
    failure = await programs.failure(program, policy=policy)
    assert code(failure) == "exec_stdout_invalid_json"


async def test_a_program_that_answers_and_then_fails_has_failed(
    programs: Programs, policy: ExecPolicy
) -> None:
    program = programs.script("fails", "echo 1; sleep 0.1; exit 3")
    assert code(await programs.failure(program, policy=policy)) == "exec_failed"


async def test_meta_says_what_ran_and_under_what(programs: Programs) -> None:
    program = programs.script("one", "echo 1")
    meta = (await programs.run(program)).meta
    assert meta["program"] == program
    assert meta["program_sha256"] == hashlib.sha256(Path(program).read_bytes()).hexdigest()
    assert (meta["transport"], meta["sandbox"], meta["exit_status"]) == ("exec", "bubblewrap", 0)
    assert meta["policy_digest"] == "policy"
    limits = meta["limits"]
    assert isinstance(limits, dict)
    assert limits["memory"] in ("watch", "cgroup")
    assert limits["cpu"] == "rlimit"


async def test_without_a_sandbox_no_program_becomes_another_user(programs: Programs) -> None:
    # As root it could be ended nevertheless; anybody else would leave it running.
    body = (
        "while read -r name value; do [ $name = NoNewPrivs: ] && echo $value; done </proc/$$/status"
    )
    program = programs.script("privileges", body + "; exit 0")
    reply = await programs.run(program, policy=programs.policy(sandbox="off"))
    assert reply.response == 1


async def test_without_a_sandbox_meta_says_so(programs: Programs) -> None:
    program = programs.script("one", "echo 1")
    reply = await programs.run(program, policy=programs.policy(sandbox="off"))
    assert (reply.meta["sandbox"], reply.meta["sandbox_version"]) == ("off", None)


async def test_the_environment_holds_what_the_request_gives(programs: Programs) -> None:
    program = programs.script("vars", 'env >/tmp/env; read -r all </tmp/env; echo "\\"$A$HOME\\""')
    assert (await programs.run(program, env={"A": "b"})).response == "b"


async def test_arguments_arrive_as_they_are(programs: Programs, policy: ExecPolicy) -> None:
    program = programs.script("args", 'printf \'["%s","%s","%s"]\' "$#" "$1" "$2"')
    assert (await programs.run(program, "-a", "b c", policy=policy)).response == ["2", "-a", "b c"]


async def test_a_program_acts_by_the_name_that_it_is_called(
    programs: Programs, policy: ExecPolicy
) -> None:
    reply = await programs.run(str(programs.bin / "cat"), policy=policy, stdin_json=7)
    assert reply.response == 7


async def test_a_program_finds_its_neighbours_beside_itself(programs: Programs) -> None:
    programs.script("part", "echo 5")
    program = programs.script("whole", '"${0%/*}/part"')
    assert (await programs.run(program)).response == 5


async def test_an_idempotency_key_reaches_the_program(programs: Programs) -> None:
    program = programs.script("key", 'echo "\\"$MFM_IDEMPOTENCY_KEY\\""')
    reply = await ProgramRunner(programs.policy(), "policy").run(
        ProgramCall(program), side_effects=SideEffectKind.ApplySideEffect, idempotency_key="k-1"
    )
    assert reply.response == "k-1"


async def test_closing_standard_input_early_is_a_success(
    programs: Programs, policy: ExecPolicy
) -> None:
    program = programs.script("deaf", "exec 0<&-; echo 1")
    assert (await programs.run(program, policy=policy, stdin_json="x" * 500_000)).response == 1


@pytest.mark.parametrize("output", ["", "{", "1 2", "nonsense", "NaN"])
async def test_output_that_is_not_one_json_value(programs: Programs, output: str) -> None:
    program = programs.script("bad", f"echo '{output}'")
    assert code(await programs.failure(program)) == "exec_stdout_invalid_json"


@pytest.mark.parametrize("output", ["1.5", "9007199254740993", '{"a":1,"a":2}', '"\\ud800"'])
async def test_output_without_a_canonical_form(programs: Programs, output: str) -> None:
    program = programs.script("bad", f"printf '%s' '{output}'")
    assert code(await programs.failure(program)) == "exec_stdout_not_canonical"


async def test_numbers_can_be_kept_as_text(programs: Programs) -> None:
    program = programs.script("price", "echo '[1.50,9007199254740993,3]'")
    reply = await programs.run(program, numbers="string")
    assert reply.response == ["1.50", "9007199254740993", 3]


async def test_a_failed_program_shows_its_exit_code_and_nothing_it_wrote(
    programs: Programs, policy: ExecPolicy
) -> None:
    program = programs.script("fail", "echo s3cret; echo s3cret >&2; exit 3")
    failure = await programs.failure(program, "s3cret", policy=policy)
    assert code(failure) == "exec_failed"
    assert failure.info.details == {"program_path": program, "exit_code": 3, "signal": None}
    assert "s3cret" not in failure.info.model_dump_json()


async def test_a_signal_is_named(programs: Programs, policy: ExecPolicy) -> None:
    failure = await programs.failure(programs.script("die", "kill -SEGV $$"), policy=policy)
    assert code(failure) == "exec_failed"
    assert failure.info.details["signal"] == 11


async def test_standard_error_goes_to_the_sink_only_where_the_policy_says(
    programs: Programs,
) -> None:
    program = programs.script("talk", "echo hello >&2; echo 1")
    for wanted, heard in ((True, b"hello\n"), (False, b"")):
        chunks: list[bytes] = []
        runner = ProgramRunner(
            programs.policy(pass_stderr=wanted), "policy", stderr_sink=chunks.append
        )
        await runner.run(ProgramCall(program), side_effects=SideEffectKind.ReadOnlyIo)
        assert b"".join(chunks) == heard


# What does not come to an end by itself, and what is too much.

HANGS = {
    "sleeps": "sleep 1000",
    "ignores SIGTERM": "trap '' TERM INT HUP; sleep 1000; sleep 1000",
    "closes its streams": "exec 0<&- 1>&- 2>&-; sleep 1000",
    "leaves a daemon that holds its output": "setsid sleep 1000 & sleep 1000",
    "spins": "while :; do :; done",
}


@pytest.mark.parametrize("body", HANGS.values(), ids=HANGS.keys())
async def test_a_program_that_hangs_is_killed_with_all_its_tree(
    programs: Programs, policy: ExecPolicy, body: str
) -> None:
    failure = await programs.failure(programs.script("hang", body), policy=policy, timeout_ms=300)
    assert code(failure) == "exec_timeout"
    assert failure.info.retryable
    assert programs.alive() == []


async def test_a_daemon_does_not_outlive_its_program(
    programs: Programs, policy: ExecPolicy
) -> None:
    program = programs.script("fork", "(setsid setsid sleep 1000 &) ; setsid sleep 1000 & echo 1")
    assert (await programs.run(program, policy=policy)).response == 1
    assert programs.alive() == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [("yes", "exec_stdout_too_large"), ("yes >&2", "exec_stderr_too_large")],
)
async def test_a_program_that_writes_for_ever_is_stopped(
    programs: Programs, policy: ExecPolicy, body: str, expected: str
) -> None:
    assert code(await programs.failure(programs.script("w", body), policy=policy)) == expected
    assert programs.alive() == []


async def test_exactly_one_mebibyte_of_output_is_allowed(programs: Programs) -> None:
    program = programs.script("w", "printf '1'; head -c 1048575 /dev/zero | tr '\\0' ' '")
    (programs.bin / "tr").symlink_to("busybox")
    assert (await programs.run(program)).response == 1


async def test_too_much_input_is_refused_before_anything_runs(programs: Programs) -> None:
    failure = await programs.failure("/nonexistent", stdin_json="x" * MIB)
    assert code(failure) == "exec_stdin_too_large"


async def test_a_fork_bomb_is_stopped(programs: Programs) -> None:
    # One begets one, for ever: `f | f` would fill the host before anybody looks, and every other
    # process that shares a limit with this one, the tests' own too, could start nothing meanwhile.
    program = programs.script("bomb", "f() { f & exec sleep 1000; }; f")
    policy = programs.policy(processes=50)
    failure = await programs.failure(program, policy=policy)
    assert code(failure) == "exec_limit_exceeded"
    assert failure.info.details["limit"] == "processes"
    assert programs.alive() == []


@pytest.mark.parametrize("sandbox", ["bubblewrap", "off"])
async def test_orphans_that_are_dead_are_no_processes(programs: Programs, sandbox: str) -> None:
    body = "i=0; while [ $i -lt 60 ]; do ( sleep 0 & ); i=$((i+1)); done; sleep 0.3; echo 1"
    policy = programs.policy(sandbox=sandbox, processes=40)
    assert (await programs.run(programs.script("orphans", body), policy=policy)).response == 1


async def test_too_many_processes_are_stopped_without_a_sandbox_too(programs: Programs) -> None:
    # No bomb here: a group of processes that is bounded by itself.
    body = "i=0; while [ $i -lt 60 ]; do setsid sleep 1000 & i=$((i+1)); done; sleep 1000"
    policy = programs.policy(sandbox="off", processes=20)
    failure = await programs.failure(programs.script("many", body), policy=policy)
    assert code(failure) == "exec_limit_exceeded"
    assert programs.alive() == []


async def test_a_program_that_eats_memory_is_stopped(
    programs: Programs, policy: ExecPolicy
) -> None:
    program = programs.script("eat", "dd if=/dev/zero of=/dev/null bs=256M")
    tight = programs.policy(sandbox=policy.sandbox, memory_mb=64)
    failure = await programs.failure(program, policy=tight)
    assert code(failure) == "exec_limit_exceeded"
    assert failure.info.details["limit"] == "memory"
    assert failure.info.details["mechanism"] in ("watch", "cgroup")
    assert programs.alive() == []


async def test_files_in_the_private_tmp_are_bounded_by_the_memory_limit(
    programs: Programs,
) -> None:
    program = programs.script("fill", "dd if=/dev/zero of=/tmp/x bs=1M count=64 2>/dev/null")
    failure = await programs.failure(program, policy=programs.policy(memory_mb=16))
    # The disk is full, or the watch was quicker.
    assert code(failure) in ("exec_failed", "exec_limit_exceeded")


async def test_cpu_time_is_limited(programs: Programs, policy: ExecPolicy) -> None:
    tight = programs.policy(sandbox=policy.sandbox, cpu_s=1)
    failure = await programs.failure(programs.script("spin", HANGS["spins"]), policy=tight)
    assert code(failure) == "exec_limit_exceeded"
    assert failure.info.details["limit"] == "cpu"


async def test_file_size_is_limited(programs: Programs, policy: ExecPolicy, tmp_path: Path) -> None:
    target = "/tmp/big" if policy.sandbox == "bubblewrap" else str(tmp_path / "big")
    tight = programs.policy(sandbox=policy.sandbox, file_size_mb=1)
    body = f"exec dd if=/dev/zero of={target} bs=1M count=8 2>/dev/null"
    failure = await programs.failure(programs.script("big", body), policy=tight)
    assert code(failure) == "exec_limit_exceeded"
    assert failure.info.details["limit"] == "file_size"


async def test_open_files_are_limited(programs: Programs, policy: ExecPolicy) -> None:
    tight = programs.policy(sandbox=policy.sandbox, open_files=32)
    program = programs.script("limit", "ulimit -n")
    assert (await programs.run(program, policy=tight)).response == 32


async def test_a_cancelled_call_leaves_no_process(programs: Programs, policy: ExecPolicy) -> None:
    started = programs.bin / "started"
    shared = programs.policy(sandbox=policy.sandbox, read_write_paths=(str(programs.bin),))
    program = programs.script("wait", f"setsid sleep 1000 & touch {started}; sleep 1000")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: programs.run(program, policy=shared))
        while not started.exists():
            await anyio.sleep(0.005)
        assert programs.alive() != []
        tasks.cancel_scope.cancel()
    assert programs.alive() == []


async def test_a_call_cancelled_at_any_moment_leaves_no_process(
    programs: Programs, policy: ExecPolicy
) -> None:
    program = programs.script("wait", "setsid sleep 1000 & sleep 1000")
    for delay_ms in range(0, 24, 2):
        with anyio.move_on_after(delay_ms / 1000):
            await programs.run(program, policy=policy)
        assert programs.alive() == []


async def test_a_deadline_at_any_moment_finds_a_tree_that_can_be_killed(
    programs: Programs, policy: ExecPolicy
) -> None:
    program = programs.script("wait", "setsid sleep 1000 & sleep 1000")
    for timeout_ms in range(1, 40, 2):
        failure = await programs.failure(program, policy=policy, timeout_ms=timeout_ms)
        assert code(failure) == "exec_timeout"
        assert "stuck" not in failure.info.message
    assert programs.alive() == []


async def test_many_calls_at_once_keep_apart(programs: Programs) -> None:
    program = programs.script("echo", "cat")
    runner = ProgramRunner(programs.policy(), "policy")
    seen: dict[int, object] = {}

    async def one(number: int) -> None:
        call = ProgramCall(program, stdin_json=number)
        reply = await runner.run(call, side_effects=SideEffectKind.ReadOnlyIo)
        seen[number] = reply.response

    async with anyio.create_task_group() as tasks:
        for number in range(24):
            tasks.start_soon(one, number)
    assert seen == {number: number for number in range(24)}


# What may run.


async def test_only_programs_below_a_prefix_may_run(programs: Programs, tmp_path: Path) -> None:
    outside = tmp_path / "binary"
    outside.mkdir()
    program = programs.script("one", "echo 1", directory=outside)
    failure = await programs.failure(program)
    assert code(failure) == "exec_program_not_allowed"
    assert failure.info.details["reason"] == "outside_prefixes"


async def test_a_link_out_of_the_prefix_may_not_run(programs: Programs, tmp_path: Path) -> None:
    target = programs.script("one", "echo 1", directory=tmp_path)
    link = programs.bin / "link"
    link.symlink_to(target)
    assert code(await programs.failure(str(link))) == "exec_program_not_allowed"


async def test_a_path_that_climbs_out_of_the_prefix_may_not_run(
    programs: Programs, tmp_path: Path
) -> None:
    programs.script("one", "echo 1", directory=tmp_path)
    assert code(await programs.failure(f"{programs.bin}/../one")) == "exec_program_not_allowed"


async def test_the_default_policy_allows_the_nix_store_alone(programs: Programs) -> None:
    failure = await programs.failure(programs.script("one", "echo 1"), policy=ExecPolicy())
    assert code(failure) == "exec_program_not_allowed"


async def test_what_is_not_there(programs: Programs) -> None:
    assert code(await programs.failure(f"{programs.bin}/none")) == "exec_program_missing"
    (programs.bin / "dangling").symlink_to("none")
    assert code(await programs.failure(f"{programs.bin}/dangling")) == "exec_program_missing"


async def test_what_is_no_executable_file(programs: Programs) -> None:
    plain = Path(programs.script("plain", "echo 1"))
    plain.chmod(0o644)
    os.mkfifo(programs.bin / "fifo", 0o755)
    for path in (plain, programs.bin, programs.bin / "fifo"):
        assert code(await programs.failure(str(path))) == "exec_program_not_executable"


@pytest.mark.parametrize("head", ["echo 1\n", "", "\x7fELF nonsense", "#!\n", "#! relative/sh\n"])
async def test_what_the_kernel_could_not_run(
    programs: Programs, policy: ExecPolicy, head: str
) -> None:
    path = programs.bin / "odd"
    path.write_text(head)
    path.chmod(0o755)
    expected = "exec_program_not_allowed" if head.startswith("#!") else "exec_spawn_failed"
    assert code(await programs.failure(str(path), policy=policy)) == expected


async def test_a_scripts_interpreter_must_be_allowed_too(
    programs: Programs, tmp_path: Path
) -> None:
    outside = tmp_path / "sh"
    outside.write_bytes((programs.bin / "busybox").read_bytes())
    outside.chmod(0o755)
    script = programs.bin / "script"
    script.write_text(f"#!{outside}\necho 1\n")
    script.chmod(0o755)
    failure = await programs.failure(str(script))
    assert code(failure) == "exec_program_not_allowed"
    assert failure.info.details == {"reason": "interpreter", "program_path": str(script)}
    allowed = programs.policy(read_only_paths=(str(outside),))
    assert (await programs.run(str(script), policy=allowed)).response == 1


async def test_scripts_that_interpret_each_other_are_bounded(programs: Programs) -> None:
    for number in range(8):
        script = programs.bin / f"s{number}"
        script.write_text(f"#!{programs.bin}/s{number + 1}\n")
        script.chmod(0o755)
    failure = await programs.failure(f"{programs.bin}/s0")
    assert code(failure) == "exec_program_not_allowed"


@pytest.mark.parametrize("padding", [0, 2 * MIB], ids=["copied", "bound"])
async def test_what_was_checked_is_what_runs_while_it_is_being_replaced(
    programs: Programs, policy: ExecPolicy, padding: int
) -> None:
    variants = {}
    for name in ("good", "evil"):
        source = programs.script(name, f"echo '\"{name}\"'; exit\n{'#' * padding}")
        variants[hashlib.sha256(Path(source).read_bytes()).hexdigest()] = name
    target = programs.bin / "target"
    spare = programs.bin / "spare"
    target.write_bytes((programs.bin / "good").read_bytes())
    target.chmod(0o755)
    stop = threading.Event()
    refusals: list[tuple[str, Any]] = []

    def swap() -> None:
        while not stop.is_set():
            for name in ("evil", "good"):
                spare.unlink(missing_ok=True)
                spare.hardlink_to(programs.bin / name)
                spare.rename(target)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(30):
            try:
                reply = await programs.run(str(target), policy=policy)
            except TransportFailure as exc:
                # A large program that was unlinked before it could be bound, each time.
                refusals.append((code(exc), exc.info.details))
                continue
            assert variants[str(reply.meta["program_sha256"])] == reply.response
    finally:
        stop.set()
        thread.join()
    replaced = ("exec_program_not_allowed", {"reason": "replaced"})
    assert [refusal for refusal in refusals if refusal != replaced] == []


async def test_a_program_written_to_while_it_runs_does_not_count(programs: Programs) -> None:
    program = programs.script("self", 'echo "#" >> "$SELF"; echo 1')
    writable = programs.policy(sandbox="off")
    failure = await programs.failure(program, policy=writable, env={"SELF": program})
    assert code(failure) == "exec_program_not_allowed"
    assert failure.info.details["reason"] == "modified"


@pytest.mark.parametrize("argv", [("x" * 200_000,), ("x",) * 9000], ids=["long", "many"])
async def test_arguments_that_no_program_can_get(programs: Programs, argv: tuple[str, ...]) -> None:
    failure = await programs.failure(programs.script("one", "echo 1"), *argv)
    assert code(failure) == "exec_spawn_failed"
    assert failure.info.details["reason"] == "too_long"


# What a program can see and do.


async def test_nothing_of_the_host_is_seen_but_what_the_policy_names(
    programs: Programs, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("1")
    program = programs.script("look", f"[ -e {tmp_path}/secret ] || [ -e /etc ] && echo 1; echo 2")
    assert (await programs.run(program)).response == 2


async def test_what_the_policy_names_is_read_only(programs: Programs, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    program = programs.script(
        "write", f"touch {data}/x {programs.bin}/x /x /dev/x; ls {data} / >&2"
    )
    policy = programs.policy(read_only_paths=(str(data),))
    assert code(await programs.failure(program, policy=policy)) == "exec_stdout_invalid_json"
    assert list(data.iterdir()) == []
    assert not (programs.bin / "x").exists()


async def test_writable_paths_are_written_through(programs: Programs, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    policy = programs.policy(read_write_paths=(str(data),))
    program = programs.script("write", f"touch {data}/x; echo 1")
    assert (await programs.run(program, policy=policy)).response == 1
    assert (data / "x").exists()


async def test_a_read_only_path_inside_a_writable_one_stays_read_only(
    programs: Programs, tmp_path: Path
) -> None:
    keys = tmp_path / "data" / "keys"
    keys.mkdir(parents=True)
    policy = programs.policy(
        read_only_paths=(str(keys),), read_write_paths=(str(keys.parent), str(programs.bin.parent))
    )
    program = programs.script(
        "write", f"touch {keys.parent}/x {keys}/x {programs.bin}/x 2>/dev/null; echo 1"
    )
    assert (await programs.run(program, policy=policy)).response == 1
    assert (keys.parent / "x").exists()
    assert not (keys / "x").exists()
    assert not (programs.bin / "x").exists()


async def test_the_private_tmp_is_writable_and_empty_each_time(programs: Programs) -> None:
    program = programs.script("tmp", "[ -e /tmp/x ] && echo 1 || { touch /tmp/x; echo 0; }")
    for _ in range(2):
        assert (await programs.run(program)).response == 0


async def test_the_sandbox_has_namespaces_of_its_own_and_no_capabilities(
    programs: Programs,
) -> None:
    body = (
        'while read -r k v; do case $k in CapEff:|CapBnd:|NoNewPrivs:) o="$o $v";; esac; '
        'done </proc/self/status; echo "\\"$o $(id -u) $(ls /proc/self/fd | wc -l)\\""'
    )
    (programs.bin / "wc").symlink_to("busybox")
    reply = await programs.run(programs.script("who", body))
    zeros = "0" * 16
    assert str(reply.response).split()[:4] == [zeros, zeros, "1", "65534"]


async def test_there_is_no_network_unless_the_policy_gives_it(programs: Programs) -> None:
    program = programs.script(
        "net", "i=0; while read -r l; do i=$((i+1)); done </proc/net/dev; echo $i"
    )
    # Two lines of headings and the loopback.
    assert (await programs.run(program)).response == 3
    host = len(Path("/proc/net/dev").read_text().splitlines())
    assert (await programs.run(program, policy=programs.policy(network=True))).response == host


async def test_no_descriptor_of_ours_reaches_the_program(programs: Programs) -> None:
    body = "n=0; for f in /proc/$$/fd/*; do n=$((n+1)); done; echo $n"
    reply = await programs.run(programs.script("fds", body))
    # Its three streams, and the shell's own: the script and the directory that it lists.
    assert reply.response == 5


@pytest.mark.parametrize(
    "changes", [{"network": True}, {"read_write_paths": ("/tmp",)}, {"sandbox": "off"}]
)
async def test_a_policy_that_allows_effects_needs_a_state_that_declares_them(
    programs: Programs, changes: dict[str, Any]
) -> None:
    failure = await programs.failure(
        programs.script("one", "echo 1"),
        policy=programs.policy(**changes),
        side_effects=SideEffectKind.ReadOnlyIo,
    )
    assert code(failure) == "exec_effect_undeclared"


# Where there is no sandbox.


async def test_without_bubblewrap_nothing_runs(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    target = tmp_path / "ran"
    program = programs.script("one", f"touch {target}; echo 1")
    failure = await programs.failure(program)
    assert code(failure) == "exec_sandbox_unavailable"
    assert failure.info.details == {"reason": "missing"}
    assert not target.exists()


async def test_a_sandbox_that_the_kernel_refuses_is_told_from_a_program_that_fails(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "path"
    path.mkdir()
    refusing = path / "bwrap"
    refusing.write_text(
        f"#!{programs.bin}/sh\n"
        'case "$1" in --version) echo bubblewrap 0.8.0;; --help) ;; *)\n'
        'echo "bwrap: setting up uid map: Permission denied" >&2; exit 1;; esac\n'
    )
    refusing.chmod(0o755)
    mimic = programs.script(
        "mimic", 'echo "bwrap: setting up uid map: Permission denied" >&2; exit 1'
    )
    assert code(await programs.failure(mimic)) == "exec_failed"
    monkeypatch.setenv("PATH", str(path))
    assert code(await programs.failure(mimic)) == "exec_sandbox_unavailable"
    probe = await probe_sandbox(programs.policy())
    assert not probe.works
    assert probe.hint


async def test_the_probe_tells_that_the_sandbox_works(programs: Programs) -> None:
    probe = await probe_sandbox(programs.policy(read_only_paths=("/nonexistent",)))
    assert (probe.works, probe.reason) == (True, None)
    assert probe.absent_paths == ("/nonexistent",)


async def test_a_writable_path_that_is_not_there_is_no_failure_of_the_program(
    programs: Programs, tmp_path: Path
) -> None:
    policy = programs.policy(read_write_paths=(str(tmp_path / "none"),))
    failure = await programs.failure(programs.script("one", "echo 1"), policy=policy)
    assert code(failure) == "exec_sandbox_unavailable"


# The request.

GOOD: dict[str, Any] = {"kind": "run_program_v1", "program_path": "/p"}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"kind": "run_program_v2"}, "/kind"),
        ({"program_path": "relative"}, "/program_path"),
        ({"program_path": "/a\0b"}, "/program_path"),
        ({"program_path": 1}, "/program_path"),
        ({"argv": "x"}, "/argv"),
        ({"argv": ["a", 1]}, "/argv/1"),
        ({"argv": ["a\0"]}, "/argv/0"),
        ({"argv": ["\ud800"]}, "/argv/0"),
        ({"timeout_ms": 0}, "/timeout_ms"),
        ({"timeout_ms": True}, "/timeout_ms"),
        ({"timeout_ms": "5"}, "/timeout_ms"),
        ({"timeout_ms": 10**9}, "/timeout_ms"),
        ({"env": {"A=B": "c"}}, "/env/*"),
        ({"env": {"": "c"}}, "/env/*"),
        ({"env": {"A": 1}}, "/env/*"),
        ({"env": {"A": "\0"}}, "/env/*"),
        ({"env": {"MFM_IDEMPOTENCY_KEY": "k"}}, "/env/*"),
        ({"numbers": "float"}, "/numbers"),
        ({"shell": True}, "/*"),
    ],
)
async def test_a_wrong_request_is_refused_by_place(change: dict[str, Any], pointer: str) -> None:
    with pytest.raises(TransportFailure) as caught:
        parse_request({**GOOD, **change})
    assert code(caught.value) == "exec_request_invalid"
    assert caught.value.info.details["pointer"] == pointer
    assert set(caught.value.info.details) <= CATALOGUE["exec_request_invalid"].safe_details


@pytest.mark.parametrize("request_", [None, [], "x", {}, {"kind": "run_program_v1"}])
async def test_what_is_no_request_at_all_is_refused(request_: Any) -> None:
    with pytest.raises(TransportFailure) as caught:
        parse_request(request_)
    assert code(caught.value) == "exec_request_invalid"


async def test_the_optional_parts_of_a_request_have_the_documented_values() -> None:
    request = parse_request(GOOD)
    assert (request.argv, request.stdin_json, request.env) == ([], None, {})
    assert (request.timeout_ms, request.numbers) == (300_000, "reject")


async def test_the_factory_serves_the_group_exec() -> None:
    assert ExecFactory(ExecPolicy(), "policy").namespace_group == "exec"


async def test_a_warm_call_does_not_read_the_program_again(programs: Programs) -> None:
    program = programs.script("one", "echo 1")
    runner = ProgramRunner(programs.policy(), "policy")
    digests = set()
    for _ in range(2):
        reply = await runner.run(ProgramCall(program), side_effects=SideEffectKind.ReadOnlyIo)
        digests.add(reply.meta["program_sha256"])
    os.utime(program, (time.time(), 0))
    reply = await runner.run(ProgramCall(program), side_effects=SideEffectKind.ReadOnlyIo)
    assert digests == {reply.meta["program_sha256"]}
