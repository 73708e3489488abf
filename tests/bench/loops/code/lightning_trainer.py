"""Lightning's Trainer, with all that it may leave out left out."""

import logging
import os
import sys
import warnings

import lightning
from torch.utils.data import DataLoader
from work import Points, mean_loss, network, optimizer_of

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")
width, batch = map(int, sys.argv[1:])
world_size = int(os.environ["WORLD_SIZE"])


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = network(width)

    def training_step(self, batch, index):
        features, classes = batch
        return mean_loss(self.network(features), classes)

    def configure_optimizers(self):
        return optimizer_of(self)


trainer = lightning.Trainer(
    accelerator="cpu",
    devices=world_size,
    strategy="ddp" if world_size > 1 else "auto",
    max_epochs=-1,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(Module(), DataLoader(Points(), batch_size=batch, shuffle=True, drop_last=True))
