"""Why every number of a plan is what it is: formula, inputs, reason and source. Pure data, for a screen or for JSON.

A formula is written in Python's arithmetic over the names in `inputs`, so that anybody (and a test) can redo it;
`ceil`, `floor`, `sqrt`, `plan.batch.largest_divisor`, `plan.shares.integer_share`, `plan.shares.tempered` and `exact`,
which takes a decimal as it was written (`Fraction(str(x))`), are the functions in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from orchestrator.plan.effective import has_one_size, limit_before_learnt
from orchestrator.plan.explain_mixture import explain_epoch, explain_passes, explain_shares
from orchestrator.plan.explanation import DEFINITION, Explanation, Inputs
from orchestrator.plan.learning_rate import LearningRatePlan
from orchestrator.plan.plan import Plan, decisive_limit
from orchestrator.plan.tokens import CHARS_PER_TOKEN, is_estimated, tokens_per_epoch, tokens_per_sample
from orchestrator.plan.warnings import RULES
from orchestrator.recipe.amounts import Amount, Duration, Warmup
from orchestrator.recipe.schema import Recipe
from orchestrator.units import GIB

EXACT = "decision 3: a sum over the window's global count makes every split exact"
LEARNT = "prediction: what earlier attempts have shown"
GOYAL = "Goyal et al. 2017 (arXiv:1706.02677)"
MALLADI = "Malladi et al. 2022 (arXiv:2205.10287)"
PER_RANK = "ceil(effective_batch_size / world_size)"

_RULES = {
    "linear": ("batch_ratio", "k small SGD steps become one k times as long", GOYAL),
    "sqrt": ("sqrt(batch_ratio)", "the variance of Adam's update stays put", MALLADI),
}
_RULE_SOURCES = {
    "lars": "You et al. 2017 (arXiv:1708.03888)",
    "lamb": "You et al. 2019 (arXiv:1904.00962)",
    "as the recipe says": "the recipe: optimizer.scaling",
}
"""By the reason for the rule; the rule's own source where it is not here."""

_CO_SCALED = {
    "beta2": ("beta2 ** batch_ratio", "its half-life in samples stays", "Marek et al. 2025 (arXiv:2507.07101)"),
    "alpha": ("alpha ** batch_ratio", "its half-life in samples stays", "Marek et al. 2025 (arXiv:2507.07101)"),
    "eps": ("eps / sqrt(batch_ratio)", "it stays as small beside the gradient's noise", MALLADI),
    "weight_decay": (
        "weight_decay * batch_ratio / factor",
        "it averages the weights over as many samples as before",
        "Wang and Aitchison 2024 (arXiv:2405.13698)",
    ),
}
"""Name -> formula, what it keeps, source."""


@dataclass(frozen=True)
class ExplainedWarning:
    """A warning of a plan, and who says that it is one."""

    code: str
    message: str
    source: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def explain(plan: Plan, recipe: Recipe) -> tuple[Explanation, ...]:
    """Every derived number of `plan`, in the order of its screen; what else would have to scale comes last."""
    parts = (_topology(plan), _batch(plan, recipe), _learning_rate(plan), _schedule(plan, recipe))
    return tuple(told for part in (*parts, _totals(plan, recipe), _would_scale(plan)) for told in part)


def explain_warnings(plan: Plan) -> tuple[ExplainedWarning, ...]:
    """Every warning of `plan`, with its source."""
    return tuple(ExplainedWarning(w.code, w.message, RULES[w.code].source) for w in plan.warnings)


def _topology(plan: Plan) -> Iterator[Explanation]:
    topology = plan.topology
    inputs: Inputs = {"num_nodes": topology.num_nodes, "gpus_per_node": topology.gpus_per_node}
    why = "one rank per GPU, each with the whole model"
    yield Explanation("topology.world_size", topology.world_size, "num_nodes * gpus_per_node", inputs, why, DEFINITION)


