"""Secrets that a line introduces without an operator: `masterauth V`, "the new password is V".

Pure; `name value` lines, announcements on the same line or the one before, blocks of a Secret.
Assignments with an operator are for `assigned`.
"""

import re
from itertools import islice, pairwise

from mfm_ops.machine.secrets.names import Strength, name_strength
from mfm_ops.machine.secrets.values import (
    exposes,
    is_distinct,
    is_sample,
    is_well_known,
    is_word_phrase,
    looks_generated,
    looks_random,
)

__all__ = ["is_announced"]

_DEFINE = re.compile(
    r"""\bdefine\s{0,4}\(\s{0,4}["']([\w.-]{2,64})["']\s{0,4},\s{0,32}["']([^"'\n]{1,256})["']""",
    re.ASCII,
)
# SQL, and PowerShell's way to say that a text is a password.
_QUOTED = re.compile(
    r"""(?i)\b(?:identified\s{1,8}by|converttosecurestring|convertto-securestring(?: -string)?)"""
    r"""\s{1,8}["']([^"'\n]{3,128})["']"""
)
# A line of a netrc, msmtp or redis file.
_LOGIN = re.compile(r"\blogin\s{1,8}\S{1,128}\s{1,8}password\s{1,8}(\S{4,128})")
_TWO_WORDS = re.compile(
    r"(?m)^[ \t]{0,64}([A-Za-z_-]{3,32})[ \t]{1,64}([^\s\"']{6,128})[ \t]{0,16}$"
)
# Of routers and switches; the digit says how the word behind it was disguised.
_DISGUISED = re.compile(r"(?i)\b(?:password|secret|key|psk) [0-9] ([^\s\"']{6,128})")
# A list of users for chpasswd.
_USER_LINE = re.compile(r"(?m)^[ \t-]{0,32}[a-z_][\w.-]{0,32}:([^\s\"':]{4,128})$")
# A key that a program's source hands to a library.
_FROM_KEY = re.compile(
    r"\b(?:from_?(?:private_?|secret_?)?key|private_?key_?to_?account)"
    r"""\(\s{0,8}\\?["'](?:0x)?[0-9a-f]{64}""",
    re.IGNORECASE,
)
# The configuration of a chain's tools: addresses are shorter.
_ACCOUNTS = re.compile(
    r"""\baccounts\\?["']?\s{0,4}[:=]\s{0,4}\[\s{0,8}\\?["'](?:0x)?[0-9a-fA-F]{64}\\?["']"""
)
_SECRET_BLOCK = re.compile(
    r"(?:^|\n)([ \t]{0,16})(?:stringData|data):[ \t]{0,16}\n"
    r"((?:\1[ \t]{1,16}[^\n]{1,300}(?:\n|\Z)){1,64})"
)
_ENTRY = re.compile(
    r"""(?m)^[ \t]{1,32}[\w.-]{1,64}:[ \t]{1,16}["']?([^\s"']{6,300})["']?[ \t]{0,16}$"""
)

# An account in the file of a tunnel, and a command that says a password.
_INLINE = re.compile(r"<auth-user-pass>\s{1,8}\S{1,128}\s{1,8}([^\s<]{6,128})")
_PRINTED = re.compile(
    r"""(?i)pass(?:word|phrase)?[-_]?command["']?[ =:]{1,4}["']?(?:echo|printf)"""
    r""" {1,8}([^\s"'|]{6,128})"""
)

_TELLING = re.compile(
    r"(?<![\w./=-])(?:(?:certificate|encryption|unseal|recovery|private|secret|spending|signing)"
    r" (?:key|seed)|pass ?(?:word|phrase|code)|secret"
    r"|(?:api|access|app|account|auth|license)[ -]key|token|credential"
    r"|(?:recovery|backup) code)s?(?![\w/=(-])",
    re.IGNORECASE,
)
# What says that the value itself follows: even hexadecimal digits are it then.
_HANDED = frozenset(
    (
        *("provided", "given", "received", "supplied", "rejected", "value", "used", "sent"),
        *("expired", "invalid", "unknown", "presented"),
    )
)
_MAX_MENTIONS = 8
_LEADING_IN = frozenset(("is", "was", "be", "to", "becomes", "=", "->", "=>", ">"))
_OTHER_LABELS = frozenset(
    (
        *("id", "ids", "name", "names", "accessor", "hash", "digest", "fingerprint", "version"),
        *("user", "username", "url", "uri", "host", "address", "status", "type", "file", "path"),
        *("date", "time", "at", "on", "expires", "issuer", "error", "code", "see", "image", "key"),
        *("keys", "md5", "sha256", "sha512", "ref", "reference", "example", "usage", "note"),
        *("warning", "algorithm", "format", "package", "module", "class", "function", "method"),
        *("authentication", "mechanism", "provider", "policy", "source", "backend", "manager"),
        *("store",),
    )
)
_SOMETHING = re.compile(r"\w")
_PAIR = re.compile(r"(?:[a-z_.-]+|[A-Z_]+)=")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2,3}={1,2})?")
_KEY = re.compile(r"(?:0x)?[0-9a-f]{64}")
_BODY = re.compile(r"(?:0x)?(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})|[0-9a-f]{5}-[0-9a-f]{5}")
_HEX_OR_DASHES = re.compile(r"[0-9A-Fa-fx:-]+")
_MAX_LINE_CHARS = 400
# What is longer was encrypted, or has a shape of its own. A line is cut before it is judged.
_MAX_VALUE_CHARS = 300
_TRIMMED = "\"'`.,;()[]<>{}*"


