"""Everything wrong is told at once, and nothing is concluded from what could not be read."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import Cluster
from orchestrator.documents import dump_yaml, parse_document
from orchestrator.errors import ClusterError, Problem, RecipeError
from orchestrator.kinds import kind_at
from orchestrator.plan.effective import BATCH_CHECKS
from orchestrator.plan.resources import resource_checks
from orchestrator.recipe.check import RULES
from orchestrator.recipe.interpolation import interpolated
from orchestrator.recipe.overrides import with_overrides
from orchestrator.recipe.read import read_recipe
from orchestrator.recipe.schema import Recipe
from orchestrator.recipe.targets import target_checks
from orchestrator.submit.prepare import read_both
from orchestrator.survey import survey

GOOD: dict[str, Any] = {
    "name": "good",
    "model": {"target": "model:build"},
    "loss": {"target": "model:loss"},
    "datasets": [
        {"name": "a", "target": "data:a", "num_samples": 100, "tokens_per_sample": 8},
        {"name": "b", "target": "data:b", "num_samples": 60, "tokens_per_sample": 9},
    ],
    "validation": [{"name": "c", "target": "data:c", "num_samples": 10}],
    "metrics": {"accuracy": {"target": "model:accuracy"}},
    "batch": {"effective": 32, "micro": 8, "on_indivisible": "nearest", "tolerance": 0.1},
    "optimizer": {"name": "sgd", "lr": 0.1, "base_batch": 16, "momentum": 0.9, "nesterov": True, "scaling": "linear"},
    "schedule": {"name": "inverse_sqrt", "warmup": {"epochs": 1}},
    "duration": {"tokens": 10_000},
    "evaluation": {"every": {"epochs": 1}},
    "resources": {"num_nodes": 2, "gpus_per_node": 4, "walltime": "2:00:00", "partition": "main"},
    "env": {"variables": {"A": "b"}},
}


CODE = "build = loss = accuracy = a = b = c = None\n"
SITE = Cluster.model_validate(
    {
        "name": "site",
        "scheduler": "slurm",
        "partitions": {"main": {"nodes": {"num_nodes": 2, "gpus": 4, "cpus": 64}, "max_walltime": "2:00:00"}},
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the good recipe's modules stand."""
    made = tmp_path_factory.mktemp("code")
    for module in ("model", "data"):
        (made / f"{module}.py").write_text(CODE)
    return made


def problems_in(text: str, *overrides: str, folder: Path = Path("nowhere")) -> tuple[Problem, ...]:
    """What a whole survey tells: text, overrides, interpolations, types, rules, targets, resources and the batch."""
    document = interpolated(with_overrides(parse_document(text, "good.yaml", RecipeError), overrides))
    targets = target_checks(folder) if folder.exists() else ()
    return survey(Recipe, document, (*RULES, *targets, *resource_checks(SITE), *BATCH_CHECKS)).problems


def problems_of(data: dict[str, Any], *overrides: str) -> tuple[Problem, ...]:
    return problems_in(dump_yaml(data), *overrides)


def paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every path in `value` but the root."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in ((*path, key), *paths(item, (*path, key)))]


def holder_of(data: Any, path: tuple[str | int, ...]) -> Any:
    """What holds `path`; None where that lies below something broken already."""
    try:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]]
    except (KeyError, IndexError, TypeError):
        return None
    return data


def spoil(data: dict[str, Any], path: tuple[str | int, ...], draw: random.Random) -> bool:
    """Break the value at `path`, in one of many ways; whether there was one."""
    holder = holder_of(data, path)
    if holder is None:
        return False
    way = draw.choice(["value", "misspelt", "nothing", "circle", "resolver", "tag"])
    above = kind_at(Recipe, path[:-1])
    if way == "misspelt" and above is not None and path[-1] in above.keys:
        holder[f"{path[-1]}x"] = holder.pop(path[-1])
        return True
    itself = "${" + ".".join(map(str, path)) + "}"
    spoilt = {"nothing": "${no.such.key}", "circle": itself, "resolver": "${oc.decode:3}", "tag": "TAG"}
    holder[path[-1]] = spoilt.get(way) or draw.choice([{"no": {"such": 1}}, [[]], -7.25])
    return True


def in_yaml(data: dict[str, Any]) -> str:
    """The text of `data`, with a tag where `spoil` left one."""
    return dump_yaml(data).replace(": TAG\n", ": !!python/name:os.x ''\n").replace("- TAG\n", "- !!timestamp ''\n")


