"""What the driver makes of a command beside datasets by the files of its attempts, whoever writes them."""

from __future__ import annotations

from pathlib import Path

from orchestrator.files import make_private_dir, read_json, write_json
from orchestrator.job.judge import NO_SESSION
from tests.job.runs import driver_on, make_run

OUT_OF_MEMORY_ABOVE_3 = """
import json, os, pathlib, sys, time
attempt, rank = pathlib.Path(os.environ["ORCHESTRATE_ATTEMPT_DIR"]), os.environ["RANK"]
size = json.loads((attempt / "plan.json").read_text())["batch"]["micro_batch_size"]
failed = {"rank": int(rank), "type": "OutOfMemory", "message": "step 2: out of memory", "time": time.time()}
if size > 3:
    (attempt / f"error-{rank}.json").write_text(json.dumps({**failed, "micro_batch_size": size, "step": 2}))
    sys.exit(1)
if rank == "0":
    (attempt / "done.json").write_text(json.dumps({"step": 3, "metrics": {"own": 1.5}}))
"""


def test_a_session_that_runs_out_of_memory_is_planned_anew_in_ragged_micro_batches(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", OUT_OF_MEMORY_ABOVE_3, gpus_per_node=2, batch={"effective": 14}, num_samples=50)
    with driver_on(run) as driver:
        exit_code, output = driver.end(timeout_s=120)
    assert exit_code == 0, output
    attempts = list(run.all_attempts())
    plans = [read_json(attempt.plan)["batch"] for attempt in attempts]
    assert [(plan["micro_batch_size"], plan["effective_batch_size"]) for plan in plans] == [(7, 14), (4, 14), (2, 14)]
    assert [plan["kind"] for plan in plans] == ["equal", "ragged", "ragged"]
    first, _, last = (read_json(attempt.verdict) for attempt in attempts)
    assert (first["outcome"], first["then"]) == ("failed", "attempt 001: planned again with smaller micro-batches")
    assert (last["outcome"], last["reason"], last["metrics"]) == ("done", "trained to the end: step 3", {"own": 1.5})
    assert read_json(run.learnt)["failed"] == 4


def test_a_command_that_opens_no_session_for_its_datasets_has_failed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "print('trained')", num_samples=50)
    with driver_on(run) as driver:
        exit_code, output = driver.end()
    assert exit_code == 4, output
    verdict = driver.verdict()
    told = f"every rank ended with exit code 0, but rank 0 left no done.json: {NO_SESSION}"
    assert (verdict["outcome"], verdict["final"], verdict["reason"]) == ("failed", True, told)


def test_only_a_session_that_has_saved_is_held_to_the_batch_of_its_last_attempt(tmp_path: Path) -> None:
    """A plain command may have saved anywhere, so it always is."""
    batch = {"per_gpu": 4}
    for name, num_samples, saved, refused in (
        ("plain", 0, False, True),
        ("new", 50, False, False),
        ("saved", 50, True, True),
    ):
        run = make_run(tmp_path / name, "", gpus_per_node=2, batch=batch, num_samples=num_samples)
        for room in (run.attempts, run.attempt(0).path, run.checkpoints, run.checkpoints / "step-00000003"):
            make_private_dir(room)
        write_json(run.attempt(0).plan, read_json(run.plan))
        if saved:
            (run.checkpoints / "step-00000003" / "COMMIT").touch()
        with driver_on(run) as driver:
            driver.end()
        reason = read_json(run.attempt(1).verdict)["reason"]
        assert ("another experiment" in reason) == refused, (name, reason)
