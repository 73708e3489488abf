"""The recipe's model as CTranslate2 has it: its weights written as that library's own files, and translations by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from ctranslate2.specs import common_spec, transformer_spec


def exported(model: Any, folder: Path) -> ctranslate2.Translator:
    """A translator with the weights of a `Transformer` of recipes/translation. Its tokens are ids as text."""
    layers = (len(model.encoder), len(model.decoder))
    heads = model.encoder[0].attention.heads
    spec = transformer_spec.TransformerSpec.from_config(
        layers, heads, pre_norm=True, activation=common_spec.Activation.RELU
    )
    embedding, positions = _numbers(model.embedding.weight), _numbers(model.positions)
    for part, own, norm in (
        (spec.encoder, model.encoder, model.encoder_norm),
        (spec.decoder, model.decoder, model.decoder_norm),
    ):
        embeddings = part.embeddings[0] if isinstance(part.embeddings, list) else part.embeddings
        embeddings.weight, part.position_encodings.encodings = embedding, positions
        embeddings.multiply_by_sqrt_depth = part.scale_embeddings = True
        _norm(part.layer_norm, norm)
        for theirs, ours in zip(part.layer, own, strict=True):
            _attention(theirs.self_attention, ours.attention, ours.attention_norm)
            if hasattr(ours, "cross"):
                _attention(theirs.attention, ours.cross, ours.cross_norm, is_cross=True)
            _norm(theirs.ffn.layer_norm, ours.feed_norm)
            _linear(theirs.ffn.linear_0, ours.feed[0])
            _linear(theirs.ffn.linear_1, ours.feed[3])
    spec.decoder.projection.weight = embedding
    tokens = _named(range(len(embedding)))
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.add_source_eos = False
    spec.validate()
    spec.optimize(quantization="float32")
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    return ctranslate2.Translator(str(folder), device="cpu", intra_threads=1, compute_type="float32")


NAMES = {0: "<pad>", 1: "<s>", 2: "</s>", 3: "<unk>"}
"""Of the ids that are no number as text."""


@dataclass(frozen=True)
class Found:
    """One hypothesis, by ids, and its score."""

    tokens: list[int]
    score: float


def translated(translator: ctranslate2.Translator, sources: list[list[int]], **options: Any) -> list[list[Found]]:
    """What CTranslate2 makes of sources, ids with their EOS; best first.

    At least 0 tokens: it would have one at least, and so take P(EOS) of the first token out of all of its scores.
    """
    ids = {name: number for number, name in NAMES.items()}
    rows = [_named(row) for row in sources]
    results = translator.translate_batch(rows, return_scores=True, min_decoding_length=0, **options)
    return [
        [
            Found([ids[token] if token in ids else int(token) for token in tokens], score)
            for tokens, score in zip(result.hypotheses, result.scores, strict=True)
        ]
        for result in results
    ]


def forced(translator: ctranslate2.Translator, sources: list[list[int]], targets: torch.Tensor) -> torch.Tensor:
    """The log-probabilities that it gives the tokens of targets, (B, T) ids, and the EOS after them: (B, T + 1)."""
    results = translator.score_batch([_named(row) for row in sources], [_named(row) for row in targets.tolist()])
    return torch.tensor([result.log_probs for result in results], dtype=torch.float64)


def _named(ids: Iterable[int]) -> list[str]:
    return [NAMES.get(token, str(token)) for token in ids]


def _numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().numpy()


def _norm(theirs: Any, ours: Any) -> None:
    theirs.gamma, theirs.beta = _numbers(ours.weight), _numbers(ours.bias)


def _linear(theirs: Any, ours: Any) -> None:
    theirs.weight, theirs.bias = _numbers(ours.weight), _numbers(ours.bias)


def _attention(theirs: Any, ours: Any, norm: Any, *, is_cross: bool = False) -> None:
    """Query, key and value in one matrix; of attention to the source, key and value alone. Keys have no bias."""
    _norm(theirs.layer_norm, norm)
    parts = [(_numbers(ours.query.weight), _numbers(ours.query.bias)), (_numbers(ours.key.weight), None)]
    parts.append((_numbers(ours.value.weight), _numbers(ours.value.bias)))
    full = [(weight, np.zeros(len(weight), dtype=np.float32) if bias is None else bias) for weight, bias in parts]
    groups = [full[:1], full[1:]] if is_cross else [full]
    for linear, group in zip(theirs.linear, groups, strict=False):
        linear.weight = np.concatenate([weight for weight, _ in group])
        linear.bias = np.concatenate([bias for _, bias in group])
    _linear(theirs.linear[-1], ours.output)
