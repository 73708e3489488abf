"""A loop of the user's own with a session: the package's own loop, number by number; and what it is told when wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.files import read_json
from orchestrator.run_dir import RunDir
from tests.support.worlds import events_of, failure_of, make_run, metrics_of, run_world, sample_ids_of, world_of
from tests.worker.recipes import CODE, POINTS, SENTENCES, recipe

LOOP = """
import torch
from model import accuracy, cross_entropy, network
from orchestrator.worker import session

with session.start() as run:
    net = network(dropout=DROPOUT)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1.0, weight_decay=0.01, fused=True)
    model = run.prepare(net, optimizer)
    for window in run.windows():
        for batch in window:
            with run.autocast():
                loss_sum, _ = cross_entropy(model(batch.inputs), batch.targets)
            batch.scale(loss_sum).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.3)
        optimizer.step()
        optimizer.zero_grad()
"""
TOKENS = """
import torch
from data import count_tokens
from model import Language, token_loss
from orchestrator.worker import session

with session.start() as run:
    net = Language()
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01, fused=True)
    model = run.prepare(net, optimizer)
    for window in run.windows(count=count_tokens):
        for batch in window:
            loss_sum, _ = token_loss(model(**batch.inputs), batch.targets)
            batch.scale(loss_sum).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.3)
        optimizer.step()
        optimizer.zero_grad()
"""


def own_run(folder: Path, script: str, base: dict[str, Any] = POINTS, **changes: Any) -> RunDir:
    """A run whose command is `script`, on the data of `base`."""
    left_out = ("model", "loss", "metrics", "validation")
    own = {key: value for key, value in recipe(base, **changes).items() if key not in left_out}
    own["optimizer"] = {key: value for key, value in own["optimizer"].items() if key != "clip_norm"}
    run = make_run(folder, {**own, "command": ["own.py"]}, CODE)
    (run.snapshot_recipe / "own.py").write_text(script.replace("DROPOUT", "0.0"))
    return run


def same_curve(run: RunDir, other: RunDir) -> bool:
    one, two = metrics_of(run, "train/loss"), metrics_of(other, "train/loss")
    return one.keys() == two.keys() and max(abs(one[step] / two[step] - 1) for step in two) <= 1e-12


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_loop_of_ones_own_sees_the_samples_and_the_losses_of_the_packages_loop(
    tmp_path: Path, uninterrupted: RunDir, world_size: int
) -> None:
    """Ragged and uneven micro-batches, a short last window, empty shares: to 1e-12 in fp64."""
    run = own_run(tmp_path / "own", LOOP)
    done = read_json(run_world(run, world_size).done)
    assert (done["step"], done["consumed_samples"]) == (21, 322)
    assert sample_ids_of(run) == sample_ids_of(uninterrupted)
    assert same_curve(run, uninterrupted)
    assert metrics_of(run, "train/lr") == metrics_of(uninterrupted, "train/lr")


def test_what_a_model_draws_is_what_it_draws_in_the_packages_loop(tmp_path: Path) -> None:
    own = own_run(tmp_path / "own", LOOP.replace("DROPOUT", "0.2"))
    packages = make_run(
        tmp_path / "run", recipe(POINTS, model={"target": "model:network", "args": {"dropout": 0.2}}), CODE
    )
    run_world(own, 2)
    run_world(packages, 2)
    assert same_curve(own, packages)


def test_tokens_are_counted_over_the_whole_window(tmp_path: Path) -> None:
    own, packages = own_run(tmp_path / "own", TOKENS, SENTENCES), make_run(tmp_path / "run", SENTENCES, CODE)
    run_world(own, 2)
    run_world(packages, 1)
    assert same_curve(own, packages)


def test_windows_in_which_nothing_counts_are_passed_over(tmp_path: Path) -> None:
    args = {"size": 30, "first_counts": False}
    text = [{"name": "text", "target": "data:Sentences", "args": args, "num_samples": 30}]
    own = own_run(tmp_path / "own", TOKENS, SENTENCES, datasets=text)
    run_world(own, 2)
    assert metrics_of(own, "train/loss") == {}
    assert [event["step"] for event in events_of(own, "empty_window")] == list(range(1, 8))


COUNTING = LOOP.replace(
    "    model = run.prepare(net, optimizer)\n",
    """    import time
    class Counter:
        steps = 0
        def state_dict(self): return {"steps": self.steps}
        def load_state_dict(self, state): self.steps = state["steps"]
    counter = Counter()
    model = run.prepare(net, optimizer, counter=counter)
    assert counter.steps == run.step
