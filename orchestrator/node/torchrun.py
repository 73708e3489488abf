"""torchrun as the supervisor's child: one signal is passed on, and what hangs is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from orchestrator.heartbeat import Heartbeat
from orchestrator.machine import num_usable_cpus
from orchestrator.node.deputy import Deputy
from orchestrator.node.failures import SIGNAL_SEEN
from orchestrator.node.launch import NodeLaunch, variables_here
from orchestrator.node.watch import Watch
from orchestrator.processes import STOP_SIGNALS, handles_signal, next_signal, start_child
from orchestrator.talk import tell

LONGEST_LOG_READ = 256 * 1024
_LOOK_S = 1.0
_LOOK_WHILE_STOPPING_S = 0.1
_SLURM_MAY_SIGNAL_S = 0.5


class Torchrun:
    """torchrun as our child. It is handed one signal at most.

    torchrun takes a second signal while its ranks save, and dies of a third. Slurm signals every process of a step,
    torchrun included; a person signals the driver, which signals us alone. So the first signal is passed on only when
    torchrun shows no sign of having got it, and no other is. Until it has set its handlers, it ignores signals.
    """

    def __init__(self, launch: NodeLaunch, log: Path, variables: Mapping[str, str]) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] = start_child(
            launch.argv,
            env={**os.environ, **variables_here(launch, usable_cpus=num_usable_cpus()), **variables},
            ignored=STOP_SIGNALS,
        )
        self.asked: signal.Signals | None = None
        self._asked_at = 0.0
        self._passed_on = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, file: Heartbeat, watch: Watch, deputy: Deputy) -> int:
        """Its exit status, negative for a signal; meanwhile beat in `file`, pass a signal on, and end what hangs or has
        lost its driver.

        Once it was asked to stop nobody watches any more: torchrun itself kills what does not end in time.
        """
        while (exit_code := self._process.poll()) is None:
            stopping = self.asked is not None and not self._passed_on
            number = next_signal(_LOOK_WHILE_STOPPING_S if stopping else _LOOK_S)
            if number is not None and self.asked is None:
                tell(f"supervisor: got {number.name}")
                self.asked, self._asked_at = number, time.monotonic()
                file.try_write(asked=number.name, stand_still=False)
            if self.asked is not None and not self._passed_on:
                self._pass_on(self.asked)
            if self.asked is None and (watch.finds_hang() or deputy.driver_is_gone(is_idle=watch.stand_still)):
                return self._kill()
            file.beat()
        return exit_code

    def _pass_on(self, number: signal.Signals) -> None:
        if time.monotonic() - self._asked_at < _SLURM_MAY_SIGNAL_S or not handles_signal(self.pid, number):
            return
        if SIGNAL_SEEN not in self.log_text():
            self._process.send_signal(number)
        self._passed_on = True

    def _kill(self) -> int:
        """End torchrun and all below it at once, loader processes too: what hangs heeds nothing else."""
        below: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            below = psutil.Process(self.pid).children(recursive=True)
        self._process.kill()
        for process in below:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return self._process.wait()

    def log_text(self) -> str:
        """The end of the node's log, which holds torchrun's own words."""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - LONGEST_LOG_READ))
            return file.read().decode(errors="replace")
