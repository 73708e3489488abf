"""One rank's optimizer step on fake tensors: the worker's own parts, no memory and no arithmetic, peaks counted.

torch's MemTracker counts the storages that live under FakeTensorMode. DistributedDataParallel is stood in for by what
it holds: buckets as large as all gradients, for as long as training lasts, to which each gradient moves when it is
complete; only while gradients accumulate do they live beside the buckets.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils._python_dispatch import TorchDispatchMode

from orchestrator.errors import RecipeError
from orchestrator.recipe.schema import Recipe
from orchestrator.worker.fit.cuda import AsOnCuda
from orchestrator.worker.fit.sample import Sample
from orchestrator.worker.loss import Objective
from orchestrator.worker.optimizer import clip_gradients, make_optimizer
from orchestrator.worker.precision import Precision, call_model
from orchestrator.worker.recompute import recompute_blocks
from orchestrator.worker.targets import UserCode, build_model
from orchestrator.worker.tensors import tensors_in

_CPU = torch.device("cpu")


class TotalTracker(MemTracker):  # type: ignore[no-untyped-call]
    """MemTracker's account of storages without its statistics by module, which take five times the time."""

    def __init__(self, *held: Any) -> None:
        super().__init__()
        self.track_external(*held)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):  # two calls of three
            return args[0].fake_device
        return super().__torch_dispatch__(func, types, args, kwargs)  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    @property
    def peak_bytes(self) -> int:
        """The most that lived at once since the tracker was entered."""
        return int(self._peak_mem.get(_CPU, 0))

    def _update_peak_stats(self, peak_state: Any) -> None:
        now = self._curr_mem_snap.get(_CPU)
        if now is not None:
            self._peak_mem[_CPU] = max(self._peak_mem.get(_CPU, 0), now["Total"])

    def _pre_fw_hook(self, module: Any, inputs: Any) -> None: ...

    def _post_fw_hook(self, module: Any, inputs: Any, outputs: Any) -> None: ...

    def _pre_bw_hook(self, module: Any, args: Any) -> None: ...

    def _post_bw_hook(self, module: Any, args: Any) -> None: ...


