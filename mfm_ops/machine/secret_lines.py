"""Lines of well-known files, and signed URLs, whose secret has no name: only its place tells.

Pure; `.pgpass`, htpasswd and shadow, `?key=`, `&sig=`.
"""

import re

from mfm_ops.machine.secret_keys import Strength, exposes, looks_random

__all__ = ["rule_in_line"]

# Not the password, but what it is guessed from.
_PASSWORD_HASH = re.compile(
    r"(?:^|[\s\"'])[\w.@-]{1,64}:(?:\$(?:apr1|argon2\w{0,2}|scrypt|[0-9a-z]{1,2})\$[^\s:\"']{13,}"
    r"|\{S?SHA\}[A-Za-z0-9+/=]{20,})",
    re.ASCII,
)
_PGPASS = re.compile(
    r"(?:^|[\s\"'])[\w.*-]{1,128}:(?:543[0-9]|\*):[\w*.-]{1,64}:[\w*.@-]{1,64}:([^\s\"']{4,128})",
    re.ASCII,
)
_SIGNED = re.compile(
    r"[?&](?:key|sig|[\w-]{0,32}signature)=([A-Za-z0-9%._~+/=-]{20,512})", re.ASCII
)


def rule_in_line(text: str) -> str | None:
    """The rule that one of the text's lines breaks, or None; linear in its length."""
    if _PASSWORD_HASH.search(text):
        return "password_hash"
    for found in _PGPASS.finditer(text):
        if exposes(Strength.STRONG, found[1], "password"):
            return "pgpass_password"
    for found in _SIGNED.finditer(text):
        if looks_random(found[1]):
            return "signed_url"
    return None
