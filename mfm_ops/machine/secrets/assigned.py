"""Assignments in running text: a telling name, an operator, and a value that exposes something.

`password=...`, `--api-key ...`, `"client-secret": "..."`, `<password>...</password>`, cookies.
"""

import re
import string

from mfm_ops.machine.secrets.announced import is_announced
from mfm_ops.machine.secrets.keyed import assigns_key
from mfm_ops.machine.secrets.names import Strength, name_strength
from mfm_ops.machine.secrets.tables import is_tabled
from mfm_ops.machine.secrets.values import (
    exposes,
    is_distinct,
    is_sample,
    is_well_known,
    is_word_phrase,
    looks_generated,
    looks_random,
)

__all__ = ["is_assigned"]

# A telling word, the rest of its name, and an operator; then, looked at but not taken, a value:
# a value may hold the next name. Counts are possessive or bounded, so that the work for a name
# does not grow with the text.
_CANDIDATE = re.compile(
    r"(pass(?:word|wd|phrase|code|wort)?|secret(?: id(?=[ :=]))?|token|mnemonic"
    r"|phrase|cookie|authori[sz]ation|psk"
    r"|auth|pwd|seed|macaroon|(?:bind|root)pw|(?<![A-Za-z])pw(?![a-z])|(?<=[_-])(?:key|pat|jwt|session|credentials?)"
    r"|(?:private|priv|prv|api|access|account|signing|encryption|master|shared"
    r"|app|admin|routing|integration|hmac|signer|wallet|deploy|license|service|role|subscription|storage|crypt|root|write"
    r")[-_. ]?key|recovery[-_ ]?codes?)"
    r"((?:[A-Za-z0-9_-]|\.(?=\w)){0,64}+)"
    r"""(\\?["'])?+(\]?[ \t]*+(?::=|=>|==?|::?)[ \t]*+(?:[>|][-+]?[0-9]?\n[ \t]{1,64}+)?"""
    r"""|[ \t]++(?:is:?|was)[ \t]++|[ \t]++)"""
    r"""(?=\\?(["'`])((?:(?!\5)[^\\\n]|\\.){0,256}?)\\?\5|["']?([^\s"'`]{1,128}))""",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
_OBJECT_NAME = re.compile(r"[a-z0-9]+(?:[-.][a-z0-9]+)+")
_NAME_CHARS = string.ascii_letters + string.digits + "_.-"
_MAX_NAME_CHARS = 64
_ELEMENT = re.compile(
    r"<([A-Za-z][\w:.-]{0,63})>\s{0,16}([^<>\s][^<>\n]{0,255}?)\s{0,16}</\1>", re.ASCII
)
_PAIR = re.compile(
    r"""(?:key|name|id)=["']([\w:. -]{2,64})["']\s{1,8}"""
    r"""(?:value|content)=["']([^"'\n]{1,256})["']""",
    re.ASCII | re.IGNORECASE,
)
_YAML_PAIR = re.compile(
    r"""\b(?:name|key): {1,4}["']?([\w.-]{2,64})["']?[ \t]{0,16}\r?\n[ \t-]{0,64}"""
    r"""value: {1,4}["']?([^\s"']{1,256})""",
    re.ASCII | re.IGNORECASE,
)
_ATTRIBUTE = re.compile(
    r"""\bname=["']([\w:. -]{2,64})["']\s{0,4}>\s{0,16}([^<>\n]{1,256}?)\s{0,16}<""", re.ASCII
)
_MAX_VALUE_CHARS = 128
_LONG = re.compile(r"""[^\s"'`]{180}""")
_DIGEST = re.compile(r"[0-9a-f]{32,128}")
# The names that the entries of password stores and settings of Windows have in XML.
_NESTED = re.compile(
    r"<(?:(?:[Kk]ey|[Nn]ame)>([\w .-]{2,64})</(?:[Kk]ey|[Nn]ame)|([\w.-]{2,64}))>\s{0,16}"
    r"<(?:[Vv]alue|string)(?: [^<>\n]{0,64})?>([^<>\n]{1,256})</",
    re.ASCII,
)
_COOKIE = re.compile(r"(?i)\bcookie\\?[\"']?: ?\\?[\"']?([^\r\n]{1,4096})")


def is_assigned(text: str) -> bool:
    """Whether the text gives a secret value to a telling name; linear in its length."""
    judged: set[tuple[str, str, str]] = set()
    for found in _CANDIDATE.finditer(text):
        head = text[max(0, found.start() - _MAX_NAME_CHARS) : found.start()]
        start = found.start() - len(head) + len(head.rstrip(_NAME_CHARS))
        name = text[start : found.end(2)]
        case = (name, found[4], found[6] or found[7] or "")
        if case in judged:
            continue
        judged.add(case)
        strength = name_strength(name)
        if strength > Strength.KEYED and _value_exposes(text, start, found, name, strength):
            return True
    if "</" in text and any(_field(name, value) for name, value in _ELEMENT.findall(text)):
        return True
    if "alue" in text or "<string" in text:
        for key, element, value in _NESTED.findall(text):
            if _field(key or element, value):
                return True
    if "=" in text and any(_field(*pair) for pair in _PAIR.findall(text)):
        return True
    if "alue:" in text and any(_field(*pair) for pair in _YAML_PAIR.findall(text)):
        return True
    if "name=" in text and any(_field(*pair) for pair in _ATTRIBUTE.findall(text)):
        return True
    if any(_cookie_exposes(found[1]) for found in _COOKIE.finditer(text)):
        return True
    return assigns_key(text) or is_tabled(text) or is_announced(text)


def _field(name: str, value: str) -> bool:
    strength = name_strength(name)
    return bool(strength) and not is_sample(value) and exposes(strength, value, name)


def _cookie_exposes(cookies: str) -> bool:
    values = (cookie.partition("=")[2].strip("\"'") for cookie in cookies.split(";"))
    return any(looks_random(value) for value in values)


def _value_exposes(
    text: str, start: int, found: re.Match[str], name: str, strength: Strength
) -> bool:
    if text[start - 1 : start] == ":" and "arn:" in text[max(0, start - 80) : start]:
        return False
    if text[start - 1 : start] in {";", ":"} and "pkcs11:" in text[max(0, start - 256) : start]:
        return False  # the label of a device
    operator = found[4]
    if _is_elsewhere(text, start, found):
        return False
    sign = operator.strip(" \t\n]>|+-0123456789") or operator.strip()
    sign = sign if len(sign) < 3 and sign != "::" else sign.rstrip(":") or ":"
    named = sign in {"=", ":", ":=", "=>", "=="} or name.startswith("-")
    if found[5]:
        whole_line = sign in {"=", ":"} and _fills_line(text, start, found.end(6) + 1)
        as_field = named and (whole_line or bool(found[3]))
        if not named and not name.isupper() and is_well_known(found[6]):
            return False  # the manuals' favourites
        return _quoted_value(found[6], name, strength, as_field=as_field)
    value = found[7]
    if operator == "=" and _fills_line(text, start, found.end(7)) and not _code_like(value):
        return exposes(_at_most_strong(strength), value, name)
    first = re.split(r"[;,&]", value, maxsplit=1)[0]
    if len(first) >= 6 or "=" in value or not named:
        value = first
    value = value.rstrip(".,;:)]}'\"")
    if strength is Strength.RANDOM:
        return looks_random(value)
    if strength is Strength.SCHEME:
        return False  # the value follows a scheme, and `text` looks for that
    if sign in {"is", "was"}:
        return is_distinct(value)
    if not named:
        # "the password sha256-hashes to ...": only what no prose holds
        return (_mixed(value) and looks_generated(value)) or looks_random(value)
    if is_well_known(value):
        return True
    if value.isdigit():
        return len(value) >= 4 and sign == "=" and "pass" in name.lower()
    if looks_generated(value):
        if name.lower() == "secret" and _OBJECT_NAME.fullmatch(value):
            return False  # what an object of that kind is called: `secret: db-creds-x7k2p`
        return value.lower() != name.lower() and not is_sample(value)
    return is_word_phrase(value)


def _is_elsewhere(text: str, start: int, found: re.Match[str]) -> bool:
    """The digest of a file of that name, or what is far too long for a password: encrypted."""
    value = found[7] or ""
    if text[start - 1 : start] == "/" and not found[4].strip():
        return _DIGEST.fullmatch(value) is not None
    password = "pass" in found[1].lower() and len(value) == _MAX_VALUE_CHARS
    return password and _LONG.match(text, found.end(7)) is not None


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
    r"[A-Za-z_][\w.]*[(\[].*|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+[,;)]?|[A-Za-z_]\w*[,)]+|[A-Z_]+",
    re.ASCII,
)


def _code_like(value: str) -> bool:
    return _CALL.fullmatch(value) is not None or is_sample(value)


def _quoted_value(value: str, name: str, strength: Strength, *, as_field: bool) -> bool:
    if strength is Strength.RANDOM:
        return looks_random(value)
    if is_word_phrase(value) or (looks_generated(value) and not is_sample(value)):
        return True
    # A quoted name and value, or a line of their own, are JSON or YAML: fields, then.
    return as_field and not _code_like(value) and exposes(strength, value, name)
