"""`orchestrate why`, and attempts in `orchestrate status`: what people are told of made-up runs, and of a real one."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from orchestrator.cli.render.why import NEXT_BY_CAUSE, NEXT_BY_STATE, next_step, why_screen
from orchestrator.files import make_private_dir, read_json, write_atomically, write_json
from orchestrator.job.verdict import Cause
from orchestrator.machine import process_start_time
from orchestrator.run_dir import RunDir
from orchestrator.submit.runs import RunState
from orchestrator.submit.why import MOST_LINES, explain_run
from orchestrator.tracking.stragglers import Straggler
from tests.support.attempts import even_steps, journal_straggler, leave_attempt
from tests.support.command_line import orchestrate
from tests.support.run_dirs import make_run_dir

GONE = "local:999999:1"
NAME = "digits-ffffffff"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    """A run of a local job that is gone; tables are in UTC."""
    run = make_run_dir(make_private_dir(tmp_path / "runs") / NAME, uri="sqlite:////data/mlflow.db")
    identity = read_json(run.run)
    write_json(run.run, identity | {"recipe": "digits.yaml", "recipe_file": str(tmp_path / "recipes" / "digits.yaml")})
    write_json(run.cluster, {"scheduler": "local", "slurm_conf": None})
    write_json(run.job, {"backend": "local", "job_id": GONE, "first_attempt": 0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield run
    time.tzset()


def screen(run: RunDir) -> str:
    return why_screen(explain_run(run, cwd=run.path.parent.parent))


def rows(run: RunDir) -> dict[str, str]:
    """The rows of the screen by their first word; rows below one without a word of their own are left out."""
    return {line[:11].strip(): line[11:] for line in screen(run).splitlines() if line[:11].strip()}


def fail(run: RunDir, cause: str, reason: str = "it broke", **verdict: Any) -> None:
    leave_attempt(run, started_at=1_700_000_000, outcome="failed", cause=cause, reason=reason, ended_at=1, **verdict)


def test_a_users_mistake_is_told_with_what_shows_it_and_what_to_do(run: RunDir) -> None:
    told = {
        "rank": 3,
        "node": "node2",
        "failed_step": 51,
        "last_lines": [f"line {i}" for i in range(4)] + ["KeyError: 'x'"],
    }
    steps = even_steps(1, 50, begins_at=1_700_000_010)
    ended = {"outcome": "failed", "cause": "user_code", "reason": "rank 3 on node2: model.py:7: KeyError: 'x'"}
    leave_attempt(run, started_at=1_700_000_000, steps=steps, ended_at=1_700_000_100, **ended, **told)
    assert screen(run) == (
        "run        digits-ffffffff: failed\n"
        "why        the recipe or its code failed: rank 3 on node2: model.py:7: KeyError: 'x'\n"
        "shown by   rank 3 on node2, at step 51\n"
        "           line 1\n"
        "           line 2\n"
        "           line 3\n"
        "           KeyError: 'x'\n"
        "time       effective training time ratio 0.500: 50 s of steps that count in 100 s\n"
        "next       fix it and submit it anew, since a resume keeps code and recipe as they were submitted: "
        "orchestrate submit recipes/digits.yaml\n"
    )


def test_a_run_of_several_attempts_is_told_with_all_of_them(run: RunDir) -> None:
    steps = even_steps(1, 60, begins_at=1_700_000_010)
    lost = {
        "outcome": "failed",
        "cause": "node_lost",
        "reason": "node2 is lost",
        "left_out": ["node2"],
        "node": "node2",
    }
    leave_attempt(run, started_at=1_700_000_000, steps=steps, ended_at=1_700_000_085, then="attempt 001: go on", **lost)
    steps = even_steps(51, 90, begins_at=1_700_000_120)
    stopped = {"outcome": "stopped", "cause": "time_limit", "reason": "saved at step 90 after SIGUSR1", "step": 90}
    leave_attempt(run, started_at=1_700_000_090, steps=steps, ended_at=1_700_000_180, nodes=["node1"], **stopped)
    make_private_dir(run.checkpoints / "step-000000090")
    (run.checkpoints / "step-000000090" / "COMMIT").touch()
    assert screen(run) == (
        "run        digits-ffffffff: stopped\n"
        "why        the job's time was up: saved at step 90 after SIGUSR1\n"
        "attempts   ATTEMPT  STARTED              JOB  NODES        STEPS  LOST  RESTART  WHY IT ENDED\n"
        "           0        2023-11-14 22:13:20  41   node1,node2  1-60   10    51 s     "
        "a node was lost: node2 is lost\n"
        "           1        2023-11-14 22:14:50  41   node1        51-90  0     -        "
        "the job's time was up: saved at step 90 after SIGUSR1\n"
        "           effective training time ratio 0.500: 90 s of steps that count in 180 s\n"
        f"next       go on from step 90: orchestrate resume {NAME}\n"
    )


@pytest.mark.parametrize(
    ("cause", "next_thing"),
    [
        ("asked", f"go on: orchestrate resume {NAME}"),
        ("cancelled", f"go on: orchestrate resume {NAME}"),
        ("preempted", f"go on: orchestrate resume {NAME}"),
        ("time_limit", f"go on: orchestrate resume {NAME}"),
        ("network", f"go on: orchestrate resume {NAME}"),
        ("node_lost", f"go on, on nodes that work: orchestrate resume {NAME}"),
        ("killed", f"go on, and if it is killed again, with more resources.memory: orchestrate resume {NAME}"),
        ("hung", f"go on, and if it hangs there again, look for why in the code: orchestrate resume {NAME}"),
        ("host_memory", f"go on, with more memory a node: orchestrate resume {NAME} --set resources.memory=SIZE"),
        (
            "device_memory",
            f"go on, where a rank has more memory: orchestrate resume {NAME} --set resources.gpu_type=TYPE",
        ),
        ("disk_full", f"make room on that disk, then go on: orchestrate resume {NAME}"),
        ("failed_check", f"have node2 put right, or name other nodes, then go on: orchestrate resume {NAME}"),
        ("launch", f"see what the job said: orchestrate logs {NAME} --job"),
        ("unknown", f"see what it said: orchestrate logs {NAME} --job"),
        ("struck_by_lightning", f"see what it said: orchestrate logs {NAME} --job"),
        (
            "non_finite",
            "lower optimizer.lr or set on_non_finite_loss, and submit it anew, since a resume keeps code and recipe as "
            "they were submitted: orchestrate submit recipes/digits.yaml",
        ),
    ],
)
def test_each_cause_has_one_next_thing_to_do(run: RunDir, cause: str, next_thing: str) -> None:
    fail(run, cause, node="node2")
    assert rows(run)["next"] == next_thing and rows(run)["why"].endswith(": it broke")


def test_no_cause_and_no_state_without_advice() -> None:
    assert set(NEXT_BY_CAUSE) == set(get_args(Cause))
    assert {"done", "stopped", "failed", *NEXT_BY_STATE} == set(get_args(RunState))


def test_on_a_cpu_memory_is_the_nodes(run: RunDir) -> None:
    fail(run, "device_memory")
    write_json(run.attempt(0).plan, {"topology": {"accelerator": "cpu"}})
    assert rows(run)["next"].endswith(f"orchestrate resume {NAME} --set resources.memory=SIZE")


def test_the_output_to_look_at_is_that_of_the_rank_that_failed(run: RunDir) -> None:
    fail(run, "unknown", rank=2)
    write_atomically(run.attempt(0).rank_log(2), "hm\n")
    assert rows(run)["next"] == f"see what it said: orchestrate logs {NAME} --rank 2"


FAULTHANDLER = """\
Thread 0x00007f (most recent call first):
  File "/lib/torch/nn/modules/module.py", line 1 in _call_impl
  File "SNAPSHOT/model.py", line 7 in forward
  File "/lib/torch/nn/modules/module.py", line 2 in __call__
  File "/lib/orchestrator/worker/trainer.py", line 3 in run
