"""Web3 Secret Storage v3 files: one file's name and bytes to what may be shown of it; pure.

Nothing is decrypted, and ciphertext, mac, salt and iv never leave this module. Finding and
reading the files is left to `keystore_dir`, the warnings to `keystore_warnings`.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final, NamedTuple, TypedDict

from mfm_ops.machine.canonical import CanonicalError, Json, parse_strict
from mfm_ops.machine.secrets import text_has_secret
from transports.eip55 import checksum_address
from transports.keystore_warnings import (
    FileWarning,
    KeystoreRefused,
    Reason,
    printable,
    warning,
)

__all__ = [
    "Entry",
    "MAX_FILE_BYTES",
    "NameFacts",
    "entry_of",
    "name_facts",
]

MAX_FILE_BYTES: Final = 1 << 20
_MAX_LABEL_CHARS: Final = 256


class Entry(TypedDict):
    """What is shown of one keystore. `address` is what the file claims: only decryption proves it.

    `created` is RFC 3339 in UTC with the fraction as it was written; `kdf` and `cipher` are in
    lower case.
    """

    file: str
    id: str | None
    label: str | None
    address: str | None
    kdf: str
    cipher: str
    created: str | None


class NameFacts(NamedTuple):
    """What a file's name alone says; `address` is 40 hex digits as they stand."""

    created: str | None
    address: str | None
    label: str | None


_HEX40: Final = re.compile(r"(?:0[xX])?([0-9a-fA-F]{40})")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ALGORITHM: Final = re.compile(r"[a-z][a-z0-9-]{0,23}")
# geth: UTC--2024-01-02T03-04-05.678901234Z--<address>. Others write fewer digits of the second or
# none (Parity, then a uuid follows), colons for the dashes, and `.json` at the end.
_UTC_NAME: Final = re.compile(
    r"UTC--(\d{4}-\d\d-\d\d)T(\d\d)[-:](\d\d)[-:](\d\d)(\.\d{1,9})?Z--(.+)", re.ASCII
)


def name_facts(file: str) -> NameFacts:
    """What the file's name says: geth's carry a time and an address, Foundry's are labels.

    A bare address or uuid is no label: it says nothing that the entry does not say already.
    """
    stem = file[:-5] if file[-5:].lower() == ".json" else file
    utc = _UTC_NAME.fullmatch(stem)
    bare = utc[6] if utc else stem
    address = _HEX40.fullmatch(bare)
    if utc:
        return NameFacts(_created(utc), address[1] if address else None, None)
    if address or _UUID.fullmatch(bare.lower()):
        return NameFacts(None, address[1] if address else None, None)
    return NameFacts(None, None, stem or None)


def _created(utc: re.Match[str]) -> str | None:
    seconds = f"{utc[1]}T{utc[2]}:{utc[3]}:{utc[4]}"
    try:
        datetime.fromisoformat(seconds)
    except ValueError:
        return None
    return f"{seconds}{utc[5] or ''}Z"


def entry_of(file: str, data: bytes) -> tuple[Entry, list[FileWarning]]:
    """The entry for a file of that name and content, with what must be said about it.

    Keys are taken in any letter case, as ethers and geth take them.

    Raises:
        KeystoreRefused: the content is not a v3 keystore, or contradicts itself or its name.
    """
    if text_has_secret(file):
        raise KeystoreRefused("secret_in_name")
    document = _folded(_parsed(data))
    crypto = _crypto(document)
    name = name_facts(file)
    label, warnings = _label(document, name), list[FileWarning]()
    if label is not None and text_has_secret(label):
        label = None
        warnings.append(warning(file, "secret_in_label"))
    entry: Entry = {
        "file": printable(file),
        "id": _uuid(document.get("id")),
        "label": label and printable(label),
        "address": _address(document.get("address"), name.address),
        "kdf": _algorithm(crypto.get("kdf")),
        "cipher": _algorithm(crypto.get("cipher")),
        "created": name.created or _created_by_ethers(document),
    }
    return entry, warnings


_PARSE_REASONS: Final[Mapping[str, Reason]] = MappingProxyType(
    {
        "json_duplicate_key": "duplicate_key",
        "json_not_utf8": "not_utf8",
        "json_too_deep": "too_deep",
    }
)


