"""Lines of well-known files whose secret has no name: only its place tells.

Pure; `.pgpass`, htpasswd and shadow, users of Redis.
"""

import re

from mfm_ops.machine.secrets.keyed import is_key
from mfm_ops.machine.secrets.names import Strength
from mfm_ops.machine.secrets.values import exposes, looks_generated

__all__ = ["rule_in_line"]

# Not the password, but what it is guessed from.
# Compose files double the dollar.
_CRYPT = r"(?:apr1|argon2\w{0,2}|scrypt|bcrypt[\w-]{0,8}|pbkdf2[\w-]{0,8}|[0-9a-z]{1,2})\$\$?"
_PASSWORD_HASH = re.compile(
    r"(?:^|[\s\"'])[\w.@-]{1,64}:\$\$?" + _CRYPT + r"[^\s:\"']{13,}"
    r"|(?<![\w$\\])\$\$?" + _CRYPT + r"(?=[^0-9]{0,64}[0-9])[./A-Za-z0-9=,+$-]{30,}"
    r"|'\*[0-9A-F]{40}'"
    r"|\{S?(?:SHA(?:256|512)?|MD5)\}[A-Za-z0-9+/=]{20,}",
    re.ASCII,
)
# The only argument of what makes a client: `Relay.configure("V")`.
_CLIENT = re.compile(
    r"(?:lient|onfigure|pi|PI|ogin|dk|DK)\(\s{0,8}\\?[\"']([A-Za-z0-9_+/=.-]{20,200})\\?[\"']"
    r"\s{0,8}[,)]"
)
_PGPASS = re.compile(
    r"(?:^|[\s\"'])[\w.*-]{1,128}:(?:543[0-9]|\*):[\w*.-]{1,64}:[\w*.@-]{1,64}:(?![0-9:]*(?:\s|$))([^\s\"']{4,128})",
    re.ASCII,
)
_KEY_ARRAY = re.compile(r"\[\s{0,8}(?:[0-9]{1,3},\s{0,8}){63}[0-9]{1,3}\s{0,8}\]")
# Keys of clusters, whose names say little: of Ceph, of Consul and Nomad.
_CLUSTER_KEY = re.compile(
    r"""\b(?:key = AQ[A-Za-z0-9+/]{30,40}|encrypt = \\?"[A-Za-z0-9+/]{20,43})={0,2}"""
    r"(?![A-Za-z0-9+/=])"
)
# The password file of a mail relay: `[host]:port user:password`.
_RELAY = re.compile(r"\]:[0-9]{1,5}[ \t]{1,16}[^\s:@]{1,128}@[^\s:@]{1,128}:([^\s\"']{4,128})")
_ACL_USER = re.compile(
    r"\buser [\w.-]{1,64} on (?=[^\n]{0,200}\+@all)[^\n>]{0,100}>([^\s\"']{4,128})"
)


def rule_in_line(text: str) -> str | None:
    """The rule that one of the text's lines breaks, or None; linear in its length."""
    if _PASSWORD_HASH.search(text):
        return "password_hash"
    if "(" in text and any(is_key(value, "client_key") for value in _CLIENT.findall(text)):
        return "client_key"
    for found in _PGPASS.finditer(text):
        if exposes(Strength.STRONG, found[1], "password"):
            return "pgpass_password"
    if any(looks_generated(value) for value in _ACL_USER.findall(text)):
        return "acl_password"
    if _CLUSTER_KEY.search(text):
        return "cluster_key"
    if any(exposes(Strength.STRONG, value, "password") for value in _RELAY.findall(text)):
        return "relay_password"
    if _KEY_ARRAY.search(text):
        return "key_array"
    return None