"""
PY_SPY = """\
Process 7: python -u SNAPSHOT/model.py
Python v3.11.2 (/usr/bin/python3.11)

Thread 7 (active): "MainThread"
    _call_impl (torch/nn/modules/module.py:1)
    forward (model.py:7)
    __call__ (torch/nn/modules/module.py:2)
    run (orchestrator/worker/trainer.py:3)
"""


@pytest.mark.parametrize(("stack", "begins"), [(FAULTHANDLER, 2), (PY_SPY, 5)])
def test_a_hang_shows_where_the_rank_stood_in_the_users_code(run: RunDir, stack: str, begins: int) -> None:
    reason = "rank 1 on node1 gave no sign of life for 90 s in its step, see logs/stack-1.txt: the same error twice"
    fail(run, "hung", reason, rank=1, node="node1")
    write_atomically(make_private_dir(run.snapshot_recipe) / "model.py", "")
    write_atomically(run.attempt(0).logs / "stack-1.txt", stack.replace("SNAPSHOT", str(run.snapshot_recipe)))
    place, told, *frames = explain_run(run, cwd=Path("/")).shown
    assert (place, told) == ("rank 1 on node1", "it stood here, says attempts/000/logs/stack-1.txt:")
    assert frames == stack.replace("SNAPSHOT", str(run.snapshot_recipe)).splitlines()[begins : begins + 3]


def test_a_stack_without_the_users_code_is_shown_from_its_innermost_frame(run: RunDir) -> None:
    fail(run, "hung", "rank 1 gave no sign of life, see stack-1.txt", rank=1)
    write_atomically(run.attempt(0).path / "stack-1.txt", PY_SPY)
    assert explain_run(run, cwd=Path("/")).shown[2] == "    _call_impl (torch/nn/modules/module.py:1)"


@pytest.mark.parametrize("named", ["../../run.json", "/etc/hostname", "stack-7.txt", "."])
def test_a_stack_is_read_from_the_attempts_own_directory_or_not_at_all(run: RunDir, named: str) -> None:
    fail(run, "hung", f"rank 1 is silent, see {named}", rank=1, last_lines=["step 50"])
    assert list(explain_run(run, cwd=Path("/")).shown) == ["rank 1", "step 50"]


def test_more_than_five_lines_are_never_shown_and_none_is_endless(run: RunDir) -> None:
    fail(run, "user_code", rank=0, node="n", left_out=["node7"], last_lines=["x" * 10_000] * 9)
    shown = explain_run(run, cwd=Path("/")).shown
    assert len(shown) == MOST_LINES and max(map(len, shown)) <= 200
    assert shown[0] == "rank 0 on n, the rest of the run does without node7"


def test_a_run_that_is_done_is_told_as_such(run: RunDir) -> None:
    reason = "trained to the end: step 9"
    leave_attempt(run, started_at=1, outcome="done", cause="done", reason=reason, ended_at=2, step=9)
    told = rows(run)
    assert (told["run"], told["why"]) == (f"{NAME}: done", reason)
    assert told["next"] == "look at its curves: mlflow ui --backend-store-uri sqlite:////data/mlflow.db"


def test_a_lost_run_is_told_with_the_last_words_of_its_job(run: RunDir) -> None:
    leave_attempt(run, started_at=1)
    write_atomically(make_private_dir(run.job_logs) / "job-41.log", "driver: meeting\n\nslurmstepd: error: killed\n")
    told = screen(run)
    assert f"{NAME}: lost: the job has ended and left no verdict\nshown by   driver: meeting\n" in told
    assert rows(run)["next"] == f"see what the job said last: orchestrate logs {NAME} --job"


def test_a_run_cancelled_before_it_started_is_not_lost(run: RunDir) -> None:
    write_json(run.cancel, {"requested_at": 1.0})
    told = rows(run)
    assert (told["run"], told["why"]) == (f"{NAME}: cancelled", "cancelled by a person: before it started")
    assert told["next"] == f"go on: orchestrate resume {NAME}"


def test_a_running_run_is_told_with_what_ended_before(run: RunDir) -> None:
    job_id = f"local:{os.getpid()}:{process_start_time(os.getpid())}"
    write_json(run.job, {"backend": "local", "job_id": job_id, "first_attempt": 0})
    fail(run, "killed", then="attempt 001: go on")
    told = rows(run)
    assert told["run"] == f"{NAME}: running in job {job_id}"
    assert told["before"] == "a process was killed, nobody says why: it broke; then attempt 001: go on"
    assert told["next"] == f"see how it goes: orchestrate logs -f {NAME}"
    leave_attempt(run, started_at=time.time() - 100)
    assert "before" not in rows(run) and screen(run).splitlines()[3].endswith(" at work")


def test_slow_ranks_are_told_by_why_and_by_status_of_one_run(run: RunDir) -> None:
    """In the present while they may be slow, in the past after that; of many no more than three."""
    cwd, job_id = run.path.parent.parent, f"local:{os.getpid()}:{process_start_time(os.getpid())}"
    write_json(run.job, {"backend": "local", "job_id": job_id, "first_attempt": 0})
    leave_attempt(run, started_at=time.time() - 100, steps=even_steps(1, 60, begins_at=time.time() - 90))
    slow = Straggler(3, "node2", "data", times_median=2.83, cost=0.6, since_step=40)
    journal_straggler(run, 0, slow)
    line = "rank 3 on node2 is slow at fetching its data: 2.8 x the median of all ranks, at least 60% of each step"
    assert f"\nslow       {line} (since step 40)\n" in screen(run)
    assert orchestrate("status", NAME, cwd=cwd).stdout.splitlines()[2:] == ["", f"{line} (since step 40)"]
    (only,) = json.loads(orchestrate("status", NAME, "--json", cwd=cwd).stdout)
    assert only["stragglers"] == [slow.as_detail()]
    for rank in (4, 5, 6):
        journal_straggler(run, 0, Straggler(rank, "node2", "compute", 1.5, 0.1, since_step=50, until_step=60 + rank))
    fail_text = read_json(run.attempt(0).driver) | {"outcome": "failed", "cause": "killed", "reason": "", "ended_at": 2}
    write_json(run.attempt(0).verdict, {**fail_text, "final": True})
    told = [text[11:] for text in screen(run).splitlines() if "rank" in text]
    assert told[0] == line.replace("is slow", "was slow") + " (since step 40)"
    assert [text.partition(" on ")[0] for text in told[1:3]] == ["rank 4", "rank 5"] and "steps 50 to 64" in told[1]
    assert told[3] == "and 1 more like this: events `straggler` in rank 0's journal"


def test_a_prepared_run_is_told_how_to_start_it(run: RunDir) -> None:
    run.job.unlink()
    assert rows(run)["next"] == f"start it: bash {run.job_script}"
    write_json(run.cluster, {"scheduler": "slurm", "slurm_conf": None})
    assert rows(run)["next"] == f"start it: sbatch {run.job_script}"


def test_from_another_folder_the_run_and_its_recipe_are_named_by_their_paths(run: RunDir, tmp_path: Path) -> None:
    fail(run, "user_code")
    assert next_step(explain_run(run, cwd=Path("/"))).endswith(
        f"orchestrate submit {tmp_path.relative_to('/')}/recipes/digits.yaml"
    )
    (run.attempt(0).verdict).unlink()
    assert next_step(explain_run(run, cwd=Path("/"))).endswith(f"orchestrate logs {run.path} --job")


def test_status_of_one_run_shows_its_attempts_and_of_many_none(run: RunDir) -> None:
    cwd = run.path.parent.parent
    fail(run, "node_lost", then="attempt 001: go on")
    (only,) = json.loads(orchestrate("status", NAME, "--json", cwd=cwd).stdout)
    assert [each["cause"] for each in only["attempts"]] == ["node_lost"] and only[
        "effective_training_time_ratio"
    ] is None
    assert len(orchestrate("status", NAME, cwd=cwd).stdout.splitlines()) == 2
    leave_attempt(run, started_at=1, outcome="done", cause="done", reason="trained", ended_at=2)
    one = orchestrate("status", NAME, cwd=cwd).stdout.splitlines()
    assert [line.split()[:1] for line in one[2:]] == [[], ["ATTEMPT"], ["0"], ["1"]]
    assert len(orchestrate("status", cwd=cwd).stdout.splitlines()) == 2
    (all_of_them,) = json.loads(orchestrate("status", "--json", cwd=cwd).stdout)
    assert "attempts" not in all_of_them


RECIPE = """
name: own
command: [train.py]
datasets: [{name: numbers, target: "data:numbers", num_samples: 40}]
batch: {effective: 4}
optimizer: {name: sgd, lr: 0.1}
duration: {steps: 20}
checkpoint: {every: {steps: 8}}
precision: fp64
loader: {workers: 0}
"""
TRAIN = """
import json, pathlib, time, torch
from orchestrator.worker import session

