"""Shapes: what a site offers a recipe, each really planned; the traps stand below with their reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster import Cluster
from orchestrator.plan.memory import MemoryPlan, PeakCurve
from orchestrator.plan.resources import check_resources
from orchestrator.plan.shape_options import ShapeOption, idle_share, plan_shapes, ranked
from orchestrator.plan.shapes import MOST_SHAPES, MOST_TRAPS, Shape, candidate_shapes, left_out, shaped
from orchestrator.recipe.schema import Recipe
from tests.plan.recipes import recipe

SITE = Cluster.model_validate(
    {
        "name": "site",
        "scheduler": "slurm",
        "accelerator": "cuda",
        "partitions": {
            "gpu": {"nodes": {"num_nodes": 8, "gpus": 8, "gpu_type": "a100", "cpus": 64}, "default": True},
            "short": {"nodes": {"num_nodes": 2, "gpus": 4, "gpu_type": "v100", "cpus": 32}, "max_walltime": "0:20:00"},
            "cpu": {"nodes": {"num_nodes": 4, "cpus": 16}},
        },
    }
)


def asking(num_nodes: int = 1, gpus_per_node: int = 8, *, batch: dict[str, Any] | None = None, **more: Any) -> Recipe:
    resources = {"num_nodes": num_nodes, "gpus_per_node": gpus_per_node, "walltime": "0:30:00", **more}
    return recipe(batch=batch or {"effective": 1024, "micro": 16}, resources=resources)


def planned(wanted: Recipe, cluster: Cluster = SITE, **more: Any) -> dict[tuple[int, int], ShapeOption]:
    """The options by nodes and GPUs per node, in the order of their rank."""
    options = ranked(plan_shapes(wanted, cluster, accelerator="cuda", **more))
    return {(option.shape.num_nodes, option.shape.gpus_per_node): option for option in options}


@given(
    st.integers(min_value=1, max_value=5000),
    st.tuples(st.integers(min_value=1, max_value=70), st.integers(min_value=1, max_value=8)),
    st.lists(
        st.tuples(st.integers(min_value=1, max_value=600), st.integers(min_value=0, max_value=16)),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(["refuse", "uneven", "nearest"]),
)
def test_the_shapes_are_few_all_of_the_site_and_every_exact_one_has_the_very_batch(
    batch: int, own: tuple[int, int], kinds: list[tuple[int, int]], policy: str
) -> None:
    partitions = {
        f"p{index}": {"nodes": {"num_nodes": num_nodes, "gpus": gpus, "cpus": 32}, "default": index == 0}
        for index, (num_nodes, gpus) in enumerate(kinds)
    }
    site = Cluster.model_validate(
        {"name": "some", "scheduler": "slurm", "accelerator": "cuda", "partitions": partitions}
    )
    wanted = asking(*own, batch={"effective": batch, "on_indivisible": policy})
    first, *others = plan_shapes(wanted, site, accelerator="cuda")
    assert (first.shape, first.is_own) == (Shape(*own, "p0"), True)
    shapes = [first.shape, *(option.shape for option in others)]
    assert len(set(shapes)) == len(shapes) <= MOST_SHAPES
    assert sum(batch % shape.world_size != 0 for shape in shapes[1:]) <= MOST_TRAPS
    assert not any(check_resources(shaped(wanted, shape).resources, site) for shape in shapes[1:])
    for option in (first, *others):
        size = option.plan and option.plan.batch.effective_batch_size
        assert option.is_exact == (size == batch)
        assert option.is_exact or option.why_not


def test_a_full_node_powers_of_two_and_divisors_of_the_batch_are_offered() -> None:
    worlds = {shape.world_size for shape in candidate_shapes(asking(batch={"effective": 480}), SITE)}
    assert {1, 2, 4, 8, 16, 32, 24, 40} <= worlds


def test_24_gpus_for_1024_are_a_trap_told_with_the_worlds_that_divide_it() -> None:
    options = planned(asking())
    assert options[3, 8].why_not == "1,024 is not divisible by 24; 16 or 32 GPUs divide it"
    assert options[6, 8].why_not == "1,024 is not divisible by 48; 32 or 64 GPUs divide it"
    exact = [option.is_exact for option in options.values()]
    assert exact == sorted(exact, reverse=True)


def test_the_recipes_own_shape_is_there_though_it_be_the_trap_or_too_large() -> None:
    own, *others = plan_shapes(asking(3, 8), SITE, accelerator="cuda")
    assert (own.is_own, own.why_not) == (True, "1,024 is not divisible by 24; 16 or 32 GPUs divide it")
    assert 24 not in {option.shape.world_size for option in others}
    own, *others = plan_shapes(asking(9, 8), SITE, accelerator="cuda")
    assert own.why_not == "9 nodes are more than the 8 in partition 'gpu'"
    assert any(option.is_exact for option in others)


def test_fewer_samples_than_gpus_are_told_apart_from_a_remainder() -> None:
    assert planned(asking(1, 8, batch={"effective": 6}))[1, 8].why_not == (
        "6 samples are too few for 8 GPUs; 6 can share them"
    )


def test_uneven_ranks_make_no_trap_of_any_world_but_leave_slots_idle() -> None:
    option = planned(asking(3, 8, batch={"effective": 1024, "micro": 16, "on_indivisible": "uneven"}))[3, 8]
    assert option.is_exact and option.plan is not None
    assert option.plan.batch.kind == "uneven"
    assert idle_share(option.plan.batch, 24) == pytest.approx(1 - 1024 / (24 * 3 * 15))


def test_the_nearest_batch_is_another_batch() -> None:
    option = planned(asking(3, 8, batch={"effective": 1024, "micro": 16, "on_indivisible": "nearest"}))[3, 8]
    assert not option.is_exact
    assert option.why_not == "the batch would be 1,032, not 1,024, and the lr would follow it"


def test_ragged_micro_batches_leave_the_idle_share_that_the_formula_says() -> None:
    option = planned(asking(1, 8, batch={"effective": 488, "micro": 16}))[1, 8]
    assert option.plan is not None
    assert idle_share(option.plan.batch, 8) == pytest.approx(1 - 488 / (8 * 4 * 16))


def test_a_partition_that_is_too_slow_or_has_no_gpus_is_left_out_with_the_reason() -> None:
    assert left_out(asking(), SITE) == {
        "short": "0:30:00 is longer than partition 'short' allows",
        "cpu": "1 GPUs per node are more than the 0 in partition 'cpu'",
    }
    assert {shape.partition for shape in candidate_shapes(asking(), SITE)} == {"gpu"}


def test_only_partitions_with_the_wanted_gpu_type_are_offered() -> None:
    wanted = asking(1, 4, walltime="0:10:00", gpu_type="v100", partition="short")
    assert {shape.partition for shape in candidate_shapes(wanted, SITE)} == {"short"}
    both = asking(1, 4, walltime="0:10:00")
    assert {shape.partition for shape in candidate_shapes(both, SITE)} == {"gpu", "short"}


def with_gpu_memory(gpu: str, short: str) -> Cluster:
    sizes = {"gpu": gpu, "short": short}
    partitions = {
        name: partition.model_copy(update={"nodes": partition.nodes.model_copy(update={"gpu_memory": sizes.get(name)})})
        for name, partition in SITE.partitions.items()
    }
    return SITE.model_copy(update={"partitions": partitions})


@pytest.mark.parametrize(
    ("site", "is_exact"),
    [(SITE, False), (with_gpu_memory("80G", "32G"), False), (with_gpu_memory("32G", "32G"), True)],
    ids=["unknown", "smaller", "as large"],
)
def test_a_micro_batch_that_was_meant_for_another_gpu_is_taken_only_where_it_must_fit(
    site: Cluster, is_exact: bool
) -> None:
    options = plan_shapes(asking(1, 4, walltime="0:10:00"), site, accelerator="cuda")
    short = [option for option in options if option.shape.partition == "short" and option.shape.world_size == 4]
    assert short and all(option.is_exact == is_exact for option in short)
    assert is_exact or short[0].why_not.startswith("its GPUs are v100, not a100: whether the micro-batch fits is not")


def test_where_there_are_no_gpus_a_whole_node_is_as_many_ranks_as_it_has_cores_for() -> None:
    site = SITE.model_copy(update={"accelerator": "cpu"})
    shapes = candidate_shapes(asking(1, 1, cpus_per_gpu=2, partition="cpu"), site)
    assert Shape(4, 8, "cpu") in shapes
    assert max(shape.gpus_per_node for shape in shapes if shape.partition == "cpu") == 8


def test_with_per_gpu_every_shape_has_a_batch_of_its_own() -> None:
    options = planned(asking(1, 2, batch={"per_gpu": 32}))
    sizes = {world: option.plan and option.plan.batch.effective_batch_size for world, option in options.items()}
    assert (sizes[1, 1], sizes[1, 2], sizes[8, 8]) == (32, 64, 2048)


def test_a_batch_norm_makes_another_model_of_other_micro_batches() -> None:
    options = planned(asking(1, 8, batch={"effective": 64}), batch_norm="model.py:14")
    assert options[1, 8].is_exact and options[2, 4].is_exact
    assert options[1, 4].why_not == "model.py:14 normalises over micro-batches, here of 16: another model"
    trap = planned(asking(3, 8, batch={"effective": 64, "micro": 8}), batch_norm="model.py:14")
    assert (trap[1, 8].is_exact, trap[2, 8].is_exact) == (True, False)


def test_what_fits_is_asked_for_each_shape_and_what_does_not_fit_is_told() -> None:
    def memory_of(wanted: Recipe) -> MemoryPlan:
        most = 0 if wanted.resources.partition == "short" else 4
        curve = PeakCurve.through({1: 1}, step_bytes=1)
        return MemoryPlan("simulated", 1, 1, most, most, accumulating=curve, single=curve)

    wanted = asking(1, 4, walltime="0:10:00", batch={"effective": 64, "micro": "auto"})
    options = plan_shapes(wanted, SITE, accelerator="cuda", memory_of=memory_of)
    accumulation = {option.shape: option.plan and option.plan.batch.gradient_accumulation_steps for option in options}
    assert (accumulation[Shape(1, 4, "gpu")], accumulation[Shape(1, 2, "gpu")]) == (4, 8)
    short = [option for option in options if option.shape.partition == "short"]
    assert short and all(option.plan is None and "not one sample fits" in option.why_not for option in short)


def order(options: list[ShapeOption]) -> list[tuple[int, int]]:
    return [(option.shape.num_nodes, option.shape.gpus_per_node) for option in ranked(options) if option.is_exact]


def test_without_estimates_fewer_accumulation_steps_come_first_and_the_recipes_own_shape_among_equals() -> None:
    options = plan_shapes(asking(4, 8), SITE, accelerator="cuda")
    steps = [option.plan.batch.gradient_accumulation_steps for option in ranked(options) if option.plan]
    assert steps == sorted(steps)
    assert order(plan_shapes(asking(4, 8, batch={"effective": 1024}), SITE, accelerator="cuda"))[0] == (4, 8)


def test_the_earliest_start_comes_first_and_an_unknown_one_last() -> None:
    options = plan_shapes(asking(4, 8), SITE, accelerator="cuda")
    waits = {(1, 8): 0.0, (2, 8): 0.0, (4, 8): 3600.0}
    options = [replace(o, wait_s=waits.get((o.shape.num_nodes, o.shape.gpus_per_node))) for o in options]
    assert order(options)[:3] == [(2, 8), (1, 8), (4, 8)]
    at_once = [replace(option, wait_s=0.0) for option in options]
    assert order(at_once)[0] == (4, 8)


def test_where_speeds_are_known_the_earliest_end_comes_first() -> None:
    options = plan_shapes(asking(1, 8), SITE, accelerator="cuda")
    facts = {(1, 8): (0.0, 500.0), (4, 8): (600.0, 2000.0), (2, 8): (0.0, None)}
    known = []
    for option in options:
        wait_s, speed = facts.get((option.shape.num_nodes, option.shape.gpus_per_node), (None, None))
        known.append(replace(option, wait_s=wait_s, samples_per_s=speed))
    slow, fast = (next(o for o in known if (o.shape.num_nodes, o.shape.gpus_per_node) == s) for s in [(1, 8), (4, 8)])
    assert (slow.duration_s, slow.end_s) == (649_528 / 500, 649_528 / 500)
    assert fast.end_s == 600 + 649_528 / 2000
    assert fast.gpu_hours == pytest.approx(649_528 / 2000 / 3600 * 32)
    assert order(known)[:3] == [(4, 8), (1, 8), (2, 8)]


def with_facts(
    options: list[ShapeOption], facts: dict[tuple[int, int], tuple[float, float | None]]
) -> list[ShapeOption]:
    """Of `options` those with (wait in seconds, samples per second or None) in `facts`."""
    shapes = {(option.shape.num_nodes, option.shape.gpus_per_node): option for option in options}
    return [replace(shapes[key], wait_s=wait, samples_per_s=speed) for key, (wait, speed) in facts.items()]


NOW, HOUR = 0.0, 3600.0


@pytest.mark.parametrize(
    ("facts", "best_first"),
    [
        ({(1, 8): (HOUR, 800.0), (2, 8): (NOW, None), (1, 4): (NOW, None)}, [(1, 4), (2, 8), (1, 8)]),
        ({(1, 8): (NOW, 400.0), (2, 8): (NOW + 30, 800.0), (1, 4): (NOW + 50, None)}, [(2, 8), (1, 8), (1, 4)]),
        ({(1, 8): (NOW, None), (2, 8): (NOW, 800.0), (1, 4): (NOW, 400.0)}, [(1, 8), (2, 8), (1, 4)]),
        ({(1, 8): (HOUR, 4000.0), (1, 4): (NOW, 400.0), (1, 1): (NOW, 100.0), (2, 8): (NOW, None)},
         [(1, 4), (2, 8), (1, 8), (1, 1)]),
        ({(1, 8): (NOW, 400.0), (4, 8): (600.0, 2000.0), (2, 8): (NOW, None)}, [(4, 8), (1, 8), (2, 8)]),
        ({(1, 8): (HOUR, 4000.0), (1, 4): (NOW, 400.0), (2, 8): (600.0, 2000.0)}, [(2, 8), (1, 4), (1, 8)]),
    ],
    ids=[
        "a known end in an hour is not sooner than an unknown one that starts now",
        "of what starts within a minute the earliest known end comes first",
        "the own shape is left only for one that is known to be sooner",
        "what is known to end after the own shape is not sooner for starting before it",
        "an end before the own shape's is sooner though it start later",
        "where all ends are known they alone decide",
    ],
)  # fmt: skip
def test_ends_are_compared_where_that_is_fair(
    facts: dict[tuple[int, int], tuple[float, float | None]], best_first: list[tuple[int, int]]
) -> None:
    options = plan_shapes(asking(1, 8, walltime="3:00:00"), SITE, accelerator="cuda")
    assert order(with_facts(options, facts)) == best_first


def test_a_run_that_outlasts_its_walltime_has_no_end_in_one_job() -> None:
    own = plan_shapes(asking(1, 8), SITE, accelerator="cuda")[0]
    option = replace(own, wait_s=0.0, samples_per_s=649_528 / 4000)
    assert (option.duration_s, option.num_jobs, option.end_s) == (4000, 3, None)
