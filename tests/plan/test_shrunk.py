"""The same batch and lr on an allocation that lost nodes, for every way to ask for a batch."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.cluster import LOCAL, Allocation
from orchestrator.plan.continuity import check_continuity
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.plan.shrunk import shrunk
from orchestrator.recipe.schema import Recipe


def recipe_of(batch: dict[str, Any], **optimizer: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "points",
            "model": {"target": "model:network"},
            "loss": {"target": "model:loss"},
            "datasets": [{"name": "points", "target": "data:Points", "num_samples": 4096}],
            "batch": batch,
            "optimizer": {"name": "sgd", "lr": 0.1, **optimizer},
            "duration": {"steps": 10},
            "resources": {"num_nodes": 4, "gpus_per_node": 2},
        }
    )


def planned(recipe: Recipe, num_nodes: int) -> Plan:
    return make_plan(recipe, LOCAL, Allocation(num_nodes=num_nodes, gpus_per_node=2))


@pytest.mark.parametrize(
    ("batch", "optimizer"),
    [
        ({"effective": 64}, {}),
        ({"effective": 64}, {"base_batch": 32}),
        ({"per_gpu": 8}, {}),
        ({"per_gpu": 8}, {"base_batch": 32}),
        ({"effective": 67, "on_indivisible": "nearest"}, {}),
        ({"effective": 67, "on_indivisible": "nearest"}, {"base_batch": 16}),
        ({"effective": 65, "on_indivisible": "uneven"}, {}),
        ({"effective": 64 * 128, "unit": "tokens", "sequence_length": 128}, {}),
    ],
)
@pytest.mark.parametrize("num_nodes", [1, 2, 3])
def test_a_run_that_lost_nodes_trains_the_batch_that_it_had_at_the_lr_that_it_had(
    batch: dict[str, Any], optimizer: dict[str, Any], num_nodes: int
) -> None:
    recipe = recipe_of(batch, **optimizer)
    trained = planned(recipe, 4)
    now = planned(shrunk(recipe, trained), num_nodes)
    assert now.batch.effective_batch_size == trained.batch.effective_batch_size
    assert list(check_continuity(trained, now, recipe.batch)) == []
