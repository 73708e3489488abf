"""Something to look at after each evaluation: what the recipe's own function makes of the model, as text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orchestrator.files import make_private_dir, write_atomically
from orchestrator.recipe.data import Target
from orchestrator.talk import warn
from orchestrator.worker.failure import one_line
from orchestrator.worker.precision import Precision
from orchestrator.worker.targets import UserCode


@dataclass(frozen=True)
class Shown:
    """Called on rank 0 alone. What goes wrong in it is told, and ends no training."""

    function: Callable[..., Any]
    model: torch.nn.Module
    precision: Precision
    folder: Path
    code: Path

    @classmethod
    def of(cls, wanted: Target, code: UserCode, model: torch.nn.Module, precision: Precision, folder: Path) -> Shown:
        """The recipe's function, imported."""
        return cls(code.bind(wanted), model, precision, folder, code.folder)

    def __call__(self, step: int) -> None:
        """Call the function with the model in evaluation mode, and keep its text as that of `step`."""
        self.model.eval()
        try:
            with torch.no_grad(), self.precision.forward_context():
                text = self.function(self.model)
            if not isinstance(text, str):
                warn(f"evaluation.show gave {type(text).__name__}: return a text")
                return
            make_private_dir(self.folder)
            write_atomically(self.folder / f"step-{step:08d}.md", text)
        except Exception as error:
            warn(f"evaluation.show: {one_line(error, self.code)}")
        finally:
            self.model.train()