def _batch(plan: Plan, recipe: Recipe) -> Iterator[Explanation]:
    batch = plan.batch
    formula, inputs, why = _effective(plan, recipe)
    yield Explanation("batch.effective_batch_size", batch.effective_batch_size, formula, inputs, why, EXACT)
    share: Inputs = {"effective_batch_size": batch.effective_batch_size, "world_size": plan.topology.world_size}
    yield from _limit(plan, recipe, share)
    steps = batch.gradient_accumulation_steps
    name, why = "batch.gradient_accumulation_steps", "the fewest steps within the largest micro-batch"
    if batch.largest_micro_batch is None:
        yield Explanation(name, steps, "1", {}, "there is no limit on the micro-batch", DEFINITION)
    else:
        inputs = {**share, "largest_micro_batch": batch.largest_micro_batch}
        yield Explanation(name, steps, f"ceil({PER_RANK} / largest_micro_batch)", inputs, why, DEFINITION)
    yield _micro_batch(plan, {**share, "gradient_accumulation_steps": steps})


def _micro_batch(plan: Plan, inputs: Inputs) -> Explanation:
    batch = plan.batch
    formula = f"ceil({PER_RANK} / gradient_accumulation_steps)"
    why = "balanced micro-batches need the least memory for that many steps"
    groups = [[size for size, _ in runs] for _, runs in batch.groups(plan.topology.world_size)]
    if any(max(sizes) - min(sizes) > 1 for sizes in groups):
        distinct = dict.fromkeys(size for sizes in groups for size in sizes)
        inputs = {f"size_{index}": size for index, size in enumerate(distinct)}
        formula = f"max({', '.join(inputs)})"
        why = f"multiples of {batch.micro_multiple}, the remainder last, pad fewer rows than balanced ones"
    return Explanation("batch.micro_batch_size", batch.micro_batch_size, formula, inputs, why, EXACT)


def _effective(plan: Plan, recipe: Recipe) -> tuple[str, Inputs, str]:
    batch, wanted, world_size = plan.batch, recipe.batch, plan.topology.world_size
    if wanted.per_gpu is not None:
        why = "the recipe fixes the samples per GPU, so the effective batch is an output"
        return "per_gpu * world_size", {"per_gpu": wanted.per_gpu, "world_size": world_size}, why
    inputs: Inputs = {"effective": wanted.effective or 0}
    formula, why = "effective", "declared: the same on any allocation"
    if batch.sequence_length is not None:
        formula, why = "effective / sequence_length", "declared in tokens: the same on any allocation"
        inputs["sequence_length"] = batch.sequence_length
    if batch.requested == batch.effective_batch_size:
        return formula, inputs, why
    why = "the nearest batch that the ranks can share evenly (batch.on_indivisible: nearest)"
    rounded = "floor" if batch.effective_batch_size < (batch.requested or 0) else "ceil"
    return f"{rounded}({formula} / world_size) * world_size", {**inputs, "world_size": world_size}, why


def _limit(plan: Plan, recipe: Recipe, share: Inputs) -> Iterator[Explanation]:
    """The limit on a micro-batch, where it is not what the recipe says."""
    batch, memory, name = plan.batch, plan.memory, "batch.largest_micro_batch"
    largest = batch.largest_micro_batch
    if largest is None:
        return
    limit = limit_before_learnt(recipe, batch, world_size=plan.topology.world_size, memory=memory)
    learnt = decisive_limit(plan, recipe)
    if learnt is not None:
        limit = learnt.largest_micro_batch
        told = f"a micro-batch of {learnt.failed} ran out of memory ({learnt.device})"
    if has_one_size(recipe) and limit is not None:
        formula = f"largest_divisor({PER_RANK}, at_most=limit)"
        because = "batch.equal_micro" if recipe.batch.equal_micro else "a command is told one"
        why = f"micro-batches of one size ({because})" + (f"; {told}" if learnt else "")
        yield Explanation(name, largest, formula, {**share, "limit": limit}, why, DEFINITION)
    elif learnt is not None and learnt.worked is not None:
        yield Explanation(name, largest, "worked", {"worked": learnt.worked}, f"{told}, and this one did not", LEARNT)
    elif learnt is not None:
        yield Explanation(name, largest, "ceil(failed / 2)", {"failed": learnt.failed}, f"{told}: half of it", LEARNT)
    elif memory is not None:
        why = f"what fits a GPU of {memory.gpu_bytes / GIB:.3g} GiB ({memory.method})"
        yield Explanation(name, largest, "limit", {"limit": largest}, why, "prediction: `orchestrate fit`")


