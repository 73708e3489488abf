"""Activation checkpointing: the model's blocks are run again in the backward pass instead of being remembered.

Parameters keep their names, random numbers repeat, and running statistics (batch norm) are updated once: losses are
those of the same run without it, to the last bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from orchestrator.errors import Problem, RecipeError

_CONTAINERS = (torch.nn.ModuleList, torch.nn.ModuleDict)
_Context = contextlib.AbstractContextManager[Any]


def recompute_blocks(
    model: torch.nn.Module, *, again: Callable[[], _Context] = contextlib.nullcontext
) -> list[torch.nn.Module]:
    """Let the children of every ModuleList recompute their activations; the blocks, whose `forward` was replaced.

    Deleting a block's attribute `forward` undoes it. `again` is entered around every second run: torch leaves modes of
    its functions when a backward pass begins. A list inside a block is recomputed block by block within it.
    Raises RecipeError for a model that has no blocks.
    """
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    children = dict.fromkeys(child for modules in lists for child in modules)
    blocks = [child for child in children if not isinstance(child, _CONTAINERS)]
    if not blocks:
        what = "the model keeps no blocks in a ModuleList, so there is nothing to recompute"
        fix = "keep its blocks in a torch.nn.ModuleList, or take activation_checkpointing away"
        raise RecipeError(Problem("activation_checkpointing", what, fix))
    for block in blocks:
        block.forward = partial(_forward, block.forward, partial(_contexts, block, again))
    return blocks


def _forward(forward: Any, contexts: Callable[[], tuple[_Context, _Context]], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    if torch.compiler.is_compiling():  # which writes to running statistics once, and takes no such contexts
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _contexts(block: torch.nn.Module, again: Callable[[], _Context]) -> tuple[_Context, _Context]:
    """What the first run and the second one happen in."""
    return contextlib.nullcontext(), _second_run(block, again)


@contextlib.contextmanager
def _second_run(block: torch.nn.Module, again: Callable[[], _Context]) -> Iterator[None]:
    """Running statistics inside `block` stay as they are: a momentum of 0 adds nothing, and no batch is counted."""
    norms = [module for module in block.modules() if isinstance(module, _NormBase) and module.track_running_stats]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        with again():
            yield
    finally:
        for norm, momentum, num_batches in before:
            norm.momentum, norm.num_batches_tracked = momentum, num_batches
