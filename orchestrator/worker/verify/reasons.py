"""Why a recipe does not keep the contract, found by experiment: each reason is a difference that was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from orchestrator.plan.verification import BOUNDS, Reason, ReasonKind, Row, reference_case
from orchestrator.worker.verify.matrix import Laboratory, Made, say
from orchestrator.worker.verify.outcome import Outcome, Reference, row_of
from orchestrator.worker.verify.probe import SAME, first_difference, probe, probe_path
from orchestrator.worker.verify.trial import Trial

EXPERIMENT_STEPS = 2
_OWN_GENERATOR = "draw from torch's own generator, and keep none of your own"
_NAMED_MODULES = 3
_NOT_IN_FRONT = "a random draw of shape {} cannot be made by sample: its first dimension is not the micro-batch"
_BATCH_FIRST = "put the batch first, or verify with a dropout of 0"


def reasons_of(laboratory: Laboratory, rows: Sequence[Row], made: Sequence[Made]) -> tuple[Reason, ...]:
    """What the failing rows come from; `made` has each row's trial, its outcome and its reference's."""
    failing = [(row, *about) for row, about in zip(rows, made, strict=True) if not row.holds]
    found = list(_about_samples(laboratory, failing))
    if not found:
        found = list(about_rounding(rows)) or list(_by_probes(laboratory))
    if not found:
        found = [_about_training_mode(laboratory, *failing[0][1:])]
    found += [_failure(row) for row in rows if row.failed][:1]
    return tuple(found)


def _about_samples(
    laboratory: Laboratory, failing: Sequence[tuple[Row, Trial, Outcome | None, Reference]]
) -> Iterator[Reason]:
    """Steps that trained on other samples, or on the same ones with other content."""
    for row, trial, outcome, reference in failing:
        if outcome is None or row.same_data:
            continue
        where = f"world {trial.case.world_size}"
        for step, window in reference.outcome.windows.items():
            for wanted, got in zip(window, outcome.windows.get(step, ()), strict=False):
                if got[0] != wanted[0]:
                    what = f"step {step} trains on sample {got[0]} in place of {wanted[0]}"
                    yield Reason("ids", where, what, "this is a bug of orchestrate: please report it")
                    return
                if got[1] != wanted[1]:
                    name, index = _place_of(laboratory, wanted[0])
                    what = (
                        f"sample {index} of dataset {name!r} has the same id and other content (step {step}, {where})"
                    )
                    fix = (
                        "let an item hang on its index and torch's generator alone: not on rank, time or order of calls"
                    )
                    yield Reason("samples", f"dataset {name!r}", what, fix)
                    return


def _place_of(laboratory: Laboratory, sample_id: int) -> tuple[str, int]:
    """The dataset of a sample, and its index there."""
    for dataset in laboratory.question.recipe.datasets:
        if sample_id < dataset.num_samples:
            return dataset.name, sample_id
        sample_id -= dataset.num_samples
    raise AssertionError("ids are below the sum of all sizes")


def about_rounding(rows: Sequence[Row]) -> Iterator[Reason]:
    """Where everything holds in fp64, only rounding is left."""
    in_fp64 = [row for row in rows if row.precision == "fp64"]
    failing = [row for row in rows if not row.holds and not row.failed]
    if in_fp64 and all(row.holds for row in in_fp64) and failing:
        worst = max(failing, key=lambda row: row.parameters or 0.0)
        what = f"holds in fp64 and not in {worst.precision}: rounding alone, which training amplifies"
        yield Reason("rounding", worst.worst, what, "lower the learning rate, clip, or compare over fewer --steps")


def _by_probes(laboratory: Laboratory) -> Iterator[Reason]:
    """What a micro-batch of few samples shows: again, on another rank, in another world, in parts."""
    say("looking for the reason")
    for world_size in (1, 2):
        failed = laboratory.world(world_size, lambda peers: probe(laboratory.question, peers))
        if failed:
            yield Reason("failed", f"world {world_size}", failed, "")
            return
    alone, first, second = (_read(laboratory, *who) for who in ((1, 0), (2, 0), (2, 1)))
    named: set[str] = set()
    for kind, module, what, fix in _module_differences(alone, first, second):
        if module is not None and module not in named:
            named.add(module)
            yield Reason(kind, _words(alone, module), what, fix)
    if not named:
        about_loss = list(_about_loss(alone, first, second))
        yield from about_loss or _about_gradient(alone)


def _read(laboratory: Laboratory, world_size: int, rank: int) -> dict[str, Any]:
    facts: dict[str, Any] = torch.load(probe_path(laboratory.question, world_size, rank), weights_only=True)
    return facts


def _module_differences(alone: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> Iterator[Any]:
    """(kind, the first module that differs or None, what, fix), the most telling experiment first."""
    what = "the same samples give rank 1 other outputs than rank 0: randomness by rank"
    yield "rank", first_difference(first["outputs"], second["outputs"]), what, _OWN_GENERATOR
    what = "the same samples give other outputs on 2 ranks than in one process"
    yield "world_size", first_difference(alone["outputs"], first["outputs"]), what, "do not ask for the world size"
    what = "the same samples give other outputs a second time: random numbers that no seed of the run governs"
    yield "generator", alone["again"], what, _OWN_GENERATOR
    module, norms, draws = alone["apart"], alone["batch_norms"], alone["other_draws"]
    if module in draws:
        yield "draws", module, _NOT_IN_FRONT.format(draws[module]), _BATCH_FIRST
    elif module in norms:
        what = f"BatchNorm: its statistics are those of the micro-batch ({_listed(norms)})"
        yield "batch_norm", module, what, "use GroupNorm or LayerNorm, or keep it in eval mode"
    else:
        what = "what a sample gives hangs on the others in its micro-batch"
        yield "micro_batch", module, what, "let a sample's outputs hang on that sample alone"


def _about_loss(alone: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> Iterator[Reason]:
    whole, parts = alone["loss"], alone["loss_of_parts"]
    if _far(whole, alone["loss_again"]):
        what = f"the same samples cost {whole:.6g}, and {alone['loss_again']:.6g} a second time"
        yield Reason("generator", "loss", what, "keep no state between calls, and no generator of your own")
        return
    if parts is not None and _far(whole, parts):
        what = f"not a sum over samples: {whole:.6g} for a micro-batch, {parts:.6g} for its two halves together"
        yield Reason("loss", "loss", what, 'return a sum and its count, as with reduction="sum"; the trainer divides')
    others: tuple[tuple[ReasonKind, dict[str, Any], str], ...]
    others = (("rank", second, "rank 1"), ("world_size", alone, "one process"))
    for kind, other, where in others:
        if _far(first["loss"], other["loss"]):
            what = f"the same outputs cost {first['loss']:.6g} on rank 0 of 2 and {other['loss']:.6g} on {where}"
            yield Reason(kind, "loss", what, "do not ask for rank or world size")


def _about_gradient(alone: dict[str, Any]) -> Iterator[Reason]:
    if alone["gradient"] is not None:
        what = (
            "the loss is a sum, and its gradient is not: a micro-batch gives another one than its two halves together"
        )
        yield Reason("gradient", alone["gradient"], what, "look at backward functions and hooks of your own")


def _far(one: float, other: float) -> bool:
    return abs(one - other) > SAME * abs(one)


def _words(facts: dict[str, Any], module: str) -> str:
    return f"{module or 'model'} ({facts['kinds'][module]})"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_MODULES
    return ", ".join(names[:_NAMED_MODULES]) + (f" and {more} more" if more > 0 else "")


def _about_training_mode(laboratory: Laboratory, trial: Trial, outcome: Outcome | None, reference: Reference) -> Reason:
    """Where the probes saw nothing: whether it comes from what a model does only in training."""
    question = laboratory.question
    batch = question.plan.batch
    case = reference_case(batch.effective_batch_size, batch.largest_micro_batch)
    quiet = [laboratory.trial(c, trial.precision, EXPERIMENT_STEPS, "eval") for c in (case, trial.case)]
    laboratory.run(quiet)
    one, other = map(laboratory.outcome, quiet)
    if one is not None and other is not None and row_of(question, quiet[1], other, Reference(one)).holds:
        shapes = sorted(outcome.other_shapes if outcome else reference.outcome.other_shapes)
        drawn = ", ".join(map(str, shapes[:_NAMED_MODULES]))
        what = "it holds in eval mode: what the model does in training alone is not the same on every topology"
        return Reason("draws", "model", f"{what}; {_NOT_IN_FRONT.format(drawn)}" if shapes else what, _BATCH_FIRST)
    bounds = BOUNDS[trial.precision]
    steps = (
        step
        for step, loss in reference.outcome.losses.items()
        if outcome and _differs(outcome, step, loss, bounds.loss)
    )
    step = next(steps, None)
    what = "no experiment shows where it comes from" + (
        "" if step is None else f"; the loss differs from step {step} on"
    )
    return Reason("unknown", f"world {trial.case.world_size}", what, "try simpler parts: --set model..., --set loss...")


def _differs(outcome: Outcome, step: int, loss: float, bound: float) -> bool:
    return step not in outcome.losses or abs(outcome.losses[step] - loss) > bound * abs(loss)


def _failure(row: Row) -> Reason:
    where = f"world {row.world_size}, {row.micro_batches}, {row.precision}"
    return Reason("failed", where, f"training fails there and not in the reference: {row.failed}", "")
