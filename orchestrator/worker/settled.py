"""Whether model and optimizer are those of one step, or somewhere between two."""

from __future__ import annotations

import torch


class Settled:
    """The step that the weights are of; nothing between the beginning of an update and its end.

    A forward pass may have written to a buffer since (BatchNorm does): then the state is no step's either.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._buffers = list(model.buffers())
        self._at: tuple[int, list[int]] | None = None

    def settle(self, step: int) -> None:
        """Model and optimizer are those of `step`, until the next update begins."""
        self._at = step, self._versions()

    def unsettle(self) -> None:
        """An update begins."""
        self._at = None

    def is_whole_at(self, step: int) -> bool:
        """Whether model and optimizer are those of `step`, even in the middle of the next window."""
        same = [id(buffer) for buffer in self._buffers] == [id(buffer) for buffer in self._model.buffers()]
        return same and self._at == (step, self._versions())

    def _versions(self) -> list[int]:
        return [buffer._version for buffer in self._buffers]
