"""Secrets inside running text: a log line, a message, a program's output, one argument.

Knows authentication headers, key blocks, password hashes; asks the other
`secret_*` modules for assignments, commands, shapes, phrases, and for what is encoded in it.
"""

import base64
import binascii
import re

from mfm_ops.machine.secrets.assigned import is_assigned
from mfm_ops.machine.secrets.commands import rule_in_command
from mfm_ops.machine.secrets.dumps import rule_in_dump
from mfm_ops.machine.secrets.encoded import MAX_LAYERS, encoded_texts, unescaped
from mfm_ops.machine.secrets.gates import ALL_OPEN, Gates, folded, words_in
from mfm_ops.machine.secrets.lines import rule_in_line
from mfm_ops.machine.secrets.phrases import holds_phrase, may_hold_phrase
from mfm_ops.machine.secrets.shapes import MIN_RUN_BYTES, run_rule, runs
from mfm_ops.machine.secrets.urls import has_userinfo, rule_in_url
from mfm_ops.machine.secrets.values import looks_generated, looks_random

__all__ = ["rule_in_text"]

_SHORTEST_CHARS = 6


def _divided(text: str) -> bool:
    """Whether anything separates a name from a value; most strings in a document are one word."""
    return any(mark in text for mark in " =:\t>$(")


def rule_in_text(text: str, gates: Gates, *, layers: int = 0) -> str | None:
    """The name of the first rule that the text breaks; only rules behind an open gate are tried.

    Linear in the length of the text. `layers` counts how often it was decoded already.
    """
    if len(text) < _SHORTEST_CHARS:
        return None
    data = text.encode("utf-8", "surrogatepass")
    if gates.shapes and len(data) >= MIN_RUN_BYTES:
        for run, before, _ in runs(data):
            rule = run_rule(run, before)
            if rule:
                return rule
    if gates.userinfo and "@" in text and has_userinfo(text):
        return "url_password"
    if gates.words and _divided(text) and words_in(folded(data), data):
        rule = _worded(text)
        if rule:
            return rule
    if gates.lines:
        rule = rule_in_line(text) or rule_in_url(text)
        if rule:
            return rule
    if gates.dumps:
        rule = rule_in_dump(text)
        if rule:
            return rule
    if gates.commands:
        rule = rule_in_command(text)
        if rule:
            return rule
    if gates.phrase and may_hold_phrase(data) and holds_phrase(text):
        return "bip39_phrase"
    return _rule_below(text, data, layers + 1) if gates.layered and layers < MAX_LAYERS else None


def _rule_below(text: str, data: bytes, layers: int) -> str | None:
    plain = unescaped(text)
    if plain != text:
        rule = rule_in_text(plain, ALL_OPEN, layers=layers)
        if rule:
            return rule
    for inner in encoded_texts(data):
        rule = rule_in_text(inner, ALL_OPEN, layers=layers)
        if rule:
            return rule
    return None


# signify and minisign: a comment, then the algorithm and how the key was derived, in base64.
_SIGNIFY = re.compile(r"secret key\s{1,4}RWR[A-Za-z0-9+/]{40}")
_BRAINTREE = re.compile(r"access_token\$\w{1,16}\$[a-z0-9]{16}\$[0-9a-f]{32}")
_KEY_BLOCK = re.compile(
    r"-{4,5} ?BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)? ?-{4,5}"
    r"|-----BEGIN OpenVPN Static key V1-----"
    r"|PuTTY-User-Key-File-[0-9]: [^\n]{0,80}\n"
    r"|---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----"
)
_KEY_BODY = re.compile(
    r"(?:\s|\\[nr])*(?:[A-Za-z0-9+/=]{16}|[A-Z][A-Za-z-]{1,24}: |Encryption: )", re.ASCII
)
_SCHEME = re.compile(
    r"(?<![A-Za-z0-9])(bearer|basic) {1,4}(?![a-z_]{2,20}=[^=\s])([A-Za-z0-9._~+/=-]{4,})",
    re.IGNORECASE | re.ASCII,
)


_HEADER = re.compile(
    r"""authori[sz]ation\\?["']?[ \t]{0,4}[:=][ \t]{0,4}\\?["']?"""
    r"""(?:[A-Za-z][A-Za-z0-9-]{1,24} )?([^\s"'\\]{8,512})""",
    re.IGNORECASE | re.ASCII,
)


def _is_token(token: str) -> bool:
    if len(token) >= 20 and token.isalnum():
        return True  # no word is that long
    return looks_generated(token) or looks_random(token)


def _worded(text: str) -> str | None:
    for found in _KEY_BLOCK.finditer(text):
        if _KEY_BODY.match(text, found.end(), found.end() + 200):
            return "pem_private_key"
        if len(text) < 400 and text.strip() == found[0].strip():
            return "pem_private_key"  # its lines stand in other strings
    # As sets, for a hostile text says the same thing a hundred thousand times.
    for scheme, word in set(_SCHEME.findall(text)):
        token = word.rstrip(".-")
        if scheme.lower() == "basic":
            if _is_user_and_password(token):
                return "basic_auth"
        elif _is_token(token):
            return "bearer_token"
    if any(_is_token(token) for token in set(_HEADER.findall(text))):
        return "authorization_header"
    if "secret key" in text and _SIGNIFY.search(text):
        return "signing_key"
    if _BRAINTREE.search(text):
        return "braintree_token"
    return "assigned_secret" if is_assigned(text) else None


def _is_user_and_password(token: str) -> bool:
    try:
        decoded = base64.b64decode(token + "=" * (-len(token) % 4), validate=True)
    except binascii.Error:
        return False
    user, colon, password = decoded.partition(b":")
    return (
        bool(colon and (user or password)) and decoded.isascii() and decoded.decode().isprintable()
    )
