"""The model: shapes, tied weights, a cache that changes nothing, and rows that know nothing of each other."""

from __future__ import annotations

import pytest
import torch
from model import Transformer, sinusoids, transformer
from tokens import BOS, EOS, PAD
from torch import Tensor
from torch.nn import functional

VOCABULARY = 60


def small(**changes: float) -> Transformer:
    torch.manual_seed(0)
    sizes = {"width": 32, "heads": 4, "layers": 2, "feed_forward": 64, "dropout": 0.0, **changes}
    return transformer(VOCABULARY, **sizes).double().eval()


def sources(*lengths: int, width: int | None = None) -> Tensor:
    """Random sentences of so many tokens, EOS included, padded to the longest or to `width`."""
    torch.manual_seed(1)
    rows = torch.full((len(lengths), width or max(lengths)), PAD)
    for row, length in zip(rows, lengths, strict=True):
        row[: length - 1], row[length - 1] = torch.randint(4, VOCABULARY, (length - 1,)), EOS
    return rows


TARGET = torch.cat((torch.full((3, 1), BOS), torch.arange(4, 19).view(3, 5)), dim=1)


def test_ids_become_logits_of_every_next_token() -> None:
    model = small()
    memory, mask = model.encode(sources(7, 4, 2))
    assert memory.shape == (3, 7, 32) and mask.shape == (3, 1, 1, 7) and mask.sum().item() == 13
    assert model(sources(7, 4, 2), TARGET).shape == (3, 6, VOCABULARY)


def test_source_target_and_output_have_one_embedding() -> None:
    names = [name for name, weight in small().named_parameters() if VOCABULARY in weight.shape]
    assert names == ["embedding.weight"]


def test_a_token_hangs_on_none_that_comes_after_it() -> None:
    model = small()
    other = TARGET.clone()
    other[:, 4:] = 50
    both = [model(sources(7, 4, 2), target)[:, :4] for target in (TARGET, other)]
    assert torch.equal(*both)


def test_token_by_token_is_the_same_as_all_at_once_and_attention_is_on_real_tokens() -> None:
    model, source = small(), sources(7, 4, 2)
    whole, decoding = model(source, TARGET).log_softmax(-1), model.start(source)
    for place in range(TARGET.shape[1]):
        told, attention = decoding.step(TARGET[:, place])
        assert torch.allclose(told, whole[:, place], rtol=0, atol=1e-12)
        assert torch.allclose(attention.sum(dim=1), torch.ones(3).double()) and attention[source == PAD].sum() == 0
    decoding.select(torch.tensor([2, 2, 0]))
    told, _ = decoding.step(torch.tensor([9, 9, 9]))
    assert torch.equal(told[0], told[1]) and not torch.equal(told[0], told[2])


def test_the_attention_of_a_step_is_what_the_last_layer_mixes_by() -> None:
    """Mixed by the same function: not values, but the rows of an identity, which are then the weights themselves."""
    model, source = small(), sources(7, 4, 2)
    last, seen = model.decoder[-1].cross, []
    last.register_forward_pre_hook(lambda module, arguments: seen.append(arguments))
    decoding = model.start(source)
    for place in range(TARGET.shape[1]):
        _, attention = decoding.step(TARGET[:, place])
        x, (keys, _), mask = seen[-1]
        queries = last.query(x).unflatten(-1, (4, 8)).transpose(1, 2)
        identity = torch.eye(7).double().expand(3, 4, 7, 7)
        of_heads = functional.scaled_dot_product_attention(queries, keys, identity, attn_mask=mask)
        assert torch.allclose(attention, of_heads.mean(dim=1)[:, 0], rtol=0, atol=1e-12)


def test_without_dropout_nothing_is_random_in_training_either() -> None:
    model = small().train()
    assert torch.equal(*(model(sources(7, 4, 2), TARGET) for _ in range(2)))


def test_neither_padding_nor_other_rows_change_a_row() -> None:
    model = small()
    together = model(sources(7, 4, 2, width=12), TARGET)
    for row, length in enumerate((7, 4, 2)):
        alone = model(sources(7, 4, 2)[row : row + 1, :length], TARGET[row : row + 1])
        assert torch.allclose(together[row], alone[0], rtol=0, atol=1e-12)


def test_a_sentence_longer_than_the_positions_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^9 tokens, and the model has 8 positions: split the sentence$"):
        small(max_positions=8)(sources(9), TARGET[:1])
    with pytest.raises(ValueError, match=r"^9 tokens, and the model has 8 positions"):
        small(max_positions=8)(sources(3), torch.full((1, 9), 5))


def test_positions_are_sines_and_cosines_of_falling_rates() -> None:
    table = sinusoids(50, 8).double()
    places = torch.arange(50).double()
    assert torch.allclose(table[:, 0], places.sin(), atol=1e-5) and torch.allclose(table[:, 1], places.cos(), atol=1e-5)
    assert torch.allclose(table[:, 6], (places / 1000).sin(), atol=1e-5)
