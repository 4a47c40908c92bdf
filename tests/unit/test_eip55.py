"""Keccak-256 and EIP-55 against published vectors and another implementation."""

import pytest
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from transports.eip55 import checksum_address, keccak256

# The test cases of EIP-55 itself: all capitals, all small letters, and four mixed.
EIP_55 = [
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x27b1fdb04752bbc536007a920d24acb045561c26",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
]


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
        (b"abc", "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"),
    ],
)
def test_keccak_gives_the_published_digests(data: bytes, digest: str) -> None:
    assert keccak256(data).hex() == digest


@pytest.mark.parametrize("length", [135, 136, 137, 271, 272, 273])
def test_keccak_pads_at_the_edges_of_a_block(length: int) -> None:
    assert keccak256(b"a" * length) == keccak(b"a" * length)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=400))
def test_keccak_agrees_with_another_implementation(data: bytes) -> None:
    assert keccak256(data) == keccak(data)


@pytest.mark.parametrize("address", EIP_55)
def test_the_vectors_of_eip_55_are_spelled_as_published(address: str) -> None:
    digits = address[2:]
    for spelling in (digits, digits.lower(), digits.upper()):
        assert checksum_address(spelling) == address


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=20, max_size=20))
def test_any_address_is_spelled_as_another_implementation_does(address: bytes) -> None:
    assert checksum_address(address.hex()) == to_checksum_address(address)


def test_one_letter_of_the_wrong_case_is_noticed() -> None:
    with pytest.raises(ValueError, match="checksum"):
        checksum_address("5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD")
