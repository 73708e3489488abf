"""The optimizer a recipe names, and its learning rate as a function of the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from orchestrator.errors import Problem, RecipeError
from orchestrator.recipe.schema import Optimizer

Parameters = list[torch.nn.Parameter]
Make = Callable[[Parameters, Optimizer], torch.optim.Optimizer]
Build = Callable[[str, Parameters, dict[str, Any]], Any]
"""Calls `module:function` of the recipe's code with the parameters and keyword arguments."""

_ANNOUNCED = torch.optim.Optimizer.profile_hook_step(lambda self: None).__code__
"""Of the function that torch puts around an optimizer's own step. One that a user has put there is another one."""
_HOOKS_OF_ALL = (_global_optimizer_pre_hooks, _global_optimizer_post_hooks)


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], wanted: Optimizer, build: Build | None = None
) -> torch.optim.Optimizer:
    """The optimizer over `parameters`; its lr is set before every step. Adam's update is one fused kernel.

    `build` calls the recipe's own `optimizer.target`, with the lr and its `args` alone. Raises RecipeError when that
    gives something else.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if wanted.target is not None:
        assert build is not None, "a target is built by the recipe's own code"
        made = build(wanted.target, trained, {"lr": wanted.lr, **wanted.args})
        if not isinstance(made, torch.optim.Optimizer):
            what = f"{wanted.target} gave {type(made).__name__}"
            raise RecipeError(Problem("optimizer.target", what, "return a torch.optim.Optimizer"))
        return made
    return _MADE_BY[wanted.name](trained, wanted)


def _sgd(trained: Parameters, wanted: Optimizer) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        trained,
        lr=wanted.lr,
        momentum=wanted.momentum,
        nesterov=wanted.nesterov,
        weight_decay=wanted.weight_decay,
    )


def _rmsprop(trained: Parameters, wanted: Optimizer) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(
        trained, lr=wanted.lr, momentum=wanted.momentum, eps=wanted.eps, weight_decay=wanted.weight_decay
    )


def _adafactor(trained: Parameters, wanted: Optimizer) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(trained, lr=wanted.lr, weight_decay=wanted.weight_decay)


def _adam(family: Callable[..., torch.optim.Optimizer], **more: bool) -> Make:
    def make(trained: Parameters, wanted: Optimizer) -> torch.optim.Optimizer:
        return family(
            trained, lr=wanted.lr, betas=wanted.betas, eps=wanted.eps, weight_decay=wanted.weight_decay, **more
        )

    return make


_MADE_BY: dict[str, Make] = {
    "sgd": _sgd,
    "adam": _adam(torch.optim.Adam, fused=True),
    "adamw": _adam(torch.optim.AdamW, fused=True),
    "nadam": _adam(torch.optim.NAdam),
    "radam": _adam(torch.optim.RAdam),
    "rmsprop": _rmsprop,
    "adafactor": _adafactor,
}


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the lr of every parameter group, times the group's own `lr_scale` where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def forget_gradients(optimizer: torch.optim.Optimizer) -> None:
    """What `zero_grad` does, in a third of its time for a small model: it does not announce itself to a profiler."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def update_weights(optimizer: torch.optim.Optimizer) -> None:
    """What `optimizer.step()` does; where neither a profiler nor a hook listens, without the 50 us of telling them."""
    step = type(optimizer).step
    is_announced = getattr(step, "__code__", None) is _ANNOUNCED
    if not is_announced or "step" in vars(optimizer) or _is_heard(optimizer):
        optimizer.step()
    else:
        step.__wrapped__(optimizer)  # type: ignore[attr-defined]


def _is_heard(optimizer: torch.optim.Optimizer) -> bool:
    """Whether anybody wants to be told of an update."""
    own = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    return torch._C._autograd._profiler_enabled() or any(own) or any(_HOOKS_OF_ALL)


def norm_of_weights(model: torch.nn.Module) -> float:
    """The 2-norm of all weights of a model; not finite where one of them is not."""
    return torch.nn.utils.get_total_norm([weight.detach() for weight in model.parameters()]).item()


def clip_gradients(optimizer: torch.optim.Optimizer, clip_norm: float | None) -> torch.Tensor:
    """The global 2-norm of all gradients, before they are clipped to `clip_norm` (None: left as they are)."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    return norm
