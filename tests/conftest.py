"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("orchestrate", deadline=None)  # a busy machine is slow; what is timed stands in tests/bench
settings.load_profile("orchestrate")
