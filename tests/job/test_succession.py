"""A run goes back to the queue once, however Slurm answers. Small programs stand in Slurm's place."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from orchestrator.errors import LaunchError, RecipeError, RunError
from orchestrator.files import make_private_dir, read_json, write_json
from orchestrator.job import succession
from orchestrator.job.beginning import new_attempt
from orchestrator.job.succession import submit_successor
from orchestrator.run_dir import AttemptDir, RunDir

PROGRAM = f"""#!{sys.executable}
import json, os, pathlib, sys
room = pathlib.Path(__file__).parent
name, argv = pathlib.Path(__file__).name, sys.argv[1:]
with (room / "calls").open("a") as calls:
    inherited = [key for key in os.environ if key.startswith(("SLURM_", "SBATCH_"))]
    print(json.dumps([name, *argv, inherited]), file=calls)
queue, answers = room / "queue", room / "answers"
if name == "squeue":
    print(queue.read_text() if queue.exists() else "", end="")
elif name == "sbatch":
    comment = next(word.partition("=")[2] for word in argv if word.startswith("--comment="))
    told = answers.read_text().splitlines() if answers.exists() else []
    answers.write_text("\\n".join(told[1:]))
    answer = told[0] if told else "taken"
    if answer in ("taken", "taken, unheard"):
        with queue.open("a") as rows:
            print(f"42|{{comment}}", file=rows)
    if answer != "taken":
        sys.exit("sbatch: error: " + answer.replace("taken, unheard", "Batch job submission failed: Socket timed out"))
    print("42")
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name in ("squeue", "sbatch"):
        (folder / name).write_text(PROGRAM)
        (folder / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    monkeypatch.delenv("SLURM_CONF", raising=False)
    monkeypatch.setattr(succession, "_PAUSE_S", 0.05)
    return folder


@pytest.fixture
def attempt(tmp_path: Path) -> AttemptDir:
    run = RunDir(make_private_dir(tmp_path / "runs" / "digits"))
    make_private_dir(run.attempts)
    write_json(run.run, {"uid": "f00d"})
    write_json(run.job, {"backend": "slurm", "job_id": "41", "first_attempt": 0, "script_sha256": "abc"})
    return new_attempt(run, after=None)


def run_of(attempt: AttemptDir) -> RunDir:
    return RunDir(attempt.path.parents[1])


def num_submissions(slurm: Path) -> int:
    return (slurm / "calls").read_text().count('["sbatch"')


def test_the_successor_depends_on_the_end_of_this_job_and_is_the_runs_job_from_then_on(
    slurm: Path, attempt: AttemptDir
) -> None:
    run = run_of(attempt)
    assert submit_successor(run, attempt, job_id="41") == "42"
    job = read_json(run.job)
    assert (job["backend"], job["job_id"], job["first_attempt"], job["script_sha256"]) == ("slurm", "42", 0, "abc")
    assert read_json(attempt.successor)["job_id"] == "42"
    (call,) = [line for line in (slurm / "calls").read_text().splitlines() if '"sbatch"' in line]
    assert '"--comment=orchestrate:f00d:0", "--dependency=afterany:41"' in call
    assert call.endswith("[]]"), "nothing of this job's variables is obeyed by the next one"


def test_one_that_takes_over_for_a_lost_node_waits_for_no_end(slurm: Path, attempt: AttemptDir) -> None:
    submit_successor(run_of(attempt), attempt, job_id=None)
    (call,) = [line for line in (slurm / "calls").read_text().splitlines() if '"sbatch"' in line]
    assert "--dependency" not in call


def test_nodes_that_failed_are_kept_out_of_the_successor(slurm: Path, attempt: AttemptDir) -> None:
    submit_successor(run_of(attempt), attempt, job_id="41", without=("node1", "node3"))
    (call,) = [line for line in (slurm / "calls").read_text().splitlines() if '"sbatch"' in line]
    assert '"--exclude=node1,node3", ' in call and call.index("--exclude") < call.index("job.sh")


def test_what_is_no_name_of_a_node_never_reaches_sbatch(slurm: Path, attempt: AttemptDir) -> None:
    with pytest.raises(RecipeError, match="--exclude: 'node1 --uid=0' may not"):
        submit_successor(run_of(attempt), attempt, job_id="41", without=("node1 --uid=0",))
    assert not (slurm / "calls").exists() and not attempt.successor.exists()


def test_a_run_is_put_back_once_for_an_attempt_whoever_tries(slurm: Path, attempt: AttemptDir) -> None:
    submit_successor(run_of(attempt), attempt, job_id="41")
    with pytest.raises(RunError, match="the run is back in the queue already"):
        submit_successor(run_of(attempt), attempt, job_id="41")
    assert num_submissions(slurm) == 1


def test_a_controller_that_does_not_answer_is_asked_again(slurm: Path, attempt: AttemptDir) -> None:
    (slurm / "answers").write_text("Unable to contact slurm controller (connect failure)\n" * 2)
    assert submit_successor(run_of(attempt), attempt, job_id="41") == "42"
    assert num_submissions(slurm) == 3


def test_a_lost_answer_does_not_make_a_second_job(slurm: Path, attempt: AttemptDir) -> None:
    (slurm / "answers").write_text("taken, unheard\n")
    assert submit_successor(run_of(attempt), attempt, job_id="41") == "42"
    assert num_submissions(slurm) == 1


def test_a_refusal_is_told_at_once(slurm: Path, attempt: AttemptDir) -> None:
    (slurm / "answers").write_text("Batch job submission failed: Access/permission denied\n" * 5)
    with pytest.raises(LaunchError, match="Access/permission denied"):
        submit_successor(run_of(attempt), attempt, job_id="41")
    assert num_submissions(slurm) == 1


def test_a_controller_that_stays_silent_is_given_up_in_the_end(slurm: Path, attempt: AttemptDir) -> None:
    (slurm / "answers").write_text("Unable to contact slurm controller (connect failure)\n" * 99)
    with pytest.raises(LaunchError, match="Unable to contact"):
        submit_successor(run_of(attempt), attempt, job_id="41", tries_for_s=0.2)
