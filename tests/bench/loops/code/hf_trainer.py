"""Transformers' Trainer, with all that it may leave out left out."""

import sys
import tempfile

import torch
from transformers import Trainer, TrainingArguments
from work import Points, mean_loss, network

width, batch = map(int, sys.argv[1:])


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = network(width)

    def forward(self, features, labels):
        outputs = self.network(features)
        return {"loss": mean_loss(outputs, labels), "logits": outputs}


def collate(items):
    features, labels = zip(*items, strict=True)
    return {"features": torch.stack(features), "labels": torch.stack(labels)}


arguments = TrainingArguments(
    output_dir=tempfile.mkdtemp(),
    use_cpu=True,
    per_device_train_batch_size=batch,
    max_steps=10**9,
    learning_rate=1e-3,
    max_grad_norm=0.0,
    optim="adamw_torch_fused",
    logging_strategy="no",
    save_strategy="no",
    report_to=[],
    ddp_find_unused_parameters=False,
    disable_tqdm=True,
    dataloader_drop_last=True,
)
Trainer(Model(), arguments, train_dataset=Points(), data_collator=collate).train()
