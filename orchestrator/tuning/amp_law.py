"""Which lower precisions an fp32 run may try, what its gradients must show first, and when one is kept. Pure.

A lower precision is another arithmetic, so speed alone is no reason: on the same micro-batches, loss and gradients
have to be those of fp32 up to a rounding that training does not notice, layer by layer. Ranks that see the same
figures decide alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Lower = Literal["tf32", "bf16", "fp16"]

LEAST_AMP_GAIN = 0.08
"""What it has to make steps faster by: with less, fp32 is the better choice."""
MOST_WAIT_SHARE = 0.05
"""A run that waits longer for data is not bound by its computing ..."""
MOST_EXCHANGE_SHARE = 0.25
"""... nor is one whose ranks exchange gradients for longer after they have computed them: those stay in fp32."""

_MOST_LOSS_GAP, _LEAST_COSINE, _MOST_NORM_GAP = 0.01, 0.99, 0.1
_LEAST_SCALE = 1.0
_TF32_AND_BF16, _FP16 = 80, 70
"""Compute capabilities, 10 x major + minor. Below 8.0 CUDA emulates bf16, which is slow."""
CPU = 0
"""Stands for a compute capability where there is no GPU."""


@dataclass(frozen=True)
class Agreement:
    """How loss and gradient of a micro-batch in a lower precision compare with those in fp32; by default they agree."""

    loss_gap: float = 0.0
    """Of the fp32 loss."""
    cosine: float = 1.0
    """Between the two gradients of `layer`, the one that agrees least."""
    norm_ratio: float = 1.0
    """The lower one's norm, of the fp32 one's."""
    layer: int = 0
    """Which layer, in the order of the model."""

    @property
    def badness(self) -> float:
        """1 is what is just accepted; infinite for anything that is no number."""
        gaps = (
            self.loss_gap / _MOST_LOSS_GAP,
            (1.0 - self.cosine) / (1.0 - _LEAST_COSINE),
            abs(self.norm_ratio - 1.0) / _MOST_NORM_GAP,
        )
        return max(gaps) if all(map(math.isfinite, gaps)) else math.inf


def is_held_up(wait_share: float, *, exchange_share: float) -> bool:
    """Whether something else than its computing holds a run up: these are shares of a step."""
    return wait_share > MOST_WAIT_SHARE or exchange_share > MOST_EXCHANGE_SHARE


NOT_COMPUTED = Agreement(loss_gap=-math.inf)
"""An error was raised."""


def ladder(capability: int) -> tuple[Lower, ...]:
    """What to try, the mildest first, on GPUs of which the least has this compute capability (10 x major + minor)."""
    if capability == CPU:
        return ("bf16",)
    if capability >= _TF32_AND_BF16:
        return ("tf32", "bf16")
    return ("fp16",) if capability >= _FP16 else ()


def refusal(worst: Agreement, layer: str) -> str | None:
    """Why the lower precision is no choice for this model, by the worst that any rank has seen; None where it is one.

    `layer` is the name of the layer that it was seen in.
    """
    if worst.badness <= 1.0:
        return None
    if worst == NOT_COMPUTED:
        return "it could not be computed: a rank's log says why"
    if not math.isfinite(worst.badness):
        return f"loss or gradient is no number, in {layer}"
    if worst.loss_gap > _MOST_LOSS_GAP:
        return f"the loss of the same samples differs by {worst.loss_gap:.1%}"
    return (
        f"the gradient of {layer} is another one: cosine {worst.cosine:.3f} and {worst.norm_ratio:.2f} x the norm, "
        "for the same samples"
    )


def is_scale_lost(scale: float) -> bool:
    """Whether fp16's loss scale has fallen to where gradients vanish all the same."""
    return scale < _LEAST_SCALE


def precision_text(detail: Mapping[str, Any]) -> str:
    """What became of a precision, in one line, by the detail of its event."""
    if "kept" in detail:
        return f"{detail['kept']} makes steps {detail['gain']:.0%} faster: kept"
    if detail.get("refused"):
        return f"{detail['to']} is refused: {detail['why']}"
    if detail.get("applied") is False:
        return f"try precision: {detail['to']}: {detail['why']}"
    return f"precision {detail['from']} -> {detail['to']}: {detail['why']}"
