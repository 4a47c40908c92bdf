"""`mfm_ops.sdk.columns`: a text takes the columns that it is given, whatever it is made of."""

from hypothesis import given
from hypothesis import strategies as st

from mfm_ops.sdk.columns import columns, fitted

TEXT = st.text("ab \u0301\u6771\u4eac\uff21é", max_size=30)


@given(TEXT, st.integers(min_value=1, max_value=40))
def test_a_fitted_text_takes_exactly_its_width(text: str, width: int) -> None:
    assert columns(fitted(text, width)) == width


@given(TEXT, st.integers(min_value=1, max_value=40))
def test_only_a_text_that_is_too_wide_is_cut(text: str, width: int) -> None:
    shown = fitted(text, width)
    if columns(text) <= width:
        assert shown.startswith(text)
    else:
        head, mark, rest = shown.partition("…")
        assert mark
        assert text.startswith(head)
        assert not rest.strip()
