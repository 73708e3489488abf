"""A minimal DDP loop as one writes it by hand: nothing is logged, saved or checked."""

import sys

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler
from work import Points, mean_loss, network, optimizer_of

width, batch = map(int, sys.argv[1:])
dist.init_process_group("gloo")
data = Points()
sampler = DistributedSampler(data, seed=7)
loader = DataLoader(data, batch_size=batch, sampler=sampler, drop_last=True)
model = DistributedDataParallel(network(width), gradient_as_bucket_view=True)
optimizer = optimizer_of(model)
for epoch in range(10**9):
    sampler.set_epoch(epoch)
    for features, classes in loader:
        optimizer.zero_grad()
        mean_loss(model(features), classes).backward()
        optimizer.step()
