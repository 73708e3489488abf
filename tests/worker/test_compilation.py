"""torch.compile: the same losses to rounding, few compilations, the same checkpoints, and one line where it fails.

What hangs on torch's tracing alone is shown with the backend "aot_eager", which compiles no C++.
"""

from __future__ import annotations

import re
import signal
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
import torch._functorch.config
import torch._inductor.config
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch._functorch.aot_autograd import make_boxed_func
from torch._inductor.exc import CppCompileError

from orchestrator.documents import dump_yaml
from orchestrator.errors import LaunchError, TrainingError
from orchestrator.files import write_atomically
from orchestrator.run_dir import RunDir
from orchestrator.worker.compilation import RECOMPILE_LIMIT, compile_errors_told, compile_model, make_cache_private
from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.targets import UserCode
from orchestrator.worker.train import train
from tests.support.worlds import add_attempt, failure_of, make_run, metrics_of, run_world, world_of
from tests.worker.recipes import CODE, POINTS, SENTENCES, recipe
from tests.worker.test_recompute import BLOCKS, MODELS

KEYS = ("train/loss", "train/grad_norm", "val/loss")
CPU = torch.device("cpu")
DEFAULT_LIMIT = 8
SHORT = recipe(POINTS, duration={"samples": 100})
"""Micro-batches of 3 and 2, and 2 and 1 in the short last window; in validation of 3."""


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Compile in this process, without C++; torch's settings are put back afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    torch._dynamo.reset()
    counters.clear()
    torch.compiler.set_default_backend("aot_eager")
    with (
        torch._dynamo.config.patch(recompile_limit=DEFAULT_LIMIT),
        torch._inductor.config.patch(compile_threads=1),
        torch._functorch.config.patch(force_non_lazy_backward_lowering=False),
    ):
        yield
    torch.compiler.set_default_backend(None)
    torch._dynamo.reset()


def trained(folder: Path, wanted: dict[str, Any], code: Path = CODE) -> RunDir:
    run = make_run(folder, wanted, code)
    train(run, add_attempt(run, 1), {}, StopRequest())
    return run


def assert_same(found: RunDir, expected: RunDir) -> None:
    """Losses and norms agree to 1e-12 in fp64."""
    for key in KEYS:
        values = metrics_of(expected, key)
        assert values and metrics_of(found, key) == pytest.approx(values, rel=1e-12), key


def test_one_rank_and_two_train_to_the_losses_of_the_eager_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks first: they compile the same at the same time, and the one rank finds it done."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    expected = trained(tmp_path / "eager", SHORT)
    for world_size in (2, 1):
        run = make_run(tmp_path / f"{world_size}", recipe(SHORT, compile=True), CODE)
        attempt = run_world(run, world_size, is_anew=True, TMPDIR=str(temporary), TORCH_LOGS="recompiles")
        assert_same(run, expected)
        for rank in range(world_size):
            log = attempt.rank_log(rank).read_text()
            assert 1 <= log.count("Recompiling function call") <= 4, log
    (folder,) = {temporary / path.relative_to(temporary).parts[0] for path in temporary.rglob("*.so")}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.is_relative_to(folder) for path in temporary.rglob("*.gch")), "precompiled headers"


def test_ragged_batches_and_lengths_are_compiled_for_a_few_times_only(tmp_path: Path, traced: None) -> None:
    """Sentences of 1 to 8 tokens, in micro-batches of 1 and 2, and one by one in validation."""
    text = [{"name": "heldout", "target": "data:Sentences", "args": {"size": 25}, "num_samples": 25}]
    batch = {"effective": 15, "micro": 2, "on_indivisible": "uneven"}
    changes = {"validation": text, "batch": batch, "evaluation": {"every": {"steps": 5}, "batch": 1}}
    wanted = recipe(SENTENCES, duration={"samples": 500}, **changes)
    expected = trained(tmp_path / "eager", wanted)
    assert not counters["stats"]
    assert_same(trained(tmp_path / "compiled", recipe(wanted, compile=True)), expected)
    assert 4 <= counters["stats"]["unique_graphs"] <= DEFAULT_LIMIT
    assert counters["frames"]["total"] == counters["frames"]["ok"]


def test_more_kinds_of_calls_are_compiled_for_than_by_default(traced: None) -> None:
    """Two ragged dimensions in training and in evaluation, each as it was first, 1, or any other."""
    model = UserCode(CODE).load("model:Language")()
    compile_model(model, CPU)
    for mode in (True, False):
        model.train(mode)
        for num_samples, length in product((3, 2, 1), (5, 4, 1)):
            with torch.set_grad_enabled(mode):
                model(torch.zeros(num_samples, length, dtype=torch.long), torch.ones(num_samples, length))
    assert DEFAULT_LIMIT < counters["stats"]["unique_graphs"] < RECOMPILE_LIMIT / 2
    assert counters["frames"]["total"] == counters["frames"]["ok"]


