"""Legal things that people usually do not mean, each with a stable code. Pure: a table of rules over a plan's parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from orchestrator.plan.batch import BatchPlan
from orchestrator.plan.learning_rate import ADAM_FAMILY, LearningRatePlan
from orchestrator.plan.memory import MemoryPlan
from orchestrator.plan.schedule import SchedulePlan, num_steps
from orchestrator.plan.tokens import is_estimated
from orchestrator.recipe.data import Dataset
from orchestrator.recipe.schema import Recipe
from orchestrator.units import format_count, format_lr

MOST_ACCUMULATION = 64
"""Micro-steps per update. Each costs a launch, and they are a sign of a batch that is too large for its world."""
MOST_PASSES_OF_TEXT = 4
FEW_STEPS = 1000
MOST_WARMUP = 0.2
"""Of the whole run."""
MOST_SCALE = {"linear": 8.0, "sqrt": 4.0, "none": float("inf")}
"""Batch ratios, or their inverses, up to which a scaled lr is taken without a remark, by the rule that scales it."""
RULE_ERRORS = {
    "zh": "36 to 52 % too low for modern Chinese text, and up to 82 % for older text or tokenizers",
    "ja": "48 to 50 % too low for Japanese",
    "ru": "up to 14 % too low for Russian",
}
"""Error of the four-characters rule by language, measured with five tokenizers on parallel texts."""


@dataclass(frozen=True)
class PlanWarning:
    """Something legal that people usually do not mean; `code` is stable."""

    code: str
    message: str


@dataclass(frozen=True)
class Judged:
    """What the rules look at. `batch_norm` is the place of a BatchNorm in the model's code, `model.py:14`."""

    recipe: Recipe
    batch: BatchPlan
    learning_rate: LearningRatePlan
    schedule: SchedulePlan
    passes: Mapping[str, float]
    """How often each dataset is passed over."""
    world_size: int
    batch_norm: str | None
    memory: MemoryPlan | None


@dataclass(frozen=True)
class WarningRule:
    """When a warning fires: `find` yields its message, once for each thing that it is about; and who says so."""

    find: Callable[[Judged], Iterator[str]]
    source: str


def warnings_of(judged: Judged) -> tuple[PlanWarning, ...]:
    """Every rule that fires, in the order of the table."""
    return tuple(PlanWarning(code, text) for code, rule in RULES.items() for text in rule.find(judged))


def _batch_changed(judged: Judged) -> Iterator[str]:
    batch = judged.batch
    if batch.requested not in (None, batch.effective_batch_size):
        wanted, found = judged.recipe.batch.effective, batch.effective_in_unit
        lr = "stays as written" if judged.learning_rate.rule == "none" else "follows it"
        yield f"the effective batch is {found}, not {wanted}; the lr {lr}"


def _big_scale(judged: Judged) -> Iterator[str]:
    ratio, rule = judged.learning_rate.batch_ratio, judged.learning_rate.rule
    if max(ratio, 1 / ratio) > MOST_SCALE[rule]:
        yield (
            f"the batch is {ratio:.3g} times the one that lr belongs to: beyond {MOST_SCALE[rule]:g} times, or that "
            f"fraction, {rule} scaling is a first guess; try a few learning rates"
        )


def _beta_invalid(judged: Judged) -> Iterator[str]:
    optimizer, ratio = judged.recipe.optimizer, judged.learning_rate.batch_ratio
    base = judged.learning_rate.base_batch_size
    if base is None or judged.learning_rate.rule != "sqrt" or optimizer.name not in ADAM_FAMILY:
        return
    forgets = 1 - Fraction(str(optimizer.betas[0]))
    product = forgets * Fraction(judged.batch.effective_in_unit, base)
    if product >= 1:
        yield (
            f"k(1 - beta1) = {ratio:.3g} x {float(forgets):.3g} = {float(product):.3g} is not below 1: the square-root "
            "rule is derived for less, where beta1 can follow it"
        )


def _beyond_critical(judged: Judged) -> Iterator[str]:
    critical, size, unit = judged.recipe.batch.critical, judged.batch.effective_in_unit, judged.batch.unit
    if critical is not None and size > critical:
        yield (
            f"the effective batch of {format_count(size)} {unit} is beyond the declared critical batch of "
            f"{format_count(critical)}: more {unit} per step, hardly fewer steps"
        )


def _few_steps(judged: Judged) -> Iterator[str]:
    """Few steps are fine for a recipe as it was tuned; they are not once a larger batch has made them few.

    So a small run at its own base batch is not scolded for being small, and a long warm-up always is named.
    """
    schedule, base = judged.schedule, judged.recipe.optimizer.base_batch
    if schedule.warmup_samples > MOST_WARMUP * schedule.total_samples:
        share = schedule.warmup_samples / schedule.total_samples
        yield f"the warm-up takes {share:.0%} of the run ({schedule.warmup_steps} of {schedule.num_steps} steps)"
    elif base is not None and judged.learning_rate.batch_ratio > 1 and schedule.num_steps < FEW_STEPS:
        before = num_steps(schedule.total_samples * (judged.batch.sequence_length or 1), base)
        yield (
            f"{format_count(schedule.num_steps)} steps are left of the {format_count(before)} at the base batch: "
            "a scaled lr makes up for that less and less"
        )


