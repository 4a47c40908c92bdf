"""Secrets inside running text: a log line, a message, a program's output, one argument.

Knows assignments (`password=...`, `--api-key ...`), authentication headers, URLs with a password,
key blocks; asks `secret_shapes` and `secret_phrases` for what stands on its own.
"""

import base64
import binascii
import re

from mfm_ops.machine.secret_gates import Gates, folded, words_in
from mfm_ops.machine.secret_keys import (
    Strength,
    exposes,
    looks_generated,
    looks_random,
    name_strength,
)
from mfm_ops.machine.secret_phrases import holds_phrase, may_hold_phrase
from mfm_ops.machine.secret_shapes import MIN_RUN_BYTES, run_rule, runs

__all__ = ["rule_in_text"]

_SHORTEST_CHARS = 6


def _divided(text: str) -> bool:
    """Whether anything separates a name from a value; most strings in a document are one word."""
    return " " in text or "=" in text or ":" in text or "\t" in text


def rule_in_text(text: str, gates: Gates) -> str | None:
    """The name of the first rule that the text breaks; only rules behind an open gate are tried.

    Linear in the length of the text.
    """
    if len(text) < _SHORTEST_CHARS:
        return None
    data = text.encode("utf-8", "surrogatepass")
    if gates.shapes and len(data) >= MIN_RUN_BYTES:
        for run, before in runs(data):
            rule = run_rule(run, before)
            if rule:
                return rule
    if gates.userinfo and "@" in text and _userinfo(text):
        return "url_password"
    if gates.words and _divided(text) and words_in(folded(data)):
        rule = _worded(text)
        if rule:
            return rule
    if gates.phrase and may_hold_phrase(data) and holds_phrase(text):
        return "bip39_phrase"
    return None


# As in `secret_gates`: what JSON escapes, or what UTF-8 lengthens, is no part of it.
_PART = r"[^\x00-\x20\x7f-\U0010ffff/?#@\\\"']"
_USERINFO = re.compile("://(" + _PART + "{0,256}?):(" + _PART + "{1,512})@")
_DOCUMENTED = re.compile(
    r"(?:user|my|db|some|your)?[-_]?(?:pass|password|passwd|pwd|pw|secret|token|key|port)",
    re.IGNORECASE,
)


def _userinfo(text: str) -> bool:
    return any(
        exposes(Strength.STRONG, found[2], "password")
        and not _DOCUMENTED.fullmatch(found[2])
        and "[" not in found[1]
        for found in _USERINFO.finditer(text)
    )


