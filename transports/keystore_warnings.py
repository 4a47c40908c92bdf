"""What is said about a file that is not listed, and how names are shown; pure.

Which reason applies is left to `keystore_format` and `keystore_dir`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypedDict

from mfm_ops.machine.secrets import text_has_secret

__all__ = ["FileWarning", "KeystoreRefused", "REASONS", "Reason", "printable", "warning"]

_WITHHELD: Final = "(name withheld)"

Reason = Literal[
    "address_mismatch",
    "bad_address",
    "bad_crypto",
    "directory",
    "duplicate_key",
    "empty",
    "missing_crypto",
    "not_a_regular_file",
    "not_json",
    "not_keystore_v3",
    "not_utf8",
    "presale_wallet",
    "secret_in_label",
    "secret_in_name",
    "symlink_broken",
    "symlink_outside",
    "too_deep",
    "too_large",
    "unencrypted_key",
    "unreadable",
    "unsupported_version",
]

REASONS: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        "address_mismatch": "The file name and the content give different addresses.",
        "bad_address": "The address is not 40 hex digits, is zero, or fails its EIP-55 checksum.",
        "bad_crypto": "The crypto section lacks a field of the format or holds a wrong type.",
        "directory": "A directory; keystores in subdirectories are not listed.",
        "duplicate_key": "One key stands twice, so that readers may disagree about the content.",
        "empty": "The file is empty; perhaps writing it was interrupted.",
        "missing_crypto": "The file says version 3 but has no crypto section.",
        "not_a_regular_file": "A pipe, socket or device; only regular files are read.",
        "not_json": "The content is not JSON.",
        "not_keystore_v3": "JSON, but not a Web3 Secret Storage file.",
        "not_utf8": "The content is not UTF-8 text.",
        "presale_wallet": "An Ethereum presale wallet; import it into a v3 keystore first.",
        "secret_in_label": "The label looks like a secret and is withheld; change it.",
        "secret_in_name": "The file name looks like a secret and is withheld; rename the file.",
        "symlink_broken": "A symbolic link that leads nowhere or in a circle.",
        "symlink_outside": "A symbolic link out of the keystore directory; it is not followed.",
        "too_deep": "The JSON is nested too deeply.",
        "too_large": "The file is larger than 1 MiB.",
        "unencrypted_key": "The file holds a private key without encryption; encrypt it elsewhere.",
        "unreadable": "The file cannot be read; check its permissions.",
        "unsupported_version": "A keystore of another format version; only version 3 is listed.",
    }
)


class FileWarning(TypedDict):
    """Why a file is not listed (or, for `secret_in_label`, not in full)."""

    file: str
    reason: Reason
    detail: str


class KeystoreRefused(Exception):
    """The file is not a keystore that can be listed."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(REASONS[reason])
        self.reason: Final[Reason] = reason


def printable(text: str) -> str:
    r"""`text` so that no terminal obeys it: unprintable characters and backslashes are escaped.

    A byte of a file name that is no UTF-8 (a surrogate escape, PEP 383) becomes `\xNN`. Different
    texts stay different.

    >>> printable("red\x1b[31m")
    'red\\u001b[31m'
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escaped(char) for char in text)


def _escaped(char: str) -> str:
    if char == "\\":
        return "\\\\"
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def warning(file: str, reason: Reason) -> FileWarning:
    """The warning about the file of that name (as the operating system gave it)."""
    if text_has_secret(file):
        file = _WITHHELD
    return {"file": printable(file), "reason": reason, "detail": REASONS[reason]}