folder = pathlib.Path(FOLDER)
with session.start() as run, (folder / "measured.jsonl").open("a") as measured:
    net = torch.nn.Linear(1, 1).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    model = run.prepare(net, optimizer)
    for window in run.windows():
        begun = time.monotonic()
        if window.step == 13 and not (folder / "mended").exists():
            raise ValueError("no luck with step 13")
        for batch in window:
            batch.scale(model(batch.inputs).sum()).backward()
        optimizer.step()
        time.sleep(0.2)
        measured.write(json.dumps([window.step, time.monotonic() - begun]) + "\\n")
"""


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose script raises at step 13; it measures each of its steps itself."""
    folder = tmp_path_factory.mktemp("why")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "data.py").write_text("import torch\n\ndef numbers():\n    return [(torch.ones(1).double(), 1)] * 40\n")
    (folder / "train.py").write_text(TRAIN.replace("FOLDER", repr(str(folder))))
    done = orchestrate("submit", "recipe.yaml", "--wait", "--json", cwd=folder)
    assert done.returncode == 4, done.stderr
    return folder


def test_a_real_run_that_raised_says_why_and_resumed_what_its_attempts_were_worth(failed: Path) -> None:
    """The driver tries again once, from the checkpoint at step 8: then it is the same error twice."""
    why = orchestrate("why", "own", cwd=failed)
    assert why.returncode == 0, why.stderr
    reason = "the recipe or its code failed: rank 0 on \\S+: train.py:13: ValueError: no luck with step 13"
    assert re.search(rf"^why +{reason}: the same error twice$", why.stdout, re.MULTILINE), why.stdout
    assert re.search(r"^shown by +rank 0 on \S+, at step 13$", why.stdout, re.MULTILINE)
    assert why.stdout.endswith("orchestrate submit recipe.yaml\n")
    (failed / "mended").touch()
    assert orchestrate("resume", "own", "--wait", cwd=failed).returncode == 0
    told = json.loads(orchestrate("why", "own", "--json", cwd=failed).stdout)
    assert (told["state"], told["cause"]) == ("done", "done")
    steps = [(each["first_step"], each["last_step"], each["lost_steps"]) for each in told["attempts"]]
    assert steps == [(1, 12, 4), (9, 12, 4), (9, 20, 0)]
    assert told["effective_training_time_ratio"] == pytest.approx(measured_ratio(failed, told["run_dir"]), rel=0.01)


def measured_ratio(folder: Path, run_dir: str) -> float:
    """The same by the script's own clock, each step as it was made last, and by when the file system saw files."""
    lines = (folder / "measured.jsonl").read_text().splitlines()
    seconds: dict[int, float] = dict(map(json.loads, lines))
    assert sorted(seconds) == list(range(1, 21))
    begun = Path(run_dir, "attempts", "000", "launch.json").stat().st_mtime
    ended = Path(run_dir, "attempts", "002", "verdict.json").stat().st_mtime
    return sum(seconds.values()) / (ended - begun)
