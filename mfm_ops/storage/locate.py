"""Which file system a store lies on, and whether SQLite's write-ahead log is safe there; pure.

The log needs memory that all who use the file share, so all must be on one host. What is done
about an unsafe place is left to `sqlite_open`.
"""

import re
from pathlib import Path
from typing import Final

__all__ = ["HOST_SHARED_FILE_SYSTEMS", "NETWORK_FILE_SYSTEMS", "file_system_of"]

NETWORK_FILE_SYSTEMS: Final = frozenset(
    {
        "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.ceph-fuse", "fuse.gcsfuse",
        "fuse.glusterfs", "fuse.juicefs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "gfs2", "gpfs",
        "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs",
    }
)  # fmt: skip
"""Other hosts may use the same files: a store here is refused."""

HOST_SHARED_FILE_SYSTEMS: Final = frozenset(
    {"9p", "drvfs", "fuse.grpcfuse", "fuse.vmhgfs-fuse", "prl_fs", "vboxsf", "virtiofs"}
)
"""A virtual machine's view of its host's files: safe while only one side uses the store."""

_ESCAPE = re.compile(r"\\([0-7]{3})")


def file_system_of(path: Path, mountinfo: str) -> str:
    r"""The type of the file system that holds `path`; "" when the table does not say.

    `path` is absolute and without symbolic links; `mountinfo` is the text of
    `/proc/self/mountinfo` (proc(5)).

    >>> root, share = "1 0 8:1 / / rw - ext4 a rw", r"2 1 0:9 / /mnt/my\040nas rw - nfs4 nas:/ rw"
    >>> table = f"{root}\n{share}\n"
    >>> file_system_of(Path("/mnt/my nas/mfm/store"), table)
    'nfs4'
    >>> file_system_of(Path("/mnt/my nasty/store"), table)
    'ext4'
    """
    best, found = -1, ""
    for line in mountinfo.splitlines():
        mount, separator, source = line.partition(" - ")
        fields = mount.split(" ")
        if not separator or len(fields) < 5:
            continue
        point = Path(_ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), fields[4]))
        # A later mount on the same point covers the earlier one.
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, found = len(point.parts), source.split(" ")[0]
    return found
