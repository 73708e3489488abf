"""How much of the global order each dataset gets, as integers: what was written, exactly, or in 65,536 parts. Pure.

No float decides an order: weights are read as the decimals that were written, and powers are taken in decimal
arithmetic of 40 digits, which is software and the same on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction

from orchestrator.errors import Problem
from orchestrator.plan.tokens import tokens_in
from orchestrator.recipe.data import Dataset
from orchestrator.recipe.mixture import Mixture
from orchestrator.units import format_count

PARTS = 65_536
"""The finest sharing: a dataset that asks for less than one part in so many gets one."""
_DIGITS = 40


@dataclass(frozen=True)
class Share:
    """One dataset's part of the order: of every `period` positions, `share` are its own."""

    name: str
    num_samples: int
    share: int
    iterable: bool = False


@dataclass(frozen=True)
class MixturePlan:
    """How the datasets of a run share its order of samples."""

    strategy: str
    exhaustion: str
    shares: tuple[Share, ...]

    @property
    def period(self) -> int:
        """Positions after which the pattern of datasets begins again."""
        return sum(share.share for share in self.shares)

    @property
    def each_once(self) -> bool:
        """Whether every sample comes once an epoch, so that all datasets are passed over equally often."""
        return self.strategy == "concatenate" or self.exhaustion == "drop"

    @property
    def samples_of_each(self) -> tuple[int, ...]:
        """The proportion in which the datasets are drawn."""
        return tuple(share.num_samples if self.each_once else share.share for share in self.shares)

    def samples_per_epoch(self, mixture: Mixture | None) -> int:
        """Samples in one epoch, as the recipe defines it; see `mixture.epoch`."""
        if self.each_once:
            return sum(share.num_samples for share in self.shares)
        epoch = None if mixture is None else mixture.epoch
        if epoch is not None and epoch.samples is not None:
            return epoch.samples
        return math.ceil(self.samples_per_pass(self.timekeeper(mixture)))

    def timekeeper(self, mixture: Mixture | None) -> Share:
        """The dataset whose pass is an epoch: the one that is named, else the one whose pass takes longest."""
        epoch = None if mixture is None else mixture.epoch
        if epoch is not None and epoch.passes_of is not None:
            return next(share for share in self.shares if share.name == epoch.passes_of)
        return max(self.shares, key=self.samples_per_pass)

    def samples_per_pass(self, share: Share) -> Fraction:
        """Samples of the mixture in which one pass over a dataset is made."""
        return Fraction(share.num_samples * self.period, share.share)

    def passes(self, share: Share, num_samples: int) -> float:
        """How often a dataset is passed over in `num_samples` of the order."""
        if self.each_once:
            return num_samples / sum(each.num_samples for each in self.shares)
        return float(num_samples / self.samples_per_pass(share))

    def part(self, share: Share) -> float:
        """The fraction of all samples that are of this dataset."""
        drawn = dict(zip(self.shares, self.samples_of_each, strict=True))
        return drawn[share] / sum(self.samples_of_each)


def plan_mixture(datasets: Sequence[Dataset], mixture: Mixture | None) -> MixturePlan:
    """The shares of `datasets`, all of which have what the strategy needs (see `check_mixture`)."""
    strategy = "concatenate" if mixture is None else mixture.strategy
    wanted = [Fraction(dataset.num_samples) for dataset in datasets]
    if strategy == "round_robin":
        wanted = [Fraction(1)] * len(datasets)
    elif mixture is not None and strategy == "weights":
        wanted = [_written(dataset.weight or 0) / length_of(dataset, mixture) for dataset in datasets]
    elif mixture is not None and strategy == "temperature":
        lengths = [length_of(dataset, mixture) for dataset in datasets]
        sizes = [dataset.num_samples * length for dataset, length in zip(datasets, lengths, strict=True)]
        wanted = [tempered(size, mixture.temperature) / length for size, length in zip(sizes, lengths, strict=True)]
    parts = integer_shares(wanted) if strategy != "concatenate" else tuple(d.num_samples for d in datasets)
    shares = (
        Share(dataset.name, dataset.num_samples, part, dataset.iterable)
        for dataset, part in zip(datasets, parts, strict=True)
    )
    return MixturePlan(strategy, "repeat" if mixture is None else mixture.exhaustion, tuple(shares))


