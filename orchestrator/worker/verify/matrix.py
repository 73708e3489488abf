"""All trials, world by world: one set of forked ranks makes every trial of its world, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from orchestrator.plan.verification import Case, PrecisionName, Row
from orchestrator.worker.verify.outcome import Outcome, Reference, read_outcome, row_of
from orchestrator.worker.verify.ranks import Work, run_world
from orchestrator.worker.verify.trial import Question, Trial, Variant, run_trial
from orchestrator.worker.world import Peers

TALK = "verify: "

Made = tuple[Trial, Outcome | None, Reference]
"""A trial, what it came to (without its parameters; None where it failed), and what that is compared with."""


def say(line: str) -> None:
    """Talk for the person who waits."""
    print(f"{TALK}{line}", file=sys.stderr, flush=True)


@dataclass
class Laboratory:
    """Where trials and probes of one question are made."""

    question: Question
    failed: dict[int, str] = field(default_factory=dict)
    """Why a trial could not be made to its end, by its number."""
    _numbers: count[int] = field(default_factory=count)
    _worlds: count[int] = field(default_factory=count)

    def trial(self, case: Case, precision: PrecisionName, steps: int, variant: Variant = "as it is") -> Trial:
        """A trial with a number of its own."""
        return Trial(next(self._numbers), case, precision, steps, variant)

    def run(self, trials: Sequence[Trial]) -> None:
        """Make them; one that fails takes its ranks with it, and the rest go on with new ones."""
        for world_size in sorted({trial.case.world_size for trial in trials}):
            waiting = [trial for trial in trials if trial.case.world_size == world_size]
            while waiting:
                failed = self.world(world_size, self._all_of(waiting))
                waiting = [trial for trial in waiting if self.outcome(trial) is None]
                if waiting:
                    self.failed[waiting[0].number] = failed
                    waiting = waiting[1:]

    def compared(
        self, trials: Sequence[Trial], known: Mapping[PrecisionName, Reference]
    ) -> tuple[list[Made], list[Row]]:
        """Make them, and compare each with its reference; parameters are kept of one world at a time."""
        made, rows = {}, {}
        for world_size in sorted({trial.case.world_size for trial in trials}):
            of_world = [trial for trial in trials if trial.case.world_size == world_size]
            self.run(of_world)
            for trial in of_world:
                outcome, reference = self.outcome(trial), known[trial.precision]
                why = self.failed.get(trial.number, "")
                rows[trial] = row_of(self.question, trial, outcome, reference, why)
                made[trial] = (trial, outcome and replace(outcome, parameters={}), reference)
                self.question.trial_file(trial, "pt").unlink(missing_ok=True)
        return [made[trial] for trial in trials], [rows[trial] for trial in trials]

    def world(self, world_size: int, work: Work) -> str:
        """Let `world_size` ranks do some work; '' or why they could not."""
        folder = self.question.run.path / "worlds" / f"{next(self._worlds):03d}"
        return run_world(world_size, work, folder=folder, user_folder=self.folder)

    def outcome(self, trial: Trial) -> Outcome | None:
        """What became of a trial; None where it failed."""
        return read_outcome(self.question, trial)

    @property
    def folder(self) -> Path:
        return self.question.run.snapshot_recipe.resolve()

    def _all_of(self, trials: Sequence[Trial]) -> Work:
        def work(peers: Peers) -> None:
            for trial in trials:
                if peers.world.rank == 0:
                    say(self._words(trial))
                run_trial(self.question, trial, peers)

        return work

    def _words(self, trial: Trial) -> str:
        batch = self.question.plan.batch
        words, _ = trial.case.describe(batch.effective_batch_size, batch.micro_multiple)
        return f"{trial.precision}, world {trial.case.world_size}: {words}"
