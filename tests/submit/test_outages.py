"""Slurm's controller is down for a minute: unknown is not failed, and nothing is submitted twice by that."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SubmissionError
from orchestrator.files import make_private_dir, read_json, write_json
from orchestrator.run_dir import RunDir
from orchestrator.submit import slurm as slurm_module
from orchestrator.submit.backend import Submission
from orchestrator.submit.outage import Patience
from orchestrator.submit.prepare import prepare
from orchestrator.submit.runs import SETTLED_S, statuses
from orchestrator.submit.slurm import SlurmBackend
from orchestrator.submit.start import resume_run, start_run
from orchestrator.submit.wait import POLL_S, watch
from tests.cli.test_lifecycle import WITH_CTRL_C
from tests.support.command_line import TINY, orchestrate
from tests.support.fake_slurm import FakeSlurm
from tests.support.run_dirs import end_attempt, make_run_dir, start_attempt

SHORT = Patience(for_s=6.0, pause_s=0.1, answer_s=2.0)
LOST = {"err": "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n", "code": 1}
ARRIVED = {**LOST, "arrives_after": 0}
UNREACHED = {
    "err": "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)\n",
    "code": 1,
}
SILENT_QUEUE = {"err": "slurm_load_jobs error: Socket timed out on send/recv operation\n", "code": 1}
NO_SUCH_JOB = {"err": "slurm_load_jobs error: Invalid job id specified\n", "code": 1}
NO_ACCOUNTING = {"err": "Slurm accounting storage is disabled\n", "code": 1}
SILENT_SCANCEL = {
    "err": "scancel: error: Kill job error on job id 41: Socket timed out on send/recv operation\n",
    "code": 1,
}
REFUSED = {"err": "sbatch: error: Batch job submission failed: Invalid account\n", "code": 1}
OK: dict[str, Any] = {}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A Slurm on PATH that is waited for for six seconds, not three minutes."""
    fake = FakeSlurm.install(tmp_path / "slurm")
    monkeypatch.setenv("PATH", fake.environment["PATH"])
    monkeypatch.setattr(slurm_module, "PATIENCE", SHORT)
    return fake


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run_dir(tmp_path / "run", uri="file:nowhere")


class Handed:
    """What came of handing `run` over: the id or the error, and what was said meanwhile."""

    def __init__(self, run: RunDir) -> None:
        self.said: list[str] = []
        self.submission = Submission("tiny-1", self.said.append)
        self.job_id, self.error = None, ""
        try:
            self.job_id = SlurmBackend(None).submit(run, self.submission)
        except SubmissionError as error:
            self.error = str(error)


def test_a_submission_whose_answer_was_lost_is_found_by_its_mark_and_not_sent_again(
    slurm: FakeSlurm, run: RunDir
) -> None:
    slurm.answers({"sbatch": [ARRIVED, OK]})
    handed = Handed(run)
    assert (handed.job_id, slurm.jobs) == ("41", [41])
    (argv,) = slurm.calls_of("sbatch")
    assert argv[0] == f"--comment=orchestrate:{handed.submission.mark}" and handed.submission.mark in argv[1]
    first, second = handed.said
    assert first.startswith("Slurm does not answer (Batch job submission failed: Socket timed out")
    assert "the submission is tried again for up to 6.0 s; Ctrl-C ends that" in first
    assert second == "the submission had arrived"


def test_a_lost_submission_that_a_thawing_controller_takes_in_after_it_has_answered_is_waited_for(
    slurm: FakeSlurm, run: RunDir
) -> None:
    slurm.answers({"sbatch": [{**LOST, "arrives_after": 1}, OK]})
    assert (Handed(run).job_id, slurm.jobs) == ("41", [41])
    assert len(slurm.calls_of("squeue")) == 2


def test_a_submission_that_did_not_arrive_is_sent_again_once_the_queue_says_so_twice(
    slurm: FakeSlurm, run: RunDir
) -> None:
    slurm.answers({"sbatch": [LOST, OK], "squeue": [SILENT_QUEUE, OK]})
    handed = Handed(run)
    assert (handed.job_id, slurm.jobs) == ("41", [41])
    programs = [call["program"] for call in slurm.calls if call["program"] in ("sbatch", "squeue")]
    assert programs == ["sbatch", "squeue", "squeue", "squeue", "sbatch", "squeue"]


