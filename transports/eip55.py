"""EIP-55: an Ethereum address whose letter case is a checksum of itself; pure.

Keccak-256 is our own, for one reason: importing a library for it costs 20 ms of each command's
start, hashing an address here 0.2 ms. It is not for hashing at speed.
"""

from typing import Final

__all__ = ["checksum_address", "keccak256"]

_MASK: Final = (1 << 64) - 1
_RATE_BYTES: Final = 136  # 1600 bits of state less twice the 256 bits of the digest

# FIPS 202 §3.2.5: what iota adds in each of the 24 rounds.
_ROUND_CONSTANTS: Final = (
    0x0000000000000001, 0x0000000000008082, 0x800000000000808A, 0x8000000080008000,
    0x000000000000808B, 0x0000000080000001, 0x8000000080008081, 0x8000000000008009,
    0x000000000000008A, 0x0000000000000088, 0x0000000080008009, 0x000000008000000A,
    0x000000008000808B, 0x800000000000008B, 0x8000000000008089, 0x8000000000008003,
    0x8000000000008002, 0x8000000000000080, 0x000000000000800A, 0x800000008000000A,
    0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008,
)  # fmt: skip


def _lane_walk() -> tuple[tuple[int, int, int], ...]:
    """Source lane, target lane and rotation of rho and pi together (FIPS 202 §3.2.2, §3.2.3)."""
    moves = [(0, 0, 0)]
    x, y = 1, 0
    for t in range(24):
        target_x, target_y = y, (2 * x + 3 * y) % 5
        moves.append((x + 5 * y, target_x + 5 * target_y, (t + 1) * (t + 2) // 2 % 64))
        x, y = target_x, target_y
    return tuple(moves)


_MOVES: Final = _lane_walk()


def _permute(a: list[int]) -> None:
    """Keccak-f[1600] on 25 lanes of 64 bits, in place; lane (x, y) is `a[x + 5 * y]`."""
    b = [0] * 25
    for constant in _ROUND_CONSTANTS:
        c = [a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20] for x in range(5)]
        d = [c[x - 1] ^ (c[(x + 1) % 5] << 1 & _MASK | c[(x + 1) % 5] >> 63) for x in range(5)]
        for source, target, shift in _MOVES:
            lane = a[source] ^ d[source % 5]
            b[target] = lane << shift & _MASK | lane >> (64 - shift)
        for row in range(0, 25, 5):
            b0, b1, b2, b3, b4 = b[row : row + 5]
            a[row] = b0 ^ (~b1 & b2)
            a[row + 1] = b1 ^ (~b2 & b3)
            a[row + 2] = b2 ^ (~b3 & b4)
            a[row + 3] = b3 ^ (~b4 & b0)
            a[row + 4] = b4 ^ (~b0 & b1)
        a[0] ^= constant


def keccak256(data: bytes) -> bytes:
    """The 32-byte Keccak-256 digest of `data`.

    Ethereum's Keccak is the competition's submission, which pads with 0x01; SHA3-256 of FIPS 202
    pads with 0x06 and so gives another digest.
    """
    padded = bytearray(data)
    padded += bytes(_RATE_BYTES - len(data) % _RATE_BYTES)
    padded[len(data)] |= 0x01
    padded[-1] |= 0x80
    state = [0] * 25
    for start in range(0, len(padded), _RATE_BYTES):
        for lane in range(_RATE_BYTES // 8):
            at = start + 8 * lane
            state[lane] ^= int.from_bytes(padded[at : at + 8], "little")
        _permute(state)
    return b"".join(lane.to_bytes(8, "little") for lane in state[:4])


def checksum_address(hex_digits: str) -> str:
    """`0x` and the 40 hex digits in EIP-55's spelling.

    Letters of one case make no claim; letters of both must stand as EIP-55 asks.

    >>> checksum_address("5aaeb6053f3e94c9b9a09f33669435e7ef1beaed")
    '0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed'

    Raises:
        ValueError: the digits are in mixed case and fail the checksum.
    """
    lower = hex_digits.lower()
    digest = keccak256(lower.encode("ascii")).hex()
    # A digit stands in upper case where the digest's digit has its highest bit set.
    spelled = "".join(
        digit.upper() if mark in "89abcdef" else digit
        for digit, mark in zip(lower, digest, strict=False)
    )
    if hex_digits not in (lower, hex_digits.upper(), spelled):
        raise ValueError("the address fails its EIP-55 checksum")
    return "0x" + spelled
