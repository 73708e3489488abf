"""Rules between the sections of a recipe; the texts of their refusals are pinned in tests/recipes_bad."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.recipe.check import check_recipe
from orchestrator.recipe.schema import Recipe

GOOD: dict[str, Any] = {
    "name": "good",
    "model": {"target": "model:build"},
    "datasets": [{"name": "train", "target": "data:train", "num_samples": 100}],
    "loss": {"target": "model:loss"},
    "batch": {"effective": 10},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "duration": {"epochs": 2},
}
COMMAND = {
    **{key: GOOD[key] for key in ("name", "batch", "optimizer")},
    "command": ["train.py"],
    "duration": {"steps": 10},
}
SESSION = {**COMMAND, "datasets": GOOD["datasets"], "duration": {"epochs": 2}}


def keys(base: dict[str, Any], **changes: Any) -> list[str]:
    """The keys that `base` with `changes` is refused for."""
    return [problem.where for problem in check_recipe(Recipe.model_validate({**base, **changes}))]


def test_good_recipes_pass() -> None:
    assert keys(GOOD) == []
    assert keys(COMMAND) == []
    assert keys(SESSION) == []


def test_off_is_a_word_though_yaml_takes_it_for_false() -> None:
    assert Recipe.model_validate({**GOOD, "tuning": {"workers": False}}).tuning.workers == "off"


def test_a_command_beside_datasets_opens_a_session_and_one_alone_is_a_plain_command() -> None:
    kinds = {"model": GOOD, "plain": COMMAND, "empty": {**COMMAND, "datasets": []}, "session": SESSION}
    read = {name: Recipe.model_validate(kind) for name, kind in kinds.items()}
    assert [name for name, recipe in read.items() if recipe.opens_session] == ["session"]
    assert [name for name, recipe in read.items() if recipe.is_plain_command] == ["plain", "empty"]


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"schedule": {"warmup": {"epochs": 3}}}, True),
        ({"schedule": {"warmup": {"epochs": 2}}}, False),
        ({"schedule": {"warmup": {"samples": 201}}}, True),
        ({"schedule": {"warmup": {"samples": 200}}}, False),
        ({"schedule": {"warmup": {"steps": 21}}}, True),
        ({"schedule": {"warmup": {"steps": 20}}}, False),
        ({"schedule": {"warmup": {"steps": 21}}, "batch": {"per_gpu": 4}}, False),
        ({"schedule": {"warmup": {"steps": 21}}, "batch": {"per_gpu": 4}, "duration": {"steps": 20}}, True),
        ({"schedule": {"warmup": {"ratio": 1.0}}}, False),
        ({"schedule": {"warmup": {"epochs": 1}}, "duration": {"samples": 99}}, True),
    ],
)
def test_a_warm_up_ends_before_the_training_where_the_recipe_can_tell(changes: dict[str, Any], refused: bool) -> None:
    assert keys(GOOD, **changes) == (["schedule.warmup"] if refused else [])


@pytest.mark.parametrize(
    ("optimizer", "refused"),
    [
        ({"name": "sgd", "momentum": 0.9, "nesterov": True}, []),
        ({"name": "sgd", "nesterov": True}, ["optimizer.nesterov"]),
        ({"name": "sgd", "betas": [0.9, 0.999], "eps": 1e-8}, []),
        ({"name": "sgd", "eps": 1e-6}, ["optimizer.eps"]),
        ({"name": "adamw", "betas": [0.9, 0.95], "eps": 1e-6}, []),
        ({"name": "adamw", "momentum": 0.9, "nesterov": True}, ["optimizer.momentum", "optimizer.nesterov"]),
        ({"name": "adam", "scaling": "sqrt"}, ["optimizer.scaling"]),
        ({"name": "adam", "scaling": "none"}, []),
        ({"name": "adam", "scaling": "sqrt", "base_batch": 256}, []),
        ({"name": "nadam", "betas": [0.9, 0.95], "eps": 1e-6, "weight_decay": 0.1}, []),
        ({"name": "radam", "nesterov": True, "momentum": 0.9}, ["optimizer.momentum", "optimizer.nesterov"]),
        ({"name": "rmsprop", "momentum": 0.9, "eps": 1e-6, "weight_decay": 0.1}, []),
        ({"name": "rmsprop", "betas": [0.9, 0.95], "nesterov": True}, ["optimizer.betas", "optimizer.nesterov"]),
        ({"name": "adafactor", "weight_decay": 0.1}, []),
        ({"name": "adafactor", "eps": 1e-6}, ["optimizer.eps"]),
        ({"name": "lamb", "target": "o:lamb", "args": {"betas": [0.9, 0.95]}}, []),
        ({"name": "lamb", "target": "o:lamb", "betas": [0.9, 0.95]}, ["optimizer.betas"]),
        ({"name": "lars", "target": "o:lars", "momentum": 0.9}, ["optimizer.momentum"]),
        ({"name": "other", "target": "o:o", "weight_decay": 0.1}, ["optimizer.weight_decay"]),
    ],
)
def test_an_optimizer_has_its_own_settings_only(optimizer: dict[str, Any], refused: list[str]) -> None:
    assert keys(GOOD, optimizer={"lr": 0.1, **optimizer}) == refused


@pytest.mark.parametrize(
    ("optimizer", "with_model", "with_command"),
    [
        ({"name": "lamb"}, ["optimizer.name"], []),
        ({"name": "other", "target": "o:o"}, [], ["optimizer.target"]),
        ({"name": "adamw", "target": "o:o"}, ["optimizer.target"], ["optimizer.target"]),
        ({"name": "adamw", "args": {"a": 1}}, ["optimizer.args"], ["optimizer.args"]),
        (
            {"name": "lars", "weight_decay": 0.1},
            ["optimizer.weight_decay", "optimizer.name"],
            ["optimizer.weight_decay"],
        ),
    ],
)
def test_an_optimizer_that_torch_does_not_have_comes_with_a_target_but_for_a_command(
    optimizer: dict[str, Any], with_model: list[str], with_command: list[str]
) -> None:
    assert keys(GOOD, optimizer={"lr": 0.1, **optimizer}) == with_model
    assert keys(COMMAND, optimizer={"lr": 0.1, **optimizer}) == with_command


@pytest.mark.parametrize(
    ("batch", "refused"),
    [
        ({"effective": 64, "micro": 4, "equal_micro": True}, []),
        ({"effective": 64, "micro": "auto", "equal_micro": True}, []),
        ({"effective": 64, "equal_micro": True}, ["batch.equal_micro"]),
        ({"per_gpu": 64, "micro_multiple": 8}, ["batch.micro_multiple"]),
        ({"effective": 64, "micro": 8, "micro_multiple": 8}, []),
        ({"effective": 64, "micro": 7, "micro_multiple": 8}, ["batch.micro_multiple"]),
        ({"effective": 64, "micro": "auto", "micro_multiple": 8}, []),
        ({"effective": 64, "micro": 8, "micro_multiple": 8, "equal_micro": True}, ["batch.micro_multiple"]),
        ({"effective": 64, "micro": 8, "equal_micro": True, "on_indivisible": "uneven"}, ["batch.equal_micro"]),
        ({"effective": 64, "micro": 8, "equal_micro": True, "on_indivisible": "nearest"}, []),
    ],
)
def test_what_is_asked_of_micro_batches_has_something_to_limit(batch: dict[str, Any], refused: list[str]) -> None:
    assert keys(GOOD, batch=batch) == refused


@pytest.mark.parametrize(
    ("batch", "refused"),
    [
        ({"effective": 64, "unit": "tokens", "sequence_length": 16}, []),
        ({"effective": 64, "unit": "tokens"}, ["batch.unit"]),
        ({"effective": 64, "sequence_length": 16}, ["batch.sequence_length"]),
        ({"effective": 65, "unit": "tokens", "sequence_length": 16}, ["batch.effective"]),
        ({"effective": 15, "unit": "tokens", "sequence_length": 16}, ["batch.effective"]),
        ({"per_gpu": 4, "unit": "tokens", "sequence_length": 16}, ["batch.unit"]),
    ],
)
def test_a_batch_in_tokens_is_a_whole_number_of_samples_of_one_length(
    batch: dict[str, Any], refused: list[str]
) -> None:
    assert keys(GOOD, batch=batch) == refused


def test_the_nearest_numbers_of_tokens_are_told_and_none_of_them_is_zero() -> None:
    fixes = []
    for effective in (1_000_000, 15):
        batch = {"effective": effective, "unit": "tokens", "sequence_length": 4096}
        (problem,) = check_recipe(Recipe.model_validate({**GOOD, "batch": batch}))
        fixes.append(problem.fix)
    assert fixes == ["write 999424 or 1003520", "write 4096"]


def test_the_nearest_numbers_of_tokens_are_such_that_the_ranks_can_share_them() -> None:
    batch = {"effective": 1_000_000, "unit": "tokens", "sequence_length": 4096}
    wanted = Recipe.model_validate({**GOOD, "batch": batch, "resources": {"num_nodes": 4, "gpus_per_node": 4}})
    (problem,) = check_recipe(wanted)
    assert problem.fix == "write 983040 or 1048576"


def test_with_a_batch_in_tokens_the_tokens_of_every_sample_are_known() -> None:
    batch = {"effective": 64, "unit": "tokens", "sequence_length": 16}
    assert keys(GOOD, batch=batch, duration={"tokens": 1000}) == []
    assert keys(COMMAND, batch=batch, duration={"tokens": 1000}) == []
    assert keys(COMMAND, batch=batch, duration={"epochs": 1}) == ["duration.epochs"]
    for tokens, refused in ((16, []), (17, ["datasets.0.tokens_per_sample"])):
        datasets = [{**GOOD["datasets"][0], "tokens_per_sample": tokens}]
        assert keys(GOOD, batch=batch, datasets=datasets) == refused


def test_a_warm_up_in_steps_of_a_batch_in_tokens_is_measured_in_samples() -> None:
    batch = {"effective": 160, "unit": "tokens", "sequence_length": 16}
    for steps, refused in ((20, []), (21, ["schedule.warmup"])):
        assert keys(GOOD, batch=batch, schedule={"warmup": {"steps": steps}}) == refused


def test_a_batch_per_gpu_may_have_a_reference_batch_but_no_way_to_be_uneven() -> None:
    assert keys(GOOD, batch={"per_gpu": 4}, optimizer={"name": "sgd", "lr": 0.1, "base_batch": 256}) == []
    assert keys(GOOD, batch={"per_gpu": 4, "on_indivisible": "nearest"}) == ["batch.on_indivisible"]
    assert keys(GOOD, batch={"effective": 4, "tolerance": 0.1}) == ["batch.tolerance"]
    assert keys(GOOD, batch={"effective": 4, "tolerance": 0.1, "on_indivisible": "nearest"}) == []


def test_inverse_sqrt_needs_a_warm_up_that_is_not_empty() -> None:
    assert keys(GOOD, schedule={"name": "inverse_sqrt", "warmup": {"ratio": 0}}) == ["schedule.name"]
    assert keys(GOOD, schedule={"name": "inverse_sqrt", "warmup": {"ratio": 0.1}}) == []


def test_a_ratio_of_what_a_command_counts_can_be_counted() -> None:
    schedule = {"name": "inverse_sqrt"}
    (problem,) = check_recipe(Recipe.model_validate({**COMMAND, "schedule": schedule}))
    assert problem.fix == "write schedule.warmup, such as {ratio: 0.1}"
    assert keys(COMMAND, schedule={**schedule, "warmup": {"ratio": 0.1}}) == []


@pytest.mark.parametrize("name", ["micro_batch_size", "gradient_accumulation_steps"])
def test_a_command_that_asks_for_its_sizes_is_not_uneven(name: str) -> None:
    batch = {"effective": 10, "on_indivisible": "uneven"}
    assert keys({**COMMAND, "command": ["train.py", f"--size=${{plan.{name}}}"]}, batch=batch) == [
        "batch.on_indivisible"
    ]
    assert keys(COMMAND, batch=batch) == []
    sized = {**SESSION, "command": ["train.py", f"--size=${{plan.{name}}}"]}
    assert keys(sized, batch=batch) == ["batch.on_indivisible"]


def test_tokens_need_a_size_on_every_dataset() -> None:
    known = {"name": "a", "target": "d:a", "num_samples": 5, "tokens_per_sample": 7}
    unknown = {"name": "b", "target": "d:b", "num_samples": 5}
    assert keys(GOOD, duration={"tokens": 9}, datasets=[known, unknown]) == ["datasets.1.tokens_per_sample"]
    assert keys(GOOD, duration={"tokens": 9}, datasets=[known]) == []
    assert keys(COMMAND, duration={"tokens": 9}) == ["duration.tokens"]


def test_a_validation_set_may_share_a_name_with_a_training_set_but_not_with_its_like() -> None:
    one = {"name": "train", "target": "d:a", "num_samples": 5}
    assert keys(GOOD, validation=[one]) == []
    assert keys(GOOD, validation=[one, one, one]) == ["validation.2.name", "validation.1.name"]


def test_a_command_stands_alone() -> None:
    extra = {
        "validation": GOOD["datasets"],
        "metrics": {"a": GOOD["loss"]},
        "loss": GOOD["loss"],
        "model": GOOD["model"],
    }
    assert keys(COMMAND, **extra) == ["model", "validation", "loss", "metrics"]


@pytest.mark.parametrize(
    ("changes", "session", "plain"),
    [
        ({"model": GOOD["model"]}, ["model"], ["model"]),
        ({"loss": GOOD["loss"]}, ["loss"], ["loss"]),
        ({"validation": GOOD["datasets"]}, ["validation"], ["validation"]),
        ({"metrics": {"a": GOOD["loss"]}}, ["metrics"], ["metrics"]),
        ({"on_non_finite_loss": {"action": "skip"}}, ["on_non_finite_loss"], ["on_non_finite_loss"]),
        (
            {"checkpoint": {"keep_best": {"metric": "a", "mode": "max"}}},
            ["checkpoint.keep_best"],
            ["checkpoint.keep_best"],
        ),
        ({"evaluation": {"every": {"epochs": 1}}}, ["evaluation"], ["evaluation.every.epochs"]),
        ({"evaluation": {"batch": 8}}, ["evaluation"], []),
        ({"activation_checkpointing": True}, ["activation_checkpointing"], []),
        ({"optimizer": {"name": "other", "target": "o:o", "lr": 0.1}}, ["optimizer.target"], ["optimizer.target"]),
        ({"optimizer": {"name": "lamb", "lr": 0.1}}, [], []),
        ({"precision": "bf16", "loader": {"workers": 3, "bad_samples": 2}}, [], []),
        ({"checkpoint": {"every": {"epochs": 1}}}, [], ["checkpoint.every.epochs"]),
        ({"schedule": {"warmup": {"epochs": 1}}}, [], ["schedule.warmup.epochs"]),
        ({"schedule": {"warmup": {"epochs": 3}}}, ["schedule.warmup"], ["schedule.warmup.epochs"]),
        ({"duration": {"tokens": 9}}, ["datasets.0.tokens_per_sample"], ["duration.tokens"]),
        ({"mixture": {"strategy": "round_robin"}}, [], ["mixture"]),
        ({"mixture": {"strategy": "weights"}}, ["datasets.0.weight"], ["mixture"]),
        ({"mixture": {"strategy": "round_robin", "unit": "tokens"}}, ["mixture.unit"], ["mixture", "mixture.unit"]),
        ({"batch": {"effective": 10, "on_indivisible": "uneven"}}, [], []),
        ({"batch": {"effective": 10, "micro": 4, "equal_micro": True}}, [], []),
    ],
)
def test_a_session_may_have_all_that_is_said_of_data_and_nothing_that_is_said_of_a_model(
    changes: dict[str, Any], session: list[str], plain: list[str]
) -> None:
    assert keys(SESSION, **changes) == session
    assert keys(COMMAND, **changes) == plain


def test_everything_is_told_at_once() -> None:
    refused = keys(
        GOOD, loss=None, batch={}, duration={}, schedule={"name": "inverse_sqrt"}, metrics={"a": GOOD["loss"]}
    )
    assert refused == ["loss", "batch", "duration", "schedule.name", "metrics"]


def test_a_variable_that_a_mirror_sets_is_not_set_twice() -> None:
    mirrors = {"git": {"https://a/": "https://b/"}}
    variables = {"GIT_CONFIG_KEY_0": "x", "GIT_AUTHOR_NAME": "y"}
    assert keys(GOOD, env={"variables": variables}) == []
    assert keys(GOOD, env={"variables": variables, "mirrors": mirrors}) == ["env.variables.GIT_CONFIG_KEY_0"]
