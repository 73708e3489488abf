"""What the process that fetches from a hub says to the one that started it, and its end when nothing comes any more."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

from orchestrator.submit.assets.declared import AssetFault, NoAnswer


def tell(**facts: Any) -> None:
    """Say one thing to the process that started this one."""
    sys.stderr.write(json.dumps(facts) + "\n")
    sys.stderr.flush()


def tell_fault(fault: AssetFault) -> None:
    """Say why there is nothing, and whether the hub is to blame as a whole."""
    tell(fault=[fault.key, fault.what, fault.fix], down=isinstance(fault, NoAnswer))


class Watchdog:
    """Ends this process with a fault when the next thing does not happen in time."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def expect(self, seconds: float, fault: AssetFault) -> None:
        """From now on there are so many seconds."""
        self.rest()
        self._timer = threading.Timer(seconds, self._give_up, (fault,))
        self._timer.daemon = True
        self._timer.start()

    def rest(self) -> None:
        """Nothing is being waited for."""
        if self._timer is not None:
            self._timer.cancel()

    @staticmethod
    def _give_up(fault: AssetFault) -> None:
        tell_fault(fault)
        os._exit(1)
