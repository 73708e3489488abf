"""The user's code is looked up without running it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.recipe.schema import Recipe
from orchestrator.recipe.targets import bound_names, check_targets

RUNS = 'raise AssertionError("it was run")\n'


def recipe(model: str = "model:build", **changes: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "some",
            "model": {"target": model},
            "batch": {"effective": 1},
            "optimizer": {"name": "sgd", "lr": 1},
            "duration": {"steps": 1},
            **changes,
        }
    )


def told(folder: Path, *arguments: str, **changes: Any) -> list[str]:
    return [str(problem) for problem in check_targets(recipe(*arguments, **changes), folder)]


@pytest.mark.parametrize(
    "line",
    [
        "def build(): ...",
        "async def build(): ...",
        "class build: ...",
        "build = 1",
        "build: int = 1",
        "other, (build, *rest) = range(9), (1, 2)",
        "import build",
        "import build.below",
        "import numpy as build",
        "from x import y as build",
        "from x import *",
        "def __getattr__(name): ...",
        "if True:\n    def build(): ...",
        "try:\n    import x\nexcept ImportError:\n    build = None",
        "try:\n    pass\nfinally:\n    build = None",
        "with open('x') as build:\n    pass",
        "for build in ():\n    pass",
        "while False:\n    build = 1\nelse:\n    pass",
        "match 1:\n    case 1:\n        build = 2",
        "if (build := 3):\n    pass",
    ],
)
def test_a_name_that_a_module_binds_is_found(line: str, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(f"{line}\n{RUNS}")
    assert told(tmp_path) == []


def test_a_name_inside_a_function_or_class_is_not_the_modules() -> None:
    tree = ast.parse("def f(a):\n    inner = 1\nclass C:\n    member = 1\nprint(used)\n")
    assert set(bound_names(tree.body)) == {"f", "C"}


def test_a_missing_attribute_names_the_file_and_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(f"def build(): ...\n{RUNS}")
    assert told(tmp_path, "model:bild") == [
        f"model.target: {tmp_path}/model.py defines no 'bild'\n    did you mean 'build'?"
    ]


def test_a_file_that_is_not_python_is_told_with_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("x = 1\ndef build(:\n")
    (problem,) = told(tmp_path)
    assert problem.startswith(f"model.target: {tmp_path}/model.py:2:11 is not valid Python: ")
    (tmp_path / "model.py").write_bytes(b"\0")
    assert "model.py" in told(tmp_path)[0]


def test_packages_and_files_in_folders_beside_the_recipe_are_found(tmp_path: Path) -> None:
    (tmp_path / "package" / "below").mkdir(parents=True)
    (tmp_path / "package" / "__init__.py").write_text(f"build = 1\n{RUNS}")
    (tmp_path / "package" / "below" / "deep.py").write_text(f"build = 1\n{RUNS}")
    assert told(tmp_path, "package:build") == []
    assert told(tmp_path, "package.below.deep:build") == []
    assert told(tmp_path, "package.below.dep:build")[0].startswith(
        f"model.target: there is no {tmp_path}/package/below/dep.py"
    )


def test_a_module_beside_the_recipe_hides_an_installed_one(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("loads = 1\n")
    assert told(tmp_path, "json:loads") == []
    assert "json.py defines no 'dumps'" in told(tmp_path, "json:dumps")[0]


def test_an_installed_module_is_found_without_importing_it() -> None:
    script = (
        "import sys\n"
        "from tests.recipe.test_targets import told\n"
        "from pathlib import Path\n"
        "print(told(Path('.'), 'torch.nn:Linear'), told(Path('.'), 'math:tau'), 'torch' in sys.modules)\n"
    )
    root = Path(__file__).parent.parent.parent
    shown = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.strip() == "[] [] False"


def test_a_missing_module_is_told_with_what_was_looked_at(tmp_path: Path) -> None:
    (tmp_path / "model.py").touch()
    assert told(tmp_path, "modle:build") == [
        f"model.target: there is no {tmp_path}/modle.py, and no installed package 'modle'\n    did you mean 'model'?"
    ]
    assert told(tmp_path, "torch.nnn:Linear")[0].endswith(
        "the installed 'torch' has no module 'torch.nnn'\n    check the name"
    )


def test_every_target_is_looked_up(tmp_path: Path) -> None:
    dataset = {"name": "d", "target": "nowhere:d", "num_samples": 1}
    problems = check_targets(
        recipe(
            "nowhere:m",
            datasets=[dataset],
            validation=[dataset],
            loss={"target": "nowhere:l", "count": "nowhere:c"},
            metrics={"a": {"target": "nowhere:a"}},
        ),
        tmp_path,
    )
    assert [problem.where for problem in problems] == [
        "model.target",
        "datasets.0.target",
        "validation.0.target",
        "loss.target",
        "loss.count",
        "metrics.a.target",
    ]


@pytest.mark.parametrize(
    "command", [["train.py"], ["-m", "train"], ["-m", "json.tool"], [str(Path(__file__).resolve())]]
)
def test_a_script_that_is_there_is_accepted(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(RUNS)
    assert told(tmp_path, model="json:loads", command=command) == []


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["trian.py"], "did you mean 'train.py'?"),
        (["/nowhere/train.py"], "command.0: there is no /nowhere/train.py"),
        (["../outside.py"], "outside the recipe's folder"),
        (["-m"], "command: -m without a module"),
        (["-m", "trian"], "command.1: there is no"),
    ],
)
def test_a_script_that_is_not_there_is_refused(command: list[str], text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "outside.py").touch()
    (tmp_path / "recipe" / "train.py").touch()
    (problem,) = told(tmp_path / "recipe", model="json:loads", command=command)
    assert text in problem
