"""A run of TRL's SFTTrainer on a tiny model. It gets a trial, and returns its weights."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from tests.integrations.transformers_recipes import DEFAULTS, LENGTH, VOCABULARY, Texts, network
from xaytune.integrations.transformers import XaytuneCallback
from xaytune.testing.training import weights_of
from xaytune.trainer.own import OwnLoop


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({str(token): token for token in range(VOCABULARY)}, unk_token="0"))
    made: Any = PreTrainedTokenizerFast
    tokens: PreTrainedTokenizerFast = made(tokenizer_object=words, eos_token="0", pad_token="0", unk_token="0")
    return tokens


def examples(count: int) -> Dataset:
    return Dataset.from_list([{"input_ids": tokens.tolist()} for tokens in Texts(count).tokens])


def tuned(trial: OwnLoop) -> Tensor:
    model: Any = network()
    trainer = SFTTrainer(
        model,
        SFTConfig(**DEFAULTS, max_length=LENGTH, dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=examples(48),
        eval_dataset=examples(16),
        processing_class=tokenizer(),
        callbacks=[XaytuneCallback(trial, save_every_s=0.0)],
    )
    latest: Any = trial.latest_checkpoint
    trainer.train(resume_from_checkpoint=latest)
    return weights_of(model)
