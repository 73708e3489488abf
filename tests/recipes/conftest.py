"""What tests of all recipes need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.threads import one_thread


@pytest.fixture(autouse=True)
def on_one_thread() -> Iterator[None]:
    with one_thread():
        yield
