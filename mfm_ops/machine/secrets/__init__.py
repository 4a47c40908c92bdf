"""Finds secrets in JSON values and in text, and says where, never what.

Pure detection: no IO, no configuration.  Who scans what, and what happens to a finding, is for
the one who persists.  Source: the contract, section 9.
"""

import orjson

from mfm_ops.machine.json_rules import Json
from mfm_ops.machine.secrets.finding import SecretFinding
from mfm_ops.machine.secrets.gates import ALL_OPEN, gates_of

__all__ = [
    "REDACTED_MESSAGE",
    "SecretFinding",
    "find_secret",
    "find_secret_in_canonical",
    "redact_text",
    "text_has_secret",
]

REDACTED_MESSAGE = "The message was withheld because it seems to hold a secret."


def find_secret(value: Json) -> SecretFinding | None:
    """The first secret in document order, in keys and values alike, or None.

    Takes any depth: nothing recurses.
    """
    from mfm_ops.machine.secrets.search import first_secret

    return first_secret(value, ALL_OPEN)


def find_secret_in_canonical(data: bytes) -> SecretFinding | None:
    """The verdict of `find_secret` on canonical JSON bytes, without parsing most of them.

    Raises:
        ValueError: the bytes are not JSON, or deeper than the parser takes. Only bytes that look
            suspicious are parsed, so this is no validation.
    """
    gates = gates_of(data)
    if not any(gates):
        return None
    from mfm_ops.machine.secrets.search import first_secret

    return first_secret(orjson.loads(data), gates)


def text_has_secret(text: str) -> str | None:
    """The rule that a message, log line or argument breaks, or None."""
    if not any(gates_of(text.encode("utf-8", "replace"))):
        return None
    from mfm_ops.machine.secrets.text import rule_in_text

    return rule_in_text(text, ALL_OPEN)


def redact_text(text: str) -> str:
    """The text, or one fixed sentence in place of a text that holds a secret."""
    return REDACTED_MESSAGE if text_has_secret(text) else text
