"""A tiny GPT-2 that Hugging Face's Trainer trains on sequences of numbers."""

import tempfile
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed


def examples(count: int) -> list[dict[str, torch.Tensor]]:
    rows = (torch.randint(17, (count, 1)) + 3 * torch.arange(8)) % 17
    return [{"input_ids": row, "labels": row} for row in rows]


set_seed(0)
train_set, eval_set = examples(96), examples(16)
model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=17, n_positions=8, n_embd=16, n_layer=1, n_head=2))
arguments = TrainingArguments(
    output_dir=tempfile.mkdtemp(),
    num_train_epochs=4,
    learning_rate=0.01,
    eval_strategy="epoch",
    save_strategy="no",
    report_to="none",
    use_cpu=True,
    disable_tqdm=True,
    log_level="error",
    logging_strategy="no",
)
trainer = Trainer(
    model,
    arguments,
    train_dataset=train_set,
    eval_dataset=eval_set,
)
trainer.train()
print(sum(p.double().sum().item() for p in model.parameters()))
