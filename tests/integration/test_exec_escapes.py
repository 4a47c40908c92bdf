"""`exec` against programs that reach for what holds them, or for the host past the policy."""

# The tests look at small local files while the loop waits for them anyway.
# ruff: noqa: ASYNC220, ASYNC240

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.integration.programs import Programs, python, python_policy
from transports.program import pin_program

pytestmark = pytest.mark.anyio


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


async def test_no_datagram_reaches_a_socket_of_the_host(programs: Programs) -> None:
    path = programs.bin / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.setblocking(False)
        body = f"""
import socket
sent = 0
for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
    try:
        one, other = socket.socketpair(socket.AF_UNIX, kind)
        one.sendto(b"x", {str(path)!r})
        sent += 1
    except OSError:
        pass
print(sent)
"""
        await programs.run(python(programs, body), policy=python_policy(programs))
        with pytest.raises(BlockingIOError):
            listener.recv(1)


async def test_the_init_that_ends_the_tree_cannot_be_steered(programs: Programs) -> None:
    # With its hand on the init a program takes back that it dies with its parent, and lets go of
    # the leash: a killed mfm would leave it running for good.
    body = """
import ctypes, os
libc = ctypes.CDLL(None)
attach, seize = 16, 0x4206
print([libc.ptrace(attach, 1, 0, 0), libc.ptrace(seize, 1, 0, 0),
       libc.process_vm_writev(1, None, 0, None, 0, 0)])
"""
    reply = await programs.run(python(programs, body), policy=python_policy(programs))
    assert reply.response == [-1] * 3


async def test_bubblewrap_itself_is_out_of_reach(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = shutil.which("bwrap")
    assert installed is not None
    (tmp_path / "path").mkdir()
    own = tmp_path / "path/bwrap"
    shutil.copy(installed, own)
    monkeypatch.setenv("PATH", str(own.parent))
    before = own.stat()
    body = """
import os
done = 0
for path in ("/proc/1/exe", "/proc/1/task/1/exe", "/proc/self/exe"):
    for change in (lambda p: os.chmod(p, 0o4711), lambda p: os.utime(p, (1, 1)),
                   lambda p: os.setxattr(p, b"user.x", b"1"), lambda p: os.mkdir("/proc/1/x")):
        try:
            change(path)
            done += 1
        except OSError:
            pass
print(done)
"""
    reply = await programs.run(python(programs, body), policy=python_policy(programs))
    assert reply.response == 0
    assert own.stat() == before


async def test_a_program_may_look_into_its_own_children(programs: Programs) -> None:
    body = """
import ctypes, os, signal
libc = ctypes.CDLL(None)
child = os.fork()
if not child:
    signal.pause()
attached = libc.ptrace(16, child, 0, 0)
os.waitpid(child, 0)
libc.ptrace(17, child, 0, 0)
os.kill(child, 9)
print(attached)
"""
    reply = await programs.run(python(programs, body), policy=python_policy(programs))
    assert reply.response == 0


async def test_what_is_read_only_stays_so_inside_of_a_writable_path(
    programs: Programs, tmp_path: Path
) -> None:
    for name in ("fixed", "free", "other"):
        (tmp_path / name).mkdir()
    places = ["bin", "fixed", "other", "free", "."]
    body = 'for d; do touch "$d/x" 2>/dev/null && r=$r,1 || r=$r,0; done; echo "[${r#,}]"'
    program = programs.script("write", body)
    policy = programs.policy(
        allow_prefixes=(str(programs.bin), f"{tmp_path}/other"),
        read_only_paths=(f"{tmp_path}/fixed",),
        read_write_paths=(str(tmp_path),),
    )
    named = [f"{tmp_path}/{place}" for place in places]
    reply = await programs.run(program, *named, policy=policy)
    assert reply.response == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("leads", ["kept", "{root}/kept", "../outside", "{root}/../outside", "no"])
async def test_a_read_only_link_inside_of_a_writable_path(
    programs: Programs, tmp_path: Path, leads: str
) -> None:
    # bubblewrap mounts on no link; where one leads outside, whoever wrote it may have chosen that.
    root = tmp_path / "writable"
    (root / "kept").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    for place in (root / "kept", tmp_path / "outside"):
        (place / "file").touch()
    link = root / "link"
    link.symlink_to(leads.format(root=root))
    body = f"echo x >{root}/new; echo x >{link}/new; echo x >{root}/kept/new\n"
    body += f"cat {link}/file && echo 1 || echo 0"
    reply = await programs.run(
        programs.script("write", body),
        policy=programs.policy(read_only_paths=(str(link),), read_write_paths=(str(root),)),
    )
    inside = leads.endswith("kept")
    assert reply.response == inside
    assert (root / "new").exists()
    assert (root / "kept/new").exists() is not inside
    assert not (tmp_path / "outside/new").exists()
    assert link.is_symlink()


async def test_a_writable_root_is_written_through_and_the_hosts_devices_stay(
    programs: Programs,
) -> None:
    # Not below /tmp, of which the sandbox has its own.
    place = Path("/var/tmp") / programs.marker
    devices = set(Path("/dev").iterdir())
    program = programs.script("write", "touch $1 && echo 1")
    try:
        reply = await programs.run(
            program, str(place), policy=programs.policy(read_write_paths=("/",))
        )
        assert reply.response == 1
        assert place.exists()
    finally:
        place.unlink(missing_ok=True)
    assert set(Path("/dev").iterdir()) == devices


async def test_a_path_too_long_to_be_told_leaves_nothing_open(
    programs: Programs, tmp_path: Path
) -> None:
    # Two names of 2,600 characters each, where a path has 4,096 at most.
    part = "/".join(["d" * 200] * 13)
    (tmp_path / "first" / part).mkdir(parents=True)
    (tmp_path / "link").symlink_to(f"first/{part}")
    here = os.open(tmp_path / "link", os.O_PATH)
    for name in part.split("/"):
        os.mkdir(name, dir_fd=here)
        deeper = os.open(name, os.O_PATH, dir_fd=here)
        os.close(here)
        here = deeper
    program = os.open("p", os.O_CREAT | os.O_WRONLY, 0o755, dir_fd=here)
    os.close(here)
    os.close(program)
    failure = await programs.failure(f"{tmp_path}/link/{part}/p")
    assert failure.info.code == "exec_spawn_failed"
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="too long"):
        pin_program(f"{tmp_path}/link/{part}/p", programs.policy())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    shutil.rmtree(tmp_path / "first")