@pytest.mark.parametrize("first", [True, False])
def test_a_compiled_run_goes_on_eager_and_the_other_way_round(tmp_path: Path, traced: None, first: bool) -> None:
    whole = trained(tmp_path / "whole", SHORT)
    run = trained(tmp_path / "pieces", recipe(SHORT, compile=first))
    (run.checkpoints / "step-00000007" / "COMMIT").unlink()
    write_atomically(run.recipe, dump_yaml(recipe(SHORT, compile=not first)))
    train(run, add_attempt(run, 1), {}, StopRequest())
    again = metrics_of(run, "train/loss", attempt=1)
    expected = metrics_of(whole, "train/loss")
    assert again == pytest.approx({step: expected[step] for step in again}, rel=1e-12)
    assert min(again) == 7 and counters["stats"]["unique_graphs"]


def test_blocks_are_recomputed_in_a_compiled_model_too(tmp_path: Path, traced: None) -> None:
    """Validation sees whether running statistics were updated twice."""
    wanted = {**BLOCKS, "model": {"target": "blocks:Blocks", "args": {"batch_norm": True}}}
    expected = trained(tmp_path / "eager", wanted, MODELS)
    changes = {"compile": True, "activation_checkpointing": True}
    assert_same(trained(tmp_path / "compiled", recipe(wanted, **changes), MODELS), expected)
    assert counters["stats"]["unique_graphs"]


def test_a_compiled_model_keeps_its_names_and_counts_what_it_writes_to_its_buffers(traced: None) -> None:
    """A rank that ends in the middle of a window tells by the counts that its buffers are no longer the last step's."""
    model = UserCode(MODELS).load("blocks:Blocks")(batch_norm=True)
    names, before = list(model.state_dict()), [buffer._version for buffer in model.buffers()]
    compile_model(model, CPU)
    model(torch.ones(3, 3, 2, 2))
    assert list(model.state_dict()) == names
    assert all(buffer._version > count for buffer, count in zip(model.buffers(), before, strict=True))


def test_forward_and_backward_are_compiled_in_the_call_where_no_signal_reaches_a_compiler(traced: None) -> None:
    """A module of torch's own is compiled like any other."""
    masks = []

    def compiler(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return make_boxed_func(graph.forward)

    torch.compiler.set_default_backend(aot_autograd(fw_compiler=compiler))
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh())
    compile_model(model, CPU)
    outputs = model(torch.ones(2, 3))
    assert len(masks) == 2 and all(signal.SIGTERM in mask for mask in masks)
    outputs.sum().backward()
    assert len(masks) == 2 and signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_node_without_a_compiler_is_told_in_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", recipe(SHORT, compile=True), CODE)
    with world_of(run, 1, is_anew=True, CXX=str(tmp_path / "g++"), TMPDIR=str(tmp_path)) as world:
        assert world.wait() == [1]
    message = failure_of(world.attempt)["message"]
    assert re.fullmatch(r"compile: there is no C\+\+ compiler on \S+, and torch.compile needs one \(.*\)", message)
    assert message.endswith("(install g++ there, name one in env.variables.CXX, or write compile: false)")


def test_what_a_compiler_says_is_told(traced: None) -> None:
    with pytest.raises(TrainingError) as caught, compile_errors_told():
        raise CppCompileError(["g++"], "In file included\nx.cpp:1:10: fatal error: Python.h: No such file\n    1 | #")
    (problem,) = caught.value.problems
    assert (problem.where, problem.fix) == ("compile", "mend that, or write compile: false")
    assert problem.what == "torch.compile failed: x.cpp:1:10: fatal error: Python.h: No such file"
    with pytest.raises(KeyError), compile_errors_told():
        raise KeyError("the user's own")


@pytest.mark.filterwarnings("ignore")
def test_a_mistake_in_the_model_is_told_as_torch_tells_it(traced: None) -> None:
    model = torch.nn.Linear(4, 4)
    compile_model(model, CPU)
    with pytest.raises(TrainingError, match=r"failed: RuntimeError\('a and b must have same reduction dim"):
        model(torch.ones(2, 3))


def test_compiled_code_is_kept_where_nobody_else_can_write(tmp_path: Path) -> None:
    folder = tmp_path / "torchinductor_me"
    make_cache_private(folder)
    folder.chmod(0o755)
    make_cache_private(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert_refused(folder)
    folder.rmdir()
    folder.symlink_to(tmp_path)
    assert_refused(folder)
    folder.unlink()
    folder.touch()
    assert_refused(folder)


def assert_refused(folder: Path) -> None:
    with pytest.raises(LaunchError, match="not a folder that only you can write to"):
        make_cache_private(folder)
