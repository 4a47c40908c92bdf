"""`mfm_ops.runtime.redact`: of an error only what its code declares safe is kept."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfm_ops.machine.canonical import MAX_DEPTH, Json, canonical_json_bytes
from mfm_ops.machine.codes import CATALOGUE, error_info
from mfm_ops.machine.errors import ErrorCategory, ErrorInfo
from mfm_ops.machine.ids import ErrorCode
from mfm_ops.runtime.redact import WITHHELD_MESSAGE, safe_info, safe_traceback
from tests.support import CANARY


def info(
    code: str = "exec_failed", message: str = "the program failed", **details: Json
) -> ErrorInfo:
    return ErrorInfo(
        code=ErrorCode(code),
        category=ErrorCategory.OffChain,
        retryable=True,
        message=message,
        details=details or None,
    )


def test_only_the_details_that_the_code_declares_safe_survive() -> None:
    given_info = info(program_path="/p", exit_code=3, stderr="boom", argv=["x"])
    assert safe_info(given_info).details == {"program_path": "/p", "exit_code": 3}


def test_a_code_that_is_not_in_the_catalogue_keeps_no_details() -> None:
    assert safe_info(info(code="somebody_elses", reason="x")).details is None


@given(st.sampled_from(sorted(CATALOGUE)), st.dictionaries(st.text(max_size=12), st.integers()))
def test_no_code_keeps_a_detail_that_it_does_not_declare(
    code: str, details: dict[str, int]
) -> None:
    given_details: Json = {**{key: value % 1000 for key, value in details.items()}, "reason": 1}
    given_info = info(code=code).model_copy(update={"details": given_details})
    assert set(safe_info(given_info).details or {}) <= CATALOGUE[code].safe_details


def test_a_secret_in_a_safe_detail_is_dropped_and_its_neighbour_kept() -> None:
    assert safe_info(info(program_path=CANARY, exit_code=3)).details == {"exit_code": 3}


def test_a_detail_that_no_event_can_hold_is_dropped_and_its_neighbour_kept() -> None:
    given_details: Json = {"program_path": "\udcff", "exit_code": 3}
    given_info = info().model_copy(update={"details": given_details})
    assert safe_info(given_info).details == {"exit_code": 3}


def test_a_secret_in_the_message_withholds_the_message() -> None:
    assert safe_info(info(message=f"refused {CANARY}")).message == WITHHELD_MESSAGE


def test_a_secret_for_a_code_is_replaced() -> None:
    assert safe_info(info(code=CANARY)).code == "error_redacted"


def test_an_ordinary_error_is_unchanged() -> None:
    ordinary = error_info("exec_failed", "the program failed", program_path="/p", exit_code=1)
    assert safe_info(ordinary) == ordinary


@pytest.mark.parametrize("details", ["text", ["a"], 3, True])
def test_details_that_are_no_object_are_dropped(details: Json) -> None:
    odd = info().model_copy(update={"details": details})
    assert safe_info(odd).details is None


def test_details_that_changed_to_something_without_canonical_form_are_dropped() -> None:
    shared: dict[str, Any] = {"exit_code": 1}
    odd = info().model_copy(update={"details": shared})
    shared["exit_code"] = 1.5
    assert safe_info(odd).details is None


def test_details_too_deep_for_an_envelope_are_dropped() -> None:
    deep: Json = 0
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    canonical_json_bytes(deep)
    assert safe_info(info(exit_code=deep)).details is None


def test_a_traceback_keeps_its_message_where_that_is_harmless() -> None:
    assert "ValueError: plain" in safe_traceback(ValueError("plain"))


def test_a_traceback_with_a_secret_keeps_its_frames_and_loses_all_messages() -> None:
    try:
        try:
            raise KeyError(CANARY)
        except KeyError as error:
            raise ValueError("outer") from error
    except ValueError as error:
        text = safe_traceback(error)
    assert CANARY not in text
    assert "test_redact.py" in text
    assert f"ValueError: {WITHHELD_MESSAGE}" in text
