"""The one contract between login node, first node, every node and every rank: the names in a run directory.

Every file has exactly one writer, named beside it. Plain JSON, YAML and text; no pickles but the tensors of a
checkpoint, which are loaded with weights_only. Directories are 0700, files 0600.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.checkpoint_names import committed

ATTEMPT_VARIABLE = "ORCHESTRATE_ATTEMPT_DIR"
"""The variable that tells every rank the directory of its attempt."""
PULSE_VARIABLE = "ORCHESTRATE_PULSE_DIR"
"""The variable that tells every rank where on its machine it leaves its signs of life; see `pulse`."""

_ATTEMPT = re.compile(r"\d{3,}")


@dataclass(frozen=True)
class AttemptDir:
    """One start of the workers: `attempts/NNN/`."""

    path: Path

    @property
    def number(self) -> int:
        return int(self.path.name)

    @property
    def plan(self) -> Path:
        """The plan for the allocation this attempt really got. Writer: driver."""
        return self.path / "plan.json"

    @property
    def launch(self) -> Path:
        """Nodes, endpoint and the torchrun command of each node. Writer: driver."""
        return self.path / "launch.json"

    @property
    def driver(self) -> Path:
        """Job id, host, pid and start of the driver, and its heartbeat. Writer: driver."""
        return self.path / "driver.json"

    def node(self, name: str) -> Path:
        """Checks, state, heartbeat and exit code of one node. Writer: its supervisor."""
        return self.path / f"node-{name}.json"

    @property
    def stop(self) -> Path:
        """Present when the workers saved and ended because they were asked to. Writer: rank 0."""
        return self.path / "stop.json"

    @property
    def done(self) -> Path:
        """Present when training ran to its end; the last validation metrics. Writer: rank 0."""
        return self.path / "done.json"

    def error(self, rank: int) -> Path:
        """Why a rank failed: {rank, type, message, traceback, time}; of memory, in what too. Writer: that rank."""
        return self.path / f"error-{rank}.json"

    @property
    def verdict(self) -> Path:
        """How the attempt ended and why; not final where another attempt of the same job follows. Writer: driver."""
        return self.path / "verdict.json"

    @property
    def successor(self) -> Path:
        """The job that goes on after this attempt, in the queue; whoever creates it submits that job. Writer: driver,
        or a supervisor in its place."""
        return self.path / "successor.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def srun_log(self) -> Path:
        """What srun says, and supervisors before they have a log of their own; copied to the job's log too."""
        return self.logs / "srun.log"

    def rank_log(self, rank: int) -> Path:
        return self.logs / f"rank-{rank}.log"

    def node_log(self, name: str) -> Path:
        return self.logs / f"node-{name}.log"

    def stack(self, rank: int) -> Path:
        """Where a rank stood when it, or all that waited for it, gave no sign of life. Writer: its supervisor."""
        return self.logs / f"stack-{rank}.txt"


