"""Models whose speed, gradient or loss hangs on the precision that they run in."""

import os
import time

import torch
from layers import NUM_FEATURES

if os.environ.get("SHORT_WINDOWS"):
    from tests.worker.tuning.windows import shorten

    shorten()


def in_lower():
    return torch.is_autocast_enabled("cpu")


class Paced(torch.nn.Module):
    """With a batch norm, and dropout; each micro-batch takes as long as it is told to, whatever the machine.

    Where VANISHES is set, its gradient is another one in a lower precision.
    """

    def __init__(self, fp32_s=0.03, lower_s=0.003, tf32_s=0.06, dropout=0.1, hidden=16):
        super().__init__()
        self.seconds = {"fp32": fp32_s, "lower": lower_s, "tf32": tf32_s}
        self.first, self.norm = torch.nn.Linear(NUM_FEATURES, hidden), torch.nn.BatchNorm1d(hidden)
        self.dropout, self.last = torch.nn.Dropout(dropout), torch.nn.Linear(hidden, 3)

    def forward(self, x):
        own = "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "fp32"
        time.sleep(self.seconds["lower" if in_lower() else own])
        hidden = self.norm(self.first(x)) if len(x) > 1 else self.first(x)
        if os.environ.get("VANISHES") and in_lower():
            hidden = hidden.detach()
        return self.last(self.dropout(torch.tanh(hidden)))


class Unnormalised(Paced):
    """Without the batch norm: what it computes does not hang on the size of a micro-batch."""

    def __init__(self, **args):
        super().__init__(**args)
        self.norm = torch.nn.Identity()


class Vanishing(Paced):
    """In bf16 its gradient is none, and its loss nearly the same: 256 + 0.01 is 256 there."""

    def forward(self, x):
        logits = super().forward(x)
        return torch.relu(0.001 * logits + 256.0 - 256.0)


class VanishingLater(Paced):
    """As soon as it has seen so many micro-batches in a lower precision while it trained."""

    def __init__(self, after=30, **seconds):
        super().__init__(**seconds)
        self.register_buffer("left", torch.tensor(after))

    def forward(self, x):
        logits = super().forward(x)
        if self.training and in_lower():
            self.left -= 1
        return torch.relu(0.001 * logits + 256.0 - 256.0) if self.left <= 0 else logits


class OverflowingLater(VanishingLater):
    """Its loss is no number from then on, in a lower precision alone."""

    def forward(self, x):
        logits = Paced.forward(self, x)
        if self.training and in_lower():
            self.left -= 1
        return logits * torch.inf if self.left <= 0 and in_lower() else logits


class OverflowingWhenCompared(Paced):
    """The same in training, from when gradients are compared in eval mode after some steps in a lower precision."""

    num_lower, overflows = 0, False

    def forward(self, x):
        logits = super().forward(x)
        self.num_lower += self.training and in_lower()
        self.overflows = self.overflows or (not self.training and self.num_lower >= 5)
        return logits * torch.inf if self.overflows and self.training and in_lower() else logits


class LosingItsWeights(VanishingLater):
    """A gradient that is no number, of a loss that is one."""

    def forward(self, x):
        logits = Paced.forward(self, x)
        if self.training and in_lower():
            self.left -= 1
        if self.left == 0 and in_lower() and logits.requires_grad:
            logits.register_hook(lambda gradient: gradient * torch.nan)
        return logits


class Refusing(Paced):
    def forward(self, x):
        if in_lower():
            raise RuntimeError("no kernel for this type")
        return super().forward(x)
