"""A small transformer that learns to write like the text of CPython's own help, character by character.

``python -m sweeps.charlm`` runs its sweep from Python, with a callback more than the spec's.
"""

from __future__ import annotations

from functools import cache
from pydoc_data.topics import topics
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from xaytune import Sweep, Trainer, TrainState, Trial

CONTEXT = 64
MAX_STEPS = 600


@cache
def text() -> tuple[Tensor, int]:
    """Returns the text as indices of characters (1-d, int64), and how many characters there are."""
    joined = "".join(topics[name] for name in sorted(topics))
    vocabulary = {character: index for index, character in enumerate(sorted(set(joined)))}
    return torch.tensor([vocabulary[character] for character in joined]), len(vocabulary)


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """Pieces of the text that follow each other: `CONTEXT` characters, and the same one character later."""

    def __init__(self, indices: Tensor) -> None:
        self.indices = indices

    def __len__(self) -> int:
        return (len(self.indices) - 1) // CONTEXT

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        start = index * CONTEXT
        piece = self.indices[start : start + CONTEXT + 1]
        return piece[:-1], piece[1:]


class CharLM(nn.Module):
    """A causal transformer over characters: (batch, time) indices to (batch, time, characters) scores."""

    def __init__(self, characters: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.characters = nn.Embedding(characters, width)
        self.places = nn.Embedding(CONTEXT, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.scores = nn.Linear(width, characters)

    def forward(self, indices: Tensor) -> Tensor:
        """Scores the next character at every place."""
        time = indices.shape[1]
        embedded = self.characters(indices) + self.places(torch.arange(time, device=indices.device))
        mask = nn.Transformer.generate_square_subsequent_mask(time, device=indices.device)
        scores: Tensor = self.scores(self.layers(embedded, mask=mask, is_causal=True))
        return scores


def train(config: dict[str, Any], trial: Trial) -> TrainState:
    """Trains the model: `width`, `layers`, `dropout`, `lr`, `warmup` (steps), `batch_size`."""
    indices, characters = text()
    cut = len(indices) * 95 // 100
    model = CharLM(characters, config["width"], config["layers"], config["dropout"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"])
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=config["warmup"])
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, MAX_STEPS - config["warmup"])
    trainer = Trainer(
        model,
        optimizer=optimizer,
        loss_fn=lambda scores, targets: F.cross_entropy(scores.flatten(0, 1), targets.flatten()),
        train_loader=DataLoader(Windows(indices[:cut]), config["batch_size"], shuffle=True),
        eval_loader=DataLoader(Windows(indices[cut : cut + 64 * 200]), 100),
        eval_every=200,
        num_epochs=100,
        max_steps=MAX_STEPS,
        lr_scheduler=torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, decay], [config["warmup"]]),
        lr_interval="step",
        clip_grad_norm=1.0,
        trial=trial,
    )

    # A callback of the recipe's own, registered with this trial alone.
    @trial.callbacks.on("eval_end")
    def measure_perplexity(state: TrainState) -> None:
        state.metrics["perplexity"] = 2.718281828 ** state.metrics["eval_loss"]

    return trainer.fit()


def stop_when_good_enough(trial: Trial, config: dict[str, Any]) -> None:
    """Ends a trial that writes well enough."""

    @trial.callbacks.on("eval_end")
    def stop(state: TrainState) -> None:
        if state.metrics["eval_loss"] < 1.5:
            state.stop_training()


if __name__ == "__main__":
    callbacks = ["sweeps.callbacks:print_gradients", stop_when_good_enough]
    results = Sweep.from_yaml("sweeps/charlm.yaml", {"callbacks": callbacks}).run(name="charlm-from-python")
    print(results.to_dataframe().sort_values("value").head())
