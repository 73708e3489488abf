"""Saving beside the training: what is written is the state between two steps, whatever happens after it."""

from __future__ import annotations

import errno
import math
import multiprocessing
import random
import resource
import shutil
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from orchestrator.documents import dump_yaml
from orchestrator.errors import NoRoom, TrainingError
from orchestrator.files import make_private_dir, read_json, write_json
from orchestrator.run_dir import RunDir
from orchestrator.tracking import journal as journal_module
from orchestrator.tracking.journal import Journal
from orchestrator.worker.checkpoints.background import Background
from orchestrator.worker.checkpoints.saver import Saver
from orchestrator.worker.checkpoints.staging import Staging
from orchestrator.worker.checkpoints.store import CheckpointStore
from orchestrator.worker.inputs import read_inputs
from orchestrator.worker.precision import Precision
from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.progress import Progress
from orchestrator.worker.pulse import Pulse
from orchestrator.worker.settled import Settled
from orchestrator.worker.train import train
from orchestrator.worker.world import Peers, World
from tests.support.worlds import (
    add_attempt,
    events_of,
    failure_of,
    make_run,
    metrics_of,
    run_world,
    sample_ids_of,
    world_of,
)
from tests.worker.recipes import CODE, POINTS, recipe

NUM_WEIGHTS = 300_000
NUM_KILLS = 100
RARELY = {"every": {"steps": 1000}, "keep": 2}
SLOWLY = {"DELAY_S": "0.02"}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = make_run(tmp_path / "run", POINTS, CODE)
    add_attempt(run, 1)
    return run


def saver_of(run: RunDir, journal: Journal, *, num_weights: int = NUM_WEIGHTS) -> Saver:
    """The saver of a world of one, for a model that is one vector."""
    attempt = run.last_attempt()
    assert attempt is not None
    world = World(0, 1, 0, 1, 0)
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.zeros(num_weights))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    device = torch.device("cpu")
    precision = Precision("fp32", device)
    return Saver(read_inputs(run, attempt, world), Peers(world, device), model, optimizer, precision, journal)


def set_weights(saver: Saver, value: float) -> None:
    with torch.no_grad():
        saver.model.weight.fill_(value)


def journal_of(run: RunDir) -> Journal:
    return Journal(run.path, attempt=0, node="node1", rank=0)


def weights_at(run: RunDir, step: int) -> torch.Tensor:
    path = CheckpointStore(run.checkpoints, keep=1).path(step) / "model.pt"
    weight: torch.Tensor = torch.load(path, weights_only=True)["weight"]
    return weight


def test_a_copy_is_not_what_training_goes_on_with() -> None:
    shared = torch.ones(3)
    state = {"a": shared, "b": shared, "rows": [torch.ones(2, 3).t(), 5], "lr": 0.1}
    staging = Staging()
    first = staging.copy(state)
    first.wait()
    shared.mul_(2)
    assert first.value["a"].tolist() == [1, 1, 1] and first.value["a"] is first.value["b"]
    assert (first.value["rows"][1], first.value["lr"]) == (5, 0.1)
    second = staging.copy(state)
    assert second.value["a"].data_ptr() == first.value["a"].data_ptr()
    assert second.value["a"].tolist() == [2, 2, 2]
    assert staging.copy({"a": torch.zeros(4)}).value["a"].tolist() == [0, 0, 0, 0]


def test_a_copied_state_dict_keeps_its_versions() -> None:
    state = torch.nn.BatchNorm1d(2).state_dict()
    assert Staging().copy({"model": state}).value["model"]._metadata == state._metadata


def test_steps_after_a_save_do_not_change_what_is_written(run: RunDir) -> None:
    with journal_of(run) as journal:
        saver = saver_of(run, journal)
        for step in range(1, 6):
            set_weights(saver, step)
            progress = Progress(step=step, consumed_samples=16 * step)
            saver.save(progress, last=False)
            set_weights(saver, -1)
            progress.step, progress.consumed_samples = -1, -1
        saver.save(Progress(step=6), last=True)
    for step in (5, 6):
        assert torch.equal(weights_at(run, step), torch.full((NUM_WEIGHTS,), 5.0 if step == 5 else -1.0))
        assert read_json(run.checkpoints / f"step-0000000{step}" / "state.json")["step"] == step
    assert [event["step"] for event in events_of(run, "saved")] == [1, 2, 3, 4, 5, 6]


