"""Cheap questions to bytes: could anything in here be a secret at all?

Each gate that stays shut for a document would stay shut for every string in it, so a document
whose gates are all shut needs no parsing; the property is tested.  Rules are for the others.
"""

import re
from typing import NamedTuple

from mfm_ops.machine.secrets.phrases import may_hold_phrase
from mfm_ops.machine.secrets.shapes import looks_encoded, run_rule, runs
from mfm_ops.machine.secrets.verbs import VERBS

__all__ = ["ALL_OPEN", "Gates", "folded", "gates_of", "words_in"]


class Gates(NamedTuple):
    """What may be there. `layered`: something is escaped or encoded once more."""

    words: bool
    shapes: bool
    userinfo: bool
    phrase: bool
    commands: bool
    lines: bool
    dumps: bool
    layered: bool


ALL_OPEN = Gates(True, True, True, True, True, True, True, True)

_LOWER = bytes(range(256)).lower()
_NO_LETTERS = bytes(byte for byte in range(256) if not chr(byte).isalpha() or byte > 127)
_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)
_PART = rb"[^\x00-\x20\x7f-\xff/?@\\\"']"
_USER = rb"[^\x00-\x20\x7f-\xff/?#@\\\"':]"
# Possessive, for a long row of colons must not be tried again from each of its places.
_USERINFO = rb"://(?:" + _USER + rb"{0,256}+:" + _PART + rb"{1,512}+|" + _USER + rb"{20,256}+)@"
_PERCENT = re.compile(rb"%[2-7][0-9A-Fa-f]")

# Marks of lines and URLs that `lines` and `urls` know.
_CRYPT = rb"\$[0-9A-Za-z_-]{1,16}\$"
_CLIENTS = (b"lient(", b"onfigure(", b"pi(", b"PI(", b"ogin(", b"dk(", b"DK(")
_LINES = (b":543", b"{S")
_QUERIES = (
    *(b"sig=", b"ature=", b"key=", b"code=", b"sid=", b"session=", b"ticket=", b"jwt=", b"oken="),
    *(b"auth=", b"key = A", b"encrypt = "),
)
_PATHS = (
    *(b"hook", b"/t/", b"/invite/", b"/join/", b"/reset/", b"/verify/", b"/magic/"),
    *(
        b"password",
        b"/confirm/",
        b"/activate/",
        b"/services/",
        b"/rpc/",
        b"/v1/",
        b"/v2/",
        b"/v3/",
        b"/v4/",
    ),
)

# A document without any of these holds no command that `commands` knows.
MARKS = (
    *(b"mysql", b"maria", b"sshpass", b"redis-cli", b"ldap", b"login", b"curl"),
    *(b"zip", b"7z", b"rdp", b"rdesktop", b"ipmitool", b"sudo", b"smbclient"),
    *(
        b"net use",
        b"lftp",
        b"secret create",
        b"secret set",
        b"-stdin",
        b"htpasswd",
        b"chpasswd",
        b"assword:",
    ),
)

# Every sensitive name and every rule over text needs one of the words below, or one of these
# before "key". A test holds them to `SENSITIVE_NAMES`.
_BEFORE_KEY = (
    *(b"app", b"admin", b"hmac", b"signer", b"wallet", b"deploy", b"license", b"service"),
    *(b"role", b"static", b"subscription", b"storage", b"crypt", b"root", b"write"),
    *(b"private", b"priv", b"prv", b"api", b"access", b"account", b"signing", b"encryption"),
    *(b"master", b"shared", b"secret", b"user", b"raw", b"validation", b"routing"),
    *(b"integration", b"from", b"certificate", b"unseal", b"recovery"),
)


# Twenty characters with a digit among them behind any name that ends in "key".
_KEYED = (
    rb"key[^a-z0-9]{1,28}(?:(?:value|content)[^a-z0-9]{1,28})?"
    rb"(?=[a-z_+/=.~-]{0,100}[0-9])(?!0x)[a-z0-9_+/=.~-]{20}"
)


def folded(data: bytes) -> bytes:
    """The ASCII letters of `data`, in lower case: `API-Key`, `apiKey` and `api_key` are one."""
    return data.translate(_LOWER, _NO_LETTERS)


def words_in(letters: bytes, data: bytes) -> bool:
    """Whether folded bytes hold a word that every sensitive name or text rule needs.

    `data` are the bytes before they were folded: a few names tell by how they are written.
    """
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
        or b"pw" in letters
        or b"kty" in letters
        or b"seed" in letters
        or b"psk" in letters
        or b"samlresponse" in letters
        or b"recoverycode" in letters
        or b"identifiedby" in letters
        or b"securestring" in letters
        or b"macaroon" in letters
        or b"sensitive" in letters
        or (b"account" in letters and (b"accounts" in letters or b"unlockaccount" in letters))
    ):
        return True
    if b"key" in letters:
        for part in letters.split(b"key")[:-1]:
            if part.endswith(_BEFORE_KEY):
                return True
        if b"_KEY" in data or b"-Key" in data or re.search(_KEYED, data.lower()):
            return True
    return b"_SESSION" in data or b"_PAT" in data or (b"O" in data and b"ttpOnly" in data)


