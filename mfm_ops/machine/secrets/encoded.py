"""Texts inside texts: base64, hexadecimal, percent and unicode escapes, undone one layer at a time.

Pure; says what a text would read like, and leaves the judgement to `text`.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from urllib.parse import unquote

from mfm_ops.machine.secrets.shapes import looks_encoded, runs

__all__ = ["MAX_LAYERS", "encoded_texts", "unescaped"]

MAX_LAYERS = 3
_BODY = re.compile(rb"[A-Za-z0-9+/_-]+(?:\r?\n[A-Za-z0-9+/_-]{40,})*")
_HEX = re.compile(rb"((?:[0-9a-f]{2})+)")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_MAX_BODY_BYTES = 1 << 20
# A blank of a form, and no operator of a program's source.
_PLUS = re.compile(r"(?<=\S)\+(?=\S)")
_ESCAPE = re.compile(r"\\u00([0-9a-fA-F]{2})|\\x([0-9a-fA-F]{2})")


def encoded_texts(data: bytes) -> Iterator[str]:
    """What the base64 and hexadecimal in `data` decode to, where that is text."""
    end = 0
    for run, _, start in runs(data):
        if start < end or not looks_encoded(run):
            continue
        text, end = _decoded(data, start)
        if text:
            yield text


def _decoded(data: bytes, start: int) -> tuple[str, int]:
    found = _HEX.match(data, start)
    if found and found.end() - start >= 24:
        return binascii.unhexlify(found[1]).decode("utf-8", "replace"), found.end()
    body = _BODY.match(data, start, start + _MAX_BODY_BYTES)
    if body is None:
        return "", start + 1
    plain = re.sub(rb"[\r\n]", b"", body[0]).translate(_URL_SAFE)
    plain = plain[: len(plain) - (len(plain) % 4 == 1)]
    return base64.b64decode(plain + b"=" * (-len(plain) % 4)).decode("utf-8", "replace"), body.end()


def unescaped(text: str) -> str:
    """`text` with percent escapes and escaped characters undone once."""
    if "%" in text:
        text = unquote(_PLUS.sub(" ", text)) if "%2" in text or "%3" in text else unquote(text)
    if "\\u00" in text or "\\x" in text:
        text = _ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)), text)
    return text
