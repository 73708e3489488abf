"""Slurm as a backend: submitit's SlurmExecutor carries our own script. The only submitit import, made when submitting.

Private methods of submitit are used, which is why its version is pinned below the next minor:
`_make_submission_file_text` is overridden (our bytes, no pickle is written or read), `_submit_command` is called.
A third, `_make_submission_command`, is overridden too: sbatch gets a time-out and the submission's mark.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import Problem, SubmissionError
from orchestrator.files import make_private_dir
from orchestrator.launch.environment import outside_job
from orchestrator.launch.slurm_words import UNREACHED
from orchestrator.run_dir import RunDir
from orchestrator.submit.backend import JobState, Submission
from orchestrator.submit.commands import NoAnswer, Say, find_program, missing_program, run_command
from orchestrator.submit.outage import Patience, ask_to_end, hand_over

REFUSALS = (
    (re.compile(r"partition.*(inactive|drain|down)|invalid partition|partition not avail", re.I),
     "resources.partition", "write one that `sinfo -s` lists as up"),
    (re.compile(r"group not permitted|access/permission denied", re.I),
     "resources.partition", "choose a partition that is open to you"),
    (re.compile(r"invalid account|specify an account", re.I),
     "resources.account", "write one that `sacctmgr show assoc` lists"),
    (re.compile(r"invalid qos|qos not permitted", re.I), "resources.qos", "write one that `sacctmgr show qos` lists"),
    (re.compile(r"accounting/qos policy|policy limit", re.I),
     "resources", "ask for less, or choose another account or qos: see `sacctmgr show assoc`"),
    (re.compile(r"invalid feature|constraint", re.I), "resources.constraint", "write what `sinfo -o %f` lists"),
    (re.compile(r"generic resource|gres", re.I), "resources.gpus_per_node", "ask for what `sinfo -o '%P %G'` lists"),
    (re.compile(r"time limit", re.I), "resources.walltime", "write one within the limit that `sinfo -o '%P %l'` lists"),
    (re.compile(r"memory", re.I), "resources.memory", "ask for less memory per node"),
    (re.compile(r"node count|too many nodes", re.I), "resources.num_nodes", "ask for fewer nodes"),
    (re.compile(r"cpu count|cpus per task|processors", re.I), "resources.cpus_per_gpu", "ask for fewer CPU cores"),
    (re.compile(r"node configuration", re.I), "resources", "ask for what exists: see `sinfo`"),
)  # fmt: skip
"""Slurm's words for a refusal (slurm_errno.c), the recipe's key they are about, and what to write instead."""
_PATH = re.compile(r"(?<!\S)[\"'(]?/\S+")
_UNSENT = re.compile(r"connect failure|connection refused|munge encode|configuration (file|source)|in standby", re.I)
"""Those of UNREACHED after which nothing can have arrived."""
_MOMENT = re.compile(r"nodes are busy|node not available|not available now", re.I)
"""It was asked, and the answer is about this moment."""

_NO_SUCH_JOB = re.compile(r"invalid job id", re.I)
PATIENCE = Patience()
ASK_TIMEOUT_S = 30.0
SACCT_TIMEOUT_S = 10.0
"""Accounting is asked second: it tells where the queue has forgotten."""
SACCT = ("sacct", "--noheader", "--parsable2", "--allocations")

_PENDING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED"})
_RUNNING = frozenset({"RUNNING", "COMPLETING", "STAGE_OUT", "RESIZING", "SIGNALING", "STOPPED"})


class SlurmBackend:
    """sbatch by way of submitit; squeue, sacct and scancel asked once for all jobs."""

    name = "slurm"

    def __init__(self, slurm_conf: str | None) -> None:
        self._slurm_conf = slurm_conf
        self._patience = PATIENCE

    def check(self) -> None:
        for program in ("sbatch", "srun"):
            if find_program(program) is None:
                raise SubmissionError(missing_program(program))
        if self._slurm_conf and not Path(self._slurm_conf).is_file():
            what = "no such file: the profile's slurm_conf"
            raise SubmissionError(Problem(self._slurm_conf, what, "start the cluster, or correct slurm_conf"))

    def submit(self, run_dir: RunDir, submission: Submission) -> str:
        return hand_over(_Desk(self, run_dir, submission), submission, self._patience)

    def sbatch(self, run_dir: RunDir, mark: str) -> str:
        """Submit the run's script once and return the job's id.

        The job's comment and the path of its script carry `mark`: a site may rewrite one of them, hardly both.
        Raises NoAnswer, or SubmissionError for a refusal.
        """
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        script = run_dir.job_script.read_text()
        bounded = ("timeout", "--kill-after=5", f"{self._patience.answer_s:g}")
        command = (*bounded, "sbatch", f"--comment=orchestrate:{mark}")

        class ScriptExecutor(SlurmExecutor):
            """Sends our script instead of one that unpickles a function."""

            def _make_submission_file_text(self, command: str, uid: str) -> str:
                return script

            def _make_submission_command(self, submission_file_path: Path) -> list[str]:
                return [*command, str(submission_file_path)]

        folder = make_private_dir(run_dir.path / "sbatch" / mark)
        with self._scrubbed_environment(), contextlib.redirect_stderr(io.StringIO()):
            try:
                return str(ScriptExecutor(folder)._submit_command("").job_id)
            except FailedJobError as error:
                code = getattr(error.__cause__, "returncode", 1)
                raise self._failure(str(error), code) from None
            except FailedSubmissionError as error:
                raise NoAnswer(Problem("sbatch", one_line(str(error))), may_have_arrived=True) from None

    def _failure(self, text: str, code: int) -> SubmissionError:
        """What an exit code of sbatch other than 0 means; 124 and what is above 128 are `timeout`'s, or a signal's."""
        if code == 124 or code > 128:
            what = f"no answer within {self._patience.answer_s:g} s" if code in (124, 137) else "sbatch was killed"
            return NoAnswer(Problem("sbatch", what), may_have_arrived=True)
        return _unreached(text, "sbatch") or SubmissionError(refusal(text))

    def find(self, mark: str, *, since: float) -> dict[str, JobState] | None:
        """Squeue is asked for the user's jobs, and where it has forgotten the one, accounting, if there is any."""
        queue = self._rows(("squeue", "--me", "--noheader", "--states=all", "--format=%A|%T|%k|%o"))
        if queue is None:
            return None
        found = {row[0]: job_state(row[1]) for row in queue if any(mark in word for word in row[2:])}
        if not found:
            start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 60))
            fields = "JobIDRaw,State,Comment,SubmitLine"
            rows = self._rows((*SACCT, f"--format={fields}", f"--starttime={start}"), timeout_s=SACCT_TIMEOUT_S)
            found = {row[0]: "ended" for row in rows or () if any(mark in word for word in row[2:])}
        return found

    def states(self, job_ids: Sequence[str]) -> dict[str, JobState]:
        """One squeue for the living and, when some are not in it, one sacct for the rest.

        A job that squeue answers not to know has ended; only where accounting has never heard of it either (another
        cluster's?) it is unknown. Without an answer of squeue all are unknown: accounting may lag behind.
        """
        known: dict[str, JobState] = dict.fromkeys(job_ids, "unknown")
        queue = self._queue(job_ids) if job_ids else None
        if queue is None:
            return known
        known.update(queue)
        if missing := [job_id for job_id in job_ids if job_id not in queue]:
            argv = (*SACCT, "--format=JobIDRaw,State", f"--jobs={','.join(missing)}")
            rows = self._rows(argv, timeout_s=SACCT_TIMEOUT_S)
            accounted = missing if rows is None else [row[0] for row in rows]
            known.update({job_id: "ended" for job_id in accounted if job_id in missing})
        return known

    def cancel(self, job_id: str, *, say: Say) -> None:
        """SIGTERM to the job's steps, which save and end; a job that waits in the queue is removed from it."""

        def look() -> JobState | None:
            queue = self._queue([job_id])
            return None if queue is None else queue.get(job_id, "ended")

        def ask(state: JobState) -> None:
            self.scancel(*(() if state == "pending" else ("--signal=TERM",)), job_id)

        ask_to_end(job_id, look, ask, say=say, patience=self._patience)

    def scancel(self, *words: str) -> None:
        """Call scancel once; the last word is the job's id. Raises NoAnswer, or SubmissionError for a refusal."""
        done = run_command(("scancel", *words), timeout_s=ASK_TIMEOUT_S, env=self._environment())
        if done.returncode:
            refused = SubmissionError(Problem(f"job {words[-1]}", one_line(done.stderr), "see `squeue --me`"))
            raise _unreached(done.stderr, f"job {words[-1]}") or refused

    def _queue(self, job_ids: Sequence[str]) -> dict[str, JobState] | None:
        """What squeue knows of these jobs; None when it does not answer."""
        rows = self._rows(("squeue", "--noheader", "--states=all", "--format=%A|%T", f"--jobs={','.join(job_ids)}"))
        return None if rows is None else {row[0]: job_state(row[1]) for row in rows if row[0] in job_ids}

    def _rows(self, argv: Sequence[str], *, timeout_s: float = ASK_TIMEOUT_S) -> list[list[str]] | None:
        """The fields of each row of an answer; None without an answer. "No such job" is an answer, without rows."""
        try:
            done = run_command(argv, timeout_s=timeout_s, env=self._environment())
        except SubmissionError:
            return None
        if done.returncode and not _NO_SUCH_JOB.search(done.stderr):
            return None
        return [line.split("|") for line in done.stdout.splitlines() if "|" in line]

    def _environment(self) -> dict[str, str]:
        return clean_environment(os.environ, self._slurm_conf)

    @contextlib.contextmanager
    def _scrubbed_environment(self) -> Iterator[None]:
        """submitit takes its environment from this process: scrub it for as long as sbatch runs. Files are 0600."""
        before, scrubbed = dict(os.environ), self._environment()
        umask = os.umask(0o077)
        os.environ.clear()
        os.environ.update(scrubbed)
        try:
            yield
        finally:
            os.umask(umask)
            os.environ.clear()
            os.environ.update(before)


