"""Loading a checkpoint into this run's model and optimizer: what does not fit is told in one line, never guessed at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from orchestrator.errors import Problem, RunError
from orchestrator.files import read_json
from orchestrator.plan.mixture import SampleOrder
from orchestrator.worker.checkpoints.layout import STATE
from orchestrator.worker.checkpoints.order_changes import order_changes

_MOST_NAMED = 4


def read_state(checkpoint: Path) -> dict[str, Any]:
    """`state.json`."""
    state: dict[str, Any] = read_json(checkpoint / STATE)
    return state


def changes_of_order(
    state: Mapping[str, Any], order: SampleOrder, contents: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """How `order` differs from the one a checkpoint was saved in, in words; nothing when positions mean the same data.

    `contents` is a hash of what each dataset gives (see `content_of`): its file may have changed under the same name.
    """
    saved = state.get("contents", {})
    others = (name for name, content in (contents or {}).items() if saved.get(name, content) != content)
    rewritten = tuple(f"the data of {name!r} is not what it was" for name in others)
    if state["order_digest"] == order.digest():
        return rewritten
    changes = (*order_changes(state["order"], order.describe()), *rewritten)
    return changes or ("the same description gives other positions: another version made them",)


def refuse_order(checkpoint: Path, changes: Sequence[str]) -> RunError:
    """The error for an order of samples that has changed: the position would mean other data."""
    what = f"it was saved in another order of samples: {_named(changes)}"
    return RunError(Problem(str(checkpoint), what, "start a new run, or go on in the new order: resume --new-order"))


def load_model(model: torch.nn.Module, checkpoint: Path) -> None:
    """Load the model's tensors. Raises RunError in one line when names or shapes differ."""
    stored = _load(checkpoint / "model.pt")
    if differences := list(_differences(model.state_dict(), stored)):
        raise RunError(Problem(str(checkpoint), f"the model is another one: {_named(differences)}", "start a new run"))
    model.load_state_dict(stored)


def load_more(checkpoint: Path, name: str) -> Any:
    """The state that was saved under `name`. Raises RunError in one line where there is none."""
    if not (checkpoint / f"{name}.pt").is_file():
        raise RunError(Problem(str(checkpoint), f"it holds no {name}", "start a new run"))
    return _load(checkpoint / f"{name}.pt")


def optimizer_state(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> dict[str, Any]:
    """What `load_optimizer` wants to find."""
    kind = type(optimizer).__name__
    return {"kind": kind, "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}


def load_optimizer(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, checkpoint: Path) -> None:
    """Load the state of the optimizer and of the loss scaler. Raises RunError in one line when they are others."""
    stored = _load(checkpoint / "optimizer.pt")
    kind, saved_kind = type(optimizer).__name__, stored["kind"]
    sizes, saved_sizes = _group_sizes(optimizer.state_dict()), _group_sizes(stored["optimizer"])
    what = None
    if kind != saved_kind:
        what = f"the optimizer is another one: {kind}, and it holds the state of {saved_kind}"
    elif sizes != saved_sizes:
        what = f"the optimizer has groups of {_and(sizes)} parameters, and it holds the state of {_and(saved_sizes)}"
    elif scaler.is_enabled() and not stored["scaler"]:
        what = "it was saved without a loss scaler, in another precision"
    if what is not None:
        raise RunError(Problem(str(checkpoint), what, "start a new run"))
    optimizer.load_state_dict(stored["optimizer"])
    if scaler.is_enabled():
        scaler.load_state_dict(stored["scaler"])


def _load(path: Path) -> Any:
    """Tensors, numbers and texts alone. Raises RunError for a file that holds anything else."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        what = f"cannot be loaded as tensors alone: {str(error).splitlines()[0]}"
        raise RunError(Problem(str(path), what, "keep nothing but tensors, numbers and texts in the state")) from error


def _group_sizes(state: Mapping[str, Any]) -> list[int]:
    return [len(group["params"]) for group in state["param_groups"]]


def _and(numbers: Sequence[int]) -> str:
    return " + ".join(map(str, numbers))


def _named(differences: Sequence[str]) -> str:
    more = len(differences) - _MOST_NAMED
    return ", ".join(differences[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _differences(here: Mapping[str, Any], stored: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{name} is new" for name in here if name not in stored)
    yield from (f"{name} is gone" for name in stored if name not in here)
    for name in here:
        both = name in stored and isinstance(here[name], torch.Tensor) and isinstance(stored[name], torch.Tensor)
        if both and here[name].shape != stored[name].shape:
            yield f"{name} has shape {tuple(here[name].shape)}, not {tuple(stored[name].shape)}"
