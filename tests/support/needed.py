"""What a test needs of a machine: missing on a laptop, it is skipped; in CI nothing may be missing."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def is_ci() -> bool:
    return os.environ.get("CI", "").lower() == "true"


def skip_or_fail(reason: str) -> NoReturn:
    """Skip with the reason; in CI, where everything is expected to be there, fail with it."""
    if is_ci():
        pytest.fail(f"CI=true, and this is missing: {reason}", pytrace=False)
    pytest.skip(reason)
