"""Pure: what the first bytes of a file say of how the kernel will run it.

A file that the kernel refuses must not get as far as the launcher: the C library there would hand
it to a shell that nobody named. Looking at files is `program`'s.
"""

import struct
from typing import Final

__all__ = ["ELF_MAGIC", "HEAD_BYTES", "is_native", "script_interpreter"]

# The kernel reads this much of a file before it decides.
HEAD_BYTES: Final = 256

ELF_MAGIC: Final = b"\x7fELF"

_EXECUTABLE_TYPES: Final = (2, 3)
_MAX_PROGRAM_HEADERS_BYTES: Final = 65536


def script_interpreter(head: bytes) -> bytes | None:
    """The interpreter that a `#!` line names, as the kernel reads it; empty if it names none.

    None where the kernel would refuse the line: it is so long that the name may be cut.
    """
    line, newline, _ = head[2:HEAD_BYTES].partition(b"\n")
    # Spaces and tabs alone: to the kernel a carriage return is a part of the name.
    name = line.lstrip(b" \t")
    for separator in (b" ", b"\t", b"\0"):
        name = name.partition(separator)[0]
    if not newline and len(head) >= HEAD_BYTES and line.endswith(name):
        return None
    return name


def is_native(head: bytes, size: int, own: bytes) -> bool:
    """Whether the kernel takes the ELF file of `size` bytes that begins with `head`.

    `own` is the head of a program that it has taken: this process's.
    """
    if not head.startswith(ELF_MAGIC) or len(head) < 64 or head[4:6] != own[4:6]:
        return False
    order = "<" if own[5] == 1 else ">"
    wide = own[4] == 2
    kind, machine = struct.unpack_from(order + "HH", head, 16)
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)
    entry_bytes, entries = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    table_bytes = entry_bytes * entries
    return (
        kind in _EXECUTABLE_TYPES
        and machine == struct.unpack_from(order + "H", own, 18)[0]
        and entry_bytes == (56 if wide else 32)
        and 0 < table_bytes <= _MAX_PROGRAM_HEADERS_BYTES
        and table + table_bytes <= size
    )