def test_a_lost_submission_that_arrives_after_all_beside_the_second_is_ended(slurm: FakeSlurm, run: RunDir) -> None:
    slurm.answers({"sbatch": [{**LOST, "arrives_after": 2}, OK]})
    handed = Handed(run)
    assert (handed.job_id, slurm.jobs) == ("41", [41])
    assert slurm.calls_of("scancel") == [["42"]]
    assert handed.said[-1] == "an earlier try had arrived too: one of the two jobs is ended"


@pytest.mark.parametrize("arrives", [True, False])
def test_an_sbatch_that_hangs_is_broken_off_and_one_job_is_there_in_the_end(
    slurm: FakeSlurm, run: RunDir, arrives: bool
) -> None:
    hanging = {"hangs_s": 60, "code": 1} | ({"arrives_after": 0} if arrives else {})
    slurm.answers({"sbatch": [hanging, OK]})
    handed = Handed(run)
    assert (handed.job_id, slurm.jobs) == ("41", [41])
    assert "(no answer within 2 s)" in handed.said[0]


def test_an_answer_that_names_no_job_is_no_reason_to_submit_again(slurm: FakeSlurm, run: RunDir) -> None:
    slurm.answers({"sbatch": [{"arrives_after": 0, "out": "thank you\n"}, OK]})
    assert (Handed(run).job_id, slurm.jobs) == ("41", [41])


def test_a_job_that_the_queue_has_forgotten_is_found_in_accounting(slurm: FakeSlurm, run: RunDir) -> None:
    mark = Submission("x", print).mark
    slurm.answers({"sacct": {"out": f"7|FAILED||sbatch --comment=orchestrate:{mark} x.sh\n8|FAILED||sbatch y\n"}})
    assert SlurmBackend(None).find(mark, since=time.time()) == {"7": "ended"}
    assert SlurmBackend(None).find("another", since=time.time()) == {}


def test_a_controller_that_is_never_reached_has_got_nothing(slurm: FakeSlurm, run: RunDir) -> None:
    slurm.answers({"sbatch": UNREACHED})
    handed = Handed(run)
    assert len(slurm.calls_of("sbatch")) > 2 and slurm.calls_of("squeue") == []
    assert "nothing was submitted: try again when `squeue --me` answers" in handed.error
    assert not handed.submission.in_doubt


def test_a_refusal_after_an_outage_is_a_refusal(slurm: FakeSlurm, run: RunDir) -> None:
    slurm.answers({"sbatch": [UNREACHED, LOST, REFUSED]})
    handed = Handed(run)
    assert handed.error.startswith("resources.account: sbatch refused: ") and not handed.submission.in_doubt


def start(work: Path, say: Callable[[str], None] = print) -> RunDir:
    profile = work / "fake.yaml"
    prepared = prepare(TINY, overrides=(), profile=profile, cwd=work, offline=True)
    start_run(prepared, cwd=work, again=False, only_prepare=False, say=say)
    return prepared.run_dir


def only_run(work: Path) -> RunDir:
    (path,) = (work / "runs").iterdir()
    return RunDir(path)


def test_the_files_of_a_run_stay_where_it_is_unknown_whether_it_has_a_job_and_status_finds_it(
    slurm: FakeSlurm, work: Path
) -> None:
    slurm.answers({"sbatch": ARRIVED, "squeue": SILENT_QUEUE})
    with pytest.raises(SubmissionError) as told:
        start(work)
    run = only_run(work)
    what, fix = str(told.value).splitlines()
    assert what.startswith(f"{run.path.name}: whether it has a job is unknown: Batch job submission failed: Socket")
    assert f"its files stay; `orchestrate status {run.path.name}` asks again" in fix
    assert statuses([run])[0].state == "unknown"
    slurm.answers({})
    found = statuses([run])[0]
    assert (found.state, found.job_id, slurm.jobs) == ("pending", "41", [41])
    assert read_json(run.job)["job_id"] == "41"