def _learning_rate(plan: Plan) -> Iterator[Explanation]:
    rate, name = plan.learning_rate, "learning_rate.batch_ratio"
    if rate.base_batch_size is None:
        yield Explanation(name, rate.batch_ratio, "1", {}, "lr belongs to no batch", "the recipe: no base_batch")
    else:
        inputs: Inputs = {"effective_batch": plan.batch.effective_in_unit, "base_batch": rate.base_batch_size}
        why = f"k: the batch over the one that lr belongs to, in {plan.batch.unit}"
        yield Explanation(name, rate.batch_ratio, "effective_batch / base_batch", inputs, why, DEFINITION)
    yield _factor(rate)
    inputs = {"base_lr": rate.base_lr, "factor": rate.factor}
    why = "relative to the recipe's own base batch: an allocation alone never changes it"
    if not plan.batch.is_declared and rate.rule != "none":
        why = "relative to the base batch; here the allocation decides the batch, and so this"
    yield Explanation("learning_rate.peak_lr", rate.peak_lr, "base_lr * factor", inputs, why, DEFINITION)


def _factor(rate: LearningRatePlan) -> Explanation:
    name = "learning_rate.factor"
    if rate.rule == "none":
        return Explanation(name, rate.factor, "1", {}, rate.reason, "the recipe: optimizer.lr")
    formula, why, source = _RULES[rate.rule]
    because = f"{rate.rule} ({rate.reason}): {why}"
    source = _RULE_SOURCES.get(rate.reason, source)
    return Explanation(name, rate.factor, formula, {"batch_ratio": rate.batch_ratio}, because, source)


def _schedule(plan: Plan, recipe: Recipe) -> Iterator[Explanation]:
    schedule, size = plan.schedule, plan.batch.effective_batch_size
    yield from explain_epoch(plan, recipe)
    clock = "the clock is consumed samples, never the length of a loader"
    formula, inputs = _amount(recipe.duration, plan, recipe)
    yield Explanation("schedule.total_samples", schedule.total_samples, formula, inputs, clock, DEFINITION)
    inputs = {"total_samples": schedule.total_samples, "effective_batch_size": size}
    why, formula = "only the last window of the run may be short", "ceil(total_samples / effective_batch_size)"
    yield Explanation("schedule.num_steps", schedule.num_steps, formula, inputs, why, DEFINITION)
    warmup = recipe.schedule.warmup
    formula, inputs = ("0", {}) if warmup is None else _amount(warmup, plan, recipe)
    source = "the recipe: no schedule.warmup" if warmup is None else f"{GOYAL}: gradual warm-up over fixed samples"
    yield Explanation("schedule.warmup_samples", schedule.warmup_samples, formula, inputs, clock, source)
    inputs = {"warmup_samples": schedule.warmup_samples, "effective_batch_size": size}
    why, formula = "the step in which the peak is reached", "ceil(warmup_samples / effective_batch_size)"
    yield Explanation("schedule.warmup_steps", schedule.warmup_steps, formula, inputs, why, DEFINITION)


