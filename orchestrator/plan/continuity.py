"""Whether a plan goes on with what another plan has trained. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from orchestrator.errors import Problem
from orchestrator.plan.plan import Plan
from orchestrator.recipe.schema import Batch
from orchestrator.units import format_count, format_lr, plural


def check_continuity(trained: Plan, now: Plan, wanted: Batch) -> Iterator[Problem]:
    """That the run's effective batch or peak lr would be another: only `per_gpu` and `nearest` leave it to the
    allocation, and its problem is at that dotted key."""
    same_lr = math.isclose(trained.learning_rate.peak_lr, now.learning_rate.peak_lr)
    if trained.batch.effective_batch_size == now.batch.effective_batch_size and same_lr:
        return
    what = (
        f"the run trains with {_science(trained)}; on {plural(now.topology.world_size, 'rank')} it would be "
        f"{_science(now)}: another experiment"
    )
    ranks = plural(trained.topology.world_size, "rank")
    fix = f"ask for {ranks} again (resources.num_nodes x gpus_per_node), or submit it as a new run"
    yield Problem("batch.per_gpu" if wanted.per_gpu is not None else "batch.on_indivisible", what, fix)


def _science(plan: Plan) -> str:
    size, lr = format_count(plan.batch.effective_in_unit), format_lr(plan.learning_rate.peak_lr)
    return f"an effective batch of {size} {plan.batch.unit} and a peak lr of {lr}"
