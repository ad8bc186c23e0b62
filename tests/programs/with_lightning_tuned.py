"""A classifier of digits that Lightning trains."""

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import xaytune
from xaytune.integrations.lightning import XaytuneCallback


class Digits(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("accuracy", (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.003)


L.seed_everything(0)
images, labels = load_digits(return_X_y=True)
data = TensorDataset(torch.as_tensor(images / 16.0).float(), torch.as_tensor(labels))
train_set, eval_set = torch.utils.data.random_split(data, [1400, 397])
model = Digits()
trial = xaytune.current_trial()
trainer = L.Trainer(
    max_epochs=4,
    accelerator="cpu",
    logger=False,
    enable_progress_bar=False,
    callbacks=[XaytuneCallback(trial)],
)
train_loader, eval_loader = DataLoader(train_set, 64, shuffle=True), DataLoader(eval_set, 397)
trainer.fit(model, train_loader, eval_loader, ckpt_path=trial.latest_checkpoint)
print(sum(p.double().sum().item() for p in model.parameters()))