def lies_in(key: str, path: str) -> bool:
    """Whether `key` is `path` (or `path` misspelt), or lies below it."""
    return any(f"{key}.".startswith(f"{name}.") for name in (path, f"{path}x"))


def test_the_good_recipe_is_good(folder: Path) -> None:
    assert problems_in(dump_yaml(GOOD), folder=folder) == ()


def test_whatever_is_broken_is_told_and_nothing_else_is_blamed(folder: Path) -> None:
    draw, places = random.Random(7), paths(GOOD)
    for _ in range(400):
        data = copy.deepcopy(GOOD)
        chosen = draw.sample(places, k=draw.randint(1, 5))
        broken = [".".join(map(str, path)) for path in chosen if spoil(data, path, draw)]
        told = [problem.key for problem in problems_in(in_yaml(data), folder=folder)]
        blamed = set(told)
        assert len(told) == len(blamed), (told, in_yaml(data))
        for key in blamed:
            assert any(lies_in(key, path) for path in broken), (key, broken, in_yaml(data))
        for path in broken:
            inner = not any(path.startswith(f"{other}.") for other in broken)
            assert not inner or any(lies_in(key, path) for key in blamed), (path, blamed, in_yaml(data))


def test_a_key_that_stands_twice_is_the_only_one_blamed(folder: Path) -> None:
    document = parse_document(dump_yaml(GOOD), "good.yaml", RecipeError)
    lines = dump_yaml(GOOD).splitlines()
    for path, place in document.places.items():
        before = lines[place.line - 1][: place.column - 1]
        if before.strip() or not isinstance(path[-1], str):
            continue  # it stands behind the dash of a list
        for value in ("{}", "3", "[no]"):
            twice = [*lines[: place.line - 1], f"{before}{path[-1]}: {value}", *lines[place.line - 1 :]]
            blamed = [problem.key for problem in problems_in("\n".join(twice), folder=folder)]
            assert blamed.count(".".join(map(str, path))) == 1
            assert all(lies_in(key, ".".join(map(str, path))) for key in blamed), (path, value, blamed)


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (("duration.tokens=many", "optimizer.nesterov=true", "optimizer.momentum=0.0"), 2),
        (("resources.num_nodes=", "batch.effective=x", "schedule.warmup.epochs=[}", "name=a/b"), 3),
        (("batch.micro=autp", "batch.nearest=1", "loader.worker=2"), 3),
    ],
)
def test_wrong_overrides_are_told_together_and_by_their_own_words(overrides: tuple[str, ...], keys: int) -> None:
    problems = problems_of(GOOD, *overrides)
    assert len(problems) >= keys
    assert {problem.where.split("=")[0] for problem in problems if problem.where.startswith("--set")}


RULES_BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"schedule": {"name": "inverse_sqrt"}}, "schedule.name"),
    ({"schedule": {"warmup": {"epochs": 9}}, "duration": {"epochs": 8}}, "schedule.warmup"),
    ({"duration": {"steps": 1, "epochs": 1}}, "duration"),
    ({"loss": None}, "loss"),
    ({"batch": {"effective": 32, "tolerance": 0.1}}, "batch.tolerance"),
    ({"batch": {"effective": 33}}, "batch.effective"),
    ({"optimizer": {"name": "adam", "lr": 0.1, "momentum": 0.9}}, "optimizer.momentum"),
    ({"evaluation": {"every": {}}}, "evaluation.every"),
    ({"datasets": [GOOD["datasets"][0], GOOD["datasets"][0]]}, "datasets.1.name"),
    ({"model": {"target": "model:bild"}}, "model.target"),
    ({"metrics": {"accuracy": {"target": "modle:accuracy"}}}, "metrics.accuracy.target"),
    ({"resources": {**GOOD["resources"], "num_nodes": 4}}, "resources.num_nodes"),
    ({"resources": {**GOOD["resources"], "walltime": "3:00:00"}}, "resources.walltime"),
    ({"resources": {**GOOD["resources"], "partition": "man"}}, "resources.partition"),
    ({"env": {"variables": {"HF_ENDPOINT": "x"}, "mirrors": {"huggingface": "y"}}}, "env.variables.HF_ENDPOINT"),
]


