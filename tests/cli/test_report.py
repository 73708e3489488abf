"""`orchestrate report`: what people are told of how a run used its machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.files import make_private_dir, read_json, write_json
from orchestrator.run_dir import RunDir
from orchestrator.submit.report import report_on
from orchestrator.tracking.report.text import report_screen
from tests.support.attempts import (
    journal_events,
    journal_exchange,
    journal_metrics,
    journal_samples,
    journal_waits,
    leave_attempt,
)
from tests.support.command_line import orchestrate
from tests.support.run_dirs import make_run_dir

BEGUN = 1_700_000_000.0
NAME = "digits-ffffffff"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run of a local job that is gone."""
    run = make_run_dir(make_private_dir(tmp_path / "runs") / NAME, uri="sqlite:////data/mlflow.db")
    write_json(run.run, read_json(run.run) | {"recipe": "digits.yaml", "recipe_file": str(tmp_path / "digits.yaml")})
    write_json(run.cluster, {"scheduler": "local", "slurm_conf": None})
    write_json(run.job, {"backend": "local", "job_id": "local:999999:1", "first_attempt": 0})
    return run


def leave(run: RunDir, shares: Sequence[float], *, accelerator: str, world_size: int) -> None:
    """One attempt of 100 s, done: steps of a second from its 10th on, each with its share of waiting."""
    attempt = leave_attempt(
        run, started_at=BEGUN, outcome="done", cause="done", reason="trained to the end", ended_at=BEGUN + 100
    )
    write_json(attempt.plan, {"topology": {"world_size": world_size, "accelerator": accelerator}})
    journal_waits(run, 0, [(BEGUN + 11 + step, 1.0, share) for step, share in enumerate(shares)])


def tuned(run: RunDir) -> None:
    begun: dict[str, Any] = {"step": 8, "knob": "loader.workers", "from": 1, "to": 6, "applied": True}
    why = "80% of a step is waiting for data"
    kept = {"step": 30, "knob": "loader.workers", "from": 6, "kept": 6, "gain": 0.75}
    journal_events(run, 0, [(BEGUN + 20, "tuning", begun | {"why": why}), (BEGUN + 40.5, "tuning", kept)])


def test_a_run_on_cpus_that_was_tuned(run: RunDir) -> None:
    leave(run, [0.8] * 30 + [0.0] * 50, accelerator="cpu", world_size=2)
    tuned(run)
    assert report_screen(report_on(run)) == (
        f"run        {NAME}: done, step 80\n"
        "time       200 rank-seconds on 2 ranks, 80% of them in steps\n"
        "           effective training time ratio 0.800: 80 s of steps that count in 100 s\n"
        f"waiting    {'▇' * 15}{'▁' * 25}  30% of the steps' time was waiting for data: "
        "48 rank-seconds; tuning saved 75 rank-seconds\n"
        "tuning     step 8: loader processes 1 -> 6: 80% of a step is waiting for data\n"
        "           step 30: 6 loader processes kept: 1.75 x the speed\n"
        "bound by   compute, 62%: ranks compute, and their data keep up\n"
        "           input, 38%: ranks wait for data\n"
        "next       a lower precision or more ranks would make it faster; its loader would not\n"
    )


def test_a_run_on_gpus_with_what_their_driver_tells(run: RunDir) -> None:
    leave(run, [0.0] * 80, accelerator="cuda", world_size=360)
    used = {"gpu/0/utilization_percent": 96.0, "gpu/1/utilization_percent": 36.0, "gpu/1/throttled_percent": 0.0}
    journal_samples(run, "node1", [(BEGUN + 10 + second, used) for second in range(80)])
    journal_events(run, 0, [(BEGUN + 50, "gpu", {"gpu": 1, "what": "GPU 1 is lost"})])
    told = report_screen(report_on(run)).splitlines()
    assert told[1] == "time       10.0 GPU-hours on 360 GPUs, 80% of them in steps"
    assert told[3].endswith("0% of the steps' time was waiting for data: 0 GPU-seconds")
    assert told[4] == f"gpus       {'▆' * 40}  66% of the time some kernel ran, least node1 gpu 1: 36%"
    assert told[5:] == [
        "tuning     GPU 1 is lost",
        "bound by   host, 100%: GPUs idle while data are there, and not for gradients: the host holds them up",
        "next       try compile: true or larger micro-batches, and profile twenty steps; more loader processes would "
        "not help",
    ]


def test_gpus_that_others_compute_on_are_named_before_what_they_do(run: RunDir) -> None:
    leave(run, [0.0] * 80, accelerator="cuda", world_size=2)
    used = {"gpu/0/utilization_percent": 96.0, "gpu/1/utilization_percent": 96.0, "gpu/0/others": 0.0}
    both = used | {"gpu/1/others": 2.0}
    journal_samples(run, "node1", [(BEGUN + 10 + second, both if second > 40 else used) for second in range(81)])
    told = report_screen(report_on(run)).splitlines()
    assert told[5:] == [
        "bound by   compute, 50%: ranks compute, and their data keep up",
        "           shared, 50%: processes of others run on the GPUs too",
        "next       end what else runs on these GPUs (nvidia-smi shows it), or ask for GPUs that nobody else is given",
    ]


