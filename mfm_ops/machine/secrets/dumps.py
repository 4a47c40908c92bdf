"""Secrets in what tools dump and protocols say: keys byte by byte, key logs, jars of cookies, AUTH.

Pure; each is told by the place that its format gives it, not by a name with a value.
"""

import base64
import binascii
import re

from mfm_ops.machine.secrets.values import is_distinct, is_sample, looks_generated, looks_random

__all__ = ["rule_in_dump"]

# `priv:` and rows of bytes below it, as openssl, GnuTLS and cryptsetup print what is in a key.
_KEY_BYTES = re.compile(
    r"(?<![\w-])(?:[Pp]riv(?:ate)?(?:[ -]?(?:[Kk]ey|[Ee]xponent))?|MK dump|[Mm]aster key(?: dump)?)"
    r":\s{1,64}(?:[0-9a-fA-F]{2}[: ]){7}"
)
_SESSION_KEY = re.compile(r"session key: '?[0-9]{1,2}:[0-9a-fA-F]{32,64}\b")
# SSLKEYLOGFILE of NSS, which every TLS library writes: what is logged, a random, the secret.
_KEY_LOG = re.compile(
    r"\b(?:(?:CLIENT_RANDOM|[A-Z_]{1,40}SECRET(?:_[0-9])?) [0-9a-f]{64} [0-9a-f]{64,96}"
    r"|RSA [0-9a-f]{16} [0-9a-f]{96})\b"
)
# 64 bytes behind a name. Where they were an Ed25519 signature its last byte would be below 16, for
# that half of it is a number below the order of the group (RFC 8032 §5.1.7): `A` to `D` begin it.
_SIGNING_KEY = re.compile(
    r"(?<![\w+/=:.-])(?!(?i:[\w.-]{0,40}(?:sha[0-9]|sig|hash|digest|cert)))[A-Za-z][\w.-]{0,63}:"
    r"[A-Za-z0-9+/]{84}[E-Za-z0-9+/][AQgw]==(?![\w+/=])",
    re.ASCII,
)
_JAR_LINE = re.compile(
    r"(?m)^[^\s]{1,256}\t(?:TRUE|FALSE)\t/[^\t\n]{0,256}\t(?:TRUE|FALSE)\t[0-9]{1,12}\t[^\t\n]{1,256}"
    r"\t([^\s]{16,4096})[ \t\r]{0,4}$"
)
_SASL = re.compile(
    r"\b(?:AUTH|AUTHENTICATE|PLAIN)['\"]?[ >](?:[A-Z][A-Z0-9-]{3,15} )?"
    r"([A-Za-z0-9+/]{8,1024}={0,2})(?![\w+/=])",
    re.ASCII,
)
# The server asks for `Password:` in base64, and the client's next line answers.
_ASKED = re.compile(
    r"334 UGFzc3dvcmQ6[^\n]{0,16}\n[^A-Za-z0-9\n]{0,16}(?:C: ?)?([A-Za-z0-9+/]{4,344}={0,2})"
    r"[ \r]{0,4}(?:\n|$)"
)
# IMAP, FTP, POP3 and IRC. The words of the answers that begin like them are no passwords.
# A password behind PASS follows on a name; alone it is the report of a test.
_SAID = re.compile(
    r"(?m)(?:(?:^|[ >])USER [^\n]{1,128}\n(?:[^\n]{0,256}\n){0,3}?(?:[^\n]{0,16}[ >])?PASS"
    r"|^PASS(?=[^\n]{1,300}\nNICK )|\bLOGIN {1,4}\"?[\w.@+-]{1,128}\"?|\bAUTHENTICATE(?= \")"
    r"|\bIDENTIFY(?: [\w-]{1,32})?)"
    r" {1,4}\"?([^\s\"]{6,256})\"?[ \r]{0,4}$"
)


def rule_in_dump(text: str) -> str | None:
    """The rule that a dump or a dialogue in the text breaks, or None; linear in its length."""
    # A word is found many times faster than a pattern.
    if ("riv" in text or "dump:" in text or "ey: " in text or "ey:\n" in text) and (
        _KEY_BYTES.search(text) or _SESSION_KEY.search(text)
    ):
        return "key_dump"
    if ("SECRET" in text or "_RANDOM " in text or "RSA " in text) and _KEY_LOG.search(text):
        return "tls_key_log"
    if "==" in text and _SIGNING_KEY.search(text):
        return "signing_key"
    if "\t/" in text and any(map(looks_random, set(_JAR_LINE.findall(text)))):
        return "cookie_jar"
    if ("AUTH" in text or "PLAIN" in text) and any(map(_is_sasl, set(_SASL.findall(text)))):
        return "sasl_password"
    if "334 UGF" in text and any(map(_is_readable, set(_ASKED.findall(text)))):
        return "sasl_password"
    if ("PASS" in text or "AUTHENTICATE" in text or "LOGIN " in text or "IDENTIFY" in text) and any(
        map(_is_spoken, set(_SAID.findall(text)))
    ):
        return "spoken_password"
    return None


def _decoded(word: str) -> str:
    try:
        return base64.b64decode(word, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _is_sasl(word: str) -> bool:
    """Whose, who, and the password, with zeros between (RFC 4616), or a bearer token (RFC 7628)."""
    text = _decoded(word)
    parts = text.split("\0")
    return "auth=Bearer " in text or (
        len(parts) == 3 and len(parts[2]) > 3 and all(part.isprintable() for part in parts)
    )


def _is_readable(word: str) -> bool:
    text = _decoded(word)
    return len(text) > 3 and text.isprintable() and not is_sample(text)


def _is_spoken(word: str) -> bool:
    if is_sample(word) or word.startswith(("$", "<", "{", "%")):
        return False
    return is_distinct(word) or (
        looks_generated(word) and (word != word.lower() or any(map(str.isdigit, word)))
    )
