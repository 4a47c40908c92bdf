"""Tokens of issuers that nobody told us of: a short prefix, and a body that was drawn at random.

Pure; `shapes` asks it about a run that no known shape explains.
"""

import re
from itertools import pairwise

__all__ = ["is_drawn", "is_issued", "is_lower_token"]

# Issuers like to say in the prefix what a token is. Publishable keys (`pk`) are no secrets, and
# `key` or `api` before a hexadecimal body is more often the name of a digest.
# Where small letters and digits alone are drawn, they may as well be a digest: not behind one of
# the words that digests and identifiers stand behind, and a dash is for versions and file names.
_LABELS = (
    "sha[0-9]*|md5|hash|digest|commit|rev|git|tree|blob|block|tx|txn|addr|address|id|uuid|guid|key"
    "|tmp|temp|run|job|task|msg|message|user|obj|object|evt|event|req|request|trace|span|file|img"
    "|image|cache|node|host|pod|container|network|volume|vol|layer|build|step|test|item|doc|page"
    "|asset|chunk|part|index|main|app|lib|pkg|name|data|type|state|version|release|etag|nonce|salt"
    "|iv|mac|checksum|sum|fingerprint|cert|pub|public|pk|store|entry|record|row|log|session|order"
    "|cus|ch|pi|sub|price|prod|in|acct|evt|batch|thread|asst|call|resp|chatcmpl|toolu|srv"
)
_DRAWN_LOWER = r"(?=[a-z]{0,12}[0-9])(?=[0-9]{0,12}[a-z])"
_HEX_TOKEN = (
    rf"(?:[a-z]{{2,8}}_)?(?!(?:{_LABELS})_)[a-z]{{2,8}}_{_DRAWN_LOWER}"
    r"[0-9a-f]{32,128}(?:_[0-9a-f]{4,16})?"
    rf"|(?!(?:{_LABELS})[_-])[a-z]{{2,8}}[_-]{_DRAWN_LOWER}"
    r"(?=[0-9a-f]{0,39}[g-z])[a-z0-9]{40,128}"
).encode()
_LOWER_TOKEN = (
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
# How long digests and signatures of 32, 48, 64 and 72 bytes are in the base64 of URLs.
_UNPADDED = frozenset((43, 64, 86, 96))
_MAX_PREFIX_PARTS = 4
_SHORTEST_LOWER_BYTES = 35
_MAX_BODY_BYTES = 512
_CLASSES = bytes(
    48 if 48 <= byte <= 57 else 65 if 65 <= byte <= 90 else 97 if 97 <= byte <= 122 else 45
    for byte in range(256)
)


def is_lower_token(run: bytes) -> bool:
    """Whether a run of small letters, digits and marks is a token behind a prefix."""
    if len(run) < _SHORTEST_LOWER_BYTES:
        return False
    # Compiled when the first such run shows up: most programs never meet one.
    return re.fullmatch(_LOWER_TOKEN, run) is not None or re.fullmatch(_HEX_TOKEN, run) is not None


def is_issued(run: bytes, before: bytes) -> bool:
    """Whether a run reads `prefix_BODY` with a body of base 62 that no person would write.

    28 characters of it, or 16 where a word of the prefix tells (`key`, `sk`, `pat`).
    """
    if _HASHES.match(run) or _HASHES.search(before):
        return False
    if run[1:2] == b"." and run[:1].islower() and run[2:].isalnum() and len(run) >= 26:
        # Of Vault. Behind a dot stand names too: those have their digits at the end.
        return is_drawn(run[2:], least=1) and is_drawn(run[2:].rstrip(b"0123456789"), least=1)
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
    if not telling and (len(run) in _UNPADDED or not run[at:].isalnum()):
        return False  # by chance; the prefixes of those who tell nothing stand before base 62
    body = max(run[at : at + _MAX_BODY_BYTES].split(b"."), key=len)
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