@pytest.mark.parametrize(("changes", "key"), RULES_BROKEN, ids=[key for _, key in RULES_BROKEN])
def test_a_broken_rule_is_told_beside_mistakes_of_every_earlier_stage(
    changes: dict[str, Any], key: str, folder: Path
) -> None:
    alone = problems_in(dump_yaml({**GOOD, **changes}), folder=folder)
    assert [problem.key for problem in alone] == [key]
    text = dump_yaml({**GOOD, **changes, "precision": "bf61", "tracking": {"uri": "${nothing}", "experiment": "a"}})
    text += "1: key\nseed: 1\nseed: 2\nloader: {wrkers: 1}\n"
    together = problems_in(text, "checkpoint.keep=[}", "tracking.experiment=${oc.decode:x}", folder=folder)
    others = {"precision", "tracking.uri", "", "seed", "loader.wrkers", "checkpoint.keep", "tracking.experiment"}
    assert {problem.key for problem in together} == {key} | others
    assert set(alone) <= set(together)


def test_problems_are_told_in_the_order_of_the_command_line_and_then_of_the_file() -> None:
    told = problems_of({**GOOD, "precision": "bf61", "name": "a/b"}, "seed=x", "batch.micro=", "loader=3")
    assert [problem.key for problem in told] == ["seed", "loader", "name", "precision"]


def test_a_misspelt_key_silences_the_rules_about_what_was_meant() -> None:
    data = copy.deepcopy(GOOD)
    data["schedule"]["warm_up"] = data["schedule"].pop("warmup")
    assert [problem.what for problem in problems_of(data)] == ["unknown key 'warm_up'"]


def test_of_a_recipe_with_a_merge_key_at_its_root_nothing_is_concluded() -> None:
    told = problems_in("<<: {name: x}\nprecision: 16\nbatch: {effective: 33}\n")
    assert [problem.key for problem in told] == ["", "precision"]


def test_a_partial_value_has_what_could_be_read_and_no_more() -> None:
    text = "name: site\nscheduler: slrum\npartitions:\n  a: 5\n  b: {max_walltime: 1:00:00, default: true}\n"
    cluster = survey(Cluster, parse_document(text, "site.yaml", ClusterError), ()).value
    assert cluster.name == "site"
    assert cluster.partitions["b"].default is True
    for absent in ("cluster.scheduler", "cluster.partitions['a'].default", "cluster.partitions['b'].max_walltime"):
        with pytest.raises(AttributeError):
            eval(absent, {"cluster": cluster})


SITE_TEXT = """\
name: site
scheduler: slurm
accelerator: gpu
partitions:
  main: {nodes: {num_nodes: 1, gpus: 4, cpus: 64}, max_walltime: 2:00:00, default: yes please}
"""


@pytest.mark.parametrize("precision", ["bf16", "bf61"])
def test_the_profile_and_the_recipe_are_told_together_and_against_each_other(precision: str, folder: Path) -> None:
    (folder / "recipe.yaml").write_text(dump_yaml({**GOOD, "precision": precision}))
    (folder / "site.yaml").write_text(SITE_TEXT)
    with pytest.raises(RecipeError) as caught:
        read_both(folder / "recipe.yaml", overrides=(), profile=folder / "site.yaml")
    told = [(Path(problem.place.source).name, problem.key) for problem in caught.value.problems if problem.place]
    recipe = [("recipe.yaml", "precision")] if precision == "bf61" else []
    assert told == [
        ("recipe.yaml", "resources.num_nodes"),
        *recipe,
        ("site.yaml", "accelerator"),
        ("site.yaml", "partitions.main.max_walltime"),
        ("site.yaml", "partitions.main.default"),
    ]


def test_a_profile_that_is_no_yaml_is_told_beside_the_recipes_problems(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(dump_yaml({**GOOD, "precision": "bf61"}))
    (folder / "site.yaml").write_text("name: [site\n")
    with pytest.raises(RecipeError) as caught:
        read_both(folder / "recipe.yaml", overrides=(), profile=folder / "site.yaml")
    precision, syntax = caught.value.problems
    assert (precision.key, syntax.what.partition(":")[0]) == ("precision", "not valid YAML")


def test_a_bug_in_a_rule_is_not_swallowed_when_everything_could_be_read(tmp_path: Path) -> None:
    def broken_rule(recipe: Recipe) -> tuple[Problem, ...]:
        return (recipe.nothing_of_that_name,)  # type: ignore[attr-defined]

    (tmp_path / "recipe.yaml").write_text(dump_yaml(GOOD))
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        read_recipe(tmp_path / "recipe.yaml", checks=(broken_rule,))


def test_a_profile_error_alone_is_a_cluster_error(tmp_path: Path) -> None:
    recipe = Path(__file__).parent / "data" / "recipes" / "tiny.yaml"
    (tmp_path / "site.yaml").write_text("name: site\nscheduler: slrum\n")
    with pytest.raises(ClusterError):
        read_both(recipe, overrides=(), profile=tmp_path / "site.yaml")
