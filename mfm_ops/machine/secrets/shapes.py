"""Credentials that are known by their shape alone: a fixed prefix and a body without spaces.

Works on *runs*: maximal stretches of letters, digits, `_`, `-` and `.`, at least 20 long.  What
stands around them (names, flags, sentences) is for `text`.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

from mfm_ops.machine.secrets.issued import is_issued, is_lower_token
from mfm_ops.machine.secrets.issuers import SHAPES

__all__ = ["MIN_RUN_BYTES", "looks_encoded", "run_rule", "runs"]

MIN_RUN_BYTES = 20
_RUN_CHARS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."
_MARK = bytes(ord("a") if byte in _RUN_CHARS else ord(" ") for byte in range(256))
# The first hexadecimal digit of a printable character.
_TEXT_NIBBLES = b"234567"
_LONG = b"a" * MIN_RUN_BYTES
_BEFORE_BYTES = 24
# Digests, addresses and UUIDs fill our documents and are no credentials.
_HEX_AND_DASHES = b"0123456789abcdefx-"


def runs(data: bytes, *, all_hexadecimal: bool = True) -> Iterator[tuple[bytes, bytes, int]]:
    """Every run, up to 24 bytes that stand before it, and where it starts.

    Without `all_hexadecimal`, of the plain hexadecimal ones only those that read as text.
    """
    marks = data.translate(_MARK)
    start = marks.find(_LONG)
    while start >= 0:
        end = marks.find(b" ", start)
        if end < 0:
            end = len(marks)
        run = data[start:end]
        if (
            all_hexadecimal
            or run.translate(None, _HEX_AND_DASHES)
            or (run[0] in _TEXT_NIBBLES and looks_encoded(run))
        ):
            yield run, data[max(0, start - _BEFORE_BYTES) : start], start
        start = marks.find(_LONG, end)


_ENCODED_START = b"IJKLMNOPQRSTUVWXYZabcdef"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_PRINTABLE = bytes(range(0x20, 0x7F)) + b"\t\r\n"
_ENCODED_SAMPLE_BYTES = 24


def looks_encoded(run: bytes) -> bool:
    """Whether the run begins as base64 or hexadecimal of printable ASCII does.

    Twelve characters are looked at: random bytes pass once in a hundred thousand times.
    """
    if run[0] in _TEXT_NIBBLES and len(run) >= _ENCODED_SAMPLE_BYTES:
        head = run[:_ENCODED_SAMPLE_BYTES]
        return not head.translate(None, _HEX_AND_DASHES) and not head[::2].translate(
            None, _TEXT_NIBBLES
        )
    if run[0] not in _ENCODED_START:
        return False
    try:
        text = binascii.a2b_base64(run[:16].translate(_URL_SAFE))
    except binascii.Error:
        return False
    return len(text) == 12 and not text.translate(None, _PRINTABLE)


_DISCORD = re.compile(rb"[MNO][\w-]{22,27}\.[\w-]{6}\.[\w-]{27,}")
_MAILCHIMP = re.compile(rb"[0-9a-f]{32}-us[0-9]{1,2}")
_TELEGRAM_ID = re.compile(rb"(?:^|[^0-9])[0-9]{6,11}:$")
_HOOK = re.compile(rb"/[BT][A-Z0-9]{8,10}/[A-Za-z0-9]{24}\Z|[0-9]{11}/[\w-]{60,80}\Z")
_MAXMIND = re.compile(rb"[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk")
# The few tokens whose long part is hexadecimal: what stands before it tells.
_HEX_MARKS = (*(b"%d:" % digit for digit in range(10)), b"/IncomingWebhook/")
_ASANA = re.compile(rb"[0-9]/[0-9]{12,20}:\Z")
_RANCHER = re.compile(rb"(?:token-|kubeconfig-u-)[a-z0-9]{5,10}:\Z")
_NEAR = re.compile(rb"[1-9A-HJ-NP-Za-km-z]{85,90}")
_SALESFORCE = re.compile(rb"00D[A-Za-z0-9]{9,15}!\Z")
_SAMPLE = re.compile(rb"EXAMPLE|(?i:xxxx|your[-_]|redacted|placeholder)")
_LOWER = frozenset(b"abcdefghijklmnopqrstuvwxyz")
_BASE58 = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_PEM64 = b"LS0tLS1CRUdJTi"


@cache
def _any_prefix() -> re.Pattern[bytes]:
    return re.compile("|".join(prefix for _, prefix, _, _ in SHAPES).encode())


@cache
def _compiled() -> tuple[tuple[str, re.Pattern[bytes], bool], ...]:
    # Compiled when a prefix shows up for the first time: most programs never meet one.
    return tuple(
        (rule, re.compile(f"(?:{prefix})({body})".encode()), random)
        for rule, prefix, body, random in SHAPES
    )


def run_rule(run: bytes, before: bytes) -> str | None:
    """The rule that the run breaks, if any; `before` is what stands in front of it."""
    if not run.translate(None, _HEX_AND_DASHES):
        if before.endswith(_HEX_MARKS):
            if _ASANA.search(before):
                return "asana_token"
            return "webhook_url" if before.endswith(b"/IncomingWebhook/") else None
        # Its prefix happens to be hexadecimal too.
        return "firecrawl_key" if run.startswith(b"fc-") and len(run) == 35 else None
    if before.endswith(b"sha256~") and len(run) == 43:
        return "openshift_token"
    run = run.lstrip(b"-_.")
    if len(run) >= 50 and before.endswith(b":") and _RANCHER.search(before):
        return "rancher_token"
    if before.endswith(b"ed25519:") and _NEAR.fullmatch(run):
        return "near_key"
    if run.islower() and not _any_prefix().match(run) and b"-us" not in run:
        # Identifiers, paths: nearly all shapes below have capitals.
        return "issued_token" if is_lower_token(run) else None
    if run.startswith(b"eyJ") and _is_jose(run):
        return "jwt"
    if run.startswith(_PEM64):
        return "pem_private_key" if _is_encoded_pem(run) else None
    if len(run) in {51, 52} and run[:1] in b"5KLc9" and _is_wif(run):
        return "wif_private_key"
    if len(run) == 35 and before.endswith(b":") and _TELEGRAM_ID.search(before):
        return "telegram_token" if _random(run) else None
    if before.endswith(b"/") and _HOOK.search(before + run) and _random(run):
        return "webhook_url"
    if before.endswith(b"1//") and run.startswith(b"0") and len(run) >= 40:
        return "google_oauth"
    if before.endswith(b"Q~") and _random(run):
        return "azure_client_secret"
    if b"." in run and _DISCORD.fullmatch(run) and _random(run):
        return "discord_token"
    if b".atlasv1." in run and len(run) >= 60:
        return "terraform_token"
    if b"-us" in run and _MAILCHIMP.fullmatch(run):
        return "mailchimp_key"
    if len(run) == 84 and run[76:80] == b"AZDO":
        return "azure_devops_token"
    if run.endswith(b"_mmk") and _MAXMIND.fullmatch(run):
        return "maxmind_key"
    if before.endswith(b"!") and _SALESFORCE.search(before):
        return "salesforce_token"
    if before.endswith(b"SSWS ") and run.startswith(b"00"):
        return "okta_token"
    if _any_prefix().match(run):
        for rule, shape, must_be_random in _compiled():
            found = shape.match(run)
            if found and _varied(found[1]) and not (must_be_random and not _random(found[1])):
                return rule
    return "issued_token" if is_issued(run, before) and _varied(run) else None


def _varied(body: bytes) -> bool:
    """No filler (`xxxxxxxx`) and not one of the samples that manuals print."""
    return (len(body) < 12 or len(set(body)) >= 6) and not _SAMPLE.search(body)


def _random(body: bytes) -> bool:
    """Not written by a person: digits and letters mixed inside one word, or odd capitals."""
    for word in re.split(rb"[-_.]", body):
        digits = sum(48 <= byte <= 57 for byte in word)
        turns = sum(a in _LOWER and b not in _LOWER for a, b in pairwise(word))
        if len(word) >= 8 and (2 <= digits < len(word) or turns * 5 >= len(word)):
            return True
    return False


def _is_jose(run: bytes) -> bool:
    parts = run.rstrip(b".").split(b".")
    if len(parts) not in {3, 5} or min(map(len, parts[2:])) < 8:
        return False
    header = _decode(parts[0][:4000])
    return header.startswith(b"{") and (b'"alg"' in header or b'"typ"' in header)


def _is_encoded_pem(run: bytes) -> bool:
    return b"PRIVATE KEY" in _decode(run[:64])


def _decode(text: bytes) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return b""


def _is_wif(run: bytes) -> bool:
    number = 0
    for byte in run:
        digit = _BASE58.find(byte)
        if digit < 0:
            return False
        number = number * 58 + digit
    raw = number.to_bytes(39, "big").lstrip(b"\0")
    check = hashlib.sha256(hashlib.sha256(raw[:-4]).digest()).digest()[:4]
    return raw[:1] in {b"\x80", b"\xef"} and check == raw[-4:]
