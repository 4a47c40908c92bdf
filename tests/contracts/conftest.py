"""What the suites of the engine share beside the store under test."""

import pytest

from tests.contracts.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)