class AnyNumber(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Where code asks a fake tensor for its value, there is an answer: for counts and scale factors, never for shapes.

    It is 1, or 0.5 for floating numbers: optimizers divide by 1 - x.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0.5 if args[0].is_floating_point() else 1
        return func(*args, **(kwargs or {}))


@dataclass
class Simulation:
    """A model and its optimizer in fake memory; every method gives the peak in bytes of one phase."""

    recipe: Recipe
    code: UserCode
    sample: Sample
    accelerator: Literal["cuda", "cpu"]
    mode: FakeTensorMode = field(default_factory=lambda: FakeTensorMode(allow_non_fake_inputs=True))

    def __post_init__(self) -> None:
        self.precision = Precision(self.recipe.precision, _CPU)
        self.objective = Objective.of(self.recipe, self.code)
        self.model = self._build()
        if self.recipe.precision == "fp64":
            with self.mode, torch.no_grad():
                _replace_tensors(self.model, lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
        self.model.train()

    def _build(self) -> torch.nn.Module:
        """The model under fake tensors, or, where its constructor needs numbers, made for real and then emptied."""
        assert self.recipe.model is not None, "a recipe for this loop has a model"
        with contextlib.suppress(RecipeError), self.mode:
            return build_model(self.code, self.recipe.model)
        model = build_model(self.code, self.recipe.model)
        with torch.no_grad():
            _replace_tensors(model, self.mode.from_tensor)
        return model

    @cached_property
    def trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """The worker's optimizer with its state, by the implementation it takes on the accelerator."""
        with self.mode:
            optimizer = make_optimizer(self.model.parameters(), self.recipe.optimizer, self.code.make)
            for group in optimizer.param_groups:
                if self.accelerator == "cuda" and group.get("foreach", 0) is None and not group.get("fused"):
                    group["foreach"] = True
            self._set_gradients(self.buckets)
            with AnyNumber():  # type: ignore[no-untyped-call]
                optimizer.step()
            optimizer.zero_grad()
        return optimizer

    @cached_property
    def buckets(self) -> list[torch.Tensor]:
        """DDP's memory for gradients, one for each parameter."""
        with self.mode:
            return [torch.empty_like(parameter) for parameter in self.trained]

    @property
    def gradient_bytes(self) -> int:
        """All gradients together."""
        return sum(parameter.nbytes for parameter in self.trained)

    def check_recompute(self) -> None:
        """Raise RecipeError where the model has no blocks to recompute."""
        with self._recomputing(True):
            pass

    def step_bytes(self) -> int:
        """The optimizer step: gradients are in the buckets, activations are gone."""
        optimizer = self.optimizer
        with self.mode:
            self._set_gradients(self.buckets)
            tracker = TotalTracker(self.model, optimizer, *self.buckets)
            with tracker, AnyNumber():  # type: ignore[no-untyped-call]
                clip_gradients(optimizer, self.recipe.optimizer.clip_norm)
                optimizer.step()
            optimizer.zero_grad()
        return tracker.peak_bytes

    def forward_backward_bytes(self, micro_batch_size: int, *, accumulating: bool, recompute: bool) -> int:
        """Forward and backward of one micro-step; `accumulating`: of one that finds the gradients of earlier ones."""
        batch = self.sample.fake_micro_batch(micro_batch_size, self.mode)
        optimizer = self.optimizer
        with self.mode, self._as_on_accelerator(), self._recomputing(recompute), self._ddp(accumulating):
            inputs, targets = self.precision.place(batch)
            tracker = TotalTracker(self.model, optimizer, *self.buckets, *tensors_in((inputs, targets)))
            with tracker:
                with self.precision.forward_context():
                    outputs = call_model(self.model, inputs)
                    with AnyNumber():  # type: ignore[no-untyped-call]
                        loss_sum, _ = self.objective.loss(outputs, targets)
                    del outputs
                loss_sum.backward(gradient=torch.full_like(loss_sum, 1.0))
                del loss_sum
            optimizer.zero_grad()
        return tracker.peak_bytes

    def _set_gradients(self, gradients: list[torch.Tensor]) -> None:
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            parameter.grad = gradient

    @contextlib.contextmanager
    def _ddp(self, accumulating: bool) -> Iterator[None]:
        """Gradients as DDP keeps them: of earlier micro-steps, or moved to the buckets as they become complete."""
        if accumulating:
            self._set_gradients([torch.empty_like(parameter) for parameter in self.trained])
            yield
            return
        bucket_of = {id(parameter): bucket for parameter, bucket in zip(self.trained, self.buckets, strict=True)}

        def move(parameter: torch.Tensor) -> None:
            parameter.grad = bucket_of[id(parameter)]

        handles = [
            parameter.register_post_accumulate_grad_hook(move)  # type: ignore[no-untyped-call]
            for parameter in self.trained
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextlib.contextmanager
    def _recomputing(self, recompute: bool) -> Iterator[None]:
        blocks = recompute_blocks(self.model, again=self._as_on_accelerator) if recompute else []
        try:
            yield
        finally:
            for block in blocks:
                del block.forward

    def _as_on_accelerator(self) -> contextlib.AbstractContextManager[Any]:
        return AsOnCuda() if self.accelerator == "cuda" else contextlib.nullcontext()


def _replace_tensors(model: torch.nn.Module, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Put function(tensor) in the place of every parameter and buffer; what was shared stays shared."""
    made: dict[int, torch.Tensor] = {}
    kept: list[torch.Tensor] = []  # as long as the old ones live, no new one can have their id
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                new = torch.nn.Parameter(function(parameter), parameter.requires_grad)
                module._parameters[name] = cast(torch.nn.Parameter, made.setdefault(id(parameter), new))
                kept.append(parameter)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = made.setdefault(id(buffer), function(buffer))
                kept.append(buffer)
