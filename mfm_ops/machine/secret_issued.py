"""Tokens of issuers that nobody told us of: a short prefix, and a body that was drawn at random.

Pure; `secret_shapes` asks it about a run that no known shape explains.
"""

import re
from itertools import pairwise

__all__ = ["LOWER_TOKEN", "is_drawn", "is_issued"]

# Issuers like to say in the prefix what a token is. Publishable keys (`pk`) are no secrets, and
# `key` or `api` before a hexadecimal body is more often the name of a digest.
LOWER_TOKEN = re.compile(
    rb"(?!p(?:k|ub)[_-])(?:[a-z][a-z0-9]{0,11}[_-]){0,3}(?:sk|rk|pat|sat|secret|token|tkn|apikey|live|oauth|pw)[_-]"
    rb"(?=[a-z]{0,15}[0-9])(?=[0-9]{0,15}[a-z])[a-z0-9]{32,128}"
)
_TELLING = frozenset(
    (
        *(b"sk", b"rk", b"pat", b"sat", b"aat", b"key", b"token", b"tkn", b"secret", b"api"),
        *(b"auth", b"pw", b"oauth", b"live", b"apikey", b"tk"),
    )
)
_PUBLIC = frozenset((b"pk", b"pub", b"public", b"publishable", b"id", b"req", b"msg", b"evt"))
_PREFIX = re.compile(rb"(?:[a-z]{1,12}[0-9]{0,2}|[A-Z]{2,8}[0-9]{0,2}|v[0-9])[_.-]+")
_HASHES = re.compile(rb"(?i:sha[0-9]{0,3}|md5|h1|blake[0-9a-z]*|digest|nonce|etag)[_.=:-]")
_MAX_PREFIX_PARTS = 4
_MAX_BODY_BYTES = 512
_CLASSES = bytes(
    48 if 48 <= byte <= 57 else 65 if 65 <= byte <= 90 else 97 if 97 <= byte <= 122 else 45
    for byte in range(256)
)


def is_issued(run: bytes, before: bytes) -> bool:
    """Whether a run reads `prefix_BODY` with a body of base 62 that no person would write.

    28 characters of it, or 16 where a word of the prefix tells (`key`, `sk`, `pat`).
    """
    if _HASHES.match(run) or _HASHES.search(before):
        return False
    telling = worded = False
    at = 0
    for _ in range(_MAX_PREFIX_PARTS):
        found = _PREFIX.match(run, at)
        if found is None:
            break
        word = found[0].rstrip(b"_.-").lower()
        if word in _PUBLIC:
            return False
        telling = telling or word in _TELLING
        worded = worded or len(word) >= 3
        at = found.end()
    if not (telling or worded):
        return False  # two letters and a dash begin one blob of a hundred
    body = run[at : at + _MAX_BODY_BYTES].partition(b".")[0]
    if len(body) < (16 if telling else 28):
        return False
    return is_drawn(body, least=1, share=7) if telling else is_drawn(body)


def is_drawn(body: bytes, *, least: int = 2, share: int = 9) -> bool:
    """Whether letters of both cases and digits change places as only chance makes them do.

    In camel case a class lasts for a word; in base 62 it changes at two places of three. `least`
    is how many of each class there must be, `share` how many twentieths of the places change.
    """
    classes = body.translate(_CLASSES)
    plain = classes.replace(b"-", b"")
    if len(plain) * 8 < len(classes) * 7 or not len(plain) > 1:
        return False
    if min(plain.count(b"0"), plain.count(b"A"), plain.count(b"a")) < least:
        return False
    changes = sum(a != b for a, b in pairwise(plain))
    return changes * 20 >= share * (len(plain) - 1)
