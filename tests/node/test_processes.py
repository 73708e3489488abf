"""Children that cannot outlive their parent, and signals taken one at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from orchestrator.processes import handles_signal
from tests.support.waiting import is_alive, wait_for

PARENT = """
import os, sys, time
from orchestrator.processes import hold_signals, start_child
hold_signals()
child = start_child([sys.executable, "-c", "import time; time.sleep(60)"], env=os.environ)
print(child.pid, flush=True)
time.sleep(60)
"""

TAKES_SIGNALS = """
import os, signal, sys
from orchestrator.processes import hold_signals, next_signal, start_child
hold_signals()
os.kill(os.getpid(), signal.SIGUSR1)
os.kill(os.getpid(), signal.SIGTERM)
print(sorted([next_signal(1).name, next_signal(1).name]), next_signal(0))
child = start_child(["true"], env=os.environ)
print(next_signal(5), child.wait())
code = "import signal; print(signal.pthread_sigmask(0, ()), flush=True)"
start_child([sys.executable, "-c", code], env=os.environ).wait()
"""


def test_a_child_dies_with_a_parent_that_had_no_time_to_say_so() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
    wait_for(lambda: not is_alive(child), timeout_s=5)


def test_held_signals_are_taken_one_by_one_and_children_start_without_the_hold() -> None:
    done = subprocess.run([sys.executable, "-c", TAKES_SIGNALS], capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines() == ["['SIGTERM', 'SIGUSR1'] None", "None 0", "set()"], done.stderr


def test_a_handler_shows_in_the_kernels_word_about_a_process() -> None:
    code = "import signal, sys; signal.signal(signal.SIGUSR2, print); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert handles_signal(process.pid, signal.SIGUSR2)
        assert not handles_signal(process.pid, signal.SIGTERM)
        process.kill()
    assert not handles_signal(process.pid, signal.SIGUSR2)
    assert not handles_signal(os.getpid(), signal.SIGUSR2)