def _amount(amount: Amount, plan: Plan, recipe: Recipe) -> tuple[str, Inputs]:
    """How an amount of training becomes samples."""
    schedule, batch = plan.schedule, plan.batch
    if isinstance(amount, Warmup) and amount.ratio is not None:
        return "ceil(exact(ratio) * total_samples)", {
            "ratio": amount.ratio,
            "total_samples": schedule.total_samples,
        }
    if isinstance(amount, Duration) and amount.tokens is not None:
        if batch.sequence_length is not None:
            return "ceil(tokens / sequence_length)", {"tokens": amount.tokens, "sequence_length": batch.sequence_length}
        samples_name, tokens_name, counted = _counted(plan, recipe)
        return f"ceil(tokens * {samples_name} / {tokens_name})", {"tokens": amount.tokens, **counted}
    if amount.steps is not None:
        formula = "steps * effective_batch_size"
        return formula, {"steps": amount.steps, "effective_batch_size": batch.effective_batch_size}
    if amount.epochs is not None:
        samples = schedule.samples_per_epoch or 0
        return "ceil(exact(epochs) * samples_per_epoch)", {
            "epochs": amount.epochs,
            "samples_per_epoch": samples,
        }
    return "samples", {"samples": amount.samples or 0}


def _counted(plan: Plan, recipe: Recipe) -> tuple[str, str, Inputs]:
    """So many samples hold so many tokens: the names of the two, and their values."""
    samples, tokens = "samples_per_epoch", "tokens_per_epoch"
    if plan.mixture is None:
        num_tokens = tokens_per_epoch(recipe.datasets) or 0
        return samples, tokens, {samples: plan.schedule.samples_per_epoch or 0, tokens: num_tokens}
    mean = tokens_per_sample(recipe.datasets, samples_of_each=plan.mixture.samples_of_each) or Fraction(0)
    samples, tokens = "samples_counted", "tokens_counted"
    return samples, tokens, {samples: mean.denominator, tokens: mean.numerator}


def _totals(plan: Plan, recipe: Recipe) -> Iterator[Explanation]:
    total: Inputs = {"total_samples": plan.schedule.total_samples}
    yield from explain_shares(plan, recipe)
    yield from explain_passes(plan)
    if plan.total_tokens is not None:
        yield _tokens(plan, recipe, plan.total_tokens, total)
    if plan.most_gpu_hours is not None:
        inputs: Inputs = {"walltime_s": plan.topology.walltime_s or 0, "world_size": plan.topology.world_size}
        formula, why = "walltime_s / 3600 * world_size", "if the run takes its whole walltime"
        yield Explanation("most_gpu_hours", plan.most_gpu_hours, formula, inputs, why, DEFINITION)


def _tokens(plan: Plan, recipe: Recipe, tokens: int, total: Inputs) -> Explanation:
    length = plan.batch.sequence_length
    if length is not None:
        why = "every sample has sequence_length tokens"
        inputs: Inputs = {**total, "sequence_length": length}
        return Explanation("total_tokens", tokens, "total_samples * sequence_length", inputs, why, DEFINITION)
    samples_name, tokens_name, counted = _counted(plan, recipe)
    formula, why, source = f"ceil(total_samples * {tokens_name} / {samples_name})", "as declared", DEFINITION
    if any(map(is_estimated, recipe.datasets)):
        why = f"{CHARS_PER_TOKEN} characters are a token where a dataset declares no tokens"
        source = "rule of thumb: within 10 % for English text, far off for others (W_TOKENS_RULE)"
    return Explanation("total_tokens", tokens, formula, total | counted, why, source)


def _would_scale(plan: Plan) -> Iterator[Explanation]:
    rate = plan.learning_rate
    for index, item in enumerate(rate.would_scale):
        formula, keeps, source = _CO_SCALED[item.name]
        inputs: Inputs = {item.name: item.value, "batch_ratio": rate.batch_ratio}
        if "factor" in formula:
            inputs["factor"] = rate.factor
        why = f"{item.name} {item.value:g} would have to follow the batch, so that {keeps}; not done"
        yield Explanation(f"learning_rate.would_scale.{index}.scaled", item.scaled, formula, inputs, why, source)
