"""A recipe, its overrides and its interpolations, read into one value."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from orchestrator.errors import Problem, RecipeError
from orchestrator.recipe.overrides import merged
from orchestrator.recipe.read import ReadRecipe, read_recipe, recipe_from_stored

TINY = Path(__file__).parent.parent / "data" / "recipes" / "tiny.yaml"


def tiny(*overrides: str) -> ReadRecipe:
    return read_recipe(TINY, overrides)


def refusal(*overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        tiny(*overrides)
    return str(caught.value).splitlines()


COMMAND = """\
name: script
batch: {effective: 16}
optimizer: {name: sgd, lr: 0.1}
duration: {steps: 8}
command: [model.py, "--batch=${plan.micro_batch_size}", "${plan.lr}", --name, "${name}", --lr, "${optimizer.lr}"]
"""


def command(folder: Path) -> ReadRecipe:
    (folder / "script.yaml").write_text(COMMAND)
    return read_recipe(folder / "script.yaml")


def test_a_recipe_is_read_with_its_folder_and_places() -> None:
    read = tiny()
    assert read.recipe.batch.effective == 16
    assert read.folder == TINY.parent
    assert read.document.where("batch.effective") == f"{TINY}:20:9 batch.effective"
    assert read.document.where("batch.micro") == f"{TINY}:20:1 batch.micro"
    assert read.environment == {}


def test_later_checks_are_refused_at_the_place_of_their_key() -> None:
    read = tiny("resources.partition=gpu")
    read.refuse([])
    with pytest.raises(RecipeError) as caught:
        read.refuse([Problem("batch", "too small", "write more"), Problem("resources.partition", "unknown", "look")])
    assert [problem.where for problem in caught.value.problems] == [
        "--set resources.partition=gpu",
        f"{TINY}:20:1 batch",
    ]


def test_a_plain_recipe_is_read_without_what_starts_slowly() -> None:
    slow = ("omegaconf", "numpy", "click", "rich", "torch", "mlflow", "submitit")
    script = (
        "import sys\n"
        "from orchestrator.recipe.read import read_recipe\n"
        "from orchestrator.recipe.targets import check_targets\n"
        f"read = read_recipe({str(TINY)!r}, ['optimizer.lr=1e-2'])\n"
        "read.refuse(check_targets(read.recipe, read.folder))\n"
        f"print([name for name in {slow} if name in sys.modules])\n"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "[]"


def test_an_override_sets_a_value_of_the_right_type() -> None:
    recipe = tiny(
        "optimizer.lr=1e-3",
        "datasets.0.num_samples=128",
        "optimizer.nesterov=true",
        "model.args={depth: 2}",
        "schedule.warmup=null",
    ).recipe
    assert recipe.optimizer.lr == 1e-3
    assert recipe.datasets[0].num_samples == 128
    assert recipe.optimizer.nesterov is True
    assert recipe.model is not None
    assert recipe.model.args == {"width": 16, "depth": 2}
    assert recipe.schedule.warmup is None


def test_an_override_of_a_text_field_is_taken_verbatim() -> None:
    recipe = tiny(
        "resources.walltime=2:00:00", "name=2024", "env.variables.FLAG=no", "tracking.uri=a=b", "precision=fp32"
    ).recipe
    assert recipe.resources.walltime == "2:00:00"
    assert recipe.name == "2024"
    assert recipe.env.variables == {"FLAG": "no"}
    assert recipe.tracking.uri == "a=b"


def test_null_empties_a_text_field_that_may_be_empty_and_is_text_elsewhere() -> None:
    assert tiny("tracking.uri=x", "tracking.uri=null").recipe.tracking.uri is None
    assert tiny("env.variables.X=null").recipe.env.variables == {"X": "null"}


def test_the_last_of_two_overrides_wins() -> None:
    read = tiny("seed=1", "seed=2")
    assert (read.recipe.seed, read.document.where("seed")) == (2, "--set seed=2")


def test_every_bad_override_is_told_at_once() -> None:
    told = refusal("seed", "=3", "a..b=1", "datasets.4.name=x", "datasets.first.name=x", "seed.deep=3", "model.args={a")
    assert told[::2] == [
        "--set seed: not of the form KEY=VALUE",
        "--set =3: not of the form KEY=VALUE",
        "--set a..b=1: not of the form KEY=VALUE",
        "--set datasets.4.name=x: datasets is a list of 1, without an entry '4'",
        "--set datasets.first.name=x: datasets is a list of 1, without an entry 'first'",
        "--set seed.deep=3: seed holds a single value",
        "--set model.args={a: not valid YAML: a bracket is opened here and never closed",
    ]


def test_a_misspelt_key_in_an_override_is_told_with_the_nearest_one() -> None:
    assert refusal("optimzer.lr=3", "batch.efective=3") == [
        "--set optimzer.lr=3: unknown key 'optimzer'",
        "    did you mean 'optimizer'?",
        "--set batch.efective=3: unknown key 'efective'",
        "    did you mean 'effective'?",
    ]


def test_a_wrong_value_under_an_overridden_section_keeps_its_written_form_and_its_line(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(TINY.read_text() + "resources: {walltime: 2:00:00, memory: 5}\n")
    with pytest.raises(RecipeError) as caught:
        read_recipe(tmp_path / "r.yaml", ["resources={num_nodes: 2, memory: 6}"])
    memory, walltime = caught.value.problems
    assert (walltime.key, walltime.as_json()["file"]) == ("resources.walltime", f"{tmp_path}/r.yaml")
    assert "unquoted 2:00:00" in walltime.what
    assert (memory.where, memory.what) == (
        "--set resources={num_nodes: 2, memory: 6} resources.memory",
        "text is wanted, found the number 6",
    )


def test_what_an_override_replaced_is_not_where_a_problem_stands() -> None:
    (first, *_) = refusal("datasets=[{name: a, num_samples: 3}]")
    assert first == "--set datasets=[{name: a, num_samples: 3}] datasets.0.target: missing"


def test_a_mistake_inside_the_yaml_of_an_override_is_told_with_its_key() -> None:
    assert refusal("loader={workers: 1, workers: 2}", "model.args={x: !!set {a}}") == [
        "--set loader={workers: 1, workers: 2} loader.workers: this key stands here twice",
        "    keep one of them",
        "--set model.args={x: !!set {a}} model.args.x: the tag !!set is not read",
        "    write plain values, without tags",
    ]


def test_the_parts_of_a_place_are_not_read_out_of_an_overrides_own_words() -> None:
    with pytest.raises(RecipeError) as caught:
        tiny("seed=a:2:3")
    assert caught.value.problems[0].as_json() == {
        "where": "--set seed=a:2:3",
        "file": None,
        "line": None,
        "column": None,
        "key": "seed",
        "what": "a whole number is wanted, found the text 'a:2:3'",
        "fix": "write a whole number: Seeds initialisation, order and sampling",
    }


def test_a_wrong_type_inside_an_override_names_the_key_below_it() -> None:
    told = refusal("resources={walltime: 2:00:00, num_nodes: 0}")
    assert told[0].startswith(
        "--set resources={walltime: 2:00:00, num_nodes: 0} resources.num_nodes: must be at least 1"
    )
    assert told[3] == '    put the value in quotes: "2:00:00"'


scalars = st.none() | st.booleans() | st.integers() | st.text("ab")
sections = st.recursive(
    st.dictionaries(st.sampled_from("abc"), scalars | st.lists(scalars, max_size=2)),
    lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=6,
)


@given(sections, sections)
def test_merging_is_omegaconfs(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert merged(old, new) == OmegaConf.to_container(OmegaConf.merge(old, new))


def test_an_interpolation_inserts_a_value_with_its_type_and_as_text_where_text_is_wanted() -> None:
    recipe = tiny(
        "seed=${batch.effective}",
        "tracking.experiment=${name}-${seed}",
        "env.variables.SEED=${seed}",
        "model.args.lr=${optimizer.lr}",
    ).recipe
    assert recipe.seed == 16
    assert recipe.tracking.experiment == "tiny-16"
    assert recipe.env.variables == {"SEED": "16"}
    assert recipe.model is not None
    assert recipe.model.args["lr"] == 0.1


def test_names_of_the_plan_stay_as_they_are_in_a_command(tmp_path: Path) -> None:
    assert command(tmp_path).recipe.command == (
        "model.py",
        "--batch=${plan.micro_batch_size}",
        "${plan.lr}",
        "--name",
        "script",
        "--lr",
        "0.1",
    )


@pytest.mark.parametrize("argument", ["${plan.lr", "${ plan.lr }", "${plan.lr:x}"])
def test_a_torn_name_of_the_plan_is_refused(argument: str, tmp_path: Path) -> None:
    (tmp_path / "script.yaml").write_text(COMMAND.replace("${plan.lr}", argument))
    with pytest.raises(RecipeError, match=r"script.yaml:5:57 command.2: "):
        read_recipe(tmp_path / "script.yaml")


def test_a_secret_reaches_the_environment_of_the_job_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "hush-hush")
    read = tiny(
        "env.variables.TOKEN=${oc.env:A_TOKEN}", "env.variables.URL=https://${env.variables.TOKEN}@host/${name}"
    )
    assert read.environment == {"TOKEN": "hush-hush", "URL": "https://hush-hush@host/tiny"}
    assert "hush" not in read.stored
    assert "hush" not in repr(read)
    assert read.recipe.env.variables["URL"] == "https://${oc.env:A_TOKEN}@host/tiny"


def test_a_secret_that_looks_like_an_interpolation_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "${name} \\${x}")
    assert tiny("env.variables.TOKEN=${oc.env:A_TOKEN}").environment == {"TOKEN": "${name} \\${x}"}


def test_an_unset_variable_may_have_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    assert tiny("env.variables.A=${oc.env:NOT_THERE,${name}}").environment == {"A": "tiny"}
    assert refusal("env.variables.A=${oc.env:NOT_THERE}")[0] == (
        "--set env.variables.A=${oc.env:NOT_THERE}: the environment variable NOT_THERE is not set"
    )


def test_mirrors_become_variables_of_the_job() -> None:
    read = tiny(
        "env.mirrors.huggingface=https://hub.example",
        "env.mirrors.git={'https://github.com/': 'https://git.example/gh/'}",
    )
    assert read.environment == {
        "HF_ENDPOINT": "https://hub.example",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "url.https://git.example/gh/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
    }
    shown = subprocess.run(
        ["git", "ls-remote", "--get-url", "https://github.com/a/b"],
        env={**read.environment, "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert shown.stdout.strip() == "https://git.example/gh/a/b"


def test_what_is_stored_is_read_back_as_the_same_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "hush-hush")
    read = tiny(
        "env.variables.TOKEN=${oc.env:A_TOKEN}", "resources.walltime=2:00:00", "model.args={text: 1e-3, n: .nan}"
    )
    again = recipe_from_stored(read.stored, "recipe.yaml")
    assert again.model_dump_json() == read.recipe.model_dump_json()
    assert again.env.variables == {"TOKEN": "${oc.env:A_TOKEN}"}


def test_what_is_stored_can_be_read_as_a_recipe_with_overrides_again(tmp_path: Path) -> None:
    for read in (tiny(), command(tmp_path)):
        (tmp_path / "recipe.yaml").write_text(read.stored)
        again = read_recipe(tmp_path / "recipe.yaml", ["resources.num_nodes=2"])
        assert again.recipe.resources.num_nodes == 2
        assert again.recipe.model_copy(update={"resources": read.recipe.resources}) == read.recipe


def test_a_stored_recipe_that_was_changed_by_hand_is_refused_at_its_place() -> None:
    with pytest.raises(RecipeError, match=r"recipe.yaml:\d+:1 nme: unknown key"):
        recipe_from_stored(tiny().stored + "nme: x\n", "recipe.yaml")


def test_a_missing_recipe_is_one_problem_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(tmp_path / "none.yaml")
    assert [problem.where for problem in caught.value.problems] == [f"{tmp_path}/none.yaml"]


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        tiny().recipe.seed = 3


@pytest.mark.parametrize("override", ["batch.effective=", "batch.per_gpu=8", "duration.steps=10"])
def test_a_choice_that_an_override_spoils_is_told_at_the_override(override: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(TINY, (override, "batch.micro=4", "duration={}"))
    (problem,) = caught.value.problems
    assert problem.where == f"--set {override}"
