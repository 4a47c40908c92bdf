"""BIP-39 recovery phrases: twelve or more words of the English list in a row.

Pure; the word list is imported when a stretch of text could be a phrase, which prose never is:
one word of two letters, or of nine, ends the stretch.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise

__all__ = ["holds_phrase", "is_phrase", "may_hold_phrase"]

_SIZES = (12, 15, 18, 21, 24)
# Alone, these lengths suffice: Algorand adds a word to check the others.
_ALONE = (*_SIZES, 25)
# For a whole text. By chance alone every sixteenth try at twelve words succeeds.
_MAX_TRIES = 8192

# What may stand between two words: blanks, line ends, commas, quotes, the numbers of a list, and
# what joins the words of a name, a path or a form.
_STRETCH = (
    rb'(?<![A-Za-z])(?:[A-Za-z]{3,8}+[\s,;"0-9.)_+|/\xe3\x80-]++){11}[A-Za-z]{3,8}+(?![A-Za-z])'
)
_CHUNK = re.compile(r'[A-Za-z]+|[^A-Za-z\s,;"0-9.)_+|/\u3000-]+', re.ASCII)

_DELETED = bytes(range(0x30, 0x3A)) + bytes(range(0x41, 0x5B)) + bytes(range(0x61, 0x7B)) + b".)"
_GAPS = bytes(
    ord(" ") if byte in b" \t\n\r\f\v,;_+|/-\xe3\x80" else byte if byte == ord('"') else 0
    for byte in range(256)
)
_TWELVE_WORDS = b" " * 11
_TWELVE_STRINGS = b" ".join((b'""',) * 12)


def may_hold_phrase(data: bytes) -> bool:
    """Whether `data` holds twelve words of three to eight letters with nothing but gaps between.

    JSON escapes must have been replaced by blanks. True whenever `holds_phrase` is true of a part.
    """
    between = data.translate(_GAPS, _DELETED)
    if _TWELVE_WORDS not in between and _TWELVE_STRINGS not in between:
        return False
    return re.search(_STRETCH, data) is not None


def holds_phrase(text: str) -> bool:
    """Whether the text holds a recovery phrase; linear in its length."""
    return _convicts(listed for words in _stretches(text) for listed in _listed(words))


def is_phrase(words: Sequence[str]) -> bool:
    """Whether lower-case words, in this order, hold a phrase.

    A stretch of exactly 12, 15, 18, 21 or 24 listed words counts without a valid checksum: a
    phrase with one word mistyped gives its wallet away all the same, and such stretches do not
    occur in prose. Inside a longer stretch, where neighbouring words may be listed by chance, the
    checksum tells. The list itself, or a part of it in order, is not a phrase.
    """
    return _convicts(_listed(words))


def _stretches(text: str) -> Iterator[list[str]]:
    """Twelve or more words of a fitting length with nothing but gaps between."""
    stretch: list[str] = []
    for found in _CHUNK.finditer(text):
        word = found[0]
        if 3 <= len(word) <= 8 and word.isascii() and word.isalpha():
            stretch.append(word.lower())
            continue
        if len(stretch) >= 12:
            yield stretch
        stretch = []
    if len(stretch) >= 12:
        yield stretch


def _listed(words: Iterable[str]) -> Iterator[list[int]]:
    """Twelve or more words of the list in a row, as their places in it."""
    places = _places()
    listed: list[int] = []
    for word in words:
        index = places.get(word)
        if index is not None:
            listed.append(index)
            continue
        if len(listed) >= 12:
            yield listed
        listed = []
    if len(listed) >= 12:
        yield listed


@cache
def _places() -> Mapping[str, int]:
    from mfm_ops.machine.secrets.bip39_english import WORDS

    return {word: index for index, word in enumerate(WORDS)}


def _convicts(rows: Iterable[list[int]]) -> bool:
    tries = _MAX_TRIES
    for listed in rows:
        if all(a < b for a, b in pairwise(listed)):
            continue
        if len(listed) in _ALONE:
            return True
        for size in _SIZES:
            starts = range(min(len(listed) - size + 1, tries))
            if any(_checksum_holds(listed[start : start + size]) for start in starts):
                return True
            tries -= len(starts)
    return False


def _checksum_holds(indices: Sequence[int]) -> bool:
    bits = 0
    for index in indices:
        bits = bits << 11 | index
    check_bits = len(indices) * 11 // 33
    entropy = (bits >> check_bits).to_bytes(check_bits * 4, "big")
    return hashlib.sha256(entropy).digest()[0] >> (8 - check_bits) == bits & ((1 << check_bits) - 1)
