"""What of an error may be persisted (the contract, section 9). Pure."""

import logging
import traceback
from typing import cast

from mfm_ops.machine.canonical import CanonicalError, Json, canonical_json_bytes
from mfm_ops.machine.codes import CATALOGUE
from mfm_ops.machine.errors import ErrorInfo, StateError
from mfm_ops.machine.ids import ErrorCode
from mfm_ops.machine.secrets import find_secret_in_canonical, text_has_secret

__all__ = ["WITHHELD_MESSAGE", "log_unexpected", "safe_error", "safe_info", "safe_traceback"]

WITHHELD_CODE = ErrorCode("error_redacted")

WITHHELD_MESSAGE = "the message was withheld: it held something that looks like a secret"


def safe_info(info: ErrorInfo) -> ErrorInfo:
    """`info` with only the details that its code declares safe, and a message without secrets.

    A code that is not in the catalogue declares nothing, so its details are dropped.
    """
    # A file's name may hold bytes that are no text: Python has them as halves of surrogate pairs,
    # which no event can hold. They are shown as escapes.
    message = info.message.encode("utf-8", "backslashreplace").decode()
    return ErrorInfo(
        code=WITHHELD_CODE if text_has_secret(info.code) else info.code,
        category=info.category,
        retryable=info.retryable,
        message=WITHHELD_MESSAGE if text_has_secret(message) else message,
        details=_safe_details(info),
    )


def safe_error(error: StateError) -> StateError:
    """`error` with its record made safe."""
    return StateError(state_id=error.state_id, info=safe_info(error.info))


def log_unexpected(log: logging.Logger, what: str, error: BaseException) -> None:
    """Log an exception that nobody foresaw, without what its messages must not say."""
    log.error("%s\n%s", what, safe_traceback(error))


def safe_traceback(error: BaseException) -> str:
    """The traceback as text; without the messages where those hold a secret."""
    text = "".join(traceback.format_exception(error))
    if text_has_secret(text) is None:
        return text
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{frames}{type(error).__name__}: {WITHHELD_MESSAGE}\n"


def _safe_details(info: ErrorInfo) -> Json:
    row = CATALOGUE.get(info.code)
    if row is None or not isinstance(info.details, dict):
        return None
    details = cast(dict[str, Json], info.details)
    kept = {
        key: value
        for key, value in details.items()
        if key in row.safe_details and _fits_into_an_event(key, value)
    }
    if find_secret_in_canonical(canonical_json_bytes(kept)) is None:
        return cast(Json, kept) if kept else None
    clean = {
        key: value
        for key, value in kept.items()
        if find_secret_in_canonical(canonical_json_bytes({key: value})) is None
    }
    return cast(Json, clean) if clean else None


def _fits_into_an_event(key: str, value: Json) -> bool:
    try:
        # As deep as it will stand in an envelope: an append must not refuse it.
        canonical_json_bytes([[[[[[{key: value}]]]]]])
    except CanonicalError:
        return False
    return True
