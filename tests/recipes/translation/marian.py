"""A tiny random Marian of transformers as something to search over, and its own beam search beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from decode import Hypothesis
from scores import Scoring
from tokens import BOS, EOS, PAD
from torch import Tensor
from transformers import MarianConfig, MarianMTModel

VOCABULARY = 53


def tiny_marian(seed: int) -> MarianMTModel:
    """Two layers each way; weights so large that beams differ."""
    torch.manual_seed(seed)
    config = MarianConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        init_std=0.6,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        decoder_start_token_id=BOS,
        forced_eos_token_id=None,
    )
    model = MarianMTModel(config).double().eval()
    model.final_logits_bias[:, EOS] += 9.0  # so that translations end, some soon and some late
    return model


class MarianSteps:
    """Its decoder on the way; whole prefixes each time, since what is tested is the search."""

    def __init__(self, model: MarianMTModel, source: Tensor) -> None:
        self.model, self.mask = model, (source != PAD).long()
        self.memory = model.get_encoder()(input_ids=source, attention_mask=self.mask).last_hidden_state
        self.prefix = source[:, :0]

    def step(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        self.prefix = torch.cat((self.prefix, tokens[:, None]), dim=1)
        found = self.model(
            encoder_outputs=(self.memory,), attention_mask=self.mask, decoder_input_ids=self.prefix, use_cache=False
        )
        return found.logits[:, -1].log_softmax(-1), torch.zeros_like(self.mask, dtype=torch.float64)

    def select(self, rows: Tensor) -> None:
        self.memory, self.mask, self.prefix = self.memory[rows], self.mask[rows], self.prefix[rows]


@dataclass(frozen=True)
class ByPresentLength(Scoring):
    """What transformers holds to be reachable with early_stopping=False: as if a translation ended now."""

    def best_reachable(self, log_probability: float, length: int, most_length: int) -> float:
        return log_probability / self.length_penalty(length)


def generated(
    model: MarianMTModel, source: Tensor, *, beam: int, alpha: float, early: bool | str, most_tokens: int
) -> list[list[Hypothesis]]:
    """transformers' own translations of each source, best first."""
    found = model.generate(
        input_ids=source,
        attention_mask=(source != PAD).long(),
        num_beams=beam,
        num_return_sequences=beam,
        length_penalty=alpha,
        early_stopping=early,
        max_new_tokens=most_tokens,
        suppress_tokens=[PAD, BOS],
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    scores = found.sequences_scores.tolist() if beam > 1 else [float("nan")] * len(source)
    rows = [[token for token in row[1:] if token != PAD] for row in found.sequences.tolist()]
    told = [
        Hypothesis([token for token in row if token != EOS], score, float("nan"), EOS in row)
        for row, score in zip(rows, scores, strict=True)
    ]
    return [told[first : first + beam] for first in range(0, len(told), beam)]