def test_the_same_recipe_is_not_submitted_beside_a_run_of_which_it_is_unknown_whether_it_has_a_job(
    slurm: FakeSlurm, work: Path
) -> None:
    slurm.answers({"sbatch": ARRIVED, "squeue": SILENT_QUEUE})
    with pytest.raises(SubmissionError):
        start(work)
    for words in (("submit", TINY, "--cluster", "fake.yaml", "--offline", "--again"), ("resume", only_run(work).path)):
        done = orchestrate(*words, cwd=work)
        assert done.returncode == 2 and "is unknown" in done.stderr, done.stderr
    assert slurm.jobs == [41]
    cancelled = orchestrate("cancel", only_run(work).path, cwd=work)
    assert cancelled.returncode == 3 and "whether it has a job is unknown" in cancelled.stderr


def test_a_run_that_got_no_job_is_prepared_once_that_is_certain_and_resume_submits_it(
    slurm: FakeSlurm, work: Path
) -> None:
    slurm.answers({"sbatch": LOST, "squeue": SILENT_QUEUE})
    with pytest.raises(SubmissionError):
        start(work)
    slurm.answers({})
    run = only_run(work)
    assert statuses([run])[0].state == "unknown"
    write_json(run.job, read_json(run.job) | {"submitted_at": time.time() - SETTLED_S - 1})
    assert statuses([run])[0].state == "prepared"
    resume_run(run, overrides=(), profile=None, offline=True, say=print)
    assert (read_json(run.job)["job_id"], slurm.jobs) == ("41", [41])


def test_a_run_whose_resumption_is_refused_after_an_outage_has_its_earlier_job(slurm: FakeSlurm, work: Path) -> None:
    run = start(work)
    before = read_json(run.job)
    slurm.answers({"sbatch": [OK, LOST, REFUSED], "squeue --jobs=41": {"out": "41|FAILED\n"}})
    with pytest.raises(SubmissionError, match="Invalid account"):
        resume_run(run, overrides=(), profile=None, offline=True, say=print)
    assert read_json(run.job) == before


def test_an_attempt_that_begins_before_its_job_is_found_is_the_jobs_own(slurm: FakeSlurm, work: Path) -> None:
    slurm.answers({"sbatch": ARRIVED})

    def say(line: str) -> None:
        if line.startswith("Slurm does not answer"):
            end_attempt(start_attempt(only_run(work)))

    run = start(work, say)
    assert (read_json(run.job)["job_id"], statuses([run])[0].state) == ("41", "done")


def test_a_job_whose_driver_has_begun_is_known_by_what_the_driver_wrote(slurm: FakeSlurm, work: Path) -> None:
    slurm.answers({"sbatch": LOST, "squeue": SILENT_QUEUE})
    with pytest.raises(SubmissionError):
        start(work)
    run = only_run(work)
    start_attempt(run, job_id="77")
    slurm.answers({"squeue": {"out": "77|RUNNING\n"}})
    assert (statuses([run])[0].state, read_json(run.job)["job_id"]) == ("running", "77")


