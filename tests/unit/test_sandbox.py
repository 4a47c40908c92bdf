"""Policy, sandbox command, host view and cgroup protocol, decided without running anything."""

import dataclasses
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfm_ops.machine.canonical import canonical_json_bytes
from transports.bubblewrap import explain_refusal, read_complaint
from transports.cgroup import Domain, find_domain
from transports.policy import ExecPolicy, is_below
from transports.program import PinnedProgram, pin_program
from transports.sandbox import (
    PRIVATE_DIR,
    Mounts,
    PinnedFile,
    encode_args,
    launcher_argv,
    sandbox_args,
)
from transports.view import Neighbours, host_mounts, program_view

NETWORK = "--unshare-net"

# The beginning of a program that the kernel has taken.
NATIVE = Path("/proc/self/exe").read_bytes()[:4096]


def args_of(policy: ExecPolicy, mounts: Mounts | None = None, **env: str) -> tuple[str, ...]:
    return sandbox_args(policy, mounts or Mounts(), env, status_fd=8, gate_fd=9)


def has(args: tuple[str, ...], *wanted: str) -> bool:
    return any(args[i : i + len(wanted)] == wanted for i in range(len(args)))


# The policy.


def test_the_default_policy_denies() -> None:
    policy = ExecPolicy()
    assert policy.allow_prefixes == ("/nix/store",)
    assert (policy.sandbox, policy.network) == ("bubblewrap", False)
    assert (policy.read_only_paths, policy.read_write_paths) == ((), ())
    assert not policy.may_have_effects


@pytest.mark.parametrize("path", ["", "usr", "/a/../b", "/a/./b", "/a//b", "/a\0", "//a//b"])
def test_paths_that_are_not_plain_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"absolute|normalised"):
        ExecPolicy(read_only_paths=(path,))


@pytest.mark.parametrize("path", ["/proc", "/dev", "/dev/shm", "/proc/self"])
def test_the_sandboxs_own_mounts_cannot_be_named(path: str) -> None:
    with pytest.raises(ValueError, match="/proc or /dev"):
        ExecPolicy(read_write_paths=(path,))


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, 2**31])
def test_a_limit_is_a_positive_integer(limit: int) -> None:
    with pytest.raises(ValueError, match="memory_mb"):
        ExecPolicy(memory_mb=limit)


def test_an_unknown_kind_of_sandbox_is_refused() -> None:
    with pytest.raises(ValueError, match="sandbox"):
        ExecPolicy(sandbox="none")  # type: ignore[arg-type]


def test_the_policys_json_is_canonical_and_tells_policies_apart() -> None:
    one = canonical_json_bytes(ExecPolicy().to_json())
    assert one == canonical_json_bytes(ExecPolicy(pass_stderr=True).to_json())
    assert one != canonical_json_bytes(ExecPolicy(network=True).to_json())


@given(st.lists(st.sampled_from(["a", "b", "ab"]), max_size=4), st.sampled_from(["a", "ab", "b"]))
def test_a_path_is_below_its_own_ancestors_alone(parts: list[str], part: str) -> None:
    path = "/" + "/".join([*parts, part])
    ancestors = {"/" + "/".join([*parts, part][:n]) for n in range(len(parts) + 2)}
    candidates = {"/" + "/".join(c) for c in itertools.product(["a", "b", "ab"], repeat=2)}
    assert all(is_below(path, root) == (root in ancestors) for root in ancestors | candidates)


# The command.


def test_the_sandbox_has_no_network_unless_the_policy_gives_it() -> None:
    assert NETWORK in args_of(ExecPolicy())
    assert NETWORK not in args_of(ExecPolicy(network=True))


def test_the_sandbox_is_closed_in_every_respect() -> None:
    args = args_of(ExecPolicy())
    for kind in ("user", "pid", "ipc", "uts"):
        assert f"--unshare-{kind}" in args
    for option in ("--new-session", "--die-with-parent", "--clearenv"):
        assert option in args
    assert has(args, "--cap-drop", "ALL")
    assert has(args, "--tmpfs", "/proc/1")
    for mount in ("/", "/dev", "/proc", "/proc/1"):
        assert has(args, "--remount-ro", mount)
    assert "--seccomp" not in args
    filtered = sandbox_args(ExecPolicy(), Mounts(), {}, status_fd=8, gate_fd=9, filter_fd=7)
    assert has(filtered, "--seccomp", "7")