# As text: compiled when a document is the first to ask for them.
_OPTION = (
    rb'[ "]-(?:[aAbkKNpPsStTuUvwWxXzZ][ "=]|u[^ "]{1,64}:)'
    rb"|--[a-z-]{0,16}(?:value|body|string|user|auth|cred|login|basic|admin|command)"
)
_VERB = b'[" ;&|/](?:' + VERBS.encode() + b')[" ]'
# The beginning of an array of bytes.
_NUMBERS = rb"\[\s{0,8}(?:[0-9]{1,3},\s{0,8}){4}"


# What `dumps` knows is said in capitals, and most documents have few of them.
_NO_CAPITALS = bytes(byte for byte in range(256) if not 65 <= byte <= 90)
_DUMPS = (
    *(b"PASS", b"SECRET", b"RSA", b"FALSE", b"AUTH", b"TRUE", b"UGF", b"LOGIN", b"PLAIN"),
    *(b"IDENTIFY", b"RANDOM"),
)
# Bytes of a key stand below the word that says so.
_BYTES = rb"(?:[Pp]riv[a-zA-Z -]{0,16}|[Kk]ey|dump):\s{1,64}'?[0-9a-fA-F]{1,2}[: ]"


def _holds_one(data: bytes, marks: tuple[bytes, ...]) -> bool:
    # A generator in `any` takes four times as long, and this looks at every document.
    for mark in marks:  # noqa: SIM110
        if mark in data:
            return True
    return False


def gates_of(data: bytes) -> Gates:
    """The gates that canonical JSON, or one string's UTF-8, opens."""
    layered = b"%" in data and _PERCENT.search(data) is not None
    if b"\\" in data:
        layered = layered or b"\\\\" in data or b"\\u00" in data or b"\\x" in data
        # `\nghp_...` must not read as a run that begins with n.
        data = _ESCAPE.sub(b"  ", data)
    shapes = False
    slashes = b"/" in data
    for run, before, _ in runs(data, all_hexadecimal=slashes or b"fc-" in data):
        shapes = shapes or run_rule(run, before) is not None
        layered = layered or looks_encoded(run)
    words = words_in(folded(data), data)
    return Gates(
        words=words,
        shapes=shapes,
        userinfo=b"@" in data and re.search(_USERINFO, data) is not None,
        phrase=may_hold_phrase(data),
        commands=_may_be_command(data, words, slashes),
        lines=_may_be_line(data),
        dumps=_may_be_dump(data),
        layered=layered,
    )


# One byte is found many times faster than two, so it is asked for first.


def _may_be_command(data: bytes, words: bool, slashes: bool) -> bool:
    options = b"-" in data and (b" -" in data or b'"-' in data)
    if options and (re.search(_OPTION, data) or _holds_one(data, MARKS)):
        return True
    if b"ogin " in data:
        return True
    if b"[" in data and b'["' in data and re.search(_VERB, data):
        return True
    if slashes and (b"/user:" in data or b"/p:" in data):
        return True
    return (b"|" in data or (words and b"assword:" in data)) and _holds_one(data, MARKS)


def _may_be_line(data: bytes) -> bool:
    return (
        (b"=" in data and _holds_one(data, _QUERIES))
        or (b"://" in data and _holds_one(data, _PATHS))
        or (b"$" in data and re.search(_CRYPT, data) is not None)
        or (b"(" in data and _holds_one(data, _CLIENTS))
        or (b"*" in data and (b":*:" in data or b"'*" in data))
        or _holds_one(data, _LINES)
        or (
            b"@" in data
            and (b"+@all" in data or b"@//" in data or b"@tcp(" in data or b"]:" in data)
        )
        or (b"[" in data and data.count(b",") > 62 and re.search(_NUMBERS, data) is not None)
    )


def _may_be_dump(data: bytes) -> bool:
    if b"S" in data or b"U" in data or b"I" in data or b"M" in data:
        capitals = data.translate(None, _NO_CAPITALS)
        if (len(capitals) > 3 or capitals == b"RSA") and _holds_one(capitals, _DUMPS):
            return True
    if b"=" in data and b"==" in data and re.search(rb":[A-Za-z0-9+/]{86}==", data):
        return True
    return (b": " in data or (b"\n" in data and b":\n" in data)) and re.search(
        _BYTES, data
    ) is not None
