"""Keys under names that say no more than "key": `relay_key = V`, `{"key": V}`.

Pure; such a name is as often one of a map or a cache, so the value must be drawn beyond doubt, and
neither a digest nor a public key.
"""

import re
import string
from itertools import pairwise

from mfm_ops.machine.secrets.issued import is_drawn
from mfm_ops.machine.secrets.names import Strength, name_strength

__all__ = ["assigns_key", "is_key"]

_VALUE = re.compile(r"[A-Za-z0-9_+/=.~-]{20,200}", re.ASCII)
# Public by nature: of SSH, in DER, of age; UUIDs name things.
_PUBLIC = re.compile(
    r"AAAA[A-Z]|M(?:II[A-Z]|Fkw|Cow|HYw)|age1|0x|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-", re.ASCII
)
_LOWER_HEX = re.compile(r"[0-9a-f]+")
_UPPER_HEX = re.compile(r"[0-9A-F]{32}")
_KEY_SIZES = frozenset((32, 40, 48, 56, 64, 96, 128))
_PARTS = re.compile(r"[._~-]+")
_ASSIGNED = re.compile(
    r"""(?<![?&])key(?:\\?["'])?\]?[ \t]{0,8}(?::=|=>|==?|:)[ \t]{0,8}\\?["'`]?"""
    r"""([A-Za-z0-9_+/=.~-]{20,200}+)(?![A-Za-z0-9_+/=.~(\[-])""",
    re.ASCII | re.IGNORECASE,
)
_NAME_CHARS = string.ascii_letters + string.digits + "_.-"
_MAX_NAME_CHARS = 64


def is_key(value: str, name: str) -> bool:
    """Whether a value under a name that ends in `key` is one that opens something."""
    if not _VALUE.fullmatch(value) or _PUBLIC.match(value):
        return False
    bare = name.lower().rpartition(" ")[2] == "key"
    if _LOWER_HEX.fullmatch(value):
        return not bare and len(value) in _KEY_SIZES and not value.isdigit()
    if _UPPER_HEX.fullmatch(value):
        return True
    body = value.rstrip("=")
    if "/" in body and not bare and "." in body:
        return False  # a path
    parts = _PARTS.split(body)
    if bare and _LOWER_HEX.fullmatch(parts[-1]) and len(parts[-1]) in _KEY_SIZES:
        return False  # `linux-npm-` and the digest of what the key of a cache stands for
    return is_drawn(body.encode(), least=1) or any(map(_is_drawn_part, parts))


def _is_drawn_part(part: str) -> bool:
    """One case and digits, in no order: `x7k2p...`."""
    if len(part) < 20 or not part.isalnum() or not (part.islower() or part.isupper()):
        return False
    changes = sum(a.isdigit() is not b.isdigit() for a, b in pairwise(part))
    return changes >= 5


def assigns_key(text: str) -> bool:
    """Whether the text assigns a key to such a name; linear in its length."""
    judged: set[tuple[str, str]] = set()
    for found in _ASSIGNED.finditer(text):
        head = text[max(0, found.start() - _MAX_NAME_CHARS) : found.start()]
        before = head.rstrip(_NAME_CHARS)
        if before.endswith(" "):  # `public key: V`
            before = before[:-1].rstrip(_NAME_CHARS)
        name = head[len(before) :] + found[0][:3]
        if (name, found[1]) in judged:
            continue
        judged.add((name, found[1]))
        if name_strength(name) is Strength.KEYED and is_key(found[1], name):
            return True
    return False