def _parsed(data: bytes) -> dict[str, Json]:
    if len(data) > MAX_FILE_BYTES:
        raise KeystoreRefused("too_large")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip(b" \t\r\n\0"):
        raise KeystoreRefused("empty")
    try:
        # Some wallets keep a timestamp with a fraction beside the keystore's own fields.
        document = parse_strict(data, numbers="string")
    except CanonicalError as error:
        raise KeystoreRefused(_PARSE_REASONS.get(error.code, "not_json")) from None
    if not isinstance(document, dict):
        raise KeystoreRefused("not_keystore_v3")
    return document


_READ_KEYS: Final = frozenset(
    {
        *("address", "crypto", "encseed", "id", "label", "name", "private", "privatekey"),
        *("version", "x-ethers"),
        *("cipher", "cipherparams", "ciphertext", "kdf", "kdfparams", "mac"),
    }
)


def _folded(section: Mapping[str, Json]) -> dict[str, Json]:
    """The fields that are read here, by their name in lower case."""
    found: dict[str, Json] = {}
    for key, value in section.items():
        lower = key.lower()
        if lower in _READ_KEYS:
            if lower in found:
                raise KeystoreRefused("duplicate_key")
            found[lower] = value
    return found


_CRYPTO_FIELDS: Final[tuple[tuple[str, type], ...]] = (
    ("cipher", str),
    ("cipherparams", dict),
    ("ciphertext", str),
    ("kdf", str),
    ("kdfparams", dict),
    ("mac", str),
)


def _crypto(document: Mapping[str, Json]) -> dict[str, Json]:
    """The crypto section of a v3 keystore with all its fields, by lower-case names."""
    crypto, version = document.get("crypto"), document.get("version")
    if crypto is None and "encseed" in document:
        raise KeystoreRefused("presale_wallet")
    if crypto is None and isinstance(document.get("privatekey", document.get("private")), str):
        raise KeystoreRefused("unencrypted_key")
    if version is None:
        raise KeystoreRefused("not_keystore_v3")
    if isinstance(version, bool) or version not in (3, "3"):
        raise KeystoreRefused("not_keystore_v3" if crypto is None else "unsupported_version")
    if crypto is None:
        raise KeystoreRefused("missing_crypto")
    if not isinstance(crypto, dict):
        raise KeystoreRefused("bad_crypto")
    fields = _folded(crypto)
    if not all(isinstance(fields.get(key), kind) for key, kind in _CRYPTO_FIELDS):
        raise KeystoreRefused("bad_crypto")
    return fields


def _algorithm(value: Json) -> str:
    """A short name, not any text: these two strings are shown, so they can carry nothing else."""
    lower = value.lower() if isinstance(value, str) else ""
    if not _ALGORITHM.fullmatch(lower):
        raise KeystoreRefused("bad_crypto")
    return lower


def _uuid(value: Json) -> str | None:
    lower = value.lower() if isinstance(value, str) else ""
    return lower if _UUID.fullmatch(lower) else None


def _address(value: Json, from_name: str | None) -> str | None:
    if value is None or value == "":
        digits = from_name
    else:
        match = _HEX40.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise KeystoreRefused("bad_address")
        digits = match[1]
        if from_name is not None and from_name.lower() != digits.lower():
            raise KeystoreRefused("address_mismatch")
    if digits is None:
        return None
    if not digits.strip("0"):
        raise KeystoreRefused("bad_address")
    try:
        return checksum_address(digits)
    except ValueError:
        raise KeystoreRefused("bad_address") from None


def _label(document: Mapping[str, Json], name: NameFacts) -> str | None:
    """Parity and others write `name` or `label`; else the file's name, where somebody chose it."""
    for key in ("label", "name"):
        value = document.get(key)
        if isinstance(value, str) and value.strip():
            text = value.strip()
            return text if len(text) <= _MAX_LABEL_CHARS else text[:_MAX_LABEL_CHARS] + "…"
    return name.label


def _created_by_ethers(document: Mapping[str, Json]) -> str | None:
    """The library ethers leaves the name to its caller and puts geth's name into the file."""
    extension = document.get("x-ethers")
    if isinstance(extension, dict):
        geth_name = extension.get("gethFilename")
        if isinstance(geth_name, str):
            return name_facts(geth_name).created
    return None