_KEY_BLOCK = re.compile(
    r"-{4,5} ?BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)? ?-{4,5}"
    r"|PuTTY-User-Key-File-[0-9]: [^\n]{0,80}\n"
    r"|---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----"
)
_KEY_BODY = re.compile(
    r"(?:\s|\\[nr])*(?:[A-Za-z0-9+/=]{16}|[A-Z][A-Za-z-]{1,24}: |Encryption: )", re.ASCII
)
_SCHEME = re.compile(
    r"(?<![A-Za-z0-9])(bearer|basic) {1,4}([A-Za-z0-9._~+/=-]{4,})", re.IGNORECASE | re.ASCII
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
        rest = text[found.end() : found.end() + 200]
        if _KEY_BODY.match(rest) or (not rest.strip() and not text[: found.start()].strip()):
            return "pem_private_key"
    for found in _SCHEME.finditer(text):
        token = found[2].rstrip(".-")
        if found[1].lower() == "basic":
            if _is_user_and_password(token):
                return "basic_auth"
        elif _is_token(token):
            return "bearer_token"
    for found in _HEADER.finditer(text):
        if _is_token(found[1]):
            return "authorization_header"
    return _assigned(text)


def _is_user_and_password(token: str) -> bool:
    try:
        decoded = base64.b64decode(token + "=" * (-len(token) % 4), validate=True)
    except binascii.Error:
        return False
    user, colon, password = decoded.partition(b":")
    return (
        bool(colon and (user or password)) and decoded.isascii() and decoded.decode().isprintable()
    )


# A telling word, and the name around it: `DB_PASSWORD`, `"client-secret"`, `--passphrase-file`.
_WORD = re.compile(
    r"pass(?:word|wd|phrase|code|wort)?|secret|token|mnemonic|phrase|cookie|authori[sz]ation"
    r"|auth|pwd|(?:private|priv|prv|api|access|account|signing|encryption|master|shared)[-_ ]?key",
    re.IGNORECASE | re.ASCII,
)
_NAME_HEAD = re.compile(r"[A-Za-z0-9_.-]*\Z", re.ASCII)
_NAME_TAIL = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_OPERATOR = re.compile(
    r"""(\\?["'])?(\]?[ \t]*(?::=|=>|==?|:)[ \t]*|[ \t]+(?:is:?|was)[ \t]+|[ \t]+)"""
)
_QUOTED = re.compile(r"""\\?(["'`])((?:(?!\1)[^\\\n]|\\.){0,256}?)\\?\1""", re.DOTALL)
# Bounded, for a value is looked at again for every telling word inside it.
_BARE = re.compile(r"""[^\s"'`]{1,256}""")
_MAX_NAME_CHARS = 64


def _assigned(text: str) -> str | None:
    position = 0
    while found := _WORD.search(text, position):
        head = _NAME_HEAD.search(text, max(0, found.start() - _MAX_NAME_CHARS), found.start())
        start = head.start() if head else found.start()
        tail = _NAME_TAIL.match(text, found.end(), found.end() + _MAX_NAME_CHARS)
        end = tail.end() if tail else found.end()
        position = max(end, found.end())
        name = text[start:end]
        strength = name_strength(name)
        if strength and _value_follows(text, start, end, name, strength):
            return "assigned_secret"
    return None


def _value_follows(text: str, start: int, end: int, name: str, strength: Strength) -> bool:
    operator = _OPERATOR.match(text, end)
    if operator is None:
        return False
    sign = operator[2].strip(" \t]")
    named = sign in {"=", ":", ":=", "=>", "=="} or name.startswith("-")
    quoted = _QUOTED.match(text, operator.end())
    if quoted:
        whole_line = sign in {"=", ":"} and _fills_line(text, start, quoted.end())
        as_field = named and (whole_line or bool(operator[1]))
        return _quoted_value(quoted[2], name, strength, as_field=as_field)
    bare = _BARE.match(text, operator.end())
    if bare is None:
        return False
    value = bare[0]
    if operator[2] == "=" and _fills_line(text, start, bare.end()) and not _code_like(value):
        return exposes(_at_most_strong(strength), value, name)
    value = re.split(r"[;,&]", value, maxsplit=1)[0].rstrip(".,;:)]}'\"")
    if strength is Strength.RANDOM:
        return looks_random(value)
    if strength is Strength.SCHEME:
        return False  # the value follows a scheme, and `_SCHEME` looks for that
    if not named:
        # "the password sha256-hashes to ...": only what no prose holds
        return _mixed(value) and looks_generated(value)
    if value.isdigit():
        return len(value) >= 4 and sign == "=" and "pass" in name.lower()
    return looks_generated(value) and value.lower() != name.lower()


def _at_most_strong(strength: Strength) -> Strength:
    return Strength.STRONG if strength > Strength.GENERATED else strength


def _fills_line(text: str, start: int, end: int) -> bool:
    before = text[max(0, start - 12) : start].rpartition("\n")[2].strip()
    return before in {"", "export", "-e", "set", "ENV"} and text[end : end + 1] in {"", "\n", "\r"}


def _mixed(value: str) -> bool:
    """Small letters, capitals and digits in one word of eight or more."""
    return (
        len(value) >= 8
        and value.isalnum()
        and value != value.lower()
        and value != value.upper()
        and any(char.isdigit() for char in value)
    )


_CALL = re.compile(
    r"[A-Za-z_][\w.]*[(\[].*|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+[,;)]?|[A-Z_]+", re.ASCII
)


def _code_like(value: str) -> bool:
    return _CALL.fullmatch(value) is not None or _DOCUMENTED.fullmatch(value) is not None


def _quoted_value(value: str, name: str, strength: Strength, *, as_field: bool) -> bool:
    if strength is Strength.RANDOM:
        return looks_random(value)
    if looks_generated(value):
        return True
    # A quoted name and value, or a line of their own, are JSON or YAML: fields, then.
    return as_field and not _code_like(value) and exposes(strength, value, name)
