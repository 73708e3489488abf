"""Whatever goes wrong, one line says where and what."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import LaunchError, OrchestratorError
from orchestrator.run_dir import RunDir
from orchestrator.worker.failure import one_line
from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.train import train
from orchestrator.worker.world import World
from tests.support.worlds import add_attempt, failure_of, make_run, world_of
from tests.worker.recipes import CODE, POINTS, SENTENCES, recipe


def poisoned(name: str = "Poisoned", **args: Any) -> list[dict[str, Any]]:
    return [{"name": "points", "target": f"data:{name}", "args": {"size": 61, **args}, "num_samples": 61}]


def message_of(run: RunDir) -> str:
    """The one-line message of a run that fails in this process."""
    with pytest.raises(OrchestratorError) as raised:
        train(run, add_attempt(run, 1), {}, StopRequest())
    return one_line(raised.value, run.snapshot_recipe)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"target": "unimportable:x"}},
            "unimportable:x: cannot be imported: unimportable.py:1: OSError: no such disk",
        ),
        (
            {"model": {"target": "unparsable:x"}},
            "unparsable:x: cannot be imported: unparsable.py:1: SyntaxError: ",
        ),
        ({"model": {"target": "model:netwrok"}}, "has no 'netwrok' (did you mean 'network'?)"),
        (
            {"model": {"target": "nowhere:x"}},
            "nowhere:x: cannot be imported: ModuleNotFoundError: No module named 'nowhere'",
        ),
        (
            {"model": {"target": "model:network", "args": {"width": 3}}},
            "model:network: cannot be made: TypeError: network() got an unexpected keyword argument 'width'",
        ),
        (
            {"model": {"target": "model:broken"}},
            "model:broken: cannot be made: model.py:41: RuntimeError: the user's mistake",
        ),
        ({"model": {"target": "data:not_a_dataset"}}, "model: data:not_a_dataset gave int (return a torch.nn.Module)"),
        (
            {"datasets": [{**poisoned()[0], "num_samples": 60}]},
            "dataset 'points' has 61 samples, and the recipe declares 60 (write num_samples: 61)",
        ),
        (
            {"datasets": [{"name": "odd", "target": "data:not_a_dataset", "num_samples": 3}]},
            "datasets.0: data:not_a_dataset gave int, which has no length",
        ),
    ],
)
def test_a_recipe_that_cannot_start_says_why_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    run = make_run(tmp_path / "run", recipe(POINTS, **changes), CODE)
    (run.snapshot_recipe / "unimportable.py").write_text('raise OSError("no such disk")')
    (run.snapshot_recipe / "unparsable.py").write_text("def broken(:")
    told = message_of(run)
    assert message in told
    assert "\n" not in told


def test_a_loss_that_is_no_number_names_its_step(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", recipe(POINTS, datasets=poisoned()), CODE)
    with world_of(run, 1) as world:
        assert world.wait() == [1]
        failure = failure_of(world.attempt)
    assert failure["rank"] == 0 and failure["type"] == "NonFiniteError"
    assert failure["message"].startswith("step 1: the training loss is nan (lower optimizer.lr")
    assert "\n" not in failure["message"]
    assert "Traceback" in failure["traceback"] and "Traceback" in world.log()
    assert world.log().endswith(f"orchestrate: rank 0: {failure['message']}\n")


def test_a_sample_that_cannot_be_had_is_named_and_the_other_rank_says_it_only_followed(tmp_path: Path) -> None:
    broken = recipe(POINTS, datasets=poisoned("Points", bad=37), loader={"workers": 1}, seed=3)
    with world_of(make_run(tmp_path / "run", broken, CODE), 2) as world:
        began = time.monotonic()
        assert world.wait() == [1, 1]
        assert time.monotonic() - began < 30
        failures = sorted((failure_of(world.attempt, rank) for rank in (0, 1)), key=lambda failure: failure["time"])
    assert failures[0]["message"].endswith("sample 37 of dataset 'points': ValueError: this one is torn")
    assert [failure["step"] for failure in failures] == [failures[0]["step"]] * 2 and failures[0]["step"] >= 1
    assert failures[1]["type"] == "PeerLost"
    assert failures[1]["message"].startswith("another rank ended first (")


def test_a_loss_that_counts_tokens_without_saying_so_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", recipe(SENTENCES, loss={"target": "model:token_loss"}), CODE)
    with world_of(run, 1) as world:
        assert world.wait() == [1]
        message = failure_of(world.attempt)["message"]
    assert message.startswith("step 1: the loss counts ") and "(give loss.count: module:function" in message


def test_a_world_is_described_by_all_of_torchruns_variables_or_by_none() -> None:
    env = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1"}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    assert World.from_env(env) == World(rank=3, world_size=4, local_rank=1, local_world_size=2, node_rank=1)
    assert World.from_env({"HOME": "/"}).world_size == 1
    del env["GROUP_RANK"]
    with pytest.raises(LaunchError, match="GROUP_RANK not set, though RANK is"):
        World.from_env(env)
    with pytest.raises(LaunchError, match="RANK='x' is not a number"):
        World.from_env({**env, "GROUP_RANK": "0", "RANK": "x"})