def test_nothing_is_bound_that_was_not_named() -> None:
    args = args_of(ExecPolicy())
    assert not [arg for arg in args if "bind" in arg]
    args = args_of(ExecPolicy(), Mounts(("/usr",), ("/data",), (("usr/lib", "/lib"),)))
    assert has(args, "--ro-bind-try", "/usr", "/usr")
    assert has(args, "--bind", "/data", "/data")
    assert has(args, "--symlink", "usr/lib", "/lib")


def test_binds_below_tmp_come_after_the_private_tmp() -> None:
    args = args_of(ExecPolicy(), Mounts(("/tmp/x",)))
    assert args.index("/tmp") < args.index("/tmp/x")


def test_the_whole_root_comes_before_everything_that_lies_in_it() -> None:
    args = args_of(ExecPolicy(), Mounts(("/",)))
    assert args.index("--ro-bind") < args.index("--proc")


def test_the_deeper_of_two_mounts_comes_later() -> None:
    args = args_of(ExecPolicy(), Mounts(("/a", "/a/b/c"), ("/a/b", "/a/b/c/d")))
    places = [args[at + 1] for at, arg in enumerate(args) if arg in ("--ro-bind-try", "--bind")]
    assert places == ["/a", "/a/b", "/a/b/c", "/a/b/c/d"]


def test_a_writable_root_is_writable_and_hides_nothing_of_ours() -> None:
    args = args_of(ExecPolicy(), Mounts((), ("/",)))
    assert args.index("--bind") < args.index("--proc")
    assert args.count("--bind") == 1
    assert not has(args, "--remount-ro", "/")


@pytest.mark.parametrize(("copy", "option"), [(True, "--ro-bind-data"), (False, "--ro-bind-fd")])
def test_the_program_is_mounted_from_its_descriptor(copy: bool, option: str) -> None:
    pinned = PinnedFile(5, f"{PRIVATE_DIR}/bin/x", copy)
    args = sandbox_args(ExecPolicy(), Mounts(), {}, pinned=pinned, status_fd=8, gate_fd=9)
    assert has(args, option, "5", f"{PRIVATE_DIR}/bin/x")
    assert args.index(option) < args.index("--remount-ro")


def test_values_of_the_environment_are_not_on_the_command_line() -> None:
    assert has(args_of(ExecPolicy(), None, TOKEN="v"), "--setenv", "TOKEN", "v")
    assert encode_args(("a", "ä")) == b"a\0\xc3\xa4\0"
    assert launcher_argv("/bwrap", 7, "/p", ("x",)) == ("/bwrap", "--args", "7", "--", "/p", "x")


# What is seen.


