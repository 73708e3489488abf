"""Another job for the same run, submitted from inside this one: it starts when this one has ended, from the queue.

Slurm's own requeue would hold the job back for two minutes, and is not to be had everywhere (PreemptMode=CANCEL). A
successor that depends on this job's end waits for nothing else, and takes a free node within a second. One that is
submitted because the first node is lost does not depend on it: Slurm may be minutes from giving that node up.

It is submitted once for an attempt, whoever of the driver and the supervisors does it: by a file that only one of them
can create. An answer of sbatch that was lost is looked for in the queue, by a comment, before it is asked again.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Collection

from orchestrator.errors import LaunchError, Problem, RunError
from orchestrator.files import PRIVATE_FILE, read_json, write_json
from orchestrator.job.commands import ask
from orchestrator.launch.directives import allowed
from orchestrator.launch.environment import outside_job
from orchestrator.launch.slurm_words import UNREACHED
from orchestrator.run_dir import AttemptDir, RunDir

TRIES_FOR_S = 300.0
"""How long a controller that does not answer is asked again."""
_PAUSE_S = 1.0
"""Slurm may leave this job no more than its KillWait once it answers again, and two looks come before the job."""
_LOOKS_AFTER_SILENCE = 2
"""A controller that was frozen can say that it has no such job, and take it in a moment later."""
_ASK_S = 20.0


def submit_successor(
    run: RunDir,
    attempt: AttemptDir,
    *,
    job_id: str | None,
    without: Collection[str] = (),
    tries_for_s: float = TRIES_FOR_S,
) -> str:
    """Put the run back in the queue after `attempt`, for nodes but those of `without`; the new job's id.

    It waits for the end of `job_id`, or for none.

    Raises RunError where somebody else has done it for this attempt, LaunchError where Slurm refuses or is silent,
    RecipeError where a name may not be given to sbatch.
    """
    waits = () if job_id is None else (f"--dependency=afterany:{job_id}",)
    excluded = (f"--exclude={allowed('--exclude', ','.join(without))}",) if without else ()
    _claim(attempt)
    mark = f"orchestrate:{(read_json(run.run) or {}).get('uid', run.path.name)}:{attempt.number}"
    give_up_at = time.monotonic() + tries_for_s
    successor, empty_looks, wanted_looks = None, 0, 1
    while successor is None:
        try:
            successor = _in_queue(mark)
            empty_looks += 1
            if successor is None and empty_looks >= wanted_looks:
                empty_looks, wanted_looks = 0, _LOOKS_AFTER_SILENCE
                successor = _submit(run, mark, (*waits, *excluded))
        except LaunchError as error:
            if not UNREACHED.search(str(error)) or time.monotonic() > give_up_at:
                raise
        if successor is None:
            time.sleep(_PAUSE_S)
    told = read_json(run.job) or {}
    kept = {key: told[key] for key in ("backend", "script_sha256") if key in told}
    write_json(run.job, {**kept, "job_id": successor, "submitted_at": time.time(), "first_attempt": attempt.number})
    write_json(attempt.successor, {"job_id": successor, "by": socket.gethostname(), "time": time.time()})
    return successor


def _claim(attempt: AttemptDir) -> None:
    try:
        os.close(os.open(attempt.successor, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE))
    except FileExistsError:
        raise RunError(Problem(str(attempt.successor), "the run is back in the queue already")) from None
    except OSError as error:
        raise RunError(Problem(str(attempt.successor), f"cannot be written: {error.strerror}")) from None


def _in_queue(mark: str) -> str | None:
    rows = ask(("squeue", "--me", "--noheader", "--format=%A|%k"), timeout_s=_ASK_S, env=outside_job(os.environ))
    return next((row.partition("|")[0] for row in rows.splitlines() if row.partition("|")[2].strip() == mark), None)


def _submit(run: RunDir, mark: str, options: tuple[str, ...]) -> str:
    argv = ("sbatch", "--parsable", f"--comment={mark}", *options, str(run.job_script))
    answer = ask(argv, timeout_s=_ASK_S, env=outside_job(os.environ), cwd=run.path.parent.parent)
    return answer.strip().partition(";")[0]