def length_of(dataset: Dataset, mixture: Mixture) -> Fraction:
    """What one sample counts for, in the mixture's unit."""
    if mixture.unit == "samples":
        return Fraction(1)
    tokens = tokens_in(dataset)
    assert tokens is not None, "check_recipe asks for tokens_per_sample"
    return Fraction(tokens, dataset.num_samples)


def tempered(size: Fraction, temperature: float | Fraction) -> Fraction:
    """size^(1/T), to 40 digits. Source: Conneau et al. 2019 (arXiv:1911.02116), who write alpha for 1/T."""
    if temperature == 1:
        return size
    root = 1 / _written(temperature)
    with localcontext(prec=_DIGITS):
        base, exponent = (Decimal(each.numerator) / Decimal(each.denominator) for each in (size, root))
        return Fraction(base**exponent)


def integer_shares(wanted: Sequence[Fraction]) -> tuple[int, ...]:
    """The smallest integers in the proportion of `wanted`, or where they sum to more than PARTS: PARTS by largest
    remainder, at least one each, those of one size equal but for the first ones."""
    scale = math.lcm(*(each.denominator for each in wanted))
    exact = [int(each * scale) for each in wanted]
    if sum(exact) // math.gcd(*exact) > PARTS:
        exact = _by_largest_remainder(wanted)
    divisor = math.gcd(*exact)
    return tuple(share // divisor for share in exact)


def integer_share(index: int, *wanted: Fraction) -> int:
    """One of `integer_shares`."""
    return integer_shares(wanted)[index]


def _by_largest_remainder(wanted: Sequence[Fraction]) -> list[int]:
    """PARTS among `wanted`; what falls below one part is given one, and the rest share what is left."""
    parts = [0] * len(wanted)
    open_, left = list(range(len(wanted))), PARTS
    while True:
        total = sum(wanted[i] for i in open_)
        small = [i for i in open_ if wanted[i] * left < total]
        if not small:
            break
        for i in small:
            parts[i] = 1
        open_, left = [i for i in open_ if i not in small], left - len(small)
    quotas = {i: wanted[i] * left / total for i in open_}
    parts = [parts[i] or math.floor(quotas[i]) for i in range(len(wanted))]
    by_remainder = sorted(open_, key=lambda i: (math.floor(quotas[i]) - quotas[i], i))
    for i in by_remainder[: PARTS - sum(parts)]:
        parts[i] += 1
    return parts


def _written(number: float | Fraction) -> Fraction:
    """The decimal that was written."""
    return Fraction(str(number))


def exhausted(mixture: MixturePlan, total_samples: int) -> Iterator[Problem]:
    """Whether a run passes over a dataset more than once that must not be repeated."""
    if mixture.exhaustion != "error":
        return
    once = sum(share.num_samples for share in mixture.shares)
    if mixture.strategy != "concatenate":
        once = min(math.floor(mixture.samples_per_pass(share)) for share in mixture.shares)
    if total_samples <= once:
        return
    most = max(mixture.shares, key=lambda share: mixture.passes(share, total_samples))
    what = (
        f"{most.name} would be passed over {mixture.passes(most, total_samples):.3g} times in "
        f"{format_count(total_samples)} samples, and mixture.exhaustion is error"
    )
    fix = f"train on at most {format_count(once)} samples, or write exhaustion: repeat or drop"
    if mixture.strategy == "concatenate":
        fix = f"train on at most {format_count(once)} samples, or write exhaustion: repeat"
    yield Problem("duration", what, fix)
