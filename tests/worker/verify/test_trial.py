"""What the ranks of a verification are given: the recipe's science, and nothing that only changes its speed."""

from __future__ import annotations

from pathlib import Path

from orchestrator.cluster import LOCAL, Allocation
from orchestrator.plan.plan import make_plan
from orchestrator.plan.verification import Case
from orchestrator.recipe.read import recipe_from_stored
from orchestrator.worker.verify.trial import Question
from tests.support.worlds import make_run
from tests.worker.recipes import CODE, POINTS, recipe


def test_no_loader_process_is_started_nor_tried(tmp_path: Path) -> None:
    wanted = recipe(POINTS, loader={"workers": 4}, tuning={"workers": "auto"}, compile=True)
    run = make_run(tmp_path / "run", wanted, CODE)
    read = recipe_from_stored(run.recipe.read_text(), "recipe.yaml")
    question = Question(run, read, make_plan(read, LOCAL, Allocation(1, 1)))
    given = question.inputs(Case(world_size=2, largest_micro_batch=3), "fp64").recipe
    assert (given.loader.workers, given.tuning.workers, given.compile) == (0, "off", False)
    assert (given.optimizer, given.batch, given.seed) == (read.optimizer, read.batch, read.seed)
