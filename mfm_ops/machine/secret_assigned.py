"""Assignments in running text: a telling name, an operator, and a value that exposes something.

`password=...`, `--api-key ...`, `"client-secret": "..."`, `<password>...</password>`, cookies.
"""

import re
import string

from mfm_ops.machine.secret_keys import (
    Strength,
    exposes,
    is_word_phrase,
    looks_generated,
    looks_random,
    name_strength,
)

__all__ = ["is_assigned", "is_documented"]

_DOCUMENTED = re.compile(
    r"(?:user|my|db|some|your)?[-_]?(?:pass|password|passwd|pwd|pw|secret|token|key|port)[0-9]?"
    r"|hunter2|s3cr3t|secr3t|p[@4]ssw[o0]rd[0-9]{0,3}!?|geheim\$parole",
    re.IGNORECASE,
)


def is_documented(value: str) -> bool:
    """Whether a value is what manuals write in place of one: `mypassword`, `db_pass`."""
    return _DOCUMENTED.fullmatch(value) is not None


# A telling word, the rest of its name, and an operator; then, looked at but not taken, a value:
# a value may hold the next name. Counts are possessive or bounded, so that the work for a name
# does not grow with the text.
_CANDIDATE = re.compile(
    r"(pass(?:word|wd|phrase|code|wort)?|secret|token|mnemonic|phrase|cookie|authori[sz]ation|psk"
    r"|auth|pwd|seed"
    r"|(?:private|priv|prv|api|access|account|signing|encryption|master|shared"
    r"|app|admin|hmac|signer|wallet|deploy|license|service|role|subscription|storage|crypt|root|write"
    r")[-_ ]?key|recovery[-_ ]?codes?)"
    r"([A-Za-z0-9_-]{0,64}+)"
    r"""(\\?["'])?+(\]?[ \t]*+(?::=|=>|==?|:)[ \t]*+(?:[>|][-+]?[0-9]?\n[ \t]{1,64}+)?"""
    r"""|[ \t]++(?:is:?|was)[ \t]++|[ \t]++)"""
    r"""(?=\\?(["'`])((?:(?!\5)[^\\\n]|\\.){0,256}?)\\?\5|([^\s"'`]{1,128}))""",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
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
_DEFINE = re.compile(
    r"""\bdefine\s{0,4}\(\s{0,4}["']([\w.-]{2,64})["']\s{0,4},\s{0,4}["']([^"'\n]{1,256})["']""",
    re.ASCII,
)
_IDENTIFIED = re.compile(r"""(?i)\bidentified\s{1,8}by\s{1,8}["']([^"'\n]{3,128})["']""")
# A line of a netrc, msmtp or redis file.
_LOGIN = re.compile(r"\blogin\s{1,8}\S{1,128}\s{1,8}password\s{1,8}(\S{4,128})")
_TWO_WORDS = re.compile(
    r"(?m)^[ \t]{0,64}([A-Za-z_-]{3,32})[ \t]{1,64}([^\s\"']{6,128})[ \t]{0,16}$"
)
_YAML_PAIR = re.compile(
    r"""\b(?:name|key): {1,4}["']?([\w.-]{2,64})["']?[ \t]{0,16}\r?\n[ \t-]{0,64}"""
    r"""value: {1,4}["']?([^\s"']{1,256})""",
    re.ASCII | re.IGNORECASE,
)
_ATTRIBUTE = re.compile(
    r"""\bname=["']([\w:. -]{2,64})["']\s{0,4}>\s{0,16}([^<>\n]{1,256}?)\s{0,16}<""", re.ASCII
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
        if strength and _value_exposes(text, start, found, name, strength):
            return True
    if "</" in text and any(_field(name, value) for name, value in _ELEMENT.findall(text)):
        return True
    if "=" in text and any(_field(*pair) for pair in _PAIR.findall(text)):
        return True
    if "alue:" in text and any(_field(*pair) for pair in _YAML_PAIR.findall(text)):
        return True
    if "name=" in text and any(_field(*pair) for pair in _ATTRIBUTE.findall(text)):
        return True
    if any(_cookie_exposes(found[1]) for found in _COOKIE.finditer(text)):
        return True
    return _is_pair(text)


def _is_pair(text: str) -> bool:
    if any(_field(name, value) for name, value in _DEFINE.findall(text)):
        return True
    if any(_is_likely(value) for value in _LOGIN.findall(text)):
        return True
    for name, value in _TWO_WORDS.findall(text):
        if name_strength(name) in {Strength.STRONG, Strength.GENERATED} and _is_likely(value):
            return True
    return any(
        not is_documented(value) and exposes(Strength.STRONG, value, "password")
        for value in _IDENTIFIED.findall(text)
    )


def _is_likely(value: str) -> bool:
    return is_word_phrase(value) or (
        not is_documented(value)
        and looks_generated(value)
        and any(char.isdigit() for char in value)
    )


def _field(name: str, value: str) -> bool:
    strength = name_strength(name)
    return bool(strength) and not is_documented(value) and exposes(strength, value, name)


def _cookie_exposes(cookies: str) -> bool:
    values = (cookie.partition("=")[2].strip("\"'") for cookie in cookies.split(";"))
    return any(looks_random(value) for value in values)


def _value_exposes(
    text: str, start: int, found: re.Match[str], name: str, strength: Strength
) -> bool:
    operator = found[4]
    sign = operator.strip(" \t\n]>|+-0123456789") or operator.strip()
    sign = sign if len(sign) < 3 else sign.rstrip(":")
    named = sign in {"=", ":", ":=", "=>", "=="} or name.startswith("-")
    if found[5]:
        whole_line = sign in {"=", ":"} and _fills_line(text, start, found.end(6) + 1)
        as_field = named and (whole_line or bool(found[3]))
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
        return False  # the value follows a scheme, and `secret_text` looks for that
    if sign in {"is", "was"}:
        return _is_spoken(value)
    if not named:
        # "the password sha256-hashes to ...": only what no prose holds
        return (_mixed(value) and looks_generated(value)) or looks_random(value)
    if value.isdigit():
        return len(value) >= 4 and sign == "=" and "pass" in name.lower()
    if looks_generated(value):
        return value.lower() != name.lower() and not is_documented(value)
    return is_word_phrase(value)


def _at_most_strong(strength: Strength) -> Strength:
    return Strength.STRONG if strength > Strength.GENERATED else strength


def _fills_line(text: str, start: int, end: int) -> bool:
    before = text[max(0, start - 12) : start].rpartition("\n")[2].strip()
    return before in {"", "export", "-e", "set", "ENV"} and text[end : end + 1] in {"", "\n", "\r"}


def _is_spoken(value: str) -> bool:
    if is_word_phrase(value) or looks_random(value):
        return True
    kinds = sum(any(map(kind, value)) for kind in (str.isupper, str.islower, str.isdigit))
    return len(value) >= 8 and kinds == 3 and looks_generated(value)


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
    return _CALL.fullmatch(value) is not None or is_documented(value)


def _quoted_value(value: str, name: str, strength: Strength, *, as_field: bool) -> bool:
    if strength is Strength.RANDOM:
        return looks_random(value)
    if is_word_phrase(value) or (looks_generated(value) and not is_documented(value)):
        return True
    # A quoted name and value, or a line of their own, are JSON or YAML: fields, then.
    return as_field and not _code_like(value) and exposes(strength, value, name)
