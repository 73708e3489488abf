"""The precision of the forward pass tuned while an fp32 run trains: compared, tried, kept or taken back, and watched.

Every rank looks after the same step, sees the same figures, and so decides alike (`tuning.amp_law`). Weights, gradients
and the optimizer's state are fp32 all along: the way back is bitwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from orchestrator.errors import NonFiniteError, Problem
from orchestrator.talk import warn
from orchestrator.tracking.events import PRECISION, TUNING
from orchestrator.tuning.amp_law import (
    LEAST_AMP_GAIN,
    Agreement,
    Lower,
    is_held_up,
    is_scale_lost,
    ladder,
    precision_text,
    refusal,
)
from orchestrator.worker.course import Course
from orchestrator.worker.inputs import Inputs
from orchestrator.worker.optimizer import norm_of_weights
from orchestrator.worker.precision import Precision
from orchestrator.worker.tuning.compared import ComparedWindows
from orchestrator.worker.tuning.devices import capability_of, has_bf16
from orchestrator.worker.tuning.gradients import Comparison
from orchestrator.worker.tuning.loader_tuner import LoaderTuner
from orchestrator.worker.tuning.step_times import StepTimes
from orchestrator.worker.window_step import WindowStep

TAG = "orchestrate.precision"

_SKIPPED_STEPS = 3
"""Steps after a change that say nothing: kernels are chosen, and a compiled model is compiled anew."""
_LOOKS_AT_SCALE_EVERY = 50
"""Steps, in fp16: where the loss scale is lost, no step since has changed the weights."""
_LOOKS_AGAIN_AFTER = (200, 1_000, 5_000)
"""Steps with a lower precision after which it is compared again; then after every 5,000 more."""
_MOST_PAUSE = 4_000
"""Steps between two windows of a run that waits for data or for gradients: twice as many each time."""
_LEAST_STEPS_LEFT = 200
"""With fewer, nothing is worth a trial."""


class _Phase(Enum):
    MEASURE = "measure"
    COMPARE = "compare"
    VERIFY = "verify"
    GUARD = "guard"
    END = "end"


@dataclass
class AmpTuner:
    """Call `stepped` after each step, on every rank."""

    course: Course
    windows: ComparedWindows
    applies: bool
    """Whether a lower precision is tried, or only suggested: then the model is never called but to train it."""
    is_free: Callable[[], bool] = lambda: True
    """Whether nothing else is being tried, on all ranks alike."""
    _phase: _Phase = field(default=_Phase.MEASURE, init=False)
    _times: StepTimes = field(default_factory=StepTimes, init=False)
    _before_s: float = field(default=0.0, init=False)
    """The step in what was kept last, which a trial is verified against."""
    _rungs: list[Lower] | None = field(default=None, init=False)
    """What is still to be tried; None before the ranks' devices are known."""
    _num_kept_steps: int = field(default=0, init=False)
    """Since something was kept."""
    _pause: int = field(default=_SKIPPED_STEPS, init=False)
    _is_given_up: bool = field(default=False, init=False)
    _saves_next: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.course.before_save = self._require_finite_weights
        if self.applies and self.course.progress.step:
            self._tag(self._kept)

    @property
    def lower(self) -> Lower | None:
        """What the forward pass runs in, on trial or for good; None: as the recipe says."""
        return self._precision.lower

    @property
    def _precision(self) -> Precision:
        return self.windows.comparison.precision

    @property
    def _kept(self) -> Lower | None:
        """What was found to be right; None: what the recipe says. A checkpoint has it."""
        return self.course.progress.tuned_precision

    @property
    def _now(self) -> str:
        return self._kept or self._precision.name

    def stepped(self, step: int, *, time_s: float, waited_s: float) -> None:
        """Take a step; where a window or a comparison ends with it, hear of all ranks and decide. A collective then."""
        self._num_kept_steps += 1
        if self._saves_next:
            self._saves_next, self.course.save_due = False, True
        if self._phase is _Phase.GUARD:
            self._guard(step)
        elif self._phase is _Phase.COMPARE:
            if (worst := self.windows.stepped()) is not None:
                self._judge(step, worst)
        elif self._phase in (_Phase.MEASURE, _Phase.VERIFY):
            if not self.is_free():
                self._wait_for_others(step)
            elif self._times.add(time_s, waited_s):
                self._look(step)

    def revert(self, step: int, lower: Lower | None, why: str) -> None:
        """Go on from `lower` in the recipe's precision, for good: the next checkpoint but this one has it."""
        self.windows.end()
        self._rungs, self._phase, self._is_given_up, self._saves_next = [], _Phase.END, True, True
        self._keep(None)
        self._tag(None)
        self._tell(step, {"from": lower, "to": self._now, "why": why, "reverted": True})

    def restored(self) -> None:
        """A checkpoint was loaded: it may be from before the precision was given up, or from within a trial."""
        if self._is_given_up:
            self._keep(None)
        elif self._phase is not _Phase.END:
            self.windows.end()
            self._rungs, self._phase, self._times = None, _Phase.MEASURE, StepTimes(skips=_SKIPPED_STEPS)
            if self.applies:
                self._tag(self._kept)

    def _wait_for_others(self, step: int) -> None:
        """The loader changes: what was measured before says nothing any more, and a trial is put off."""
        if self._phase is _Phase.VERIFY:
            self.course.hear_the_rest()
            self._go_back()
            self._phase = _Phase.MEASURE
        self._times.clear()

    def _require_finite_weights(self) -> None:
        """Before a save, in a lower precision: all ranks have the same weights, so they find the same."""
        if self.lower is None:
            return
        if not math.isfinite(norm := norm_of_weights(self.windows.comparison.model)):
            raise NonFiniteError(Problem(f"step {self.course.progress.step}", f"the norm of the weights is {norm}"))

    def _look(self, step: int) -> None:
        """A window has enough steps on this rank; the slowest rank's step counts, and the least of their devices."""
        step_s, wait_s = self._times.mean()
        capability = float(capability_of(self._precision.device))
        told = self.course.peers.gather([step_s, wait_s / step_s, capability, self.course.exposed_s() or 0.0])
        step_s, wait_share = max(one[0] for one in told), max(one[1] for one in told)
        if not self._times.is_whole(step_s):
            return
        self._times.clear()
        if self._rungs is None and not self._begin_ladder(step, int(min(one[2] for one in told))):
            return
        assert self._rungs is not None
        if self._phase is _Phase.VERIFY:
            self._verify(step, step_s)
        elif not self._rungs or self.course.steps_left() < _LEAST_STEPS_LEFT:
            self._settle()
        elif is_held_up(wait_share, exchange_share=min(one[3] for one in told) / step_s):
            self._pause = min(2 * self._pause, _MOST_PAUSE)
            self._times = StepTimes(skips=self._pause)
        elif self.applies:
            self._before_s = step_s
            self._begin_comparison()
        else:
            self._suggest(step, self._rungs[-1])

    def _begin_ladder(self, step: int, capability: int) -> bool:
        """What is to be tried on these devices, above what an earlier attempt has kept; False where they lack that."""
        rungs = ladder(capability)
        if self._kept is not None and self._kept not in rungs:
            self.course.hear_the_rest()
            self.revert(step, self._kept, f"these devices have no {self._kept} of their own")
            return False
        self._rungs = list(rungs if self._kept is None else rungs[rungs.index(self._kept) + 1 :])
        return True

    def _suggest(self, step: int, lower: Lower) -> None:
        self._phase = _Phase.END
        if has_bf16(self._precision.device):
            why = "steps wait for no data, and may be shorter; tuning.amp: auto compares the gradients, and tries it"
            self._tell(step, {"from": self._now, "to": lower, "why": why, "applied": False})

    def _begin_comparison(self) -> None:
        """Of the next of the ladder, or at its end of what was kept."""
        lower = self._rungs[0] if self._rungs else self._kept
        assert lower is not None
        self._phase = _Phase.COMPARE
        self.windows.begin(lower)

    def _judge(self, step: int, worst: Agreement) -> None:
        """By the worst that any rank has seen."""
        why = refusal(worst, self.windows.comparison.layers[worst.layer])
        if not self._rungs:
            self._settle()
            if why is not None:
                self.course.hear_the_rest()
                self.revert(step, self._kept, why)
            return
        seen = {name: value for name, value in asdict(worst).items() if math.isfinite(value)}
        detail = {"from": self._now, "to": self._rungs[0], **seen}
        if why is not None:
            self._rungs.pop(0)
            self._tell(step, {**detail, "why": why, "refused": True})
            self._go_on()
            return
        agree = f"gradients agree: cosine {worst.cosine:.5f}, loss within {worst.loss_gap:.2%}"
        self._tell(step, {**detail, "why": agree, "applied": True})
        self.course.save_due = True  # what is gone back to where a loss is no number
        self._precision.use(self._rungs[0])
        self._tag(self._rungs[0])
        self._phase, self._times = _Phase.VERIFY, StepTimes(skips=_SKIPPED_STEPS)

    def _verify(self, step: int, step_s: float) -> None:
        """Keep it where it pays; then the next of the ladder, against this one."""
        assert self._rungs
        lower, gain = self._rungs.pop(0), self._before_s / step_s - 1.0
        if gain >= LEAST_AMP_GAIN:
            self._tell(step, {"kept": lower, "gain": gain, "step_s": step_s})
            self._keep(lower)
        else:
            self.course.hear_the_rest()
            why = f"{lower} gains {gain:.1%}, less than {LEAST_AMP_GAIN:.0%}: back to {self._now}"
            self._tell(step, {"from": lower, "to": self._now, "why": why, "gain": gain, "reverted": True})
            self._go_back()
        self._go_on()

    def _go_back(self) -> None:
        """From a trial to what was kept before it; what was reported of the trial has been heard."""
        self._precision.use(self._kept)
        self._tag(self._kept)

    def _keep(self, lower: Lower | None) -> None:
        """From the next step on; a checkpoint has it."""
        self._precision.use(lower)
        self.course.progress.tuned_precision, self._num_kept_steps = lower, 0

    def _tag(self, lower: Lower | None) -> None:
        """The run's record says what the steps from here on are made in, on trial too."""
        if self.course.peers.world.rank == 0:
            now = lower or self._precision.name
            self.course.journal.tags({TAG: f"{now} from step {self.course.progress.step}"})

    def _go_on(self) -> None:
        """To the next of the ladder, by what steps take now."""
        if self._rungs:
            self._phase, self._times = _Phase.MEASURE, StepTimes(skips=_SKIPPED_STEPS)
        else:
            self._settle()

    def _settle(self) -> None:
        """Nothing more is tried."""
        self._rungs = []
        self._phase = _Phase.GUARD if self._kept else _Phase.END

    def _guard(self, step: int) -> None:
        """Look again now and then: gradients change while a model learns. Raises NonFiniteError for a lost scale."""
        scaler = self._precision.scaler
        *_, every = _LOOKS_AGAIN_AFTER
        looks_at_scale = scaler.is_enabled() and self._num_kept_steps % _LOOKS_AT_SCALE_EVERY == 0
        if looks_at_scale and is_scale_lost(scaler.get_scale()):
            raise NonFiniteError(Problem(f"step {step}", "the loss scale has fallen below 1: gradients vanish"))
        if self._num_kept_steps in _LOOKS_AGAIN_AFTER or self._num_kept_steps % every == 0:
            self._begin_comparison()

    def _tell(self, step: int, detail: dict[str, Any]) -> None:
        if self.course.peers.world.rank != 0:
            return
        self.course.journal.event(TUNING, {"step": step, "knob": PRECISION, **detail})
        warn(f"step {step}: {precision_text(detail)}")


def amp_tuner_of(
    inputs: Inputs, comparison: Comparison, step: WindowStep, course: Course, loader: LoaderTuner | None
) -> AmpTuner | None:
    """What tunes the precision of a run; None where the recipe wants it to stay, or a comparison would wait for ranks.

    It waits for the loader's tuner.
    """
    mode = inputs.recipe.amp_tuning
    if mode == "off" or comparison.waits_for_ranks:
        return None
    return AmpTuner(
        course,
        ComparedWindows(comparison, step, course),
        applies=mode == "auto",
        is_free=lambda: loader is None or not loader.is_searching,
    )
