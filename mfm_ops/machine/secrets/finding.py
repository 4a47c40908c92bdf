"""What a scan says of a secret that it found."""

from typing import NamedTuple

__all__ = ["SecretFinding"]


class SecretFinding(NamedTuple):
    """Where a secret stands and which rule says so; nothing of the secret itself.

    `pointer` is an RFC 6901 pointer into the scanned value. For a secret in an object's key it
    names the object. Keys on the way that hold secrets themselves are never part of it, for the
    first finding in document order stands before them.
    """

    pointer: str
    rule: str
