"""Accelerate's loop, from its own guide."""

import sys

from accelerate import Accelerator
from torch.utils.data import DataLoader
from work import Points, mean_loss, network, optimizer_of

width, batch = map(int, sys.argv[1:])
accelerator = Accelerator(cpu=True)
model = network(width)
loader = DataLoader(Points(), batch_size=batch, shuffle=True, drop_last=True)
model, optimizer, loader = accelerator.prepare(model, optimizer_of(model), loader)
while True:
    for features, classes in loader:
        optimizer.zero_grad()
        accelerator.backward(mean_loss(model(features), classes))
        optimizer.step()
