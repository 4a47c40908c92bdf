"""Secrets in URLs: a password before the host, a token in the path, a signature in the query.

Pure; told by their place in the URL, whatever it is for.
"""

import re

from mfm_ops.machine.secrets.names import Strength
from mfm_ops.machine.secrets.values import exposes, is_sample, looks_random

__all__ = ["has_userinfo", "rule_in_url"]

# As in `gates`: what JSON escapes, or what UTF-8 lengthens, is no part of it.
_PART = r"[^\x00-\x20\x7f-\U0010ffff/?@\\\"']"
_USER = r"[^\x00-\x20\x7f-\U0010ffff/?#@\\\"':]"
# A user without a password is a token only where a browser would send it. The address of an error
# tracker ends in a number and names its public key as the user.
# As text: compiled when the first URL with a user comes.
_USERINFO = (
    "://(?:(" + _USER + "{0,256}+):(" + _PART + "{1,512}+)@"
    "|(?<=http://|ttps://)("
    + _USER
    + r"{20,256}+)@(?![\w.-]*sentry|[\w.:-]{1,128}/[0-9]{1,12}(?![\w/])))"
)
_QUERY = re.compile(
    r"[?&](?:key|sig|code|auth|session|sid|ticket|jwt|[\w-]{0,32}[sS]ignature|[\w-]{0,32}[tT]oken)"
    r"=([A-Za-z0-9%._~+/=-]{16,2048})",
    re.ASCII,
)
# Words that stand before the part of a path that only those who may call it know.
_PATH = re.compile(
    r"://[^\s/\"']{1,256}+/(?:[^\s/?\"']{1,64}+/){0,6}?"
    r"(?:(?:web)?hooks?|hookshot|t|invite|join|reset|verify|magic|confirm|activate|reset[-_]password|password[-_]reset|services|rpc|v[1-4])"
    r"/(?!0x)((?:[A-Za-z]{1,8}-)?[A-Za-z0-9_-]{20,128})(?=/|[\s\"'?#<>]|$)",
    re.ASCII,
)


# What Oracle's tools take: `scott/tiger@//host:1521/service`.
_SOURCE = re.compile(r"(?<![\w.-])[\w.-]{1,64}:([^\s@\"']{4,128})@tcp\(", re.ASCII)  # of Go
_SLASHED = re.compile(r"[\w$]{1,30}/([^\s/@\"']{4,64})@//[\w.-]{1,128}[:/]", re.ASCII)


def has_userinfo(text: str) -> bool:
    """Whether a URL in the text carries a password, or a token in place of a user."""
    return any(
        looks_random(found[3])
        if found[3]
        else exposes(Strength.STRONG, found[2], "password")
        and not is_sample(found[2])
        and "[" not in found[1]
        for found in re.finditer(_USERINFO, text)
    )


def rule_in_url(text: str) -> str | None:
    """The rule that a URL's path or query breaks, or None; linear in the length of the text."""
    if any(map(looks_random, set(_QUERY.findall(text)))):
        return "signed_url"
    if "://" in text and any(map(looks_random, set(_PATH.findall(text)))):
        return "secret_url"
    if "@tcp(" in text and any(
        exposes(Strength.STRONG, value, "password") and not is_sample(value)
        for value in _SOURCE.findall(text)
    ):
        return "url_password"
    if "@//" in text and any(
        exposes(Strength.STRONG, value, "password") and not is_sample(value)
        for value in _SLASHED.findall(text)
    ):
        return "url_password"
    return None
