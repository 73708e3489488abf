"""A ResNet-like network: stages of residual blocks with batch norm, all in one ModuleList; channels last, as CPUs and
tensor cores compute convolutions (with channels first, oneDNN copies a layer's tensors into that order and back)."""

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.first_norm, self.second_norm = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else nn.Identity()

    def forward(self, x):
        y = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, widths=(64, 128, 256, 512), blocks_per_stage=2, num_classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.blocks = nn.ModuleList()
        before = widths[0]
        for width in widths:
            for index in range(blocks_per_stage):
                self.blocks.append(Block(before, width, stride=2 if index == 0 and width != before else 1))
                before = width
        self.head = nn.Linear(before, num_classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, images):
        x = functional.relu(self.stem(images.contiguous(memory_format=torch.channels_last)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=(2, 3)))
