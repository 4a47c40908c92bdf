"""Cheap questions to bytes: could anything in here be a secret at all?

Each gate that stays shut for a document would stay shut for every string in it, so a document
whose gates are all shut needs no parsing; the property is tested.  Rules are for the others.
"""

import re
from typing import NamedTuple

from mfm_ops.machine.secret_phrases import may_hold_phrase
from mfm_ops.machine.secret_shapes import run_rule, runs

__all__ = ["ALL_OPEN", "Gates", "folded", "gates_of", "words_in"]


class Gates(NamedTuple):
    """What may be there: a telling word, a known shape, a password in a URL, a phrase."""

    words: bool
    shapes: bool
    userinfo: bool
    phrase: bool


ALL_OPEN = Gates(words=True, shapes=True, userinfo=True, phrase=True)

_LOWER = bytes(range(256)).lower()
_NO_LETTERS = bytes(byte for byte in range(256) if not chr(byte).isalpha() or byte > 127)
_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)
_PART = rb"[^\x00-\x20\x7f-\xff/?#@\\\"']"
_USERINFO = re.compile(rb"://" + _PART + rb"{0,256}:" + _PART + rb"{1,512}@")

# Every sensitive name and every rule over text needs one of the words below, or one of these
# before "key". A test holds them to `SENSITIVE_NAMES`.
_BEFORE_KEY = (
    *(b"private", b"priv", b"prv", b"api", b"access", b"account", b"signing", b"encryption"),
    *(b"master", b"shared", b"secret", b"user"),
)


def folded(data: bytes) -> bytes:
    """The ASCII letters of `data`, in lower case: `API-Key`, `apiKey` and `api_key` are one."""
    return data.translate(_LOWER, _NO_LETTERS)


def words_in(letters: bytes) -> bool:
    """Whether folded bytes hold a word that every sensitive name or text rule needs."""
    # Written out, for this is the hottest line of all: the loop would cost a quarter more.
    if (
        b"pass" in letters
        or b"secret" in letters
        or b"token" in letters
        or b"auth" in letters
        or b"phrase" in letters
        or b"mnemonic" in letters
        or b"bearer" in letters
        or b"basic" in letters
        or b"cookie" in letters
        or b"pwd" in letters
        or b"kty" in letters
    ):
        return True
    if b"key" in letters:
        return any(part.endswith(_BEFORE_KEY) for part in letters.split(b"key")[:-1])
    return False


def gates_of(data: bytes) -> Gates:
    """The gates that canonical JSON, or one string's UTF-8, opens."""
    if b"\\" in data:
        # `\nghp_...` must not read as a run that begins with n.
        data = _ESCAPE.sub(b"  ", data)
    return Gates(
        words=words_in(folded(data)),
        shapes=any(run_rule(run, before) for run, before in runs(data)),
        userinfo=b"@" in data and _USERINFO.search(data) is not None,
        phrase=may_hold_phrase(data),
    )