def is_announced(text: str) -> bool:
    """Whether a line of the text introduces a secret; linear in its length."""
    if any(_named(name, value) for name, value in _DEFINE.findall(text)):
        return True
    if any(looks_generated(value) and not is_sample(value) for value in _LOGIN.findall(text)):
        return True
    for name, value in _TWO_WORDS.findall(text):
        # A semicolon ends a declaration: `SecretValue *secret;`.
        if name_strength(name) in {Strength.STRONG, Strength.GENERATED} and _is_likely(
            value.strip("*;")
        ):
            return True
    if any(map(_is_likely, _DISGUISED.findall(text))):
        return True
    if any(
        not is_sample(value) and exposes(Strength.STRONG, value, "password")
        for value in _QUOTED.findall(text)
    ):
        return True
    if ("stringData:" in text or "kind: Secret" in text) and any(
        any(_is_likely(value) or _is_base64(value) for value in _ENTRY.findall(block))
        for _, block in _SECRET_BLOCK.findall(text)
    ):
        return True
    if "<auth-user-pass>" in text and any(map(_is_likely, _INLINE.findall(text))):
        return True
    if any(map(_is_likely, _PRINTED.findall(text))):
        return True
    if "chpasswd" in text and any(map(_is_likely, _USER_LINE.findall(text))):
        return True
    if _FROM_KEY.search(text) or ("accounts" in text and _ACCOUNTS.search(text)):
        return True
    return _is_said(text)


def _named(name: str, value: str) -> bool:
    strength = name_strength(name)
    return bool(strength) and not is_sample(value) and exposes(strength, value, name)


def _is_likely(value: str) -> bool:
    if is_sample(value):
        return False
    if is_word_phrase(value) or is_well_known(value):
        return True
    marks = sum(not char.isalnum() for char in value)
    return looks_generated(value) and (any(char.isdigit() for char in value) or marks > 1)


def _is_said(text: str) -> bool:
    """A telling word, and later in its line or alone in the next one what it tells of."""
    lines = text.split("\n")
    judged: set[str] = set()
    for at, line in enumerate(lines):
        if line in judged:
            continue
        judged.add(line)
        mentions = list(islice(_TELLING.finditer(line), _MAX_MENTIONS))
        if not mentions:
            continue
        if any(_is_handed(line, mention) for mention in mentions):
            return True
        found = mentions[0]
        of_key = found[0].lower().rstrip("s").endswith(("key", "seed"))
        words = line[found.end() : found.end() + _MAX_LINE_CHARS].split()
        for before, word in pairwise(words):
            label = before.lower()
            if (label.endswith(":") or label in _LEADING_IN) and _is_value(label, word):
                return True
            if of_key and label.endswith(":") and _KEY.fullmatch(word):
                return True
        rest = line[found.end() :].rstrip()
        following = next(filter(_SOMETHING.search, lines[at + 1 : at + 4]), "")
        alone = following[:_MAX_LINE_CHARS].split()
        if _is_alone(alone, introduced=rest.endswith(":")):
            return True
        if of_key and 0 < len(alone) < 3 and _KEY.fullmatch(alone[-1]):
            return True
    return False


def _is_handed(line: str, mention: re.Match[str]) -> bool:
    """`V as api key`, `token provided: V`: within three words of what it is called."""
    words = line[max(0, mention.start() - _MAX_LINE_CHARS) : mention.start()].split()[-4:]
    for value, joint in pairwise(words):
        if joint == "as" and _is_random(value):
            return True
    words = line[mention.end() : mention.end() + _MAX_LINE_CHARS].split()[:4]
    return any(
        label.lower().rstrip(":") in _HANDED and _is_random(value)
        for label, value in pairwise(words)
    )


def _is_random(word: str) -> bool:
    value = word.strip(_TRIMMED)
    return bool(_KEY.fullmatch(value) or _BODY.fullmatch(value)) or (
        len(value) >= 16 and looks_random(value) and not value.startswith("0x") and "." not in value
    )


def _is_base64(value: str) -> bool:
    """What stands under `data` of a Secret, though it may be letters only."""
    return len(value) >= 8 and value != value.lower() and _BASE64.fullmatch(value) is not None


def _is_alone(words: list[str], *, introduced: bool) -> bool:
    if len(words) == 1 and introduced:
        return _BODY.fullmatch(words[0]) is not None or _is_value("", words[0])
    return 2 <= len(words) <= 4 and words[-2].endswith(":") and _is_value(words[-2], words[-1])


def _is_value(label: str, word: str) -> bool:
    value = word.strip(_TRIMMED)
    if re.split(r"[\W_]+", label.rstrip(":"))[-1] in _OTHER_LABELS or _HEX_OR_DASHES.fullmatch(
        value
    ):
        return False
    if (
        value.startswith(("$", "%", "-"))
        or "," in value
        or value.count(":") > 2
        or len(value) > _MAX_VALUE_CHARS
        or "://" in value
        or _PAIR.match(value)
        or ("@" in value[1:] and "." in value)
    ):
        return False
    return is_distinct(value) or (
        len(value) >= 8 and looks_generated(value) and _has_odd_marks(value)
    )


def _has_odd_marks(value: str) -> bool:
    return any(char.isdigit() for char in value) and any(char in "!#$%^&*+~?" for char in value)
