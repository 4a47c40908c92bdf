"""`local.keystore`: lists the Web3 Secret Storage v3 files of a directory; reads only.

Here the request is checked and failures get their codes. What lies in the directory is left to
`keystore_dir`, what a file means to `keystore_format`.
"""

from typing import Final, NamedTuple, NoReturn, cast

from anyio import from_thread, to_thread

from mfm_ops.machine.canonical import Json, json_pointer
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import TransportFailure
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.transport import LiveIoEnv, TransportReply
from transports.keystore_dir import KeystoreDir, Listing, TooManyFiles, opened

__all__ = [
    "KEYSTORE_NAMESPACE",
    "KeystoreFactory",
    "KeystoreTransport",
    "LIST_KEYSTORES_V1",
    "ListRequest",
    "parse_request",
]

KEYSTORE_NAMESPACE: Final = "local.keystore"
LIST_KEYSTORES_V1: Final = "list_keystores_v1"


class ListRequest(NamedTuple):
    """A checked `list_keystores_v1`: an absolute path, and whether nothing may be there."""

    dir: str
    missing_ok: bool


def parse_request(request: Json) -> ListRequest:
    """Check `{"kind": "list_keystores_v1", "dir": str, "missing_ok": bool = false}`.

    Raises:
        TransportFailure: `keystore_request_invalid`, with the place as a JSON pointer.
    """
    if not isinstance(request, dict):
        _refuse("", "not_an_object")
    for key in request:
        if key not in ("kind", "dir", "missing_ok"):
            _refuse(json_pointer([key]), "unknown_field")
    if request.get("kind") != LIST_KEYSTORES_V1:
        _refuse("/kind", "unknown_kind" if "kind" in request else "missing")
    path = request.get("dir")
    if not isinstance(path, str):
        _refuse("/dir", "wrong_type" if "dir" in request else "missing")
    if not path.startswith("/"):
        _refuse("/dir", "not_absolute")
    if "\0" in path:
        _refuse("/dir", "nul_character")
    missing_ok = request.get("missing_ok", False)
    if not isinstance(missing_ok, bool):
        _refuse("/missing_ok", "wrong_type")
    return ListRequest(path, missing_ok)


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

    They are as `keystore_format.Entry` and `keystore_warnings.FileWarning`. With `missing_ok` a
    directory that does not exist is an empty answer with `"missing": true`.
    """

    async def call(self, call: IoCall) -> TransportReply:
        """List the directory.

        Raises:
            TransportFailure: `keystore_request_invalid`, `keystore_dir_missing`,
                `keystore_dir_not_directory`, `keystore_dir_unreadable`,
                `keystore_dir_too_many_files`.
        """
        request = parse_request(call.request)
        try:
            with opened(request.dir) as directory:
                listing = await _read(directory)
                files = len(directory.names)
        except FileNotFoundError:
            if request.missing_ok:
                return _reply(Listing([], []), files=0, missing=True)
            raise _failure("missing", "The keystore directory does not exist.", request) from None
        except NotADirectoryError:
            message = "The keystore path does not name a directory."
            raise _failure("not_directory", message, request) from None
        except TooManyFiles:
            message = "The directory holds more files than a keystore directory may."
            raise _failure("too_many_files", message, request) from None
        except OSError:
            message = "The keystore directory cannot be read."
            raise _failure("unreadable", message, request) from None
        return _reply(listing, files=files)


class KeystoreFactory:
    """Makes the transports of `local.keystore`; there is nothing to configure."""

    @property
    def namespace_group(self) -> str:
        """`local.keystore`."""
        return KEYSTORE_NAMESPACE

    def make(self, env: LiveIoEnv) -> KeystoreTransport:
        """A transport; it needs nothing of `env`."""
        del env
        return KeystoreTransport()


async def _read(directory: KeystoreDir) -> Listing:
    if directory.is_small:
        return directory.read(_go_on)
    return await to_thread.run_sync(directory.read, from_thread.check_cancelled)


def _go_on() -> None:
    """The checkpoint of a reading that is too short to be worth cancelling."""


def _reply(listing: Listing, *, files: int, missing: bool = False) -> TransportReply:
    response: dict[str, Json] = {
        "entries": cast("list[Json]", listing.entries),
        "warnings": cast("list[Json]", listing.warnings),
    }
    if missing:
        response["missing"] = True
    return TransportReply(response, {"transport": KEYSTORE_NAMESPACE, "files": files})


def _failure(what: str, message: str, request: ListRequest) -> TransportFailure:
    return TransportFailure(error_info(f"keystore_dir_{what}", message, dir=request.dir))
