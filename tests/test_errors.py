"""What a misspelt word was probably meant to be."""

from __future__ import annotations

from typing import get_args

import pytest

from orchestrator.errors import nearest
from orchestrator.kinds import kind_of
from orchestrator.recipe.schema import Optimizer, Recipe, Resources

OPTIMIZERS = get_args(kind_of(Optimizer.model_fields["name"].annotation).type)
PRECISIONS = get_args(kind_of(Recipe.model_fields["precision"].annotation).type)


@pytest.mark.parametrize("word", ["AdamW", "NAdam", "SGD", "RMSprop", "Adam", "LAMB"])
def test_another_case_is_the_same_word(word: str) -> None:
    assert nearest(word, OPTIMIZERS) == word.lower()


@pytest.mark.parametrize(
    ("word", "choices", "meant"),
    [
        ("FP16", PRECISIONS, "fp16"),
        ("adamW2", OPTIMIZERS, "adamw"),
        ("cpus_per_node", Resources.model_fields, "cpus_per_gpu"),
        ("gpu_per_node", Resources.model_fields, "gpus_per_node"),
        ("GPUs_per_node", Resources.model_fields, "gpus_per_node"),
        ("Optimizer", Recipe.model_fields, "optimizer"),
        ("num_node", Resources.model_fields, "num_nodes"),
        ("node2", ["Node1", "Node2"], "Node2"),
        ("banana", OPTIMIZERS, None),
    ],
)
def test_a_misspelt_word_is_the_nearest_that_begins_alike(word: str, choices: list[str], meant: str | None) -> None:
    assert nearest(word, choices) == meant