async def test_a_prefix_in_somebody_elses_mounts_is_not_ours(
    programs: Programs, tmp_path: Path
) -> None:
    (tmp_path / "allowed").mkdir()
    script = (
        'mount -t tmpfs none "$0" && printf "#!$1\\necho 1\\n" >"$0/p" && chmod 755 "$0/p" && '
        "echo ready && exec sleep 60"
    )
    command = ["unshare", "-Urm", "sh", "-c", script, f"{tmp_path}/allowed", f"{programs.bin}/sh"]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        program = f"/proc/{holder.pid}/root{tmp_path}/allowed/p"
        policy = programs.policy(
            allow_prefixes=(f"{tmp_path}/allowed",), read_only_paths=(str(programs.bin),)
        )
        assert Path(program).is_file()
        failure = await programs.failure(program, policy=policy)
        assert failure.info.code == "exec_program_not_allowed"
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.parametrize("way", ["tables", "sockets"])
async def test_memory_that_is_in_no_resident_set_counts(programs: Programs, way: str) -> None:
    ways = {
        # Each page that is read takes a table of its own, and no memory else.
        "tables": """
import mmap
step = 2 * 1024 * 1024
area = mmap.mmap(-1, 60_000 * step, flags=mmap.MAP_PRIVATE | 0x4000, prot=mmap.PROT_READ)
area.madvise(mmap.MADV_NOHUGEPAGE)
for at in range(0, len(area), step):
    area[at]
""",
        "sockets": """
import socket
pairs = []
for _ in range(1000):
    pair = socket.socketpair()
    pair[0].setblocking(False)
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    pairs.append(pair)
    try:
        while True:
            pair[0].send(bytes(65536))
    except BlockingIOError:
        pass
""",
    }
    body = ways[way] + "\nimport time\nprint(1, flush=True)\ntime.sleep(1000)"
    failure = await programs.failure(
        python(programs, body), policy=python_policy(programs, memory_mb=64)
    )
    assert failure.info.code == "exec_limit_exceeded"
    assert failure.info.details is not None
    assert failure.info.details["limit"] == "memory"


async def test_many_idle_sockets_are_no_memory_worth_naming(programs: Programs) -> None:
    body = """
import socket, time
pairs = [socket.socketpair() for _ in range(32)]
time.sleep(0.1)
print(len(pairs))
"""
    policy = python_policy(programs, memory_mb=32)
    assert (await programs.run(python(programs, body), policy=policy)).response == 32