def test_what_ranks_exchange_has_its_bars_and_its_name(run: RunDir) -> None:
    leave(run, [0.0] * 40, accelerator="cpu", world_size=2)
    for second in range(51, 91):
        journal_exchange(run, 0, BEGUN + second, 0.6)
    told = report_screen(report_on(run)).splitlines()
    assert told[4] == (
        f"exchange   {' ' * 20}{'▅' * 20}  60% of the steps' time was exchanging gradients, after computing them"
    )
    assert told[5:] == [
        "bound by   compute, 50%: ranks compute, and their data keep up",
        "           communication, 50%: ranks wait for gradients to be exchanged, after their backward passes",
        "next       ask for fewer nodes with more GPUs each, or see which network they take (NCCL_DEBUG=INFO says)",
    ]


def test_where_ranks_wait_to_the_end_the_advice_is_the_next_thing(run: RunDir) -> None:
    leave(run, [0.5] * 80, accelerator="cpu", world_size=1)
    journal_events(run, 0, [(BEGUN + 40, "advice", {"step": 30, "advice": "6 more in resources.cpus_per_gpu"})])
    assert report_screen(report_on(run)).splitlines()[-1] == "next       6 more in resources.cpus_per_gpu"


@pytest.mark.parametrize(("attempt", "percent"), [(0, 99.0), (0, 20.0), (1, 99.0)])
def test_a_larger_micro_batch_is_the_next_thing_where_ranks_compute_in_the_attempt_that_it_is_for(
    run: RunDir, attempt: int, percent: float
) -> None:
    leave(run, [0.0] * 80, accelerator="cuda", world_size=1)
    journal_samples(
        run, "node1", [(BEGUN + 10 + second, {"gpu/0/utilization_percent": percent}) for second in range(95)]
    )
    larger = {"step": 30, "knob": "batch.micro", "to": 32, "advice": "batch.micro: 32 would fit"}
    journal_events(run, 0, [(BEGUN + 40, "advice", larger)])
    if attempt:
        journal_waits(run, attempt, [(BEGUN + 95 + step, 1.0, 0.0) for step in range(5)])
    told = report_screen(report_on(run)).splitlines()[-1]
    assert (told == "next       batch.micro: 32 would fit") is (attempt == 0)


def test_where_ranks_wait_a_larger_micro_batch_is_no_help(run: RunDir) -> None:
    leave(run, [0.5] * 80, accelerator="cpu", world_size=1)
    larger = {"step": 30, "knob": "batch.micro", "to": 32, "advice": "batch.micro: 32 would fit"}
    journal_events(run, 0, [(BEGUN + 40, "advice", larger)])
    assert report_screen(report_on(run)).splitlines()[-1].startswith("next       give the loader more cores")


def test_memory_is_told_as_it_was_predicted_and_observed_and_a_suggested_precision_is_the_next_thing(
    run: RunDir,
) -> None:
    leave(run, [0.0] * 80, accelerator="cuda", world_size=2)
    peaks = {"memory/observed_peak_gib": 38.25, "memory/predicted_peak_gib": 41.0}
    journal_metrics(run, 0, BEGUN + 99, 80, peaks)
    suggested = {"step": 40, "knob": "precision", "from": "fp32", "to": "bf16", "why": "no wait", "applied": False}
    journal_events(run, 0, [(BEGUN + 50, "tuning", suggested)])
    journal_samples(run, "node1", [(BEGUN + 10 + second, {"gpu/0/utilization_percent": 99.0}) for second in range(80)])
    told = report_screen(report_on(run)).splitlines()
    assert "memory     38.25 GiB at most on any rank, 41.00 GiB predicted" in told
    assert "tuning     step 40: try precision: bf16: no wait" in told
    assert told[-1] == "next       tuning.amp: auto: tries bf16, if its gradients are those of fp32"


def test_an_attempt_whose_driver_died_had_its_machines_until_its_last_step(run: RunDir) -> None:
    """And one that ended before it had a plan says nothing of the machines."""
    for number, begun in enumerate((BEGUN, BEGUN + 86_400)):
        verdict = {"outcome": "done", "cause": "done", "ended_at": begun + 100} if number else {}
        attempt = leave_attempt(run, started_at=begun, **verdict)
        write_json(attempt.plan, {"topology": {"world_size": 8, "accelerator": "cuda"}})
        journal_waits(run, number, [(begun + 11 + step, 1.0, 0.0) for step in range(89)])
    leave_attempt(run, started_at=BEGUN + 90_000, outcome="failed", cause="launch", ended_at=BEGUN + 90_010)
    told = report_on(run)
    assert told.device_hours * 3600 == pytest.approx(8 * (99 + 100))
    assert (told.num_devices, told.accelerator, told.last_bound()) == (8, "cuda", "unknown")


def test_before_the_first_step_there_is_little_to_say(run: RunDir) -> None:
    assert report_screen(report_on(run)) == f"run        {NAME}: lost\ntime       no step is known yet\n"


def test_as_data_it_has_every_part_of_the_time_with_its_name(run: RunDir) -> None:
    leave(run, [0.8] * 40 + [0.0] * 40, accelerator="cpu", world_size=2)
    tuned(run)
    done = orchestrate("report", NAME, "--json", cwd=run.path.parent.parent)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["device_hours"] * 3600, told["step_hours"] * 3600) == (pytest.approx(200), pytest.approx(160))
    assert told["waited_hours"] * 3600 == pytest.approx(64)
    assert told["bounds"] == {"input": pytest.approx(0.5), "compute": pytest.approx(0.5)}
    assert len(told["parts"]) == 40 and {part["bound"] for part in told["parts"]} == {"input", "compute"}
    assert [event["name"] for event in told["events"]] == ["tuning", "tuning"]


def test_a_run_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    done = orchestrate("report", "nothing", cwd=tmp_path)
    assert done.returncode == 2 and "no such run" in done.stderr and "Traceback" not in done.stderr