""",
).replace(
    "        optimizer.step()\n", "        optimizer.step()\n        counter.steps += 1\n        time.sleep(0.1)\n"
)


def test_it_stops_before_its_jobs_time_is_up(tmp_path: Path) -> None:
    run = own_run(tmp_path / "own", COUNTING)
    with world_of(run, 1, told={"ends_at": time.time() - 5}) as world:
        assert world.wait() == [0], world.log()
        stop = read_json(world.attempt.stop)
    assert stop["deadline"] is True and 1 <= stop["step"] < 20
    assert (run.checkpoints / stop["checkpoint"] / "COMMIT").exists()


def test_asked_to_end_it_saves_and_another_world_goes_on_with_all_that_was_saved(
    tmp_path: Path, uninterrupted: RunDir
) -> None:
    """SIGTERM to one of two ranks; then `kill -9` of one of three; then one rank to the end.

    Of the last steps before the kill, what was told of them may be lost; their weights are kept.
    """
    run = own_run(tmp_path / "own", COUNTING)
    with world_of(run, 2) as world:
        world.wait_for_step(4)
        world.signal(signal.SIGTERM, rank=1)
        assert world.wait() == [0, 0], world.log()
        stop = read_json(world.attempt.stop)
    assert stop["signal"] == "SIGTERM" and 4 <= stop["step"] < 20
    with world_of(run, 3) as world:
        world.wait_for_step(stop["step"] + 4)
        world.signal(signal.SIGKILL, rank=2)
        assert world.wait()[:2] == [1, 1], world.log()
        assert failure_of(world.attempt)["type"] == "PeerLost"
    done = read_json(run_world(run, 1).done)
    assert done["step"] == 21
    *_, resumed = events_of(run, "resumed")
    saved_at = int(resumed["checkpoint"].removeprefix("step-"))
    assert saved_at >= stop["step"] + 3
    surely = {*range(1, stop["step"] + 1), *range(saved_at + 1, 22)}
    whole, pieces = metrics_of(uninterrupted, "train/loss"), metrics_of(run, "train/loss")
    assert pieces.keys() >= surely
    assert max(abs(pieces[step] / whole[step] - 1) for step in pieces) <= 1e-12
    ids, expected = sample_ids_of(run), sample_ids_of(uninterrupted)
    assert {step: ids[step] for step in surely} == {step: expected[step] for step in surely}


def test_memory_that_runs_out_is_told_with_the_micro_batch(tmp_path: Path) -> None:
    run = own_run(tmp_path / "own", LOOP, env={"variables": {"ORCHESTRATE_MICRO_BATCH_LIMIT": "2@5"}})
    with world_of(run, 2) as world:
        assert world.wait() == [1, 1], world.log()
        told = [failure_of(world.attempt, rank) for rank in (0, 1)]
    (memory,) = [each for each in told if each["type"] == "OutOfMemory"][:1]
    assert (memory["micro_batch_size"], memory["step"]) == (3, 5)
    assert "out of memory at a micro-batch of 3 samples" in memory["message"]


def test_real_memory_errors_in_the_users_code_are_told_so_too(tmp_path: Path) -> None:
    loss = "            batch.scale(loss_sum).backward()\n"
    run = own_run(tmp_path / "own", LOOP.replace(loss, f"            torch.empty(2**60)\n{loss}"))
    with world_of(run, 1) as world:
        assert world.wait() == [1], world.log()
        assert (failure_of(world.attempt)["type"], failure_of(world.attempt)["micro_batch_size"]) == ("OutOfMemory", 3)


def test_a_run_may_be_ended_early_and_saved_when_the_script_says_so(tmp_path: Path) -> None:
    logs = """        run.log({"own/norm": torch.tensor(2.0), "val/accuracy": window.step / 10})
        if window.step == 2:
            run.save()
        if window.step == 5:
            run.finish()
