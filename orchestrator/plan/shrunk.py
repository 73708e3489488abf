"""The same science on fewer nodes than a run was submitted for. Pure."""

from __future__ import annotations

from orchestrator.plan.effective import may_be_uneven
from orchestrator.plan.plan import Plan
from orchestrator.recipe.schema import Recipe


def shrunk(recipe: Recipe, trained: Plan) -> Recipe:
    """`recipe` with the batch and the lr of `trained`, to be planned on an allocation that lost some of its nodes.

    The batch stays exact: where the ranks cannot share it evenly, some take one sample more, unless something in the
    recipe wants micro-batches of one size.
    """
    wanted, optimizer = recipe.batch, recipe.optimizer
    indivisible = "uneven" if may_be_uneven(recipe) else "refuse"
    kept = {"effective": trained.batch.effective_in_unit, "per_gpu": None, "on_indivisible": indivisible}
    asked_for = wanted.effective if wanted.on_indivisible == "nearest" else None
    if optimizer.base_batch is None and asked_for is not None:
        optimizer = optimizer.model_copy(update={"base_batch": asked_for})
    return recipe.model_copy(update={"batch": wanted.model_copy(update=kept), "optimizer": optimizer})
