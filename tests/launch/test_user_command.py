"""A recipe's own command gets its plan's numbers, argument by argument; nothing is ever parsed by a shell."""

from __future__ import annotations

from pathlib import PurePosixPath

from orchestrator.cluster import LOCAL, Allocation
from orchestrator.launch.user_command import plan_values, user_command
from orchestrator.plan.plan import make_plan
from orchestrator.recipe.plan_names import PLAN_NAMES
from tests.plan.test_plan import recipe

PLAN = make_plan(recipe(), LOCAL, Allocation(2, 4))
RUN_DIR = PurePosixPath("/runs/toy")


def test_plan_values_are_filled_in_and_a_script_runs_under_python() -> None:
    command = ("train.py", "--micro=${plan.micro_batch_size}", "${plan.gradient_accumulation_steps}", "$(id); rm -rf x")
    assert user_command(command, PLAN, RUN_DIR, python="py") == ("py", "train.py", "--micro=16", "4", "$(id); rm -rf x")


def test_a_program_that_is_no_python_script_runs_as_it_is() -> None:
    assert user_command(("./train", "${plan.world_size}"), PLAN, RUN_DIR, python="py") == ("./train", "8")


def test_a_learning_rate_reads_back_to_the_last_bit() -> None:
    assert float(plan_values(PLAN, RUN_DIR)["lr"]) == PLAN.learning_rate.peak_lr


def test_every_name_a_recipe_may_use_has_a_value() -> None:
    assert set(plan_values(PLAN, RUN_DIR)) == set(PLAN_NAMES)
