"""A rank's signs of life, as its supervisor reads them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.pulse import Phase, Sign, make_pulse, pulse_file, read_sign, stack_file
from orchestrator.run_dir import PULSE_VARIABLE
from orchestrator.worker import pulse as pulse_module
from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.pulse import Pulse
from orchestrator.worker.train import train
from tests.support.waiting import wait_for
from tests.support.worlds import add_attempt, make_run, run_world
from tests.worker.recipes import CODE, POINTS
from tests.worker.test_session import LOOP, own_run

STANDS = """
import os, sys
from orchestrator.worker.pulse import Pulse
Pulse.of_rank(os.environ)
def stand():
    print(flush=True)
    sys.stdin.read()
stand()
"""


@pytest.fixture
def pulse(tmp_path: Path) -> Pulse:
    make_pulse(tmp_path, 3)
    return Pulse.of_rank({PULSE_VARIABLE: str(tmp_path), "RANK": "3"})


def seen(tmp_path: Path) -> Sign:
    found = read_sign(tmp_path, 3)
    assert found is not None
    return found


def test_nobody_waits_for_a_rank_before_its_first_sign(tmp_path: Path) -> None:
    assert read_sign(tmp_path, 3) is None
    make_pulse(tmp_path, 3)
    assert read_sign(tmp_path, 3) is None
    assert pulse_file(tmp_path, 3).stat().st_mode & 0o777 == 0o600


def test_a_sign_says_who_where_and_when(pulse: Pulse, tmp_path: Path) -> None:
    assert (seen(tmp_path).pid, seen(tmp_path).phase, seen(tmp_path).step) == (os.getpid(), Phase.START, 0)
    pulse.enter(Phase.START, 41)
    pulse.stepped(42)
    before = time.monotonic()
    pulse.backward()
    assert (seen(tmp_path).phase, seen(tmp_path).step, seen(tmp_path).num_backward) == (Phase.STEP, 42, 1)
    assert before <= seen(tmp_path).at_s <= time.monotonic()
    pulse.stepped(43)
    assert seen(tmp_path).num_backward == 0


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def passes(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(pulse_module, "monotonic", found)
    return found


def longest(tmp_path: Path) -> dict[str, float]:
    """The phases of which anything is known, with the longest silence in each."""
    return {phase.word: seen(tmp_path).longest_s[phase] for phase in Phase if seen(tmp_path).longest_s[phase]}


def test_the_longest_silence_of_each_step_is_kept_and_of_the_start_that_of_the_first_step(
    clock: Clock, pulse: Pulse, tmp_path: Path
) -> None:
    clock.passes(40)  # imports
    pulse.enter(Phase.START, 0)
    clock.passes(7)
    pulse.stepped(1)
    assert longest(tmp_path) == {"start": 7}
    for seconds in (3, 1):
        clock.passes(seconds)
        pulse.beat()
        clock.passes(seconds)
        pulse.stepped(2)
    assert longest(tmp_path) == {"start": 7, "step": 3}, "a beat in the midst of a step ends a silence"


def test_what_comes_between_two_steps_is_learnt_apart_and_makes_no_step_longer(
    clock: Clock, pulse: Pulse, tmp_path: Path
) -> None:
    pulse.enter(Phase.START, 0)
    pulse.stepped(1)
    clock.passes(2)
    with pulse.during(Phase.EVALUATION):
        assert seen(tmp_path).phase is Phase.EVALUATION
        clock.passes(50)
        with pulse.during(Phase.CHECKPOINT, learns=False):
            clock.passes(300)
    assert seen(tmp_path).phase is Phase.STEP
    clock.passes(1)
    pulse.stepped(2)
    assert longest(tmp_path) == {"step": 2, "evaluation": 50}
    for seconds in (7, 2):
        pulse.took(Phase.CHECKPOINT, seconds)
    assert longest(tmp_path)["checkpoint"] == 7


def test_a_phase_that_an_error_leaves_is_left(pulse: Pulse, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bad"), pulse.during(Phase.EVALUATION):
        raise ValueError("bad")
    assert seen(tmp_path).phase is Phase.START


@pytest.mark.parametrize(
    "env", [{}, {PULSE_VARIABLE: ""}, {PULSE_VARIABLE: "/nowhere"}, {PULSE_VARIABLE: "/nowhere", "RANK": "first"}]
)
def test_a_rank_that_nobody_supervises_gives_its_signs_to_nobody(env: dict[str, str]) -> None:
    Pulse.of_rank(env).stepped(1)


def test_a_rank_shows_where_it_stands_when_asked_and_goes_on(tmp_path: Path) -> None:
    make_pulse(tmp_path, 0)
    env = {**os.environ, PULSE_VARIABLE: str(tmp_path), "RANK": "0"}
    command = [sys.executable, "-c", STANDS]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as rank:
        assert rank.stdin is not None and rank.stdout is not None
        rank.stdout.readline()
        rank.send_signal(signal.SIGSTKFLT)
        wait_for(lambda: "in stand" in stack_file(tmp_path, 0).read_text())
        rank.stdin.close()
        assert rank.wait(60) == 0


def test_a_pulse_needs_the_standard_library_alone() -> None:
    code = "import sys, orchestrator.worker.pulse; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30).stdout.split()
    assert {"torch", "pydantic", "psutil", "numpy", "yaml"}.isdisjoint(loaded)


class Recorded(Pulse):
    """Keeps what a rank said that it is at, each time it said something new."""

    def __init__(self) -> None:
        self.said: list[tuple[str, int]] = []
        super().__init__()

    def beat(self) -> None:
        super().beat()
        if self.said[-1:] != [(self._phase.word, self._step)]:
            self.said.append((self._phase.word, self._step))


def test_the_training_loop_says_what_it_is_at(tmp_path: Path) -> None:
    """Evaluations end epochs of 61 samples, checkpoints are due every 3 steps; the last of both comes at the end."""
    run, pulse = make_run(tmp_path / "run", POINTS, CODE), Recorded()
    train(run, add_attempt(run, 1), {}, StopRequest(), pulse)
    assert pulse.said[0] == ("start", 0) and pulse.said[-1] == ("end", 21)
    steps = [step for phase, step in pulse.said if phase == "step"]
    assert sorted(set(steps)) == list(range(1, 22))
    evaluated = [step for phase, step in pulse.said if phase == "evaluation"]
    saved = [step for phase, step in pulse.said if phase == "checkpoint"]
    assert evaluated == [4, 8, 12, 16, 20, 21] and saved == [3, 6, 9, 12, 15, 18, 21]
    assert all(pulse._longest[phase] > 0 for phase in (Phase.START, Phase.EVALUATION, Phase.CHECKPOINT, Phase.STEP))


def test_a_loop_of_ones_own_gives_signs_too_and_is_not_waited_for_after_its_last_window(tmp_path: Path) -> None:
    pulses = tmp_path / "pulses"
    pulses.mkdir()
    for rank in range(2):
        make_pulse(pulses, rank)
    evaluation = """
        if window.step == 2:
            with run.evaluating():
                time.sleep(0.3)
    print("then", read_sign(Path(os.environ["ORCHESTRATE_PULSE_DIR"]), run.rank).phase.word)
"""
    imports = "import os, time\nfrom pathlib import Path\nfrom orchestrator.pulse import read_sign\n"
    run = own_run(tmp_path / "own", imports + LOOP.rstrip("\n") + evaluation)
    attempt = run_world(run, 2, **{PULSE_VARIABLE: str(pulses)})
    for rank in range(2):
        last = read_sign(pulses, rank)
        assert last is not None and (last.phase, last.step) == (Phase.END, 21)
        assert last.longest_s[Phase.STEP] > 0 and last.longest_s[Phase.EVALUATION] >= 0.3
        assert "then rest" in attempt.rank_log(rank).read_text()
