"""What the attempts before this one came to, as far as it counts for what comes next."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.files import read_json
from orchestrator.job.verdict import Verdict, verdict_from_json
from orchestrator.run_dir import RunDir


@dataclass(frozen=True)
class History:
    """The attempts since a person submitted or resumed the run: of all its jobs, oldest first."""

    verdicts: tuple[Verdict, ...] = ()
    checkpoint_step: int | None = None
    """The newest complete checkpoint when the first of them began."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Nodes that the rest of this job does without; one that comes after it gets its nodes from the scheduler."""
        names = list[str]()
        for verdict in self.verdicts:
            names = [] if verdict.successor else [*names, *verdict.left_out]
        return tuple(dict.fromkeys(names))


def read_history(run: RunDir, *, before: int) -> History:
    """The attempts with numbers below `before`, by their verdicts; what lies before a final one, or before a person
    resumed the run, does not count.

    An attempt without a verdict was left by its driver, whose node is gone.
    """
    verdicts, checkpoint_step = list[Verdict](), None
    resumed_at = (read_json(run.resume) or {}).get("first_attempt", 0)
    for attempt in run.all_attempts():
        if attempt.number >= before:
            break
        if attempt.number == resumed_at and verdicts:
            verdicts, checkpoint_step = [], verdicts[-1].checkpoint_step
        told = read_json(attempt.verdict)
        if not isinstance(told, dict):
            verdicts.append(Verdict("failed", "its driver left no verdict", cause="node_lost"))
        elif told.get("final"):
            verdicts, checkpoint_step = [], told.get("checkpoint_step")
        else:
            verdicts.append(verdict_from_json(told))
    return History(tuple(verdicts), checkpoint_step)
