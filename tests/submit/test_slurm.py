"""The Slurm backend against programs on PATH: what sbatch receives, what is asked, how refusals read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.errors import SubmissionError
from orchestrator.submit.commands import silent
from orchestrator.submit.slurm import (
    SlurmBackend,
    clean_environment,
    is_no_verdict,
    job_state,
    one_line,
    refusal,
)
from tests.support.command_line import TINY, orchestrate
from tests.support.fake_slurm import FakeSlurm


@pytest.fixture
def slurm(tmp_path: Path) -> FakeSlurm:
    return FakeSlurm.install(tmp_path / "slurm")


def submit(work: Path, slurm: FakeSlurm, *words: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    done = orchestrate(
        "submit", TINY, "--cluster", "fake.yaml", "--json", *words, cwd=work, env={**slurm.environment, **(env or {})}
    )
    return done.returncode, done.stdout, done.stderr


def test_sbatch_gets_the_very_script_that_plan_printed(slurm: FakeSlurm, work: Path) -> None:
    planned = orchestrate("plan", TINY, "--cluster", "fake.yaml", "--show", "script", cwd=work, env=slurm.environment)
    code, out, err = submit(work, slurm)
    assert code == 0, err
    facts = json.loads(out)
    assert slurm.received == planned.stdout.encode()
    assert (Path(facts["run_dir"]) / "job.sh").read_bytes() == slurm.received
    assert facts["job_id"] == "41"
    assert facts["mlflow_ui"] == f"mlflow ui --backend-store-uri sqlite:///{work}/mlflow.db"
    assert len(facts["mlflow_run_id"]) == 32


def test_variables_of_a_surrounding_job_do_not_reach_sbatch_but_slurm_conf_does(slurm: FakeSlurm, work: Path) -> None:
    env = {"SLURM_CONF": "/etc/slurm/here.conf", "SLURM_NTASKS": "7", "SBATCH_PARTITION": "other"}
    code, _, err = submit(work, slurm, env=env)
    assert code == 0, err
    call = next(call for call in slurm.calls if call["program"] == "sbatch")
    assert call["environment"] == {"SLURM_CONF": "/etc/slurm/here.conf"}


def test_a_refused_job_leaves_no_run_directory_and_names_the_recipes_key(slurm: FakeSlurm, work: Path) -> None:
    text = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified\n"
    slurm.answers({"sbatch": {"err": text, "code": 1}})
    code, out, _ = submit(work, slurm)
    assert code == 3
    (problem,) = json.loads(out)["problems"]
    assert problem["key"] == "resources.account" and problem["file"].endswith("tiny.yaml")
    assert problem["what"].startswith("sbatch refused: Batch job submission failed: Invalid account")
    assert list((work / "runs").iterdir()) == []
    assert not (work / "mlflow.db").exists()


def test_without_sbatch_on_path_submit_says_so_before_anything_is_written(work: Path) -> None:
    done = orchestrate("submit", TINY, "--cluster", "fake.yaml", cwd=work, env={"PATH": "/nowhere"})
    assert done.returncode == 3
    assert "sbatch: not found on PATH" in done.stderr
    assert not (work / "runs").exists()


def test_the_same_science_still_in_the_queue_is_refused_with_its_run(slurm: FakeSlurm, work: Path) -> None:
    code, out, err = submit(work, slurm)
    assert code == 0, err
    slurm.answers({"squeue": {"out": "41|PENDING\n"}})
    code, refused, _ = submit(work, slurm, "--again")
    assert code == 2
    (problem,) = json.loads(refused)["problems"]
    assert "the same recipe is pending already (job 41)" in problem["what"]
    assert problem["where"] == json.loads(out)["run_dir"]
    assert len(list((work / "runs").iterdir())) == 1


def test_status_of_many_jobs_asks_squeue_once_and_sacct_once(slurm: FakeSlurm, work: Path) -> None:
    for effective in (8, 16):
        code, _, err = submit(work, slurm, "--set", f"batch.effective={effective}")
        assert code == 0, err
    asked = len(slurm.calls_of("squeue"))
    done = orchestrate("status", "--json", cwd=work, env=slurm.environment)
    assert [row["state"] for row in json.loads(done.stdout)] == ["unknown"] * 2
    assert len(slurm.calls_of("squeue")) == asked + 1
    assert len(slurm.calls_of("sacct")) == 1


def test_cancel_signals_the_steps_of_a_running_job_and_removes_a_waiting_one(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", slurm.environment["PATH"])
    backend = SlurmBackend(None)
    slurm.answers({"squeue": {"out": "41|RUNNING\n"}})
    backend.cancel("41", say=silent)
    slurm.answers({"squeue": {"out": "41|PENDING\n"}})
    backend.cancel("41", say=silent)
    assert slurm.calls_of("scancel") == [["--signal=TERM", "41"], ["41"]]


def test_a_controller_that_does_not_answer_is_unknown_and_not_failed(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", slurm.environment["PATH"])
    slurm.answers({"squeue": {"code": 1, "err": "squeue: error: unable to contact"}, "sacct": {"code": 1}})
    assert SlurmBackend(None).states(["41"]) == {"41": "unknown"}


def test_a_profile_whose_slurm_conf_is_missing_is_refused(slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", slurm.environment["PATH"])
    with pytest.raises(SubmissionError, match="no such file: the profile's slurm_conf"):
        SlurmBackend("/nowhere/slurm.conf").check()


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("PENDING", "pending"),
        ("RUNNING", "running"),
        ("COMPLETING", "running"),
        ("COMPLETED", "ended"),
        ("CANCELLED by 0", "ended"),
        ("CANCELLED+", "ended"),
        ("NODE_FAIL", "ended"),
        ("TIMEOUT", "ended"),
        ("REQUEUE_HOLD", "pending"),
    ],
)
def test_slurms_words_become_one_of_four_states(word: str, state: str) -> None:
    assert job_state(word) == state


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid partition "
         "name specified", "resources.partition"),
        ("sbatch: error: Batch job submission failed: Invalid qos specification", "resources.qos"),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", "resources"),
        ("sbatch: error: Batch job submission failed: Invalid feature specification", "resources.constraint"),
        ("sbatch: error: Invalid generic resource (gres) specification", "resources.gpus_per_node"),
        ("sbatch: error: Memory specification can not be satisfied", "resources.memory"),
        ("sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
         "resources.walltime"),
        ("allocation failure: Node count specification invalid", "resources.num_nodes"),
        ("allocation failure: Required partition not available (inactive or drain)", "resources.partition"),
        ("sbatch: error: User's group not permitted to use this partition", "resources.partition"),
        ("sbatch: error: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
         "resources"),
        ("sbatch: error: CPU count specification invalid", "resources.cpus_per_gpu"),
        ("sbatch: error: Memory required by task is not available", "resources.memory"),
        ("sbatch: error: something new", "sbatch"),
        ("sbatch: error: Please specify an account!\nallocation failure: Unspecified error", "resources.account"),
        ("sbatch: error: QOSMaxGRESPerUser\nsbatch: error: Batch job submission failed: Job violates accounting/QOS "
         "policy (job submit limit, user's size and/or time limits)", "resources"),
        ("sbatch: error: Memory specification can not be satisfied\nallocation failure: Requested node configuration "
         "is not available", "resources.memory"),
        ("sbatch: error: Unable to open file /x/memory/y", "sbatch"),
    ],
)  # fmt: skip
def test_a_refusal_is_placed_at_the_key_it_is_about(text: str, key: str) -> None:
    assert refusal(text).where == key


def test_a_refusal_has_all_that_the_site_says_each_line_once() -> None:
    site = ("job_submit.lua: wrong project", "**********", "You must give -A", "You must give -A")
    text = "".join(f"sbatch: error: {line}\n" for line in site) + "allocation failure: Unspecified error\n"
    said = "job_submit.lua: wrong project; You must give -A; Unspecified error"
    assert refusal(text).what == f"refused: {said}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("sbatch: error: invalid partition\nsbatch: error: Batch job submission failed: no\n",
         "Batch job submission failed: no"),
        ("sbatch: Job 3 is fine\nallocation failure: Invalid feature specification\n", "Invalid feature specification"),
        ("slurm_load_node error: Unable to contact slurm controller (connect failure)\n",
         "Unable to contact slurm controller (connect failure)"),
        ("scontrol: fatal: Could not establish a configuration source\n", "Could not establish a configuration source"),
        ("something else: error\n", "something else: error"),
        ("", "no reason given"),
    ],
)  # fmt: skip
def test_of_an_error_text_the_telling_line_is_shown_without_the_program(text: str, line: str) -> None:
    assert one_line(text) == line


@pytest.mark.parametrize(
    ("text", "silent"),
    [
        ("allocation failure: Unable to contact slurm controller (connect failure)", True),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", True),
        ("sbatch: error: Munge encode failed: Failed to access socket", True),
        ("allocation failure: Required node not available (down, drained or reserved)", True),
        ("allocation failure: Requested node configuration is not available", False),
        ("allocation failure: Invalid qos specification", False),
    ],
)
def test_silence_and_the_moment_are_no_verdict_on_the_request(text: str, silent: bool) -> None:
    assert is_no_verdict(text) == silent


def test_only_slurms_leftovers_are_scrubbed() -> None:
    env = {"SLURM_JOB_ID": "1", "SBATCH_X": "2", "PMIX_RANK": "3", "SLURM_CONF": "c", "HOME": "/h"}
    assert clean_environment(env, None) == {"SLURM_CONF": "c", "HOME": "/h"}
    assert clean_environment(env, "/other") == {"SLURM_CONF": "/other", "HOME": "/h"}