def _much_accumulation(judged: Judged) -> Iterator[str]:
    steps = judged.batch.gradient_accumulation_steps
    if steps > MOST_ACCUMULATION:
        yield f"{format_count(steps)} accumulation steps per update; more ranks or a smaller batch make them fewer"


def _accumulation_on_one_device(judged: Judged) -> Iterator[str]:
    batch = judged.batch
    steps, size = batch.gradient_accumulation_steps, batch.micro_batch_size
    if judged.world_size == 1 and steps > 1:
        yield (
            f"a single device accumulates {steps} micro-batches: a batch of {size} samples{_lr_at(judged, size)} makes "
            f"{steps} updates in the time of this one, and mostly learns at least as much"
        )


def _lr_at(judged: Judged, num_samples: int) -> str:
    """' at lr 2.50e-4 (sqrt)': what the recipe's own rule gives for another batch; '' without a rule."""
    rate = judged.learning_rate
    if rate.rule == "none":
        return ""
    ratio = num_samples / judged.batch.effective_batch_size
    lr = rate.peak_lr * (ratio if rate.rule == "linear" else ratio**0.5)
    return f" at lr {format_lr(lr)} ({rate.rule})"


def _batch_norm(judged: Judged) -> Iterator[str]:
    batch, declared = judged.batch, judged.recipe.batch.micro
    whole = judged.recipe.batch.per_gpu or batch.effective_batch_size
    reference = declared if isinstance(declared, int) else whole
    sizes = {size for _, runs in batch.groups(judged.world_size) for size, _ in runs}
    if judged.batch_norm and sizes != {reference}:
        shown = " and ".join(map(str, sorted(sizes)))
        yield (
            f"{judged.batch_norm} normalises over micro-batches, here of {shown} samples, not {reference}: "
            "another allocation trains another model; GroupNorm or LayerNorm does not"
        )


def _memory_arithmetic(judged: Judged) -> Iterator[str]:
    memory = judged.memory
    if memory is not None and memory.method == "arithmetic":
        yield (
            f"the largest micro-batch, {judged.batch.largest_micro_batch}, is first-order arithmetic: the training "
            f"step could not be simulated ({memory.why}); try it on one GPU first, or write batch.micro as a number"
        )


def _repeated(judged: Judged) -> Iterator[str]:
    for dataset in judged.recipe.datasets:
        passes = judged.passes[dataset.name]
        if _is_text(dataset, judged) and passes > MOST_PASSES_OF_TEXT:
            yield (
                f"{dataset.name} is seen {passes:.3g} times; text that is repeated more than "
                f"{MOST_PASSES_OF_TEXT} times teaches less each time"
            )


def _is_text(dataset: Dataset, judged: Judged) -> bool:
    sizes = (judged.batch.sequence_length, dataset.tokens_per_sample, dataset.chars_per_sample)
    return sizes != (None, None, None)


def _tokens_rule(judged: Judged) -> Iterator[str]:
    for dataset in judged.recipe.datasets:
        language = (dataset.language or "en").partition("-")[0]
        if is_estimated(dataset, sequence_length=judged.batch.sequence_length) and language != "en":
            error = RULE_ERRORS.get(language, f"within 10 % for English, and unknown for {dataset.language}")
            yield f"{dataset.name} is counted at 4 characters a token: {error}; declare tokens_per_sample"


RULES: dict[str, WarningRule] = {
    "W_BATCH_CHANGED": WarningRule(_batch_changed, "definition: on_indivisible: nearest"),
    "W_BIG_K": WarningRule(_big_scale, "Shallue et al. 2018 (arXiv:1811.03600): no rule holds for all workloads"),
    "W_BETA_INVALID": WarningRule(_beta_invalid, "Malladi et al. 2022 (arXiv:2205.10287)"),
    "W_BEYOND_CBS": WarningRule(_beyond_critical, "McCandlish et al. 2018 (arXiv:1812.06162)"),
    "W_FEW_STEPS": WarningRule(
        _few_steps, "Shallue et al. 2018 (arXiv:1811.03600): returns diminish as the batch grows"
    ),
    "W_ACCUM_HIGH": WarningRule(_much_accumulation, "this project: a threshold"),
    "W_ACCUM_SINGLE_DEVICE": WarningRule(_accumulation_on_one_device, "Marek et al. 2025 (arXiv:2507.07101)"),
    "W_BN": WarningRule(_batch_norm, "Hoffer et al. 2017 (arXiv:1705.08741), Wu and Johnson 2021 (arXiv:2105.07576)"),
    "W_MEMORY_ARITHMETIC": WarningRule(_memory_arithmetic, "this project: a bound of first order"),
    "W_REPEAT": WarningRule(_repeated, "Muennighoff et al. 2023 (arXiv:2305.16264)"),
    "W_TOKENS_RULE": WarningRule(_tokens_rule, "this project: measured on parallel texts"),
}
"""Stable code -> the rule behind it."""
