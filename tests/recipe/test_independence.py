"""A broken rule is told whatever else is broken: a rule hangs on the fields that it is about, and on no others."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from orchestrator.cluster import Cluster
from orchestrator.documents import dump_yaml, parse_document
from orchestrator.errors import RecipeError
from orchestrator.kinds import kind_of
from orchestrator.plan.effective import BATCH_CHECKS
from orchestrator.plan.resources import resource_checks
from orchestrator.recipe.check import RULES
from orchestrator.recipe.schema import Recipe
from orchestrator.recipe.targets import target_checks
from orchestrator.survey import survey

DATA = {"target": "model:data", "num_samples": 100}
GOOD: dict[str, Any] = {
    "name": "good",
    "model": {"target": "model:build"},
    "loss": {"target": "model:loss"},
    "datasets": [{"name": "a", **DATA}, {"name": "b", **DATA}, {"name": "c", **DATA}],
    "batch": {"effective": 32},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "duration": {"epochs": 2},
}
COMMAND = {"command": ["model.py", "${plan.micro_batch_size}"], "model": None, "loss": None, "datasets": []}
SESSION = {name: value for name, value in COMMAND.items() if name != "datasets"}
BROKEN = ((),)
"""What no field can hold."""
SITE = Cluster.model_validate(
    {
        "name": "site",
        "scheduler": "slurm",
        "partitions": {"main": {"nodes": {"num_nodes": 2, "gpus": 4, "cpus": 64}, "max_walltime": "2:00:00"}},
    }
)
TOKENS = {"effective": 160, "unit": "tokens", "sequence_length": 16}

VIOLATIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"loss": None}, "loss", "command loss"),
    ({**COMMAND, "model": GOOD["model"], "duration": {"steps": 2}}, "model", "command model"),
    ({"batch.per_gpu": 8}, "batch", "batch.{effective,per_gpu}"),
    ({"duration.steps": 3}, "duration", "duration.{epochs,steps}"),
    ({"checkpoint.every": {"steps": 3, "epochs": 1}}, "checkpoint.every", "checkpoint.every.{steps,epochs}"),
    (
        {"validation": [{"name": "v", **DATA}], "evaluation.every": {"steps": 3, "epochs": 1}},
        "evaluation.every",
        "evaluation.every.{steps,epochs}",
    ),
    ({"datasets.2.name": "b"}, "datasets.2.name", "datasets.1.name datasets.2.name"),
    (
        {"duration": {"tokens": 9}},
        "datasets.2.tokens_per_sample",
        "duration.tokens batch.unit datasets.2.{tokens_per_sample,chars_per_sample}",
    ),
    (
        {**COMMAND, "checkpoint.every": {"epochs": 1}, "duration": {"steps": 2}},
        "checkpoint.every.epochs",
        "command datasets checkpoint.every.epochs",
    ),
    (
        {**COMMAND, "mixture": {"strategy": "round_robin"}, "duration": {"steps": 2}},
        "mixture",
        "command datasets mixture",
    ),
    ({**SESSION, "evaluation.batch": 8}, "evaluation", "command datasets evaluation"),
    (
        {**SESSION, "activation_checkpointing": True},
        "activation_checkpointing",
        "command datasets activation_checkpointing",
    ),
    ({**SESSION, "loss": GOOD["loss"]}, "loss", "command loss"),
    ({**SESSION, "batch.on_indivisible": "uneven"}, "batch.on_indivisible", "command batch.on_indivisible"),
    (
        {"schedule.warmup": {"samples": 601}},
        "schedule.warmup",
        "duration schedule.warmup mixture datasets.0.num_samples datasets.1.num_samples datasets.2.num_samples",
    ),
    ({"batch": {"per_gpu": 8, "on_indivisible": "nearest"}}, "batch.on_indivisible", "batch.{per_gpu,on_indivisible}"),
    ({"batch.tolerance": 0.2}, "batch.tolerance", "batch.{tolerance,on_indivisible}"),
    ({"batch.equal_micro": True}, "batch.equal_micro", "batch.{micro,equal_micro}"),
    ({"batch.micro": 4, "batch.micro_multiple": 8}, "batch.micro_multiple", "batch.{micro,micro_multiple,equal_micro}"),
    (
        {"batch.micro": 4, "batch.equal_micro": True, "batch.on_indivisible": "uneven"},
        "batch.equal_micro",
        "batch.{equal_micro,on_indivisible}",
    ),
    (
        {**COMMAND, "batch.on_indivisible": "uneven", "duration": {"steps": 2}},
        "batch.on_indivisible",
        "command batch.on_indivisible",
    ),
    ({"batch.sequence_length": 16}, "batch.sequence_length", "batch.{unit,sequence_length}"),
    (
        {"batch": {**TOKENS, "effective": 161}},
        "batch.effective",
        "batch.{unit,sequence_length,effective} resources.{num_nodes,gpus_per_node}",
    ),
    (
        {"batch": TOKENS, "datasets.2.tokens_per_sample": 17},
        "datasets.2.tokens_per_sample",
        "batch.{unit,sequence_length} datasets.2.tokens_per_sample",
    ),
    (
        {"optimizer.weight_decay": 0.1, "optimizer.name": "lars", "optimizer.target": "model:build"},
        "optimizer.weight_decay",
        "command optimizer.{name,weight_decay}",
    ),
    ({"optimizer.eps": 0.1}, "optimizer.eps", "optimizer.{name,eps}"),
    ({"optimizer.nesterov": True}, "optimizer.nesterov", "optimizer.{name,momentum,nesterov}"),
    ({"optimizer.scaling": "sqrt"}, "optimizer.scaling", "optimizer.{scaling,base_batch}"),
    ({"optimizer.target": "model:build"}, "optimizer.target", "command optimizer.{name,target}"),
    ({"optimizer.args": {"a": 1}}, "optimizer.args", "optimizer.{target,args}"),
    ({"schedule.final_ratio": 0.1}, "schedule.final_ratio", "schedule.{name,final_ratio}"),
    ({"schedule.name": "inverse_sqrt"}, "schedule.name", "schedule.{name,warmup}"),
    ({"metrics": {"a": {"target": "model:loss"}}}, "metrics", "command validation metrics"),
    ({"evaluation.every": {"epochs": 1}}, "evaluation.every", "command validation evaluation.every"),
    (
        {"env": {"variables": {"HF_ENDPOINT": "x"}, "mirrors": {"huggingface": "y"}}},
        "env.variables.HF_ENDPOINT",
        "env.variables env.mirrors.huggingface",
    ),
    ({"assets.a": {"git": "x"}}, "assets.a.commit", "assets.a.{tokenizer,model,url,package,wheel,git,prepare,commit}"),
    ({"loss.count": "model:none"}, "loss.count", "loss.count"),
    ({"datasets.1.target": "model:none"}, "datasets.1.target", "datasets.1.target"),
    (
        {"resources.gpus_per_node": 3},
        "batch.effective",
        "command batch.equal_micro batch.{effective,per_gpu,unit,on_indivisible} resources.{num_nodes,gpus_per_node}",
    ),
    (
        {"optimizer": {"name": "other", "target": "model:build", "lr": 0.1, "base_batch": 16}},
        "optimizer.scaling",
        "optimizer.{name,scaling,base_batch,lr} batch.{effective,per_gpu,unit,on_indivisible}",
    ),
    ({"resources.num_nodes": 3, "batch.effective": 33}, "resources.num_nodes", "resources.{num_nodes,partition}"),
]
"""Changes of a good recipe, the key of the problem that they make, and all that it hangs on: `a.{b,c}` are two."""


def made(data: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`data` with other values at dotted keys; what is not there yet is opened."""
    changed = copy.deepcopy(data)
    for key, value in changes.items():
        *above, last = (int(part) if part.isdecimal() else part for part in key.split("."))
        holder: Any = changed
        for part in above:
            if isinstance(holder, dict) and holder.get(part) is None:
                holder[part] = {}
            holder = holder[part]
        holder[last] = value
    return changed


