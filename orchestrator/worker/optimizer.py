"""The optimizer a recipe names, and its learning rate as a function of the clock."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from orchestrator.recipe.schema import Optimizer


def make_optimizer(parameters: Iterable[torch.nn.Parameter], wanted: Optimizer) -> torch.optim.Optimizer:
    """The optimizer over `parameters`; its lr is set before every step. Adam's update is one fused kernel."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if wanted.name == "sgd":
        return torch.optim.SGD(
            trained,
            lr=wanted.lr,
            momentum=wanted.momentum,
            nesterov=wanted.nesterov,
            weight_decay=wanted.weight_decay,
        )
    family = torch.optim.AdamW if wanted.name == "adamw" else torch.optim.Adam
    return family(
        trained, lr=wanted.lr, betas=wanted.betas, eps=wanted.eps, weight_decay=wanted.weight_decay, fused=True
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the lr of every parameter group, times the group's own `lr_scale` where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def clip_gradients(optimizer: torch.optim.Optimizer, clip_norm: float | None) -> torch.Tensor:
    """The global 2-norm of all gradients, before they are clipped to `clip_norm` (None: left as they are)."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    return norm
