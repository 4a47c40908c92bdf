"""The seccomp filter, interpreted here as the kernel would."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transports.seccomp import filter_program

X86_64, AARCH64 = 0xC000003E, 0xC00000B7
ALLOW, KILL, FAIL = 0x7FFF0000, 0x80000000, 0x00050000
NEW_USER = 0x10000000


def verdict(
    number: int,
    argument: int = 0,
    second: int = 0,
    third: int = 0,
    *,
    network: bool = False,
    arch: int = X86_64,
) -> int:
    """What the filter of this architecture says of one call."""
    machine = "aarch64" if arch == AARCH64 else "x86_64"
    code = filter_program(machine, network=network)
    assert code is not None
    steps = list(struct.iter_unpack("=HBBI", code))
    data = struct.pack("<IIQQQQQQQ", number, arch, 0, argument, second, third, 0, 0, 0)
    accumulator = at = 0
    while True:
        opcode, true, false, k = steps[at]
        at += 1
        if opcode == 0x20:
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif opcode == 0x06:
            return int(k)
        else:
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}
            at += true if holds[opcode] else false


def test_an_unknown_machine_has_no_filter() -> None:
    assert filter_program("vax", network=False) is None


@pytest.mark.parametrize(("number", "name"), [(250, "keyctl"), (248, "add_key"), (308, "setns")])
def test_keyrings_and_other_name_spaces_are_refused(number: int, name: str) -> None:
    assert verdict(number) == FAIL | errno.EPERM, name


@pytest.mark.parametrize("number", [425, 435, 319, 447, 29, 68])
def test_calls_that_hide_something_look_as_if_the_kernel_had_none(number: int) -> None:
    assert verdict(number) == FAIL | errno.ENOSYS


@pytest.mark.parametrize("number", [56, 272])
def test_only_a_new_user_name_space_is_refused(number: int) -> None:
    assert verdict(number, NEW_USER | 0x11) == FAIL | errno.EPERM
    assert verdict(number, 0x20011) == ALLOW


@given(st.integers(0, 60))
def test_without_network_sockets_are_of_the_sandboxs_own_network(family: int) -> None:
    expected = ALLOW if family in (2, 10, 16) else FAIL | errno.EAFNOSUPPORT
    assert verdict(41, family) == expected
    assert verdict(41, family, network=True) == ALLOW


@pytest.mark.parametrize("flags", [0, 0x800, 0x80000, 0x80800])
def test_without_network_no_pair_of_sockets_can_send_to_an_address(flags: int) -> None:
    refused = {kind for kind in range(1, 6) if verdict(53, 1, kind | flags) != ALLOW}
    assert refused == {2, 3}
    assert verdict(53, 1, 2 | flags) == FAIL | errno.ESOCKTNOSUPPORT
    assert verdict(53, 1, 2 | flags, network=True) == ALLOW
    assert verdict(199, 1, 2 | flags, arch=AARCH64) == FAIL | errno.ESOCKTNOSUPPORT


@pytest.mark.parametrize("arch", [X86_64, AARCH64])
def test_without_network_the_buffers_of_sockets_keep_their_size(arch: int) -> None:
    number = 54 if arch == X86_64 else 208
    quiet = {
        (level, option)
        for level in range(8)
        for option in range(64)
        if verdict(number, 3, level, option, arch=arch) == FAIL
    }
    assert quiet == {(1, 7), (1, 8)}
    assert verdict(number, 3, 1, 7, arch=arch, network=True) == ALLOW


@pytest.mark.parametrize("network", [True, False])
@pytest.mark.parametrize("pid", [1, 1 << 32 | 1])
def test_the_init_of_the_sandbox_cannot_be_steered(pid: int, network: bool) -> None:
    refused = FAIL | errno.EPERM
    assert verdict(101, 16, pid, network=network) == refused
    assert verdict(311, pid, network=network) == refused
    assert verdict(117, 16, pid, network=network, arch=AARCH64) == refused
    assert verdict(271, pid, network=network, arch=AARCH64) == refused
    assert verdict(101, 1, 2, network=network) == verdict(311, 2, network=network) == ALLOW


def test_the_numbers_are_the_machines_own() -> None:
    assert verdict(219, arch=AARCH64) == FAIL | errno.EPERM
    assert verdict(198, 1, arch=AARCH64) == FAIL | errno.EAFNOSUPPORT
    assert verdict(250, arch=AARCH64) == ALLOW


def test_calls_of_another_architecture_are_deadly() -> None:
    code = filter_program("x86_64", network=False)
    assert code is not None
    assert verdict(0x40000000 | 250) == FAIL | errno.ENOSYS
    steps = list(struct.iter_unpack("=HBBI", code))
    assert steps[:3] == [(0x20, 0, 0, 4), (0x15, 1, 0, X86_64), (0x06, 0, 0, KILL)]


@given(st.sampled_from([0, 1, 2, 9, 39, 53, 57, 58, 59, 60, 101, 257, 318, 437]))
def test_everyday_calls_pass(number: int) -> None:
    assert verdict(number, 2**64 - 1) == ALLOW
