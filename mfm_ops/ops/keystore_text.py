"""How a list of keystores reads on a terminal: a table that fits, warnings and hints; pure.

Texts come with everything escaped that a terminal could obey; that is the transport's care.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mfm_ops.machine.canonical import Json
from mfm_ops.sdk.columns import columns, fitted

__all__ = ["MAX_NOTED_WARNINGS", "keystore_table", "notes"]

MAX_NOTED_WARNINGS: Final = 20
"""How many warnings are told one by one; a wrong directory may have thousands."""

_GAP: Final = "  "
_ABSENT: Final = "-"
# Labels have no bound that matters here: one that is longer is cut rather than a column left out.
_LABEL_WIDTH: Final = 16
_MIN_LABEL_WIDTH: Final = 4

_Shorten = Callable[[str], str]
_Layout = tuple[tuple[str, _Shorten], ...]


def _whole(text: str) -> str:
    return text


def _id_head(text: str) -> str:
    return text[:8]


def _date(text: str) -> str:
    return text[:10]


def _address_ends(text: str) -> str:
    return f"{text[:6]}…{text[-4:]}"


_ADDRESS: Final = ("address", _whole)
_CREATED: Final = ("created", _whole)
_DATE: Final = ("created", _date)
_KDF: Final = ("kdf", _whole)
_CIPHER: Final = ("cipher", _whole)

# From all there is to what a keystore is known by; the first that fits is taken. An address is
# copied by hand and eye, so it stays whole for longest.
_LAYOUTS: Final[Sequence[_Layout]] = (
    (_ADDRESS, _CREATED, _KDF, _CIPHER, ("id", _whole)),
    (_ADDRESS, _CREATED, _KDF, _CIPHER, ("id", _id_head)),
    (_ADDRESS, _DATE, _KDF, _CIPHER, ("id", _id_head)),
    (_ADDRESS, _DATE, _KDF, _CIPHER),
    (_ADDRESS, _DATE, _KDF),
    (_ADDRESS, _DATE),
    (_ADDRESS,),
    (("address", _address_ends),),
)


def keystore_table(entries: Sequence[Mapping[str, Json]], width: int) -> str:
    """A line for each entry under a line of headings; empty without entries.

    Where `width` columns do not hold everything, texts are shortened and columns left out.
    """
    if not entries:
        return ""
    labels = [_text(entry["label"]) for entry in entries]
    label_width = max(columns(text) for text in ("LABEL", *labels))
    for layout in _LAYOUTS:
        shown = [_column(entries, key, shorten) for key, shorten in layout if key in entries[0]]
        room = width - sum(len(_GAP) + columns(column[0]) for column in shown)
        if room >= min(label_width, _LABEL_WIDTH):
            break
    label_width = min(label_width, max(room, _MIN_LABEL_WIDTH))
    first = [fitted(text, label_width) for text in ("LABEL", *labels)]
    return "\n".join(_GAP.join(cells).rstrip() for cells in zip(first, *shown, strict=True))


def notes(warnings: Sequence[Mapping[str, Json]], hint: Json) -> list[str]:
    """The warnings about files, one a line, and the hint."""
    told = [f"warning: {one['file']}: {one['detail']}" for one in warnings[:MAX_NOTED_WARNINGS]]
    if len(warnings) > MAX_NOTED_WARNINGS:
        told.append(f"warning: {len(warnings) - MAX_NOTED_WARNINGS} more; --json shows them all")
    return told if hint is None else [*told, f"hint: {hint}"]


def _text(value: Json) -> str:
    return _ABSENT if value is None else str(value)


def _column(entries: Sequence[Mapping[str, Json]], key: str, shorten: _Shorten) -> list[str]:
    """Heading and cells, padded to one width."""
    values = (entry.get(key) for entry in entries)
    cells = [key.upper(), *(_ABSENT if value is None else shorten(str(value)) for value in values)]
    widest = max(len(cell) for cell in cells)
    return [cell.ljust(widest) for cell in cells]