@dataclass(frozen=True)
class _Desk:
    """Where one submission is handed over."""

    backend: SlurmBackend
    run_dir: RunDir
    submission: Submission

    def send(self) -> str:
        return self.backend.sbatch(self.run_dir, self.submission.mark)

    def look(self) -> dict[str, JobState] | None:
        return self.backend.find(self.submission.mark, since=self.submission.started_at)

    def drop(self, job_id: str) -> None:
        with contextlib.suppress(SubmissionError):
            self.backend.scancel(job_id)


def clean_environment(env: Mapping[str, str], slurm_conf: str | None) -> dict[str, str]:
    """`env` without what a surrounding Slurm job left in it; SLURM_CONF stays, or is the profile's."""
    return outside_job(env) | ({"SLURM_CONF": slurm_conf} if slurm_conf else {})


def job_state(word: str) -> JobState:
    """Slurm's state word (sacct may add 'by <uid>' or '+') as one of ours."""
    state = word.split()[0].rstrip("+") if word.split() else ""
    if state in _PENDING:
        return "pending"
    return "running" if state in _RUNNING else "ended"


def refusal(text: str) -> Problem:
    """sbatch's refusal as a problem, placed at the recipe's key where its words are known; a path is none of them.

    All that it says is kept: the cause may be a line of the site's own, before Slurm's "Unspecified error".
    """
    said = "; ".join(dict.fromkeys(_telling(text)))
    for words, key, fix in REFUSALS:
        if words.search(_PATH.sub("", said)):
            return Problem(key, f"sbatch refused: {said}", fix)
    return Problem("sbatch", f"refused: {said}", "see `orchestrate plan --show script` for what was sent")


def is_no_verdict(text: str) -> bool:
    """Whether sbatch's error says nothing of the request: Slurm could not be asked, or speaks of this moment only."""
    line = one_line(text)
    return bool(UNREACHED.search(line) or _MOMENT.search(line))


def _unreached(text: str, where: str) -> NoAnswer | None:
    """The error of a program that could not reach the controller, or lost its answer; None for any other error."""
    line = one_line(text)
    if not UNREACHED.search(line):
        return None
    return NoAnswer(Problem(where, line), may_have_arrived=not _UNSENT.search(line))


def one_line(text: str) -> str:
    """The last telling line of an error text: Slurm puts the cause there."""
    return _telling(text)[-1]


def _telling(text: str) -> list[str]:
    """The lines of an error text that tell what is wrong, without the program's prefix; at least one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"(error|fatal|failure):", line)] or lines[-1:]
    bare = [re.sub(r"^(?:s\w+: )?(?:(?:\w+ )?(?:error|fatal|failure): )?", "", line) for line in telling]
    return [line for line in bare if re.search(r"\w", line)] or ["no reason given"]
