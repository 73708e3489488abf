import torch
from layers import NUM_FEATURES
from torch.nn import functional


def network(dropout=0.0, hidden=16):
    return torch.nn.Sequential(
        torch.nn.Linear(NUM_FEATURES, hidden), torch.nn.Tanh(), torch.nn.Dropout(dropout), torch.nn.Linear(hidden, 3)
    )


class Language(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(7, 8)
        self.output = torch.nn.Linear(8, 7)

    def forward(self, tokens, mask):
        return self.output(torch.tanh(self.embedding(tokens)) * mask.unsqueeze(-1))


def cross_entropy(outputs, targets):
    return functional.cross_entropy(outputs, targets, reduction="sum"), len(targets)


def token_loss(outputs, targets):
    loss = functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum")
    return loss, (targets >= 0).sum()


def mean_of_means(outputs, targets):
    """The classic mistake: each micro-batch's own mean, times its size and world-blind."""
    return functional.cross_entropy(outputs, targets) * 4, len(targets)


def accuracy(outputs, targets):
    return (outputs.argmax(dim=1) == targets).sum(), len(targets)


def broken(*values):
    raise RuntimeError("the user's mistake\nwith a second line")
