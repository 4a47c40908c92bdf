"""Passwords on command lines whose option does not say so: `mysql -p...`, `redis-cli -a ...`.

Pure; a table of programs and of their short options that take a password.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from mfm_ops.machine.secrets.argv import is_credential, options_expose
from mfm_ops.machine.secrets.names import Strength
from mfm_ops.machine.secrets.values import exposes, is_distinct, is_sample, looks_random

__all__ = ["rule_in_command"]

_MYSQL = r"(?:mysql|mariadb)(?:-?(?:dump|admin|import|check|show|slap|binlog))?"
_LDAP = r"ldap(?:search|add|modify|delete|passwd|whoami|compare|modrdn)"
# Program, option, and whether the password is written right behind the option.
_OPTIONS: tuple[tuple[str, str, bool], ...] = (
    (_MYSQL, "-p", True),
    ("sshpass", "-p", True),
    ("sshpass", "-p", False),
    ("redis-cli", "-a", False),
    (_LDAP, "-w", False),
    (r"(?:unzip|zip)", "-P", False),
    (r"7z[ar]?", "-p", True),
    (r"x?freerdp|xfreerdp", "/p:", True),
    ("rdesktop", "-p", False),
    ("ssh-keygen", "-[NP]", False),
    ("ipmitool", "-P", False),
)
_PROGRAM = re.compile(
    r"(?<![\w.-])(" + "|".join(f"(?:{name})" for name, _, _ in _OPTIONS) + r")"
    r"(?:\.exe)?(?=[ \t]+[-/\w])"
)
_WORDS = re.compile(r"""[ \t]*+((?:"[^"\n]{0,256}"|'[^'\n]{0,256}'|[^\s"'|;&<>]){1,300}+)""")
# A line, or what a shell takes for one, with a short option or one that names a user.
_WITH_OPTIONS = re.compile(
    r"(?:^|[\n;|`])([^\n;|`]{0,600}? (?:-[aAbkKNpPsStTuUvwWxXzZ]"
    r"|--[a-z-]{0,16}(?:value|body|string|user|auth|cred|login|basic|admin)[a-z-]{0,8})"
    r"[ =][^\n|`]{4,600})"
)
# What is said to a program that lets its user in: the last word of its line.
_LOGIN = re.compile(
    r"(?m)(?:^|[ \t])[lL]og-?in {1,8}[\"']?([A-Za-z0-9_+/=.-]{16,256})[\"']?[ \t]{0,8}(?=$|[;&|])"
)
_MAX_WORDS = 24
_MAX_OPTIONS = 100
_MAX_COMMAND_CHARS = 512
# Counts are bounded throughout, so that a long row of blanks is not tried from each of its places.
_ECHO = r"""\b(?:echo|printf) {1,8}(?:-n {1,8})?["']?"""
_PIPED = r"""([^\s"'|%][^"'\n|%]{3,127}?)["']? {0,8}\| {0,8}"""
_LINES = (
    re.compile(_ECHO + _PIPED + r"sudo {1,8}(?:-\w{1,8} {1,8}){0,8}-S\b"),
    re.compile(_ECHO + r"[\w.-]{1,64}:" + _PIPED + r"(?:sudo {1,4})?chpasswd\b"),
    re.compile(
        _ECHO + _PIPED + r"(?:docker secret create|gh secret set"
        r"|[\w ./-]{1,64} --(?:password-stdin|stdin|passphrase-fd))\b"
    ),
    re.compile(r"""\blftp [^\n]{0,100}?(?<= )-u[ =]?["']?[\w.-]{1,64},([^\s"']{3,128})"""),
    re.compile(r"""\bnet use [^\n]{0,200}?/user:\S{1,64} {1,8}(?!/)(\S{4,128})"""),
    re.compile(
        r"""assword:?[^\n]{0,20}"\s{0,8}send(?: --)? {1,8}"([^"\n]{4,128}?)(?:\\r|\\n)?\""""
    ),
    re.compile(
        r"""\bhtpasswd {1,8}-\w{0,8}b\w{0,8} {1,8}\S{1,256} {1,8}\S{1,256} {1,8}(\S{4,128})"""
    ),
    re.compile(r"""\bsmbclient\b[^\n]{0,200}? -U[ =]?["']?[\w.\\/-]{1,64}%([^\s"']{3,128})"""),
)
# How programs of Windows are told.
_SLASHED = re.compile(r" /p:[\"']?([^\s\"']{4,128})")
_CURL = re.compile(r"\bcurl\b[^\n|;]{0,400}")
_CURL_COOKIE = re.compile(r""" (?:-b|--cookie)[ =]?["']?[^"'\n=]{1,64}=([^\s"';]{16,256})""")


def rule_in_command(text: str) -> str | None:
    """The rule that a command inside the text breaks, or None."""
    for line in _LINES:
        for found in line.finditer(text):
            if _exposes(found[1]):
                return "command_password"
    if " /p:" in text and any(map(_is_drawn, _SLASHED.findall(text))):
        return "command_password"
    judged: set[str] = set()
    for found in _PROGRAM.finditer(text):
        command = text[found.start() : found.start() + _MAX_COMMAND_CHARS]
        if command in judged:
            continue
        judged.add(command)
        words: list[str] = []
        at = found.end() - found.start()
        while len(words) < _MAX_WORDS and (word := _WORDS.match(command, at)):
            words.append(word[1].strip("\"'"))
            at = word.end()
        if _holds_password(found[1], words):
            return "command_password"
    if any(options_expose(_cut(command)) for command in set(_WITH_OPTIONS.findall(text))):
        return "command_password"
    if any(is_credential(value) for value in set(_LOGIN.findall(text))):
        return "command_password"
    for request in set(_CURL.findall(text)):
        if any(map(looks_random, _CURL_COOKIE.findall(request))):
            return "command_cookie"
    return None


def _is_drawn(value: str) -> bool:
    return "/" not in value and _exposes(value) and is_distinct(value)


def _cut(command: str) -> list[str]:
    words: list[str] = []
    at = 0
    while len(words) < _MAX_OPTIONS and (word := _WORDS.match(command, at)):
        words.append(word[1].strip("\"'"))
        at = word.end()
    return words


def _holds_password(program: str, words: Sequence[str]) -> bool:
    for name, option, attached in _OPTIONS:
        if not re.fullmatch(name, program):
            continue
        for word, following in pairwise((*words, "")):
            if attached and word.startswith(option) and _exposes(word[len(option) :]):
                return True
            if not attached and re.fullmatch(option, word) and _exposes(following):
                return True
    return False


def _exposes(value: str) -> bool:
    value = value.strip("\"'")
    if len(value) < 4 or value.startswith(("-", "$", "<", "[", "{")) or is_sample(value):
        return False
    return exposes(Strength.STRONG, value, "password") and not (value.isalpha() and value.isupper())
