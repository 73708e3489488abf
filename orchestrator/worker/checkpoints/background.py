"""One piece of work at a time beside the training loop; its error comes out at the next one, or at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """A thread that does one thing; what is asked for next waits until it is done."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin `work`, after the work before it. Raises what that one raised, and then does not begin."""
        self.settle()
        self._thread = threading.Thread(target=self._do, args=(work,), name="save", daemon=True)
        self._thread.start()

    def settle(self) -> None:
        """Wait until nothing is under way. Raises, once, what it raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error