def test_one_piece_of_work_at_a_time_and_its_error_comes_out_once() -> None:
    background, done, gate = Background(), [], threading.Event()

    def fail() -> None:
        gate.wait(10)
        raise ValueError("no disk")

    background.start(fail)
    gate.set()
    with pytest.raises(ValueError, match="no disk"):
        background.start(lambda: done.append(1))
    assert done == []
    background.start(lambda: done.append(2))
    background.settle()
    background.settle()
    assert done == [2]


def test_a_save_that_failed_is_one_line_at_the_next(run: RunDir) -> None:
    run.checkpoints.write_text("a file where the folder should be")
    with journal_of(run) as journal:
        saver = saver_of(run, journal)
        saver.save(Progress(step=1), last=False)
        with pytest.raises(TrainingError, match="step-00000001: cannot be saved: FileExistsError: ") as failed:
            saver.save(Progress(step=2), last=False)
    assert len(failed.value.problems) == 1


def test_the_savers_that_are_killed_leave_a_checkpoint_that_is_what_its_name_says(run: RunDir) -> None:
    """SIGKILL at a hundred random moments, through the real way of saving. What the killed one did is not asked."""
    moments = random.Random(5)
    last, num_torn = 0, 0
    refused: list[str] = []
    with journal_of(run) as journal:
        saver_of(run, journal).save(Progress(step=0), last=True)
    for _ in range(NUM_KILLS):
        process = multiprocessing.get_context("fork").Process(target=save_without_end, args=(run, last + 1))
        process.start()
        time.sleep(moments.uniform(0.005, 0.15))
        process.kill()
        process.join()
        step = CheckpointStore(run.checkpoints, keep=2).newest(lambda name, why: refused.append(why))
        assert step is not None and step >= last and refused == []
        assert torch.equal(weights_at(run, step), torch.full((NUM_WEIGHTS,), float(step)))
        assert read_json(run.checkpoints / f"step-{step:08d}" / "state.json")["consumed_samples"] == 16 * step
        num_torn += sum(not (path / "COMMIT").exists() for path in run.checkpoints.iterdir()) > 0
        last = step
    print(f"\n{NUM_KILLS} kills, {num_torn} of them within a write; the last step is {last}")
    assert last > 0 and num_torn > NUM_KILLS // 10


def save_without_end(run: RunDir, step: int) -> None:
    saver = saver_of(run, journal_of(run))
    while True:
        set_weights(saver, step)
        saver.save(Progress(step=step, consumed_samples=16 * step), last=False)
        step += 1


