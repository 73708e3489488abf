"""The simulation: what it counts, what it does as a GPU would, and what user code it can follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn import functional

from orchestrator.cluster import LOCAL, Allocation
from orchestrator.errors import RecipeError
from orchestrator.files import write_json
from orchestrator.plan.memory import MemoryPlan, PeakCurve
from orchestrator.plan.plan import make_plan, plan_to_json
from orchestrator.recipe.schema import Recipe
from orchestrator.run_dir import RunDir
from orchestrator.units import GIB
from orchestrator.worker.fit.cuda import AsOnCuda
from orchestrator.worker.fit.sample import Sample, model_sizes
from orchestrator.worker.fit.simulation import Simulation, TotalTracker
from orchestrator.worker.peak import PeakMemory
from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.targets import UserCode
from orchestrator.worker.tensors import tensors_in
from orchestrator.worker.train import train
from tests.support.worlds import add_attempt, make_run, metrics_of, run_world
from tests.worker.test_recompute import BLOCKS, MODELS

GPT = {
    **BLOCKS,
    "model": {"target": "gpt:GPT", "args": {"num_layers": 2, "width": 64, "vocabulary": 128, "length": 32}},
    "loss": {"target": "data:token_loss", "count": "data:count_tokens"},
    "datasets": [
        {"name": "text", "target": "data:Tokens", "num_samples": 9,
         "args": {"size": 9, "length": 32, "vocabulary": 128}},
    ],
    "validation": [],
    "precision": "fp32",
}  # fmt: skip


def simulation(base: dict[str, Any] = GPT, accelerator: Any = "cpu", **changes: Any) -> Simulation:
    recipe, code = Recipe.model_validate({**base, **changes}), UserCode(MODELS)
    return Simulation(recipe, code, Sample.of(recipe, code), accelerator)


def blocks(target: str = "Blocks", **args: Any) -> dict[str, Any]:
    return {"target": f"blocks:{target}", "args": args}


def test_the_total_is_that_of_torchs_own_tracker() -> None:
    peaks = []
    with FakeTensorMode():
        model = torch.nn.Sequential(torch.nn.Linear(40, 80), torch.nn.GELU(), torch.nn.Linear(80, 40))
        for tracker in (TotalTracker(model), MemTracker()):  # type: ignore[no-untyped-call]
            if not isinstance(tracker, TotalTracker):
                tracker.track_external(model)
            with tracker:
                model(torch.ones(16, 40)).sum().backward()
            model.zero_grad()
            snapshot = tracker.get_tracker_snapshot("peak").get(torch.device("cpu"), {})
            peaks.append(tracker.peak_bytes if isinstance(tracker, TotalTracker) else snapshot["Total"])
    assert peaks[0] == peaks[1]


def test_an_adam_step_holds_weights_buckets_and_two_moments() -> None:
    simulated = simulation()
    weights = sum(parameter.nbytes for parameter in simulated.model.parameters())
    assert simulated.gradient_bytes == weights
    assert simulated.step_bytes() == pytest.approx(4 * weights, rel=0.01)


def test_gradients_that_accumulate_live_beside_the_buckets() -> None:
    simulated = simulation()
    peaks = [simulated.forward_backward_bytes(4, accumulating=on, recompute=False) for on in (False, True)]
    assert peaks[1] - peaks[0] == simulated.gradient_bytes


def test_peaks_rise_in_a_straight_line_and_recomputing_flattens_it() -> None:
    simulated = simulation()
    slopes = []
    for recompute in (False, True):
        first, second, third = (
            simulated.forward_backward_bytes(size, accumulating=True, recompute=recompute) for size in (8, 16, 24)
        )
        assert third - second == pytest.approx(second - first, rel=1e-3)
        slopes.append(second - first)
    assert slopes[1] < slopes[0] / 1.5
    assert not any("forward" in vars(module) for module in simulated.model.modules())


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "nadam", "radam", "rmsprop", "adafactor"])
@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_every_optimizer_can_be_simulated(name: str, accelerator: str) -> None:
    simulated = simulation(accelerator=accelerator, optimizer={"name": name, "lr": 0.1, "clip_norm": 1.0})
    assert simulated.step_bytes() >= 2 * simulated.gradient_bytes


def test_on_a_gpu_an_optimizer_without_a_fused_kernel_copies_its_weights() -> None:
    steps = {}
    for accelerator in ("cpu", "cuda"):
        simulated = simulation(accelerator=accelerator, optimizer={"name": "nadam", "lr": 0.1})
        steps[accelerator] = simulated.step_bytes() / simulated.gradient_bytes
    assert steps["cpu"] < 4.5 < steps["cuda"]


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16", "fp16"])
def test_weights_are_kept_in_the_precision_of_the_run(precision: str) -> None:
    simulated = simulation(precision=precision)
    assert {parameter.element_size() for parameter in simulated.trained} == {8 if precision == "fp64" else 4}
    assert simulated.forward_backward_bytes(2, accumulating=False, recompute=True) > simulated.gradient_bytes


def test_shared_weights_are_counted_once() -> None:
    simulated = simulation(precision="fp64")
    assert simulated.model.head.weight is simulated.model.tokens.weight
    assert len(simulated.trained) == len({id(parameter) for parameter in simulated.trained})


def test_a_constructor_that_asks_for_values_makes_its_model_for_real_first() -> None:
    peaks = []
    for target in ("Blocks", "Asking"):
        simulated = simulation(BLOCKS, model=blocks(target))
        peaks.append(simulated.forward_backward_bytes(4, accumulating=True, recompute=True))
    assert peaks[1] - peaks[0] == 7 * 8
    assert all(type(parameter.data).__name__ == "FakeTensor" for parameter in simulated.trained)


def test_a_loss_may_ask_for_its_count() -> None:
    plain, asking = (simulation(BLOCKS, loss={"target": name}) for name in ("data:cross_entropy", "blocks:asking_loss"))
    peaks = [one.forward_backward_bytes(4, accumulating=False, recompute=False) for one in (plain, asking)]
    assert peaks[1] == pytest.approx(peaks[0], rel=0.01)


def test_the_largest_of_the_first_samples_is_the_one_that_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "ragged.py").write_text(
        "import torch\n"
        "class Ragged:\n"
        "    def __len__(self): return 5\n"
        "    def __getitem__(self, i): return torch.zeros([2, 9, 4, 1, 3][i]), torch.zeros(1)\n"
    )
    ragged = [{"name": "ragged", "target": "ragged:Ragged", "num_samples": 5}]
    sample = Sample.of(Recipe.model_validate({**BLOCKS, "datasets": ragged}), UserCode(tmp_path))
    assert sample.micro_batch(3)[0].shape == (3, 9)
    assert sample.words == "the largest of the first 5 samples of 'ragged'"


def test_the_largest_sample_of_all_datasets_is_taken_and_collated_as_in_training(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(
        "import torch\n"
        "class Short:\n"
        "    length = 8\n"
        "    def __len__(self): return 100\n"
        "    def __getitem__(self, i): return torch.zeros(self.length), torch.zeros(1)\n"
        "class Long(Short):\n"
        "    length = 2048\n"
        "    def collate_fn(self, items): return [torch.cat([i[k] for i in items]) for k in (0, 1)]\n"
        "class Broken(Short):\n"
        "    def __getitem__(self, i): raise KeyError('gone')\n"
    )
    data = [{"name": name, "target": f"two:{name.title()}", "num_samples": 100} for name in ("short", "long", "short2")]
    data[2]["target"] = "two:Short"
    sample = Sample.of(Recipe.model_validate({**BLOCKS, "datasets": data}), UserCode(tmp_path))
    assert sample.micro_batch(3)[0].shape == (3 * 2048,)
    assert sample.words == "the largest of the first 64 samples of 'long', the largest of 3 datasets"
    data[2]["target"] = "two:Broken"
    with pytest.raises(RecipeError, match=r"datasets\.2: sample 0 of dataset 'short2': KeyError"):
        Sample.of(Recipe.model_validate({**BLOCKS, "datasets": data}), UserCode(tmp_path))


@pytest.mark.parametrize("collate", ["default_collate", "pairs", "flat", "lists"])
def test_a_large_micro_batch_has_the_shapes_that_collating_it_gives(tmp_path: Path, collate: str) -> None:
    (tmp_path / f"{collate}.py").write_text(
        "import torch\n"
        "from torch.utils.data import default_collate\n"
        "def pairs(items): return ({'x': default_collate([i[0] for i in items]), 'none': None}, items[0][1])\n"
        "def flat(items): return torch.cat([i[0] for i in items]), torch.cat([i[1] for i in items])\n"
        "def lists(items): return [i[0] for i in items], torch.cat([i[1] for i in items])\n"
        "class Data:\n"
        f"    collate_fn = staticmethod({collate})\n"
        "    def __len__(self): return 1\n"
        "    def __getitem__(self, i): return torch.zeros(9, 2), torch.zeros(1, dtype=torch.long)\n"
    )
    data = [{"name": "data", "target": f"{collate}:Data", "num_samples": 1}]
    sample = Sample.of(Recipe.model_validate({**BLOCKS, "datasets": data}), UserCode(tmp_path))
    for size in (5, 100):
        real = list(tensors_in(sample.micro_batch(size)))
        fake = tensors_in(sample.fake_micro_batch(size, FakeTensorMode()))
        assert [(t.shape, t.dtype) for t in fake] == [(t.shape, t.dtype) for t in real]


def test_first_order_sizes_follow_from_weights_and_the_sample() -> None:
    simulated = simulation()
    sizes = model_sizes(simulated.model, simulated.sample, precision="fp32")
    assert sizes.trained_bytes == sizes.parameter_bytes == simulated.gradient_bytes
    width, per_block = 64, 3 * 64 + 64 + 4 * 64 + 64
    assert sizes.activation_bytes == 2 * 32 * 4 * (2 * width + 2 * per_block + 128)


def test_as_on_cuda_autocast_widens_what_a_gpu_widens() -> None:
    narrow = torch.ones(4, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert functional.layer_norm(narrow, (8,)).dtype == torch.bfloat16
        with AsOnCuda():
            assert functional.layer_norm(narrow, (8,)).dtype == torch.float32
            assert narrow.softmax(-1).dtype == torch.float32
            assert functional.linear(narrow, torch.ones(3, 8)).dtype == torch.bfloat16
    with AsOnCuda():
        assert functional.layer_norm(narrow, (8,)).dtype == torch.bfloat16


def saved_bytes(function: Any, *inputs: torch.Tensor) -> int:
    """What `function` leaves for its backward pass, the largest tensor only."""
    sizes: list[int] = []

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        function(*inputs)
    return max(sizes)


def test_as_on_cuda_dropout_remembers_bytes_and_attention_no_scores() -> None:
    data = torch.ones(100, requires_grad=True)
    assert saved_bytes(lambda x: functional.dropout(x, 0.1), data) == 400
    with AsOnCuda():
        assert saved_bytes(lambda x: functional.dropout(x, 0.1), data) == 100
    query = torch.ones(1, 2, 256, 8, requires_grad=True)
    attend = functional.scaled_dot_product_attention
    scores = 2 * 256 * 256 * 4
    assert saved_bytes(lambda x: attend(x, x, x, dropout_p=0.1), query) >= scores
    layer = torch.nn.MultiheadAttention(16, 2, dropout=0.1, batch_first=True)
    with AsOnCuda():
        assert saved_bytes(lambda x: attend(x, x, x, None, 0.1), query) < scores
        assert saved_bytes(lambda x: layer(x, x, x, need_weights=False)[0], torch.ones(1, 256, 16)) < scores


def test_what_is_recomputed_is_recomputed_as_on_cuda_too() -> None:
    """Outside the mode the second run would remember other tensors than the first, which torch refuses."""
    model = {**GPT["model"], "args": {**GPT["model"]["args"], "dropout": 0.1}}
    simulated = simulation(accelerator="cuda", precision="bf16", model=model)
    peaks = [simulated.forward_backward_bytes(8, accumulating=True, recompute=recompute) for recompute in (False, True)]
    assert peaks[1] < peaks[0]


def test_a_recipe_that_wants_recomputation_needs_blocks() -> None:
    with pytest.raises(RecipeError, match="no blocks"):
        simulation(BLOCKS, model=blocks("without_blocks")).check_recompute()


def peaks_of(run: RunDir) -> tuple[dict[int, float], dict[int, float]]:
    return metrics_of(run, "memory/observed_peak_gib"), metrics_of(run, "memory/predicted_peak_gib")


def test_a_run_tells_its_observed_peak_once_and_no_prediction_that_nobody_made(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", BLOCKS, MODELS)
    train(run, add_attempt(run, 1), {}, StopRequest())
    observed, predicted = peaks_of(run)
    assert list(observed) == [6] and predicted == {}


def test_the_highest_peak_of_all_ranks_is_told_beside_the_predicted_one(tmp_path: Path) -> None:
    """Two ranks accumulate; the plan holds a prediction, and rank 0 journals both at the last step."""
    run = make_run(tmp_path / "run", {**BLOCKS, "batch": {"effective": 10, "micro": "auto"}}, MODELS)
    curves = [PeakCurve.through({1: GIB, 2: fixed * GIB}, step_bytes=0) for fixed in (2, 3)]
    memory = MemoryPlan("simulated", 80 * GIB, 70 * GIB, 2, 2, curves[1], curves[0])
    recipe = Recipe.model_validate({**BLOCKS, "batch": {"effective": 10, "micro": "auto"}})
    write_json(run.plan, plan_to_json(make_plan(recipe, LOCAL, Allocation(1, 2), memory=memory)))
    run_world(run, 2)
    observed, predicted = peaks_of(run)
    assert predicted == {6: 3.0}
    assert list(observed) == [6] and 0 < observed[6] < 1


def test_the_peak_counts_what_came_and_went_since_it_was_asked_to_count() -> None:
    before = torch.ones(64 * 2**20 // 4)
    memory = PeakMemory.from_now(torch.device("cpu"))
    assert memory.observed_bytes() < 32 * 2**20
    during = torch.ones(128 * 2**20 // 4)
    del during, before
    assert 120 * 2**20 < memory.observed_bytes() < 160 * 2**20
