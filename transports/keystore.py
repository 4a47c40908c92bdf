"""`local.keystore`: lists the Web3 Secret Storage v3 files of a directory; reads only.

Here the request is checked and failures get their codes. What lies in the directory is left to
`keystore_dir`, what a file means to `keystore_format`.
"""

from pathlib import Path
from typing import Final, NoReturn, cast

from anyio import from_thread, to_thread

from mfm_ops.machine.canonical import Json, json_pointer
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import TransportFailure
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.transport import LiveIoEnv, TransportReply
from transports.keystore_dir import KeystoreDir, Listing, TooManyFiles, opened
from transports.keystore_warnings import printable

__all__ = [
    "KEYSTORE_NAMESPACE",
    "KeystoreFactory",
    "KeystoreTransport",
    "LIST_KEYSTORES_V1",
    "requested_dir",
]

KEYSTORE_NAMESPACE: Final = "local.keystore"
LIST_KEYSTORES_V1: Final = "list_keystores_v1"


def requested_dir(request: Json) -> str | None:
    """What `{"kind": "list_keystores_v1", "dir": str | null}` names; None is the default place.

    Raises:
        TransportFailure: `keystore_request_invalid`, with the place as a JSON pointer.
    """
    if not isinstance(request, dict):
        _refuse("", "not_an_object")
    for key in request:
        if key not in ("kind", "dir"):
            _refuse(json_pointer([key]), "unknown_field")
    if request.get("kind") != LIST_KEYSTORES_V1:
        _refuse("/kind", "unknown_kind" if "kind" in request else "missing")
    if "dir" not in request:
        _refuse("/dir", "missing")
    path = request["dir"]
    if path is None:
        return None
    if not isinstance(path, str):
        _refuse("/dir", "wrong_type")
    if not path:
        _refuse("/dir", "empty")
    if "\0" in path:
        _refuse("/dir", "nul_character")
    return path


def _refuse(pointer: str, reason: str) -> NoReturn:
    raise TransportFailure(
        error_info(
            "keystore_request_invalid",
            "The request to list keystores is not of the expected form.",
            pointer=pointer,
            reason=reason,
        )
    )


class KeystoreTransport:
    """Answers `list_keystores_v1` with `{"entries": [...], "warnings": [...]}`, by file name.

    They are as `keystore_format.Entry` and `keystore_warnings.FileWarning`. A relative `dir` starts
    where this process stands; a null one is `default_dir`, an absolute path. If that was not
    `default_named` by anybody and is not there, or is None, the answer is empty and has
    `"missing": {"dir": str | null}` beside.
    """

    def __init__(self, default_dir: str | None = None, default_named: bool = False) -> None:
        self._default_dir = default_dir
        self._default_named = default_named

    async def call(self, call: IoCall) -> TransportReply:
        """List the directory.

        Raises:
            TransportFailure: `keystore_request_invalid`, `keystore_dir_missing`,
                `keystore_dir_not_directory`, `keystore_dir_unreadable`,
                `keystore_dir_too_many_files`.
        """
        named = requested_dir(call.request)
        path = self._default_dir if named is None else _from_here(named)
        if path is None:
            return _reply(None, None, files=0)
        try:
            with opened(path) as directory:
                listing = await _read(directory)
                files = len(directory.names)
        except FileNotFoundError:
            if named is None and not self._default_named:
                return _reply(path, None, files=0)
            raise _failure("missing", "The keystore directory does not exist.", path) from None
        except NotADirectoryError:
            message = "The keystore path does not name a directory."
            raise _failure("not_directory", message, path) from None
        except TooManyFiles:
            message = "The directory holds more files than a keystore directory may."
            raise _failure("too_many_files", message, path) from None
        except OSError:
            message = "The keystore directory cannot be read."
            raise _failure("unreadable", message, path) from None
        return _reply(path, listing, files=files)


class KeystoreFactory:
    """Makes the transports of `local.keystore`; the default place is the site's to choose."""

    def __init__(self, default_dir: str | None = None, default_named: bool = False) -> None:
        self._default_dir = default_dir
        self._default_named = default_named

    @property
    def namespace_group(self) -> str:
        """`local.keystore`."""
        return KEYSTORE_NAMESPACE

    def make(self, env: LiveIoEnv) -> KeystoreTransport:
        """A transport; it needs nothing of `env`."""
        del env
        return KeystoreTransport(self._default_dir, default_named=self._default_named)


def _from_here(path: str) -> str:
    if path.startswith("/"):
        return path
    try:
        return f"{Path.cwd()}/{path}"
    except FileNotFoundError:
        # Our own directory was removed: nothing relative exists, and opening it says so.
        return path


async def _read(directory: KeystoreDir) -> Listing:
    if directory.is_small:
        return directory.read(_go_on)
    return await to_thread.run_sync(directory.read, from_thread.check_cancelled)


def _go_on() -> None:
    """The checkpoint of a reading that is too short to be worth cancelling."""


def _reply(path: str | None, listing: Listing | None, *, files: int) -> TransportReply:
    shown = None if path is None else printable(path)
    meta: dict[str, Json] = {"transport": KEYSTORE_NAMESPACE, "dir": shown, "files": files}
    if listing is None:
        return TransportReply({"entries": [], "warnings": [], "missing": {"dir": shown}}, meta)
    response: dict[str, Json] = {
        "entries": cast("list[Json]", listing.entries),
        "warnings": cast("list[Json]", listing.warnings),
    }
    return TransportReply(response, meta)


def _failure(what: str, message: str, path: str) -> TransportFailure:
    return TransportFailure(error_info(f"keystore_dir_{what}", message, dir=printable(path)))
