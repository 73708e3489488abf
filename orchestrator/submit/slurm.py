"""Slurm as a backend: submitit's SlurmExecutor carries our own script. The only submitit import, made when submitting.

Two private methods of submitit are used, which is why its version is pinned below the next minor:
`_make_submission_file_text` is overridden (our bytes, no pickle is written or read), `_submit_command` is called.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from orchestrator.errors import Problem, SubmissionError
from orchestrator.files import make_private_dir
from orchestrator.run_dir import RunDir
from orchestrator.submit.backend import JobState
from orchestrator.submit.commands import find_program, missing_program, run_command

SCRUBBED = ("SLURM_", "SBATCH_", "SALLOC_", "PMI_", "PMIX_")
"""Variables that a surrounding job leaves behind and sbatch would obey; all but SLURM_CONF are removed."""

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
_UNTOLD = re.compile(
    r"unable to contact|connection refused|timed out|zero bytes|communication|connect failure|munge|credential"
    r"|configuration (file|source)|temporarily unable|in standby|slurm_persist"  # it could not be asked
    r"|nodes are busy|node not available|not available now",  # it was, and the answer is about this moment
    re.I,
)

_PENDING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED"})
_RUNNING = frozenset({"RUNNING", "COMPLETING", "STAGE_OUT", "RESIZING", "SIGNALING", "STOPPED"})


class SlurmBackend:
    """sbatch by way of submitit; squeue, sacct and scancel asked once for all jobs."""

    name = "slurm"

    def __init__(self, slurm_conf: str | None) -> None:
        self._slurm_conf = slurm_conf

    def check(self) -> None:
        for program in ("sbatch", "srun"):
            if find_program(program) is None:
                raise SubmissionError(missing_program(program))
        if self._slurm_conf and not Path(self._slurm_conf).is_file():
            what = "no such file: the profile's slurm_conf"
            raise SubmissionError(Problem(self._slurm_conf, what, "start the cluster, or correct slurm_conf"))

    def submit(self, run_dir: RunDir) -> str:
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        script = run_dir.job_script.read_text()

        class ScriptExecutor(SlurmExecutor):
            """Sends our script instead of one that unpickles a function."""

            def _make_submission_file_text(self, command: str, uid: str) -> str:
                return script

        with self._scrubbed_environment(), contextlib.redirect_stderr(io.StringIO()):
            try:
                executor = ScriptExecutor(make_private_dir(run_dir.path / "sbatch"))
                return str(executor._submit_command("").job_id)
            except (FailedJobError, FailedSubmissionError) as error:
                raise SubmissionError(refusal(str(error))) from None

    def states(self, job_ids: Sequence[str]) -> dict[str, JobState]:
        """One squeue for the living and, when some are not in it, one sacct for the rest."""
        known: dict[str, JobState] = dict.fromkeys(job_ids, "unknown")
        if not job_ids:
            return known
        known.update(self._ask(("squeue", "--noheader", "--states=all", "--format=%A|%T"), job_ids, "--jobs="))
        missing = [job_id for job_id, state in known.items() if state == "unknown"]
        if missing:
            sacct = ("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobIDRaw,State")
            known.update(self._ask(sacct, missing, "--jobs="))
        return known

    def cancel(self, job_id: str) -> None:
        """SIGTERM to the job's steps, which save and end; a job that waits in the queue is removed from it."""
        pending = self.states([job_id])[job_id] == "pending"
        argv = ("scancel", job_id) if pending else ("scancel", "--signal=TERM", job_id)
        done = run_command(argv, timeout_s=30, env=self._environment())
        if done.returncode:
            raise SubmissionError(Problem(f"job {job_id}", one_line(done.stderr), "see `squeue --me`"))

    def _ask(self, argv: Sequence[str], job_ids: Sequence[str], flag: str) -> dict[str, JobState]:
        try:
            done = run_command((*argv, f"{flag}{','.join(job_ids)}"), timeout_s=30, env=self._environment())
        except SubmissionError:
            return {}
        rows = (line.split("|") for line in done.stdout.splitlines() if "|" in line)
        return {job_id: job_state(word) for job_id, word in rows if job_id in job_ids}

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


def clean_environment(env: Mapping[str, str], slurm_conf: str | None) -> dict[str, str]:
    """`env` without what a surrounding Slurm job left in it; SLURM_CONF stays, or is the profile's."""
    clean = {key: value for key, value in env.items() if not key.startswith(SCRUBBED) or key == "SLURM_CONF"}
    return clean | ({"SLURM_CONF": slurm_conf} if slurm_conf else {})


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
    return bool(_UNTOLD.search(one_line(text)))


def one_line(text: str) -> str:
    """The last telling line of an error text: Slurm puts the cause there."""
    return _telling(text)[-1]


def _telling(text: str) -> list[str]:
    """The lines of an error text that tell what is wrong, without the program's prefix; at least one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"(error|fatal|failure):", line)] or lines[-1:]
    bare = [re.sub(r"^(?:s\w+: )?(?:(?:\w+ )?(?:error|fatal|failure): )?", "", line) for line in telling]
    return [line for line in bare if re.search(r"\w", line)] or ["no reason given"]
