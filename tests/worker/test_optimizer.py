"""Every optimizer that a recipe may name is made with the recipe's settings, torch's own or the user's."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from orchestrator.errors import RecipeError
from orchestrator.plan.learning_rate import RMSPROP_ALPHA
from orchestrator.recipe.schema import Optimizer
from orchestrator.worker.optimizer import clip_gradients, make_optimizer, set_lr, update_weights
from orchestrator.worker.targets import UserCode
from tests.support.worlds import make_run, metrics_of, run_world
from tests.worker.recipes import CODE, POINTS, recipe

NAMES = ("sgd", "adam", "adamw", "nadam", "radam", "rmsprop", "adafactor")
OWN = """
import torch


class Lion(torch.optim.SGD):
    def __init__(self, parameters, lr, beta=0.5):
        super().__init__(parameters, lr=lr, momentum=beta)


def nothing(parameters, lr):
    return list(parameters)


def strict(parameters):
    return torch.optim.SGD(parameters, lr=1)
"""


def made(parameters: list[torch.nn.Parameter] | None = None, **settings: Any) -> torch.optim.Optimizer:
    return make_optimizer(parameters or [torch.nn.Parameter(torch.ones(2))], Optimizer(lr=0.5, **settings))


@pytest.mark.parametrize(
    ("settings", "kind", "expected"),
    [
        ({"name": "sgd", "momentum": 0.9, "nesterov": True}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        ({"name": "adam", "betas": [0.8, 0.95]}, torch.optim.Adam, {"betas": (0.8, 0.95), "fused": True}),
        ({"name": "adamw", "eps": 1e-6}, torch.optim.AdamW, {"eps": 1e-6, "fused": True}),
        ({"name": "nadam", "betas": [0.8, 0.95], "eps": 1e-6}, torch.optim.NAdam, {"betas": (0.8, 0.95), "eps": 1e-6}),
        ({"name": "radam", "betas": [0.8, 0.95], "eps": 1e-6}, torch.optim.RAdam, {"betas": (0.8, 0.95), "eps": 1e-6}),
        ({"name": "rmsprop", "momentum": 0.9, "eps": 1e-6}, torch.optim.RMSprop, {"momentum": 0.9, "eps": 1e-6}),
        ({"name": "adafactor"}, torch.optim.Adafactor, {}),
    ],
)
def test_an_optimizer_of_torch_gets_its_settings(settings: dict[str, Any], kind: Any, expected: dict[str, Any]) -> None:
    optimizer = made(weight_decay=0.1, **settings)
    assert type(optimizer) is kind
    assert {"lr": 0.5, "weight_decay": 0.1, **expected}.items() <= optimizer.param_groups[0].items()


@pytest.mark.parametrize("name", NAMES)
def test_the_lr_is_set_on_every_group_and_the_norm_is_the_one_before_clipping(name: str) -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = made([weight], name=name)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr_scale": 0.1})
    set_lr(optimizer, 0.2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.2, 0.02])
    weight.grad = torch.tensor([3.0, 4.0])
    assert clip_gradients(optimizer, 1.0).item() == pytest.approx(5.0)
    assert weight.grad.norm().item() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_moves_the_weights_against_the_gradient_and_its_state_can_be_restored(name: str) -> None:
    weight, again = (torch.nn.Parameter(torch.ones(3, 2)) for _ in range(2))
    first, second = made([weight], name=name), made([again], name=name)
    for parameter, optimizer in ((weight, first), (again, second)):
        parameter.grad = torch.full_like(parameter, 0.5)
        optimizer.step()
    assert (weight < 1).all()
    restored = made([again], name=name)
    restored.load_state_dict(copy.deepcopy(first.state_dict()))
    for parameter, optimizer in ((weight, first), (again, restored)):
        parameter.grad = torch.full_like(parameter, 0.25)
        optimizer.step()
    assert torch.equal(weight, again)


def test_weights_that_are_frozen_are_left_out() -> None:
    frozen = torch.nn.Parameter(torch.zeros(2), requires_grad=False)
    optimizer = made([torch.nn.Parameter(torch.zeros(2)), frozen], name="adamw")
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]


def test_the_decay_rate_of_rmsprop_is_the_one_that_the_plan_names() -> None:
    assert made(name="rmsprop").param_groups[0]["alpha"] == RMSPROP_ALPHA


def test_an_optimizer_of_the_users_own_gets_the_weights_the_lr_and_its_arguments(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    wanted = Optimizer(name="other", target="own:Lion", args={"beta": 0.25}, lr=0.5)
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(2))], wanted, UserCode(tmp_path).make)
    assert type(optimizer).__name__ == "Lion"
    assert {"lr": 0.5, "momentum": 0.25}.items() <= optimizer.param_groups[0].items()


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("own:nothing", "optimizer.target: own:nothing gave list\n    return a torch.optim.Optimizer"),
        ("own:strict", "own:strict: cannot be made: TypeError: strict() got an unexpected keyword argument 'lr'"),
    ],
)
def test_what_is_no_optimizer_is_told_in_one_line(target: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    wanted = Optimizer(name="other", target=target, lr=0.5)
    with pytest.raises(RecipeError) as caught:
        make_optimizer([torch.nn.Parameter(torch.zeros(2))], wanted, UserCode(tmp_path).make)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize("name", ["adafactor", "lamb"])
def test_two_ranks_train_as_one_does_whatever_the_optimizer(tmp_path: Path, name: str) -> None:
    """With aligned micro-batches too: 16 samples at most 6 at a time in twos are 6 + 6 + 4, and 8 are 4 + 4."""
    optimizer: dict[str, Any] = {"name": name, "lr": 0.01, "clip_norm": 0.3}
    if name == "lamb":
        optimizer |= {"target": "torch.optim:ASGD", "args": {"lambd": 1e-3}}
    batch = {"effective": 16, "micro": 6, "micro_multiple": 2}
    wanted = recipe(POINTS, optimizer=optimizer, batch=batch, duration={"samples": 90})
    losses = []
    for world_size in (1, 2):
        run = make_run(tmp_path / str(world_size), wanted, CODE)
        run_world(run, world_size)
        losses.append(metrics_of(run, "train/loss"))
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_an_update_is_bit_for_bit_what_a_step_makes_of_the_weights(name: str) -> None:
    weights = []
    for update in (lambda optimizer: optimizer.step(), update_weights):
        parameter = torch.nn.Parameter(torch.arange(1.0, 7.0).reshape(2, 3))
        optimizer = made([parameter], name=name)
        for step in range(3):
            parameter.grad = torch.full((2, 3), 0.1 * (step + 1))
            update(optimizer)
        weights.append(parameter.detach())
    assert torch.equal(*weights) and not torch.equal(weights[0], torch.arange(1.0, 7.0).reshape(2, 3))


def test_an_update_is_told_to_hooks_and_to_a_profiler() -> None:
    told: list[str] = []
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    optimizer = made([parameter], name="sgd")
    registered = {
        "before": optimizer.register_step_pre_hook,
        "after": optimizer.register_step_post_hook,
        "before all": register_optimizer_step_pre_hook,
        "after all": register_optimizer_step_post_hook,
    }
    for which, register in registered.items():
        handle = register(lambda *_, which=which: told.append(which))  # type: ignore[operator]
        update_weights(optimizer)
        handle.remove()
        update_weights(optimizer)
    assert told == list(registered)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        update_weights(optimizer)
    assert "Optimizer.step#SGD.step" in {event.key for event in profiler.key_averages()}


def test_an_update_that_nobody_listens_to_is_announced_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = made([parameter], name="sgd")
    announce = torch.autograd.profiler.record_function
    monkeypatch.setattr(torch.autograd.profiler, "record_function", lambda name: told.append(name) or announce(name))
    for update in (update_weights, lambda optimizer: optimizer.step()):
        parameter.grad = torch.ones(2)
        update(optimizer)
    assert told == ["Optimizer.step#SGD.step"], "torch's own step says so, and an update does not"


def test_an_update_calls_a_step_of_ones_own_and_what_a_schedule_has_put_around_it() -> None:
    class Twice(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            super().step(closure)
            super().step(closure)

    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.ones(1)
    optimizer = Twice([parameter], lr=1.0)
    update_weights(optimizer)
    assert parameter.item() == -2
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    update_weights(optimizer)
    assert parameter.item() == -4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule.step()  # torch warns where no step came before it
