"""The larger micro-batches that a GPU's memory has room for, at the same effective batch: advice, in words. Pure.

What a plan says of micro-batches holds for a whole attempt, so nothing is changed while one runs.
"""

from __future__ import annotations

from orchestrator.plan.batch import BatchPlan
from orchestrator.plan.budget import budget_of
from orchestrator.plan.effective import effective_batch
from orchestrator.plan.memory import PeakCurve
from orchestrator.plan.plan import Plan
from orchestrator.recipe.schema import Recipe
from orchestrator.units import GIB, plural

FREE_MEMORY = ("bf16", "fp16")
"""Precisions whose activations take half of fp32's: TF32's do not."""


def roomier(recipe: Recipe, plan: Plan, *, peak_bytes: int, held_bytes: int, gpu_bytes: int) -> BatchPlan | None:
    """The plan's batch in the largest micro-batches that there is room for; None where it needs as many micro-steps.

    One point is known, the peak at the plan's micro-batch; so all of it but `held_bytes`, which no micro-batch changes
    (weights, gradients, the optimizer's state), counts as growing with it. The rest is as much as the plan leaves
    where it goes by arithmetic, and what has run out of memory before is not advised.
    """
    batch, world_size = plan.batch, plan.topology.world_size
    if batch.gradient_accumulation_steps == 1 or peak_bytes <= held_bytes:
        return None
    curve = PeakCurve.through({0: held_bytes, batch.micro_batch_size: peak_bytes}, step_bytes=0)
    budget = budget_of(gpu_bytes, accelerator="cuda", method="arithmetic")
    most = -(-batch.effective_batch_size // world_size)
    largest = curve.largest_within(budget.tensor_bytes, most=most)
    if largest <= batch.micro_batch_size:
        return None
    wanted = recipe.model_copy(update={"batch": recipe.batch.model_copy(update={"micro": largest})})
    found = effective_batch(wanted, world_size=world_size, learnt=plan.learnt)
    if not isinstance(found, BatchPlan) or found.effective_batch_size != batch.effective_batch_size:
        return None
    return found if found.gradient_accumulation_steps < batch.gradient_accumulation_steps else None


def room_text(now: BatchPlan, other: BatchPlan, precision: str, *, peak_bytes: int, gpu_bytes: int) -> str:
    """What to write, what it would do, and why it would fit, in one line."""
    before, after = now.gradient_accumulation_steps, other.gradient_accumulation_steps
    return (
        f"batch.micro: {other.micro_batch_size} would fit, and make {plural(after, 'micro-step')} of the same batch, "
        f"{before - after} fewer than now: in {precision}, micro-batches of {now.micro_batch_size} have taken "
        f"{peak_bytes / GIB:.2f} of {gpu_bytes / GIB:.2f} GiB at most; resume may change it"
    )
