"""How long a place that assets come from may take: seconds, not minutes, until it answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

ANSWER_S = 5.0
"""Until a server has answered at all, name look-up included."""
SILENCE_S = 30.0
"""Between two pieces of what it sends."""


def within(seconds: float, function: Callable[[], T]) -> T:
    """What `function` returns or raises, if it does so in time; else TimeoutError, and it is left to itself.

    A time-out of the socket alone would not do: looking up a name has none.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError
    return results[0]
