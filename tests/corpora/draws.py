"""Random text in the shapes that credentials have.  Nothing here is a credential by itself.

`fill` turns a template such as `ghp_{36:a}` into a random text of that shape; the other functions
build what a template cannot say: check sums, armour, signed tokens, words.
"""

import base64
import hashlib
import json
import re
from random import Random

from mfm_ops.machine.secrets.bip39_english import WORDS

__all__ = ["armour", "b64", "base58", "bech32", "fill", "jwt", "password", "phrase", "url64"]

_LOWER = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_ALPHABETS = {
    "d": _DIGITS,
    "h": _DIGITS + "abcdef",
    "H": _DIGITS + "ABCDEF",
    "a": _LOWER + _LOWER.upper() + _DIGITS,
    "l": _LOWER + _DIGITS,
    "U": _LOWER.upper() + _DIGITS,
    "L": _LOWER + _LOWER.upper(),
    "u": _LOWER + _LOWER.upper() + _DIGITS + "_-",
    "b": _LOWER + _LOWER.upper() + _DIGITS + "+/",
    "2": _LOWER.upper() + "234567",
    "s": _LOWER + _LOWER.upper() + _DIGITS + "!#%*+,-.^_~",
}
_FIELD = re.compile(r"\{(\d+)(?:-(\d+))?:(\w)\}")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def fill(rng: Random, template: str) -> str:
    """`template` with each `{count:alphabet}` or `{low-high:alphabet}` drawn anew."""

    def draw(field: re.Match[str]) -> str:
        low = int(field[1])
        size = rng.randint(low, int(field[2])) if field[2] else low
        return "".join(rng.choices(_ALPHABETS[field[3]], k=size))

    return _FIELD.sub(draw, template)


def b64(data: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(data).decode()


def url64(data: bytes) -> str:
    """URL-safe base64 without padding, as in RFC 7515 §2."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def armour(label: str, data: bytes, *, headers: tuple[str, ...] = ()) -> str:
    """PEM text (RFC 7468), 64 characters a line."""
    body = b64(data)
    lines = [*headers, *([""] if headers else [])]
    lines += [body[at : at + 64] for at in range(0, len(body), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def jwt(rng: Random, algorithm: str = "HS256") -> str:
    """A signed token in compact form (RFC 7519 §3)."""
    header = {"alg": algorithm, "typ": "JWT"}
    claims = {"sub": fill(rng, "{8:d}"), "iat": rng.randint(10**9, 2 * 10**9), "role": "user"}
    parts = [json.dumps(part, separators=(",", ":")).encode() for part in (header, claims)]
    size = 32 if algorithm.startswith("HS") else 256
    return ".".join([*map(url64, parts), url64(rng.randbytes(size))])


def base58(data: bytes, *, checked: bool = False) -> str:
    """Base58 of Bitcoin; `checked` adds the four bytes of Base58Check."""
    if checked:
        data += hashlib.sha256(hashlib.sha256(data).digest()).digest()[:4]
    number, text = int.from_bytes(data), ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def bech32(rng: Random, size: int) -> str:
    """`size` random characters of the alphabet of BIP-173."""
    return "".join(rng.choices(_BECH32, k=size))


def phrase(rng: Random, words: int) -> list[str]:
    """A BIP-39 phrase of `words` English words with a true check sum."""
    entropy_bits = words * 32 // 3
    entropy = rng.randbytes(entropy_bits // 8)
    check_bits = entropy_bits // 32
    check = hashlib.sha256(entropy).digest()[0] >> (8 - check_bits)
    number = int.from_bytes(entropy) << check_bits | check
    return [WORDS[number >> (11 * at) & 2047] for at in reversed(range(words))]


def password(rng: Random) -> str:
    """What people and generators choose: random, pronounceable, or words with a tail."""
    word = "".join(rng.choice(pair) for pair in ("bdfgklmnprst", "aeiou") * rng.randint(3, 4))
    return rng.choice(
        (
            fill(rng, "{16-24:a}"),
            fill(rng, "{12:s}") + "9xQ",
            word.capitalize() + fill(rng, "{3:d}") + rng.choice("!?#*"),
            "-".join(rng.choices(WORDS, k=4)) + fill(rng, "-{2:d}"),
            fill(rng, "{24:h}"),
        )
    )
