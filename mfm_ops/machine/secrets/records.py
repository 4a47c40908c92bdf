"""Secrets whose name stands in a neighbouring field: `{"name": "DB_PASSWORD", "value": V}`.

Pure; looks at one object or list of a JSON value and never deeper. The walk is `search`'s.
"""

import re
from collections.abc import Mapping, Sequence

from mfm_ops.machine.json_rules import Json
from mfm_ops.machine.secrets.names import Strength, name_strength

__all__ = [
    "ARGUMENTS",
    "INPUTS",
    "Label",
    "are_account_keys",
    "entries_are_secret",
    "is_key_array",
    "is_labelled",
    "is_private_jwk",
    "is_sealed",
    "label_of",
    "program_of",
    "unlocks",
]

Label = tuple[str, Strength]
ARGUMENTS = frozenset(("argv", "args", "arguments", "Args"))
INPUTS = frozenset(("stdin", "stdin_json", "input"))
_PROGRAMS = ("program_path", "program", "command", "cmd", "Path", "executable")
_LABELS = ("name", "key", "Name", "Key", "field", "label", "title", "id", "ParameterKey", "param")
_TYPES = ("type", "Type", "kind")
_MARKS = ("sensitive", "secret", "is_secret", "isSecret", "Sensitive")
_FIELDS = frozenset(
    ("value", "Value", "result", "current", "plaintext", "content", "cborHex", "ParameterValue")
)
_SECRET_TYPES = re.compile(
    r"SecureString|random_password|(?:[\w./]*)(?:Signing|Priv|Private|Secret)Key\w*"
)
_CHAIN_KEY = re.compile(r"(?:0x)?[0-9a-fA-F]{64}")
_UNLOCKING = re.compile(
    r"(?i)\w*(?:unlockaccount|passphrase|importrawkey|sendtransactionwithpass)\w*"
)


def label_of(value: Mapping[str, Json]) -> Label | None:
    """What the fields beside `value`, `result` and the like call them, if it is telling."""
    for field in _TYPES:
        kind = value.get(field)
        if isinstance(kind, str) and len(kind) < 128 and _SECRET_TYPES.fullmatch(kind):
            return kind, Strength.STRONG
    if any(value.get(mark) is True for mark in _MARKS):
        return "sensitive", Strength.STRONG
    if "httpOnly" in value or "HttpOnly" in value:
        return "cookie", Strength.RANDOM  # as browsers export their jars
    where = value.get("id")
    if isinstance(where, str) and len(where) < 256 and "://" in where and "/secrets/" in where:
        return "secret", Strength.GENERATED
    for field in (*_LABELS, *_TYPES):
        label = value.get(field)
        if isinstance(label, str) and (found := name_strength(label)) > Strength.KEYED:
            return label, Strength.RANDOM if label.lower() == "secret" else found
    return None


def program_of(value: Mapping[str, Json]) -> str:
    """The bare name of the program that an object calls with its arguments, or nothing.

    Requests of mfm and containers of Kubernetes keep the two apart.
    """
    for field in _PROGRAMS:
        program = value.get(field)
        if isinstance(program, list) and len(program) == 1:
            program = program[0]
        if isinstance(program, str) and 0 < len(program) < 256:
            return program.replace("\\", "/").rpartition("/")[2].removesuffix(".exe")
    return ""


def is_labelled(field: str) -> bool:
    """Whether a label beside a field of this name says what the field holds."""
    return field in _FIELDS


def entries_are_secret(value: Mapping[str, Json], key: str) -> bool:
    """Whether every entry under `key` is secret: the data of a Secret of Kubernetes."""
    return key in {"data", "stringData"} and value.get("kind") == "Secret"


def is_sealed(key: str) -> bool:
    """Whether what stands under `key` was encrypted, or refers to what is kept elsewhere."""
    return key in {"encryptedData", "encrypted_data", "sealedData"} or key.endswith(("Ref", "_ref"))


def unlocks(value: Mapping[str, Json]) -> bool:
    """Whether an object is a call that unlocks a wallet: its `params` hold a passphrase."""
    method = value.get("method")
    return isinstance(method, str) and _UNLOCKING.fullmatch(method) is not None


def is_key_array(value: Sequence[Json]) -> bool:
    """Whether a list is the 64 bytes of a key pair, as wallets of Solana keep them."""
    return len(value) == 64 and all(type(item) is int and 0 <= item <= 255 for item in value)


def are_account_keys(value: Sequence[Json]) -> bool:
    """Whether a list holds keys where the tools of a chain take addresses, which are shorter."""
    return any(isinstance(item, str) and _CHAIN_KEY.fullmatch(item) for item in value)


def is_private_jwk(value: Mapping[str, Json]) -> bool:
    """Whether an object is a JSON web key with its private part (RFC 7518 §6)."""
    return any(isinstance(part := value.get(field), str) and len(part) >= 16 for field in "dk")