"""
    run = own_run(tmp_path / "own", LOOP + logs, checkpoint={"every": {"steps": 100}, "keep": 9})
    done = read_json(run_world(run, 2).done)
    assert (done["step"], done["metrics"]) == (5, {"val/accuracy": 0.5})
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-00000002", "step-00000005"]
    assert metrics_of(run, "own/norm") == dict.fromkeys(range(1, 6), 2.0)
    assert metrics_of(run, "val/accuracy") == {step: step / 10 for step in range(1, 6)}


SCALE = "            batch.scale(loss_sum).backward()\n"
MISTAKES = {
    "left": (LOOP + "        break\n", "step 0: the loop was left before the run's end (go through run.windows()"),
    "not scaled": (
        LOOP.replace("batch.scale(loss_sum).backward()", "loss_sum.backward()"),
        "step 1: micro-batch 1 has had 0 calls of scale (call batch.scale(loss_sum).backward() once for each",
    ),
    "scaled twice": (LOOP.replace(SCALE, SCALE + SCALE.replace("backward()", "detach()")), "has had 2 calls of scale"),
    "no sum": (
        LOOP.replace("scale(loss_sum)", "scale(loss_sum[None])"),
        "step 1: the loss has shape (1,), and a sum has shape () (take the sum over the micro-batch)",
    ),
    "not used": (
        LOOP.replace("for batch in window:", "for batch in ():"),
        "step 1: 0 of the window's 6 micro-batches were used (iterate each window once, to its end)",
    ),
    "not prepared": (
        LOOP.replace("model = run.prepare(net, optimizer)", "model = net"),
        "session: there is no model yet (call run.prepare(model, optimizer) first)",
    ),
    "prepared twice": (
        LOOP.replace("    for window", "    run.prepare(net, optimizer)\n    for window"),
        "run.prepare(): it was called before (call it once, for one model)",
    ),
    "not a number": (
        LOOP.replace("scale(loss_sum)", "scale(loss_sum * float('nan'))"),
        "step 1: the training loss is nan (lower optimizer.lr",
    ),
    "of the user's": (
        LOOP.replace("        optimizer.step()\n", "        optimizer.stop()\n"),
        "own.py:16: AttributeError: 'AdamW' object has no attribute 'stop'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line_and_ends_the_rank(tmp_path: Path, mistake: str) -> None:
    script, told = MISTAKES[mistake]
    run = own_run(tmp_path / "own", script)
    with world_of(run, 1) as world:
        assert world.wait() == [1], world.log()
        assert told in failure_of(world.attempt)["message"]
        assert not world.attempt.done.exists()


def test_a_session_without_datasets_is_told_to_declare_them(tmp_path: Path) -> None:
    run = own_run(tmp_path / "own", LOOP, datasets=[])
    with world_of(run, 1) as world:
        assert world.wait() == [1], world.log()
        assert failure_of(world.attempt)["message"].startswith(
            "session.start(): the recipe declares no datasets (declare"
        )


def test_a_script_that_no_run_has_started_is_told_how_to_start_it() -> None:
    code = "from orchestrator.worker import session\nwith session.start(): pass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "no run has started this process" in done.stderr and "orchestrate submit" in done.stderr
