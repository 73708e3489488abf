"""Why the datasets have the shares, the epoch and the passes that they have; a part of `explain`."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.plan.explanation import DEFINITION, Explanation, Inputs
from orchestrator.plan.plan import Plan
from orchestrator.plan.shares import MixturePlan, Share
from orchestrator.plan.tokens import tokens_in
from orchestrator.recipe.schema import Recipe

_WHY = {
    "weights": "the weights as written, in the smallest integers that there are for them, or in 65,536 parts",
    "temperature": "size^(1/T), in 65,536 parts by largest remainder",
    "round_robin": "each dataset in turn",
}
_SOURCES = {"temperature": "Conneau et al. 2019 (arXiv:1911.02116), with alpha = 1/T"}


def explain_shares(plan: Plan, recipe: Recipe) -> Iterator[Explanation]:
    """The integer shares of a mixture, and what they make of each dataset."""
    mixture = plan.mixture
    for index, share in enumerate(mixture.shares if mixture else ()):
        assert mixture is not None
        formula, inputs = _wanted(mixture, recipe)
        source = _SOURCES.get(mixture.strategy, DEFINITION)
        name, formula = f"mixture.shares.{index}.share", f"integer_share({index}, {formula})"
        yield Explanation(name, share.share, formula, inputs, _WHY[mixture.strategy], source)
    for index, data in enumerate(plan.data):
        why, formula = "every sample comes once an epoch", "num_samples / samples_per_epoch"
        inputs = {"num_samples": data.num_samples, "samples_per_epoch": plan.schedule.samples_per_epoch or 0}
        if mixture is not None and not mixture.each_once:
            why, formula = "no prefix of the order is a sample away from it", "share / period"
            inputs = {"share": mixture.shares[index].share, "period": mixture.period}
        yield Explanation(f"data.{index}.part", data.part, formula, inputs, why, DEFINITION)


def _wanted(mixture: MixturePlan, recipe: Recipe) -> tuple[str, Inputs]:
    """What the integer shares stand in proportion to, dataset by dataset."""
    terms, inputs = [], Inputs()
    in_tokens = recipe.mixture is not None and recipe.mixture.unit == "tokens"
    for index, dataset in enumerate(recipe.datasets):
        size, per_sample = f"num_samples_{index}", ""
        if in_tokens:
            inputs |= {size: dataset.num_samples, f"tokens_{index}": tokens_in(dataset) or 0}
            size, per_sample = f"tokens_{index}", f" * num_samples_{index} / tokens_{index}"
        if mixture.strategy == "weights":
            inputs[f"weight_{index}"] = dataset.weight or 0
            terms.append(f"weight_{index}{per_sample}")
        elif mixture.strategy == "temperature" and recipe.mixture is not None:
            inputs |= {f"num_samples_{index}": dataset.num_samples, "temperature": recipe.mixture.temperature}
            terms.append(f"tempered({size}, temperature){per_sample}")
        else:
            terms.append("1")
    return ", ".join(terms), inputs


def explain_epoch(plan: Plan, recipe: Recipe) -> Iterator[Explanation]:
    """What an epoch is."""
    samples, mixture = plan.schedule.samples_per_epoch, plan.mixture
    if samples is None:
        return
    inputs: Inputs = {f"num_samples_{index}": data.num_samples for index, data in enumerate(recipe.datasets)}
    formula, why = " + ".join(inputs), "all declared samples of all datasets, each once"
    if mixture is not None and not mixture.each_once:
        if recipe.mixture is not None and recipe.mixture.epoch is not None and recipe.mixture.epoch.samples:
            formula, why, inputs = "samples", "as the recipe defines it", {"samples": samples}
        else:
            share = mixture.timekeeper(recipe.mixture)
            formula, inputs = "ceil(num_samples * period / share)", _of(share, mixture)
            why = f"one pass over {share.name}"
    yield Explanation("schedule.samples_per_epoch", samples, formula, inputs, why, DEFINITION)


def explain_passes(plan: Plan) -> Iterator[Explanation]:
    """How often each dataset is passed over."""
    total: Inputs = {"total_samples": plan.schedule.total_samples}
    mixture = plan.mixture
    for index, data in enumerate(plan.data):
        inputs = {**total, "samples_per_epoch": plan.schedule.samples_per_epoch or 0}
        why, formula = "every sample comes once an epoch", "total_samples / samples_per_epoch"
        if mixture is not None and not mixture.each_once:
            why, formula = "its share of all samples, over its size", "total_samples * share / (num_samples * period)"
            inputs = {**total, **_of(mixture.shares[index], mixture)}
        yield Explanation(f"data.{index}.passes", data.passes, formula, inputs, why, DEFINITION)


def _of(share: Share, mixture: MixturePlan) -> Inputs:
    return {"num_samples": share.num_samples, "share": share.share, "period": mixture.period}