def fields(model: type[BaseModel], found: Any, path: str = "") -> Iterator[str]:
    """Every field that a document could hold, by its dotted key; entries are those in `found`."""
    for name, field in model.model_fields.items():
        kind, here = kind_of(field.annotation, field=field), f"{path}{name}"
        value = found.get(name) if isinstance(found, dict) else None
        if kind.is_model:
            yield from fields(kind.type, value, f"{here}.")
            continue
        below = (
            kind_of(get_args(kind.type)[-1 if get_origin(kind.type) is dict else 0]) if get_args(kind.type) else kind
        )
        if not below.is_model or not value:
            yield here
            continue
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from fields(below.type, entry, f"{here}.{key}.")


def told(data: dict[str, Any], folder: Path) -> set[tuple[str, str, str]]:
    document = parse_document(dump_yaml(data), "good.yaml", RecipeError)
    checks = (*RULES, *target_checks(folder), *resource_checks(SITE), *BATCH_CHECKS)
    return {(found.key, found.what, found.fix) for found in survey(Recipe, document, checks).problems}


def spelt_out(needed: str) -> Iterator[str]:
    for part in needed.split():
        above, _, names = part.rstrip("}").partition("{")
        yield from (above + name for name in names.split(","))


def hangs_on(key: str, needed: str) -> bool:
    return any(f"{key}.".startswith(f"{one}.") or f"{one}.".startswith(f"{key}.") for one in spelt_out(needed))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("code")
    (made / "model.py").write_text("build = loss = data = None\n")
    return made


def test_the_good_recipe_is_good(folder: Path) -> None:
    assert told(made(GOOD, {"resources.partition": "main"}), folder) == set()


@pytest.mark.parametrize(
    ("changes", "key", "needed"), VIOLATIONS, ids=[f"{key}-{sorted(c)[0]}" for c, key, _ in VIOLATIONS]
)
def test_a_broken_rule_is_told_with_every_other_field_broken(
    changes: dict[str, Any], key: str, needed: str, folder: Path
) -> None:
    recipe = made(GOOD, {"resources.partition": "main", **changes})
    alone = {problem for problem in told(recipe, folder) if problem[0] == key}
    assert alone
    others = [field for field in fields(Recipe, recipe) if not hangs_on(field, needed)]
    assert len(others) > 60
    assert alone <= told(made(recipe, dict.fromkeys(others, BROKEN)), folder)


@pytest.mark.parametrize(
    ("changes", "key", "needed"), VIOLATIONS, ids=[f"{key}-{sorted(c)[0]}" for c, key, _ in VIOLATIONS]
)
def test_a_broken_rule_is_told_beside_each_broken_section(
    changes: dict[str, Any], key: str, needed: str, folder: Path
) -> None:
    recipe = made(GOOD, {"resources.partition": "main", **changes})
    alone = {problem for problem in told(recipe, folder) if problem[0] == key}
    sections = [name for name in Recipe.model_fields if not hangs_on(name, needed)]
    assert alone <= told(made(recipe, dict.fromkeys(sections, 5)), folder)
