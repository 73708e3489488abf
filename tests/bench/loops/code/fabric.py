"""Lightning Fabric's loop, from its own guide."""

import os
import sys

from lightning.fabric import Fabric
from torch.utils.data import DataLoader
from work import Points, mean_loss, network, optimizer_of

width, batch = map(int, sys.argv[1:])
world_size = int(os.environ["WORLD_SIZE"])
fabric = Fabric(accelerator="cpu", devices=world_size, strategy="ddp" if world_size > 1 else "auto")
fabric.launch()
model = network(width)
model, optimizer = fabric.setup(model, optimizer_of(model))
loader = fabric.setup_dataloaders(DataLoader(Points(), batch_size=batch, shuffle=True, drop_last=True))
while True:
    for features, classes in loader:
        optimizer.zero_grad()
        fabric.backward(mean_loss(model(features), classes))
        optimizer.step()