def test_ctrl_c_while_sbatch_hangs_keeps_the_run_and_says_what_is_unknown(slurm: FakeSlurm, work: Path) -> None:
    slurm.answers({"sbatch": {"hangs_s": 3, "arrives_after": 0}})
    argv = (sys.executable, "-c", WITH_CTRL_C, "submit", str(TINY), "--cluster", "fake.yaml", "--offline")
    process = subprocess.Popen(argv, cwd=work, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not slurm.jobs:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    name = only_run(work).path.name
    assert f"{name}: whether it has a job is unknown: it was interrupted" in said
    assert statuses([only_run(work)])[0].state == "pending"


@pytest.mark.parametrize(
    ("squeue", "sacct", "state"),
    [
        (SILENT_QUEUE, {"out": "41|COMPLETED\n"}, "unknown"),
        (NO_SUCH_JOB, NO_ACCOUNTING, "ended"),
        (OK, NO_ACCOUNTING, "ended"),
        (NO_SUCH_JOB, {"out": "41|COMPLETED\n"}, "ended"),
        (NO_SUCH_JOB, {"out": "41|RUNNING\n"}, "ended"),
        (NO_SUCH_JOB, OK, "unknown"),
    ],
    ids=["silent", "no accounting", "no accounting, no row", "accounted", "accounting lags", "never heard of"],
)
def test_a_job_that_squeue_does_not_know_has_ended_and_one_that_it_does_not_speak_of_is_unknown(
    slurm: FakeSlurm, squeue: dict[str, Any], sacct: dict[str, Any], state: str
) -> None:
    slurm.answers({"squeue": squeue, "sacct": sacct})
    assert SlurmBackend(None).states(["41"]) == {"41": state}


def test_without_a_sacct_at_all_a_forgotten_job_has_ended(slurm: FakeSlurm) -> None:
    slurm.answers({"squeue": NO_SUCH_JOB})
    (slurm.room / "bin" / "sacct").unlink()
    assert SlurmBackend(None).states(["41"]) == {"41": "ended"}


def test_a_verdict_ends_the_wait_at_once_while_squeue_hangs(slurm: FakeSlurm, run: RunDir) -> None:
    slurm.answers({"squeue": {"hangs_s": 60}})
    looks = watch(run)
    assert next(looks).status.state == "unknown"
    end_attempt(start_attempt(run))
    make_private_dir(run.forward)
    write_json(run.cursor, {"complete": True})
    *before, last = looks
    assert (last.ended, last.status.state) == (True, "done") and len(before) * POLL_S < 3


def test_a_verdict_ends_the_wait_within_15_s_where_nobody_answers_and_mlflow_has_not_got_all(
    slurm: FakeSlurm, run: RunDir
) -> None:
    slurm.answers({"squeue": SILENT_QUEUE})
    end_attempt(start_attempt(run))
    started = time.monotonic()
    assert list(watch(run))[-1].status.state == "done" and time.monotonic() - started < 15


def test_without_accounting_the_wait_for_a_job_that_is_gone_ends_within_15_s_and_not_before_the_queue_answers(
    slurm: FakeSlurm, run: RunDir
) -> None:
    slurm.answers({"squeue": SILENT_QUEUE, "sacct": NO_ACCOUNTING})
    looks = watch(run)
    assert {next(looks).status.state for _ in range(12)} == {"unknown"}
    slurm.answers({"squeue": NO_SUCH_JOB, "sacct": NO_ACCOUNTING})
    rest = list(looks)
    assert rest[-1].status.state == "lost" and len(rest) * POLL_S < 15


RUNNING = {"out": "41|RUNNING\n"}


def cancel() -> tuple[str, list[str]]:
    """The error that cancelling ends with, and what was said meanwhile."""
    said: list[str] = []
    try:
        SlurmBackend(None).cancel("41", say=said.append)
    except SubmissionError as error:
        return str(error), said
    return "", said


def test_a_cancel_waits_until_the_controller_answers_and_signals_once(slurm: FakeSlurm) -> None:
    slurm.answers({"squeue": [SILENT_QUEUE, SILENT_QUEUE, RUNNING]})
    error, said = cancel()
    assert error == "" and slurm.calls_of("scancel") == [["--signal=TERM", "41"]]
    assert "the request to end is tried again for up to 6.0 s; Ctrl-C ends that" in said[0]


def test_a_cancel_that_the_controller_never_hears_says_that_the_job_was_not_asked(slurm: FakeSlurm) -> None:
    slurm.answers({"squeue": SILENT_QUEUE})
    assert "job 41: Slurm does not answer, and was not asked" in cancel()[0]
    assert slurm.calls_of("scancel") == []


def test_a_cancel_whose_answer_was_lost_is_done_when_the_job_has_ended(slurm: FakeSlurm) -> None:
    slurm.answers({"squeue": [RUNNING, {"out": "41|COMPLETED\n"}], "scancel": SILENT_SCANCEL})
    assert cancel()[0] == "" and len(slurm.calls_of("scancel")) == 1


def test_a_running_job_is_signalled_at_most_twice_and_the_doubt_is_told(slurm: FakeSlurm) -> None:
    """A third signal would end torchrun while its ranks save."""
    slurm.answers({"squeue": RUNNING, "scancel": SILENT_SCANCEL})
    what, fix = cancel()[0].splitlines()
    assert what.startswith("job 41: whether Slurm was asked to end it is unknown: Kill job error")
    assert "cancel it again" in fix
    assert len(slurm.calls_of("scancel")) == 2
