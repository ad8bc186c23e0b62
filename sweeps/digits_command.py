"""Handwritten digits, trained by a script with options, which runs alone as well."""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

import xaytune
from sweeps.digits import datasets, mlp


def main() -> None:
    """Trains an MLP as the options say."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--lr", type=float, default=0.003)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--epochs", type=int, default=27)
    options = parser.parse_args()

    train_set, eval_set = datasets()
    images, labels = eval_set.tensors
    train_loader = DataLoader(train_set, batch_size=64, shuffle=True)
    model = mlp(options.hidden, options.dropout)
    optimizer = torch.optim.AdamW(model.parameters(), options.lr, weight_decay=options.weight_decay)

    trial = xaytune.current_trial()
    trial.keep(model=model, optimizer=optimizer)
    for epoch in trial.epochs(options.epochs):
        model.train()
        for inputs, targets in trial.steps(train_loader):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            trial.log(loss=loss)
        model.eval()
        with torch.no_grad():
            accuracy = (model(images).argmax(1) == labels).float().mean()
        trial.report(eval_accuracy=accuracy)
        print(f"epoch {epoch + 1}: accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