def test_paths_inside_others_are_not_bound_again(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    policy = ExecPolicy(read_only_paths=(f"{tmp_path}/a/b", f"{tmp_path}/a"))
    assert host_mounts(policy, (f"{tmp_path}/a/b",)).read_only == (f"{tmp_path}/a",)


def test_what_is_read_only_inside_of_a_writable_path_is_bound_again(tmp_path: Path) -> None:
    root = str(tmp_path)
    policy = ExecPolicy(
        allow_prefixes=(f"{root}/w/bin", f"{root}/other"),
        read_only_paths=(root, f"{root}/w/fixed", f"{root}/w/fixed/a", f"{root}/w/both"),
        read_write_paths=(f"{root}/w", f"{root}/w/both"),
    )
    mounts = host_mounts(policy, ())
    assert set(mounts.read_only) == {root, f"{root}/w/bin", f"{root}/w/fixed"}
    assert mounts.read_write == policy.read_write_paths


def test_no_link_is_made_in_a_writable_path(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    named = (f"{tmp_path}/real", f"{tmp_path}/link")
    policy = ExecPolicy(read_only_paths=named, read_write_paths=(str(tmp_path),))
    assert host_mounts(policy, ()) == Mounts((f"{tmp_path}/real",), (str(tmp_path),), ())


def test_what_is_guarded_is_guarded_where_a_writable_link_shows_it(tmp_path: Path) -> None:
    (tmp_path / "var/home/user/bin").mkdir(parents=True)
    (tmp_path / "home").symlink_to("var/home")
    home = f"{tmp_path}/home/user"
    policy = ExecPolicy(allow_prefixes=(f"{home}/bin",), read_write_paths=(home,))
    assert host_mounts(policy, ()) == Mounts((f"{home}/bin",), (home,), ())
    policy = ExecPolicy(read_only_paths=("/bin",), read_write_paths=("/",))
    assert set(host_mounts(policy, ()).read_only) == {
        os.path.realpath(path) for path in ("/bin", *policy.allow_prefixes)
    }


def test_the_private_tmp_hides_no_path_that_is_named_below_it() -> None:
    for named in ((), ("/",), ("/", "/tmp")):
        mounts = host_mounts(ExecPolicy(read_only_paths=named), ("/tmp/prefix",))
        assert ("/tmp/prefix" in mounts.read_only) == ("/tmp" not in named)


def test_a_link_into_another_path_becomes_the_same_link(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    mounts = host_mounts(ExecPolicy(read_only_paths=(f"{tmp_path}/usr", f"{tmp_path}/lib")), ())
    assert mounts.read_only == (f"{tmp_path}/usr",)
    assert mounts.links == (("usr/lib", f"{tmp_path}/lib"),)


def test_a_link_out_of_all_other_paths_is_bound(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    mounts = host_mounts(ExecPolicy(read_only_paths=(f"{tmp_path}/link",)), ())
    assert mounts.read_only == (f"{tmp_path}/link",)


def pinned(resolved: str, requested: str, **changes: object) -> PinnedProgram:
    fields: dict[str, object] = {
        "fd": 5,
        "requested": requested,
        "resolved": resolved,
        "readable": True,
        "script": False,
        "size": 10,
        "roots": (),
        "sealed": False,
        "stamp": (0, 0, 0, 0, 0),
        "checked_ns": 0,
        **changes,
    }
    return PinnedProgram(**fields)  # type: ignore[arg-type]


def test_a_sealed_program_runs_from_its_own_path() -> None:
    store = "/nix/store/x/bin/tool"
    program = pinned(store, store, sealed=True)
    view = program_view(program, Neighbours(), Mounts(), bind_fd_supported=True)
    assert (view.path, view.pinned, view.links) == (store, None, ())


def test_a_sealed_program_keeps_the_name_that_it_was_called_by() -> None:
    program = pinned("/nix/store/x/bin/coreutils", "/nix/store/x/bin/cat", sealed=True)
    view = program_view(program, Neighbours(), Mounts(), bind_fd_supported=True)
    assert view.path == f"{PRIVATE_DIR}/bin/cat"
    assert view.links == (("/nix/store/x/bin/coreutils", view.path),)


def test_any_other_program_runs_from_a_private_place(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/part").touch()
    (tmp_path / "lib").mkdir()
    program = pinned(f"{tmp_path}/bin/tool", f"{tmp_path}/bin/tool")
    mounts = Mounts((str(tmp_path),))
    view = program_view(program, Neighbours(), mounts, bind_fd_supported=True)
    assert view.path == f"{PRIVATE_DIR}/bin/tool"
    assert view.pinned == PinnedFile(5, view.path, copy=True)
    assert (f"{tmp_path}/bin/part", f"{PRIVATE_DIR}/bin/part") in view.links
    assert (f"{tmp_path}/lib", f"{PRIVATE_DIR}/lib") in view.links


@pytest.mark.parametrize(
    ("shown", "named"),
    [
        (("bin/tool",), ()),
        (("bin",), ("bin/part",)),
        (("bin/tool", "lib/a"), ("lib",)),
        (("bin/tool", "bin/part"), ("bin/part",)),
    ],
)
def test_no_name_is_told_of_what_is_not_shown(
    tmp_path: Path, shown: tuple[str, ...], named: tuple[str, ...]
) -> None:
    for name in ("bin/part", "lib/a", "private/letter"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    program = pinned(f"{tmp_path}/bin/tool", f"{tmp_path}/bin/tool")
    mounts = Mounts(tuple(f"{tmp_path}/{path}" for path in shown))
    view = program_view(program, Neighbours(), mounts, bind_fd_supported=True)
    assert {path for _, path in view.links} == {f"{PRIVATE_DIR}/{name}" for name in named}


@pytest.mark.parametrize(
    ("readable", "size", "bind_fd", "copy"),
    [
        (True, 10, True, True),
        (True, 10**8, True, False),
        (True, 10**8, False, True),
        (False, 10, True, False),
    ],
)
def test_large_and_unreadable_programs_are_bound_where_that_can_be(
    readable: bool, size: int, bind_fd: bool, copy: bool
) -> None:
    program = pinned("/nonexistent/x", "/nonexistent/x", readable=readable, size=size)
    view = program_view(program, Neighbours(), Mounts(), bind_fd_supported=bind_fd)
    assert view.pinned is not None
    assert view.pinned.copy is copy


def test_a_pinned_program_stays_itself_when_its_path_is_replaced(tmp_path: Path) -> None:
    program = tmp_path / "p"
    program.write_bytes(NATIVE + b"one")
    program.chmod(0o755)
    with pin_program(str(program), ExecPolicy(allow_prefixes=(str(tmp_path),))) as opened:
        other = tmp_path / "other"
        other.write_bytes(NATIVE + b"two")
        other.rename(program)
        assert os.pread(opened.fd, 3, len(NATIVE)) == b"one"
        assert not opened.changed()


def test_a_file_that_changed_lately_counts_as_relinked(tmp_path: Path) -> None:
    program = tmp_path / "p"
    program.write_bytes(NATIVE)
    program.chmod(0o755)
    with pin_program(str(program), ExecPolicy(allow_prefixes=(str(tmp_path),))) as opened:
        # Its change time is older than that of any change to come, and then it is not.
        settled = dataclasses.replace(opened, checked_ns=opened.stamp[4] + 1_000_000_000)
        assert not settled.relinked()
        assert dataclasses.replace(opened, checked_ns=opened.stamp[4]).relinked()
        os.utime(opened.fd, ns=(0, 0))
        assert settled.relinked()


def test_a_prefix_may_be_one_program(tmp_path: Path) -> None:
    program = tmp_path / "p"
    program.write_bytes(NATIVE)
    program.chmod(0o755)
    with pin_program(str(program), ExecPolicy(allow_prefixes=(str(program),))) as opened:
        assert opened.roots == (str(program),)


# Why it did not start.


@pytest.mark.parametrize(
    ("stderr", "trouble", "reason"),
    [
        (b"bwrap: execvp /x: No such file or directory\n", "exec", "not_found"),
        (b"bwrap: execvp /x: Exec format error\n", "exec", "exec_format"),
        (b"bwrap: execvp /x: Argument list too long\n", "exec", "too_long"),
        (b"bwrap: setting up uid map: Permission denied\n", "refused", "refused"),
        (b"bwrap: No permissions to create a new namespace, likely...\n", "refused", "refused"),
        (b"bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted\n", "refused", "refused"),
        (b"bwrap: Can't find source path /data: No such file\n", "setup", "setup_failed"),
        (b"bwrap: Can't find source path /namespace: No such file\n", "setup", "setup_failed"),
        (b"bwrap: Can't find source path /data: Permission denied\n", "setup", "setup_failed"),
    ],
)
def test_bubblewraps_complaints_are_told_apart(stderr: bytes, trouble: str, reason: str) -> None:
    complaint = read_complaint(stderr)
    assert (complaint.trouble, complaint.reason) == (trouble, reason)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}, "apparmor"),
        ({"etc/os-release": 'ID=ubuntu\nVERSION_ID="24.04"\n'}, "apparmor"),
        ({"etc/os-release": 'ID=ubuntu\nVERSION_ID="22.04"\n'}, "refused"),
        ({"etc/os-release": 'ID=debian\nVERSION_ID="12"\n# c=d\n\n'}, "refused"),
        ({"proc/sys/user/max_user_namespaces": "0\n"}, "userns_disabled"),
        ({"proc/sys/kernel/unprivileged_userns_clone": "0\n"}, "userns_disabled"),
        ({".dockerenv": ""}, "container"),
        ({}, "refused"),
    ],
)
def test_a_refusal_is_explained_by_what_the_host_shows(
    tmp_path: Path, files: dict[str, str], reason: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found, hint = explain_refusal(tmp_path)
    assert found == reason
    assert hint


# The cgroup's file protocol, on plain files.


def delegated(tmp_path: Path, *, enabled: bool = True, procs: str = "") -> tuple[Path, Path]:
    proc, mount = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text("4:memory:/old\n0::/user/mine\n")
    (proc / "self/mountinfo").write_text(
        f"1 0 0:1 / /sys rw - sysfs sysfs rw\n2 1 0:2 / {mount} rw,nosuid - cgroup2 cgroup2 rw\n"
    )
    own = mount / "user/mine"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text("cpu memory pids\n")
    (own / "cgroup.subtree_control").write_text("memory pids\n" if enabled else "\n")
    (own / "cgroup.procs").write_text(procs)
    return proc, own


def test_a_delegated_cgroup_is_found(tmp_path: Path) -> None:
    proc, own = delegated(tmp_path)
    domain = find_domain(proc)
    assert domain is not None
    assert domain.path == own


def test_controllers_are_handed_down_when_nobody_else_is_in_the_cgroup(tmp_path: Path) -> None:
    proc, own = delegated(tmp_path, enabled=False, procs=f"{os.getpid()}\n")
    assert find_domain(proc) is not None
    assert (own / "mfm.driver/cgroup.procs").read_text() == str(os.getpid())
    assert (own / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_a_cgroup_shared_with_others_is_left_alone(tmp_path: Path) -> None:
    proc, own = delegated(tmp_path, enabled=False, procs=f"1\n{os.getpid()}\n")
    assert find_domain(proc) is None
    assert not (own / "mfm.driver").exists()


def test_a_cgroup_without_the_controllers_is_not_used(tmp_path: Path) -> None:
    proc, own = delegated(tmp_path)
    (own / "cgroup.controllers").write_text("cpu\n")
    assert find_domain(proc) is None


def test_the_first_version_of_cgroups_is_not_used(tmp_path: Path) -> None:
    proc, _own = delegated(tmp_path)
    (proc / "self/cgroup").write_text("4:memory:/old\n")
    assert find_domain(proc) is None


def test_a_group_gets_its_limits_and_tells_which_was_hit(tmp_path: Path) -> None:
    group = Domain(tmp_path).create(1024, 10)
    (path,) = tmp_path.iterdir()
    assert (path / "memory.max").read_text() == "1024"
    assert (path / "memory.oom.group").read_text() == "1"
    assert (path / "pids.max").read_text() == "11"
    group.add(42)
    assert (path / "cgroup.procs").read_text() == "42"
    assert (group.exceeded(), group.peak_memory_bytes()) == (None, None)
    (path / "pids.events").write_text("max 3\n")
    assert group.exceeded() == "processes"
    (path / "memory.events").write_text("low 0\noom_kill 1\n")
    (path / "memory.peak").write_text("1000\n")
    assert (group.exceeded(), group.peak_memory_bytes()) == ("memory", 1000)
    group.close()
    assert (path / "cgroup.kill").read_text() == "1"


def test_neighbours_are_looked_up_again_when_the_directory_changed(tmp_path: Path) -> None:
    neighbours = Neighbours()
    assert neighbours.names(str(tmp_path)) == ()
    (tmp_path / "a").touch()
    os.utime(tmp_path, ns=(0, 1))
    assert neighbours.names(str(tmp_path)) == ("a",)


def test_a_crowded_directory_is_not_mirrored(tmp_path: Path) -> None:
    for number in range(65):
        (tmp_path / str(number)).touch()
    assert Neighbours().names(str(tmp_path)) == ()
