"""How long a place that assets come from may take: seconds, not minutes, until it answers."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from typing import TypeVar

from orchestrator.recipe.addresses import redacted

T = TypeVar("T")

ANSWER_S = 5.0
"""Until a server has answered at all, name look-up included."""
SILENCE_S = 30.0
"""Between two pieces of what it sends."""
LEAST_BYTES = 1 << 15
"""What must arrive in `SILENCE_S`, if there is more to come: about 1 kB/s."""


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


def reason(error: Exception) -> str:
    """One line about an error of the network, without what may be secret in an address."""
    inner = getattr(error, "reason", error)
    if isinstance(inner, http.client.BadStatusLine | http.client.LineTooLong) and not isinstance(inner, OSError):
        return "what it says is not HTTP"
    line = str(getattr(inner, "strerror", None) or inner).partition("\n")[0]
    return redacted(line) or type(error).__name__
