"""Where training stands, and what is due there: functions of consumed samples, so that a resume decides the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orchestrator.plan.plan import Plan
from orchestrator.plan.schedule import samples_in
from orchestrator.recipe.amounts import Amount
from orchestrator.recipe.schema import Recipe
from orchestrator.tuning.amp_law import Lower


@dataclass
class Progress:
    """The clock of a run. A checkpoint keeps all of it."""

    step: int = 0
    """Completed optimizer steps."""
    consumed_samples: int = 0
    evaluated_samples: int = 0
    """Where the last evaluation was made."""
    metrics: dict[str, float] = field(default_factory=dict)
    """What the last evaluation gave."""
    passed_over: tuple[int, ...] = ()
    """Consumed samples before each window that was passed over, because its loss was no number."""
    skipped_samples: int = 0
    """Bad samples that were skipped, on all ranks."""
    tuned_precision: Lower | None = None
    """What tuning has found the forward pass of an fp32 recipe to do as well in."""

    def as_state(self) -> dict[str, Any]:
        return {**vars(self), "metrics": dict(self.metrics)}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Progress:
        """What `as_state` gave; a version that knew nothing of a field wrote nothing of it."""
        return cls(
            state["step"],
            state["consumed_samples"],
            state["evaluated_samples"],
            dict(state["metrics"]),
            tuple(state.get("passed_over", ())),
            state.get("skipped_samples", 0),
            state.get("tuned_precision"),
        )


@dataclass(frozen=True)
class Cadences:
    """Distances between evaluations and between checkpoints. None: not by samples, or not by the clock on the wall."""

    total_samples: int
    evaluate_every_samples: int
    save_every_samples: int | None
    save_every_s: float | None

    @classmethod
    def of(cls, recipe: Recipe, plan: Plan) -> Cadences:
        """The recipe's cadences in samples; an evaluation is due after each epoch unless it says otherwise."""

        def in_samples(amount: Amount) -> int:
            return samples_in(
                amount,
                effective_batch_size=plan.batch.effective_batch_size,
                samples_per_epoch=plan.schedule.samples_per_epoch,
            )

        save, evaluate = recipe.checkpoint.every, recipe.evaluation.every
        return cls(
            total_samples=plan.schedule.total_samples,
            evaluate_every_samples=in_samples(evaluate or Amount(epochs=1.0)),
            save_every_samples=None if save.minutes else in_samples(save),
            save_every_s=save.minutes * 60 if save.minutes else None,
        )

    def is_finished(self, progress: Progress) -> bool:
        return progress.consumed_samples >= self.total_samples

    def evaluation_due(self, progress: Progress) -> bool:
        """At the end, and wherever a multiple of the cadence was crossed since the last evaluation."""
        every = self.evaluate_every_samples
        if self.is_finished(progress):
            return progress.evaluated_samples < progress.consumed_samples
        return progress.evaluated_samples // every < progress.consumed_samples // every

    def save_due(self, before_samples: int, after_samples: int) -> bool:
        """Whether a step crossed a multiple of the checkpoint cadence in samples."""
        every = self.save_every_samples
        return every is not None and before_samples // every < after_samples // every
