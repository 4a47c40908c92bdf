"""Passwords among the words of a command, whatever program it is: `-u jo -p V`, `--user jo:V`.

Pure; takes a command that was cut into words. Programs with options of their own, and commands
inside texts, are for `commands`.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from mfm_ops.machine.secrets.issued import is_drawn
from mfm_ops.machine.secrets.keyed import is_key
from mfm_ops.machine.secrets.names import Strength, name_strength
from mfm_ops.machine.secrets.values import (
    exposes,
    is_distinct,
    is_sample,
    is_well_known,
    looks_generated,
    looks_random,
)
from mfm_ops.machine.secrets.verbs import CREDENTIAL_VERBS, SETTINGS

__all__ = ["is_credential", "is_password", "options_expose", "verb_exposes"]

_USERS = frozenset(
    ("-u", "-U", "--user", "--username", "--login", "-D", "-user", "--account", "--email", "-l")
)
_PASSWORDS = re.compile(r"-[pPwW]")
_OTHER_OPTIONS = re.compile(r"-[aAbkKNsStTxXzZ]")
_PAIRS = frozenset(
    (
        *("-u", "-U", "-a", "--user", "--userpwd", "--auth", "--creds", "--credentials"),
        *("--proxy-user", "--src-creds", "--dest-creds", "--basic-auth", "--http-user"),
        *("--userpass", "--basic", "--login", "--credential", "--admin"),
    )
)
# Options for what is stored under a name that another word says.
_CONTENTS = frozenset(("--value", "--secret-string", "--body", "--secret-value", "-v"))
_SAYS = re.compile("--[a-z-]*pass[a-z-]*-command")
_PAIR = re.compile(r"[A-Za-z0-9_.@+\\-]{1,64}:([^\s:/@][^\s]{3,256})")
# Not a password: a port and what it is forwarded to, numbers, a word in capitals.
_PORTS = re.compile(r"[0-9:.,\[\]*-]*(?:/(?:tcp|udp|sctp))?|[A-Z_]+")
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
# Accounts and transactions of chains, and addresses of content, are written in base 58.
_BASE58_NAME = re.compile(
    r"[1-9A-HJ-NP-Za-km-z]{32,34}|[1-9A-HJ-NP-Za-km-z]{42,46}|[1-9A-HJ-NP-Za-km-z]{87,88}"
)
_CIPHER_KEY = re.compile(r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{48}|[0-9A-Fa-f]{64}")
# Keys of 32 and 64 bytes.
_PADDED = re.compile(r"[A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{86}==")
_DIGEST = re.compile(r"(?:0x)?[0-9a-fA-F]{24,}")
_VERB = re.compile(CREDENTIAL_VERBS)
_SETTERS = re.compile(SETTINGS)
_ENTRIES = re.compile("log-?in|sign-?in|auth(?:enticate)?|unlock|unseal")
_MAX_POSITIONS = 7


def is_password(value: str) -> bool:
    """Whether the value of an option that takes passwords is one: no port, path or placeholder."""
    if len(value) < 4 or value.startswith(("-", "$", "<", "[", "{", "%")) or is_sample(value):
        return False
    if _PORTS.fullmatch(value) or not exposes(Strength.STRONG, value, "password"):
        return False
    return is_distinct(value) or looks_generated(value) or (value.isalpha() and len(value) >= 8)


def options_expose(words: Sequence[str]) -> bool:
    """Whether a short option, or one for a user and password in one word, holds a secret."""
    named = any(
        (word in _USERS and not after.startswith("-")) or word.startswith(("-u=", "--user"))
        for word, after in pairwise((*words, ""))
    )
    for word, after in pairwise((*words, "")):
        if not word.startswith("-"):
            continue
        option, equals, value = word.partition("=")
        if not equals:
            value = after
        if _PASSWORDS.fullmatch(option) and (named or equals or _is_telling(value)):
            if is_password(value):
                return True
        elif (_OTHER_OPTIONS.fullmatch(option) and _is_telling(value)) or (
            option == "-K" and _CIPHER_KEY.fullmatch(value)
        ):
            return True
        if _SAYS.fullmatch(option) and value.startswith(("echo ", "printf ")):
            return is_password(value.split()[-1])
        if option in _CONTENTS and _tells(words) and is_password(value):
            return True
        if word.startswith("-u") and (pair := _PAIR.fullmatch(word[2:])) and is_password(pair[1]):
            return True
        if option in _PAIRS and (pair := _PAIR.fullmatch(value)) and is_password(pair[1]):
            return True
    return False


def _tells(words: Sequence[str]) -> bool:
    return any(
        word in {"SecureString", "secretsmanager"}
        or (not word.startswith("-") and name_strength(word) > Strength.RANDOM)
        for word in words
    )


def verb_exposes(words: Sequence[str]) -> bool:
    """Whether a command that takes a credential as a plain argument holds one."""
    for at, word in enumerate(words[:5]):
        if _ENTRIES.fullmatch(word) and any(map(is_credential, words[at + 1 : at + 2])):
            return True
        if _VERB.fullmatch(word):
            positions = words[at + 1 : at + 1 + _MAX_POSITIONS]
            return any(_is_argument(value) for value in positions)
        if _SETTERS.fullmatch(word) and any(
            _is_drawn(re.split("[=:]", value)[-1])
            for value in words[at + 1 : at + 1 + _MAX_POSITIONS]
        ):
            return True
    return False


def is_credential(value: str) -> bool:
    """Whether the word right behind `login` is what opens the account and not whose it is."""
    if _DIGEST.fullmatch(value):
        return len(value) >= 32
    if _BASE58_NAME.fullmatch(value) or value.startswith((".", "-")) or is_sample(value):
        return False
    return is_key(value, "login_key") or (
        len(value) >= 16
        and looks_random(value)
        and not _UUID.fullmatch(value)
        and ("." not in value or is_drawn(value.encode(), least=1))
    )


def _is_drawn(value: str) -> bool:
    if not 12 <= len(value) <= 256 or not value.isalnum() or _DIGEST.fullmatch(value):
        return False
    return is_drawn(value.encode(), least=1) and not _BASE58_NAME.fullmatch(value)


def _is_argument(value: str) -> bool:
    if value.startswith("/") and looks_random(value):
        return True
    if value.startswith(("-", "0x", "/", ".", "~", "$")) or ":" in value or "=" in value[:-2]:
        return False
    if "@" in value and "." in value.partition("@")[2]:
        return False
    if (
        _DIGEST.fullmatch(value)
        or _BASE58_NAME.fullmatch(value)
        or is_sample(value)
        or ("/" in value and not looks_random(value))
    ):
        return False
    return is_distinct(value) or (
        looks_generated(value) and any(char in "!#$%^&*+~?" for char in value)
    )


def _is_telling(value: str) -> bool:
    """Drawn, or a password with a mark: what no file, size or name of a test looks like."""
    if _UUID.fullmatch(value):
        return True
    if is_well_known(value):
        return True
    if _PADDED.fullmatch(value):
        return True
    if len(value) < 8 or _DIGEST.fullmatch(value) or any(mark in value for mark in "/:,=.\\ "):
        return False
    if looks_generated(value) and any(char in "!#$%^&*+~?" for char in value):
        return any(char.isdigit() for char in value) and value[0].isalnum()
    return len(value) >= 12 and is_drawn(value.encode(), least=1)
