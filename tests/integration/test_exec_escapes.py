"""`exec` against programs that reach for what holds them, or for the host past the policy."""

# The tests look at small local files while the loop waits for them anyway.

import socket
import sys
from pathlib import Path

import pytest

from tests.integration.programs import Programs
from transports.policy import ExecPolicy

pytestmark = pytest.mark.anyio

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
    path = programs.bin / "escape"
    path.write_text(f"#!{PYTHON} -ISB\n{body}\n")
    path.chmod(0o755)
    return str(path)


def python_policy(programs: Programs, **changes: object) -> ExecPolicy:
    return programs.policy(read_only_paths=PYTHON_PATHS, **changes)


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
