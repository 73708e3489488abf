"""What a run has trained, for whoever wants to use it: `from orchestrator.worker.trained import open_trained`.

trained = open_trained("en_zh")                  # a run's directory, its name, or the beginning of it
model = trained.model()                          # with the weights of the best checkpoint, ready to be called
text = trained.asset("text")                     # where an asset of the recipe lies
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from orchestrator.errors import Problem, RunError, did_you_mean
from orchestrator.files import read_json, sha256_of
from orchestrator.known_runs import find_run
from orchestrator.recipe.assets import asset_variable
from orchestrator.recipe.read import recipe_from_stored
from orchestrator.recipe.schema import Recipe
from orchestrator.run_dir import RunDir
from orchestrator.worker.checkpoints.restore import load_model, read_state
from orchestrator.worker.checkpoints.store import CheckpointStore
from orchestrator.worker.precision import Precision
from orchestrator.worker.targets import UserCode, build_model


@dataclass(frozen=True)
class Trained:
    """One checkpoint of a run, with the code and the assets that it was trained with."""

    run: RunDir
    recipe: Recipe
    checkpoint: Path
    code: UserCode
    """The run's own copy of the recipe's modules: `code.load("module:name")`."""
    environment: Mapping[str, str]
    """What the job was given, secrets included."""

    @property
    def step(self) -> int:
        """The optimizer steps that were made."""
        return int(read_state(self.checkpoint)["step"])

    def model(self, device: torch.device | str = "cpu") -> torch.nn.Module:
        """The model with these weights on `device`, in evaluation mode. Raises RunError where they do not fit."""
        assert self.recipe.model is not None, "open_trained has seen to it"
        model = build_model(self.code, self.recipe.model)
        model = Precision(self.recipe.precision, torch.device(device)).place_model(model)
        load_model(model, self.checkpoint)
        return model.eval()

    def asset(self, name: str) -> Path:
        """Where the job found an asset of the recipe. Raises RunError where it is gone, or has changed since."""
        if name not in self.recipe.assets:
            fix = did_you_mean(name, self.recipe.assets) if self.recipe.assets else "declare it in the recipe"
            raise RunError(Problem(f"assets.{name}", "the recipe has no such asset", fix))
        path = Path(self.environment[asset_variable(name)])
        if not path.exists():
            raise RunError(Problem(str(path), "is not there any more", "stage the recipe again"))
        lock = read_json(self.run.recipe.with_suffix(".lock.json")) or {}
        for file in lock.get("assets", {}).get(name, {}).get("files", ()):
            own = path / file["path"] if path.is_dir() else path
            if not own.is_file() or sha256_of(own) != file["sha256"]:
                what = "is not what this run was trained with"
                raise RunError(Problem(str(own), what, "stage the recipe again, from the run's own snapshot"))
        return path


def open_trained(run: str | Path, *, which: Literal["best", "newest"] = "best") -> Trained:
    """The best checkpoint of a run by `checkpoint.keep_best`, or, without one, the newest that is whole.

    The recipe's code finds its assets: their variables are set in this process, and nothing else of the job's. Raises
    RunError where there is no such run, or nothing to open.
    """
    found = find_run(str(run), cwd=Path.cwd())
    recipe = recipe_from_stored(found.recipe.read_text(), str(found.recipe))
    if recipe.model is None:
        what = "its recipe has a command and no model"
        raise RunError(Problem(str(found.path), what, "load what the command has saved"))
    store = CheckpointStore(found.checkpoints, recipe.checkpoint.keep, recipe.checkpoint.keep_best)
    step = store.best() if which == "best" else None
    step = step if step is not None else store.newest(lambda name, why: None)
    if step is None:
        raise RunError(Problem(str(found.path), "it has no checkpoint yet", "wait for the first one"))
    environment: dict[str, str] = read_json(found.environment) or {}
    os.environ.update({variable: environment.get(variable, "") for variable in map(asset_variable, recipe.assets)})
    return Trained(found, recipe, store.path(step), UserCode(found.snapshot_recipe), environment)