def limited(world: Any, num_bytes: int) -> None:
    """From now on no file of the ranks grows beyond that: as if the disk were full for a checkpoint."""
    for rank in world.ranks:
        resource.prlimit(rank.pid, resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


def wide(**changes: Any) -> dict[str, Any]:
    """The points recipe with a model of about 100 KB."""
    return recipe(POINTS, model={"target": "model:network", "args": {"hidden": 2000}}, precision="fp32", **changes)


def test_without_room_training_goes_on_and_only_the_last_checkpoint_is_missed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", wide(), CODE)
    with world_of(run, 1) as world:
        limited(world, 60_000)
        assert world.wait() == [1]
        failure = failure_of(world.attempt)
    assert failure["message"].split(": ", 1)[1].startswith("step-00000021 did not fit: File too large (make room on")
    assert failure["type"] == "NoRoom" and "\n" not in failure["message"]
    assert len(metrics_of(run, "train/loss")) == 21
    assert {event["step"] for event in events_of(run, "no_room")} == {3, 6, 9, 12, 15, 18}
    assert "orchestrate: rank 0: no room for a checkpoint, training goes on: " in world.log()
    assert not world.attempt.done.exists()
    assert list(run.checkpoints.iterdir()) == []


def test_the_best_checkpoint_is_saved_where_it_was_measured(tmp_path: Path) -> None:
    best = {**RARELY, "keep": 1, "keep_best": {"metric": "loss", "mode": "min"}}
    run = make_run(tmp_path / "run", recipe(POINTS, checkpoint=best, evaluation={"every": {"steps": 4}}), CODE)
    train(run, add_attempt(run, 1), {}, StopRequest())
    losses = metrics_of(run, "val/loss")
    saved = [event["step"] for event in events_of(run, "saved")]
    running, expected = float("inf"), []
    for step, loss in losses.items():
        if loss < running:
            running = loss
            expected.append(step)
    assert saved == sorted({*expected, 21})
    assert sorted(path.name for path in run.checkpoints.iterdir()) == sorted(
        {f"step-{min(losses, key=lambda step: losses[step]):08d}", "step-00000021"}
    )


def test_a_lost_rank_costs_the_step_under_way_and_no_more(tmp_path: Path, uninterrupted: RunDir) -> None:
    run = make_run(tmp_path / "run", recipe(POINTS, checkpoint=RARELY), CODE)
    with world_of(run, 2, **SLOWLY) as world:
        world.wait_for_step(5)
        world.signal(signal.SIGKILL, rank=1)
        assert world.wait() == [1, -signal.SIGKILL], world.log()
        assert failure_of(world.attempt)["type"] == "PeerLost"
    (rescued,) = run.checkpoints.iterdir()
    last = read_json(rescued / "state.json")["step"]
    assert max(metrics_of(run, "train/loss")) in (last, last - 1) and last < 21
    run_world(run, 1)
    assert {event["checkpoint"] for event in events_of(run, "resumed")} == {rescued.name}
    assert min(metrics_of(run, "train/loss", attempt=1)) == last + 1
    compare(run, uninterrupted, last_words_lost_at=last)


def test_a_rank_killed_in_mid_epoch_is_made_up_for_by_another_world_and_other_loaders(
    tmp_path: Path, uninterrupted: RunDir
) -> None:
    """Must hold whichever checkpoint it goes on from: ids exactly, the fp64 loss to 1e-12."""
    run = make_run(tmp_path / "run", recipe(POINTS, loader={"workers": 1}), CODE)
    for world_size, workers, until in ((2, 1, 5), (3, 2, 11)):
        write_recipe(run, loader={"workers": workers})
        with world_of(run, world_size, DELAY_S="0.06") as world:
            world.wait_for_step(until)
            world.signal(signal.SIGKILL, rank=0)
            assert world.wait()[0] == -signal.SIGKILL
    write_recipe(run, loader={"workers": 0})
    run_world(run, 1)
    compare(run, uninterrupted)


def compare(run: RunDir, whole: RunDir, *, last_words_lost_at: int = 0) -> None:
    """Ids exactly, losses to 1e-12. A rank that was killed at a step may not have journaled its part of the ids yet."""
    expected, found = metrics_of(whole, "train/loss"), metrics_of(run, "train/loss")
    assert max(abs(found[step] / expected[step] - 1) for step in found) <= 1e-12
    assert expected.keys() - found.keys() <= {last_words_lost_at}
    for step, ids in sample_ids_of(whole).items():
        parts = sample_ids_of(run)[step]
        assert parts == (ids[: len(parts)] if step in (last_words_lost_at, last_words_lost_at - 1) else ids)


def write_recipe(run: RunDir, **changes: Any) -> None:
    run.recipe.write_text(dump_yaml(recipe(POINTS, **changes)))


def test_a_changed_order_is_refused_with_the_difference_unless_it_was_asked_for(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", POINTS, CODE)
    train(run, add_attempt(run, 1), {}, StopRequest())
    (run.checkpoints / "step-00000021" / "COMMIT").unlink()
    grown = {"name": "third", "target": "data:Points", "args": {"size": 5}, "num_samples": 5}
    write_recipe(run, seed=12, datasets=[*POINTS["datasets"], grown])
    with world_of(run, 1) as world:
        assert world.wait() == [1]
        told = failure_of(world.attempt)["message"]
    assert ": it was saved in another order of samples: seed: 11 -> 12, dataset 'third' was added (start a new" in told
    write_json(run.resume, {"new_order": True})
    attempt = add_attempt(run, 1)
    train(run, attempt, {}, StopRequest())
    assert read_json(attempt.done)["consumed_samples"] == 322
    assert min(metrics_of(run, "train/loss", attempt=2)) == 19
    assert [event["changes"] for event in events_of(run, "new_order")] == [
        ["seed: 11 -> 12", "dataset 'third' was added"]
    ]


@pytest.mark.parametrize(("error", "rescued"), [(MemoryError(), True), (ValueError("a user's"), False)])
def test_only_a_state_that_is_whole_is_saved_before_the_end(run: RunDir, error: Exception, rescued: bool) -> None:
    with journal_of(run) as journal:
        saver = saver_of(run, journal, num_weights=3)
        saver.rescue(error, Progress(step=4), is_whole=False)
        assert not run.checkpoints.exists()
        saver.rescue(error, Progress(step=4), is_whole=True)
    assert run.checkpoints.exists() == rescued


def test_a_forward_pass_that_writes_to_a_buffer_leaves_a_state_that_is_no_steps() -> None:
    model: Any = torch.nn.BatchNorm1d(2)
    settled = Settled(model)
    assert not settled.is_whole_at(0)
    settled.settle(3)
    assert settled.is_whole_at(3) and not settled.is_whole_at(4)
    model.eval()(torch.ones(4, 2))
    assert settled.is_whole_at(3)
    model.train()(torch.ones(4, 2))
    assert not settled.is_whole_at(3)
    settled.settle(4)
    model.running_mean = torch.zeros(2)
    assert not settled.is_whole_at(4)


def test_between_the_beginning_of_an_update_and_its_end_a_state_is_no_steps() -> None:
    settled = Settled(torch.nn.Linear(2, 2))
    settled.settle(3)
    settled.unsettle()
    assert not settled.is_whole_at(3) and not settled.is_whole_at(4)
    settled.settle(4)
    assert settled.is_whole_at(4)


def test_the_last_save_waits_for_the_one_before_and_says_when_there_is_no_room(run: RunDir) -> None:
    with ExitStack() as stack:
        journal = stack.enter_context(journal_of(run))
        saver = saver_of(run, journal)
        saver.save(Progress(step=1), last=False)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        saver.save(Progress(step=2), last=True)
        assert (run.checkpoints / "step-00000001" / "COMMIT").exists()
        stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, before)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(NoRoom):
            saver.save(Progress(step=3), last=True)
    assert CheckpointStore(run.checkpoints, keep=2).newest(lambda name, why: None) == 2


def test_room_that_is_made_for_a_checkpoint_is_the_journals_first(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk old checkpoints make room for new ones: none of these may hold steps that no journal knows."""
    one_save, disk = 4 * NUM_WEIGHTS, math.inf
    append = journal_module._AppendFile.append

    def free_bytes(folder: Path | str) -> float:
        return disk - sum(path.stat().st_size for path in Path(folder).rglob("*.pt"))

    def append_where_there_is_room(file: Any, lines: list[bytes]) -> None:
        if free_bytes(run.path) < 0.5 * one_save:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(file, lines)

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free_bytes(folder)))
    monkeypatch.setattr(journal_module._AppendFile, "append", append_where_there_is_room)
    monkeypatch.setattr(journal_module, "_RETRY_S", 3600.0)
    journal = journal_of(run)
    saver = saver_of(run, journal)
    for step in (1, 2):
        saver.save(Progress(step=step), last=True)
    disk = 2.3 * one_save
    journal.metrics(3, {"train/loss": 1.5})
    saver.save(Progress(step=3), last=True)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-00000002", "step-00000003"]
    assert metrics_of(run, "train/loss") == {3: 1.5}
    disk = math.inf
    journal.close()


class _Interrupted(Pulse):
    """At some step torch says from a signal handler that a loader process is gone: between any two lines."""

    def stepped(self, step: int) -> None:
        if step == 5:
            raise RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. ")


def test_no_checkpoint_holds_a_step_that_the_journal_does_not(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", recipe(POINTS, checkpoint=RARELY), CODE)
    try:
        with pytest.raises(RuntimeError, match="is killed by signal"):
            train(run, add_attempt(run, 1), {}, StopRequest(), _Interrupted())
    finally:
        torch.distributed.destroy_process_group()  # a rank leaves that to the end of its process
    (rescued,) = run.checkpoints.iterdir()
    state = read_json(rescued / "state.json")
    assert (state["step"], state["consumed_samples"]) == (5, 5 * 16)
    assert sorted(metrics_of(run, "train/loss")) == [1, 2, 3, 4, 5]


def test_a_rank_of_an_attempt_that_is_not_the_last_one_ends_itself_before_it_saves(tmp_path: Path) -> None:
    """As one does that lives on, on a node which nobody reaches, while the run goes on elsewhere."""
    run = make_run(tmp_path / "run", POINTS, CODE)
    with world_of(run, 1) as world:
        make_private_dir(run.attempt(1).path)
        assert world.wait() == [1]
    assert "attempt 001 of this run has begun" in failure_of(world.attempt)["message"]
    assert not any(run.checkpoints.glob("*"))