@dataclass(frozen=True)
class RunDir:
    """One run: `<cwd>/runs/<name>-<fingerprint:8>[.k]`."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe, without the values of secrets. Writer: submit, resume."""
        return self.path / "recipe.yaml"

    @property
    def environment(self) -> Path:
        """Variables for the job, secrets included; never logged. Writer: submit, resume."""
        return self.path / "environment.json"

    @property
    def cluster(self) -> Path:
        """The cluster profile the run was planned for. Writer: submit, resume."""
        return self.path / "cluster.json"

    @property
    def plan(self) -> Path:
        """The plan that was shown at submission. Writer: submit, resume."""
        return self.path / "plan.json"

    @property
    def learnt(self) -> Path:
        """The micro-batch that ran out of memory in this run, and one that did not. Writer: driver."""
        return self.path / "learnt.json"

    @property
    def learnt_store(self) -> Path:
        """{file}: where the driver keeps that for other runs too; absent for nowhere. Writer: submit, resume."""
        return self.path / "learnt-store.json"

    @property
    def tuned(self) -> Path:
        """Loader processes as they were found to be right, for the next attempt. Writer: submit, resume, ranks."""
        return self.path / "tuned.json"

    @property
    def tuned_store(self) -> Path:
        """{file, loader}: where the driver keeps that for other runs, if anywhere. Writer: submit, resume."""
        return self.path / "tuned-store.json"

    @property
    def job_script(self) -> Path:
        """The very bytes handed to the scheduler. Writer: submit, resume."""
        return self.path / "job.sh"

    @property
    def run(self) -> Path:
        """Identity: uid, name, fingerprint, tracking store. Writer: submit, once."""
        return self.path / "run.json"

    @property
    def job(self) -> Path:
        """Backend and id of the last job. Writer: submit, resume; whoever puts the run back in the queue."""
        return self.path / "job.json"

    @property
    def resume(self) -> Path:
        """What the last resume allowed its job, and the attempt that it begins with: {new_order, first_attempt}.
        Writer: resume."""
        return self.path / "resume.json"

    @property
    def cancel(self) -> Path:
        """Present when a person asked for the end. Writer: cancel."""
        return self.path / "cancel.json"

    @property
    def snapshot(self) -> Path:
        """Code as it was: `recipe/` (the recipe's folder), `git.json`, `git.diff`, `pip-freeze.txt`. Writer: submit."""
        return self.path / "snapshot"

    @property
    def snapshot_recipe(self) -> Path:
        return self.snapshot / "recipe"

    @property
    def shown(self) -> Path:
        """`step-00000100.md`, what `evaluation.show` made of the model then. Writer: rank 0."""
        return self.path / "shown"

    @property
    def journal(self) -> Path:
        """`<attempt>.<node>.<rank|node>.log`, append-only. Writers: each rank, each supervisor, its own file."""
        return self.path / "journal"

    @property
    def forward(self) -> Path:
        """The forwarder's room: cursor.json, mlflow.json, forward.log. Writer: forwarder."""
        return self.path / "forward"

    @property
    def cursor(self) -> Path:
        """How far the journal has been replayed, and whether it is complete. Writer: forwarder."""
        return self.forward / "cursor.json"

    @property
    def mlflow(self) -> Path:
        """{uri, experiment_id, run_id}, as soon as MLflow has answered. Writer: forwarder."""
        return self.forward / "mlflow.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def permutation(self, digest: str, dataset: str, number: int) -> Path:
        """Order of one pass over a large dataset ('' for all together), by the order's digest. Writers: any rank."""
        return self.path / "order" / f"{digest[:16]}-{dataset or 'all'}-{number}.npy"

    @property
    def attempts(self) -> Path:
        return self.path / "attempts"

    @property
    def job_logs(self) -> Path:
        """Output of the driver: `job-<id>.log`."""
        return self.path / "logs"

    def attempt(self, number: int) -> AttemptDir:
        return AttemptDir(self.attempts / f"{number:03d}")

    def all_attempts(self) -> Iterator[AttemptDir]:
        """The attempts there are, oldest first."""
        if self.attempts.is_dir():
            names = sorted(
                (p for p in self.attempts.iterdir() if _ATTEMPT.fullmatch(p.name)), key=lambda p: int(p.name)
            )
            yield from map(AttemptDir, names)

    def trained_attempt(self, *, saves_itself: bool) -> AttemptDir | None:
        """The last attempt that was planned, if there is a checkpoint to go on from; None without one.

        A command without a session `saves_itself`, nobody knows where: it is taken to have done so.
        """
        planned = [attempt for attempt in self.all_attempts() if attempt.plan.is_file()]
        has_checkpoint = saves_itself or self.newest_checkpoint_step() is not None
        return planned[-1] if planned and has_checkpoint else None

    def newest_checkpoint_step(self) -> int | None:
        """The step of the newest checkpoint that is complete."""
        return max(committed(self.checkpoints), default=None)

    def last_attempt(self) -> AttemptDir | None:
        return max(self.all_attempts(), key=lambda attempt: attempt.number, default=None)
