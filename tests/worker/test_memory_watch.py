"""What a rank says when its memory runs out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from orchestrator.errors import Problem
from orchestrator.files import read_json
from orchestrator.recipe.memory_limit import VARIABLE, pretended_limits
from orchestrator.recipe.schema import Recipe
from orchestrator.worker.failure import kind_of, ran_out_of_memory, write_failure
from orchestrator.worker.memory_watch import MemoryWatch, OutOfMemory
from tests.worker.recipes import POINTS, recipe

CPU = torch.device("cpu")


def watch(rank: int = 0, *, limit: str | None = None, **changes: object) -> MemoryWatch:
    variables = {} if limit is None else {VARIABLE: limit}
    wanted = Recipe.model_validate(recipe(POINTS, env={"variables": variables}, **changes))
    return MemoryWatch.of(wanted, rank=rank, device=CPU)


def test_torchs_own_allocator_on_a_cpu_that_gets_nothing_is_out_of_memory(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemory) as raised, watch().micro_batch(6, step=3):
        torch.empty(1 << 60, dtype=torch.uint8)
    message = write_failure(tmp_path / "error.json", raised.value, rank=1, user_folder=None)
    assert message == "step 3: out of memory at a micro-batch of 6 samples"
    told = read_json(tmp_path / "error.json")
    assert (told["type"], told["micro_batch_size"], told["step"]) == ("OutOfMemory", 6, 3)
    assert "can't allocate memory" in told["traceback"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        MemoryError(),
        OutOfMemory(Problem("step 3", "out of memory"), {}),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
    ],
)
def test_every_allocation_that_fails_is_out_of_memory_wherever_it_was(error: BaseException) -> None:
    assert ran_out_of_memory(error) and kind_of(error) == "OutOfMemory"


def test_other_errors_pass_through_as_they_are() -> None:
    with pytest.raises(ValueError, match="mine"), watch().micro_batch(6, step=3):
        raise ValueError("mine: out of memory, said the user")


def test_a_pretended_limit_holds_for_the_ranks_and_steps_that_it_names() -> None:
    def fits(num_samples: int, *, rank: int, step: int) -> bool:
        try:
            with watch(rank, limit="8, 1:4, 2@100").micro_batch(num_samples, step):
                return True
        except OutOfMemory:
            return False

    assert fits(8, rank=0, step=1) and not fits(9, rank=0, step=1)
    assert fits(4, rank=1, step=99) and not fits(5, rank=1, step=1)
    assert not fits(3, rank=0, step=100) and fits(0, rank=0, step=100)
    assert pretended_limits(Recipe.model_validate(POINTS)) == ()


def test_an_evaluation_that_runs_out_shrinks_with_the_micro_batch_unless_the_recipe_fixes_it() -> None:
    for changes, size in (({}, 7), ({"evaluation": {"batch": 7}}, None)):
        told = "evaluation: out of memory at 7 samples"
        with pytest.raises(OutOfMemory, match=told) as raised, watch(**changes).evaluation(7):
            raise MemoryError
        assert raised.value.facts.get("micro_batch_size") == size
        assert ("evaluation.batch" in str(raised.value)) == (size is None)
