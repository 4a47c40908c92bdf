"""`exec` against programs that try to get out, hide, or outlast what should end them."""

# The tests look at small local files while the loop waits for them anyway.

import socket
import sys
from pathlib import Path

import pytest

from mfm_ops.machine.errors import TransportFailure
from tests.integration.programs import Programs
from transports.policy import ExecPolicy

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024

# Where this Python and its libraries lie, whichever way it was installed.
PYTHON = Path(sys.executable).resolve()
PYTHON_PATHS = tuple(
    path
    for path in dict.fromkeys(("/usr", "/lib", "/lib64", "/nix", sys.base_prefix))
    if Path(path).is_dir()
)


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


def python(programs: Programs, body: str) -> str:
    """A program in Python; run it with `python_policy`."""
    path = programs.bin / "hostile"
    path.write_text(f"#!{PYTHON} -ISB\n{body}\n")
    path.chmod(0o755)
    return str(path)


def python_policy(programs: Programs, **changes: object) -> ExecPolicy:
    return programs.policy(read_only_paths=PYTHON_PATHS, **changes)


def code(failure: TransportFailure) -> str:
    return str(failure.info.code)


# Ways out.


async def test_the_kernels_own_switches_cannot_be_turned(programs: Programs) -> None:
    body = "for f in kernel/core_pattern vm/swappiness kernel/hostname; do\n"
    body += "  ( : >>/proc/sys/$f ) 2>/dev/null && { echo 1; exit; }\ndone; echo 0"
    assert (await programs.run(programs.script("tune", body))).response == 0


async def test_no_socket_of_the_host_is_reached(programs: Programs) -> None:
    path = programs.bin / "listener"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as hidden:
        listener.bind(str(path))
        hidden.bind(f"\0{programs.marker}")
        for server in (listener, hidden):
            server.listen()
            server.setblocking(False)
        body = f"""
import socket
reached = 0
for address in ({str(path)!r}, "\\0{programs.marker}"):
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address)
        reached += 1
    except OSError:
        pass
a, b = socket.socketpair()
a.send(b"x")
print(reached if b.recv(1) == b"x" else -1)
"""
        reply = await programs.run(python(programs, body), policy=python_policy(programs))
        assert reply.response == 0
        for server in (listener, hidden):
            with pytest.raises(BlockingIOError):
                server.accept()


async def test_no_keyring_and_no_name_space_is_to_be_had(programs: Programs) -> None:
    body = """
import ctypes
libc = ctypes.CDLL(None)
new_user, new_mount = 0x10000000, 0x20000
print([libc.unshare(new_user), libc.unshare(new_mount), libc.mount(b"x", b"/tmp", b"tmpfs", 0, 0),
       libc.setuid(0), libc.chroot(b"/tmp")])
"""
    reply = await programs.run(python(programs, body), policy=python_policy(programs))
    assert reply.response == [-1] * 5


async def test_memory_that_is_in_no_process_is_not_to_be_had(programs: Programs) -> None:
    body = """
import ctypes
libc = ctypes.CDLL(None)
print([libc.memfd_create(b"x", 0), libc.shmget(0, 4096, 0o1600), libc.msgget(0, 0o1600)])
"""
    reply = await programs.run(python(programs, body), policy=python_policy(programs))
    assert reply.response == [-1] * 3


async def test_a_prefix_below_tmp_is_seen_though_the_whole_root_is(programs: Programs) -> None:
    programs.script("part", "echo 5")
    program = programs.script("whole", f"{programs.bin}/part")
    policy = programs.policy(read_only_paths=("/",))
    assert (await programs.run(program, policy=policy)).response == 5
