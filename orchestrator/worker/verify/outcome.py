"""What a trial came to, read from its files, and how far it lies from the reference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from orchestrator.files import read_json
from orchestrator.plan.verification import BOUNDS, ROUNDING_FACTOR, PrecisionName, Row
from orchestrator.tracking.journal import read_journal_dir
from orchestrator.worker.verify.trial import Question, Trial

Sample = tuple[int, str]
"""A sample's id, and the hash of what the dataset gave for it."""


@dataclass(frozen=True)
class Outcome:
    """One trial, all ranks of it together."""

    losses: dict[int, float]
    """By step."""
    windows: dict[int, list[Sample]]
    """By step: its samples, rank by rank; sorted where they are grouped by length."""
    parameters: dict[str, torch.Tensor]
    other_shapes: set[tuple[int, ...]]
    """Of random draws whose first dimension was not the micro-batch."""


def read_outcome(question: Question, trial: Trial) -> Outcome | None:
    """What all ranks of `trial` left; None where it did not get to its end."""
    ranks = range(trial.case.world_size)
    facts = [read_json(question.trial_file(trial, f"rank-{rank}.json")) for rank in ranks]
    if None in facts:
        return None
    losses: dict[int, float] = {}
    ids: dict[int, dict[int, list[int]]] = defaultdict(dict)
    for file, record in read_journal_dir(question.run.path):
        if file.attempt != trial.number:
            continue
        if record["kind"] == "window":
            ids[record["step"]][file.rank] = [i for part in record["micro_batches"] for i in part]
        elif "train/loss" in record.get("values", ()):
            losses[record["step"]] = float(record["values"]["train/loss"])
    seen = [iter([(sample_id, digest) for sample_id, digest in fact["seen"]]) for fact in facts]
    windows = {step: list(_window(by_rank, seen)) for step, by_rank in sorted(ids.items())}
    if question.recipe.loader.group_by_length:  # ranks have the same samples of a window, not the same places in it
        windows = {step: sorted(window) for step, window in windows.items()}
    parameters = torch.load(question.trial_file(trial, "pt"), weights_only=True)
    shapes = {tuple(shape) for fact in facts for shape in fact["other_shapes"]}
    return Outcome(losses, windows, parameters, shapes)


def _window(ids_by_rank: dict[int, list[int]], seen: list[Iterator[Sample]]) -> Iterator[Sample]:
    """What the journal says arrived, each with the hash that its dataset was seen to give for it, in that order."""
    for rank, ids in sorted(ids_by_rank.items()):
        for sample_id in ids:
            found, digest = next(seen[rank])
            yield sample_id, digest if found == sample_id else "another sample"


@dataclass(frozen=True)
class Reference:
    """What all trials of a precision are compared with."""

    outcome: Outcome
    moved: Mapping[str, float] = field(default_factory=dict)
    """Parameters that rounding moves, each with ||a - b|| / ||a|| between two orders of the same sums."""

    @classmethod
    def of(cls, outcome: Outcome, rotated: Outcome | None, precision: PrecisionName) -> Reference:
        """The reference, and what rounding moves, by the trial that took each micro-batch in another order."""
        if rotated is None or _loss_difference(rotated, outcome) > BOUNDS[precision].loss:
            return cls(outcome)  # that was more than rounding
        bound = BOUNDS[precision].parameters / ROUNDING_FACTOR
        return cls(outcome, {name: size for name, size in differences(outcome, rotated).items() if size > bound})


def row_of(question: Question, trial: Trial, outcome: Outcome | None, reference: Reference, failed: str = "") -> Row:
    """The row of `trial` in the table."""
    batch = question.plan.batch
    words, num_micro_steps = trial.case.describe(batch.effective_batch_size, batch.micro_multiple)
    what = (trial.precision, trial.case.world_size, words, num_micro_steps)
    if outcome is None:
        return Row(*what, failed=failed or "it ended early")
    found, known = differences(reference.outcome, outcome), reference.outcome
    strict = [(size, name) for name, size in found.items() if name not in reference.moved]
    moved = [found[name] / size / ROUNDING_FACTOR for name, size in reference.moved.items()]
    parameters, worst = max(strict, default=(0.0, ""))
    return Row(
        *what,
        loss=_loss_difference(outcome, known),
        parameters=parameters,
        worst=worst,
        moved=max(moved, default=0.0),
        same_ids=_ids(outcome) == _ids(known),
        same_data=outcome.windows == known.windows,
    )


def _ids(outcome: Outcome) -> dict[int, list[int]]:
    return {step: [sample_id for sample_id, _ in window] for step, window in outcome.windows.items()}


def _loss_difference(outcome: Outcome, reference: Outcome) -> float:
    if outcome.losses.keys() != reference.losses.keys():
        return float("inf")
    return max((_ratio(abs(outcome.losses[s] - b), abs(b)) for s, b in reference.losses.items()), default=0.0)


def differences(one: Outcome, other: Outcome) -> dict[str, float]:
    """||a - b|| / ||a|| of each parameter, a of `one`."""
    return {name: relative(value, other.parameters[name]) for name, value in one.parameters.items()}


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    """||one - other|| / ||one|| in fp64."""
    one, other = one.detach().double(), other.detach().double()
    return _ratio((one - other).norm().item(), one.norm().item())


def _ratio(difference: float, size: float) -> float:
    return difference / size if size else (0.0 if difference == 0 else float("inf"))
