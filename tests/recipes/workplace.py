"""A copy of a recipe's folder, with runs and a cache of its own: where a test is the person who runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.command_line import orchestrate

NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.lock.json", "runs", "ml*")


@dataclass(frozen=True)
class Workplace:
    """`recipe` is a file in `folder`; each verb is given `settings`, and `env` beside the variables of the tests."""

    folder: Path
    recipe: str
    settings: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def orchestrate(self, verb: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        options = [word for change in self.settings for word in ("--set", change)]
        own = {"XDG_CACHE_HOME": str(self.folder.parent / "cache"), "ORCHESTRATE_CACHE": "", "OMP_NUM_THREADS": "1"}
        given = {**own, **self.env, **env}
        return orchestrate(verb, self.recipe, *options, *words, cwd=self.folder, env=given, timeout_s=300)

    @property
    def run(self) -> Path:
        (found,) = (self.folder / "runs").iterdir()
        return found

    @property
    def environment(self) -> dict[str, str]:
        """What the job was given."""
        return dict(json.loads((self.run / "environment.json").read_text()))

    @property
    def result(self) -> dict[str, Any]:
        """What the run came to."""
        return dict(json.loads((self.run / "attempts" / "000" / "done.json").read_text()))
