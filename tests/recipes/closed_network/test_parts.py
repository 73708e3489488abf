"""The recipe's own code, on a few rows made up here: what is prepared, what a dataset gives, what is frozen."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from orchestrator.worker.targets import UserCode
from tests.recipes.closed_network.own_run import RECIPE
from tests.support.hub_mirror import trained_tokenizer

CODE = UserCode(RECIPE)
SECTIONS = ["config", "entity"]
SIZES = {"train": 20, "held_out": 10}


def wheel_of(folder: Path, *components: dict[str, Any]) -> Path:
    """A wheel with the English texts of so many components, and with German ones that are not to be read."""
    path = folder / "homeassistant.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for number, texts in enumerate(components):
            wheel.writestr(f"homeassistant/components/c{number}/translations/en.json", json.dumps(texts))
            wheel.writestr(f"homeassistant/components/c{number}/translations/de.json", '{"config": "Nicht zu lesen"}')
    return path


def prepared(folder: Path, *components: dict[str, Any], **changes: int) -> dict[str, list[list[str]]]:
    """The rows of each part."""
    folder.mkdir()
    options = {"sections": SECTIONS, "fewest_words": 3, **SIZES, **changes}
    CODE.load("prepare:texts")({"homeassistant": wheel_of(folder, *components)}, folder, **options)
    return {part: [line.split("\t") for line in (folder / f"{part}.tsv").read_text().splitlines()] for part in SIZES}


def made_up(section: str, count: int = 20) -> dict[str, Any]:
    return {section: {"step": {f"key_{i}": {"title": f"Text {i} of {section}"} for i in range(count)}}}


def test_both_parts_have_their_size_and_share_no_text_whatever_the_order_of_the_files(tmp_path: Path) -> None:
    one, other = made_up("config"), made_up("entity")
    parts = prepared(tmp_path / "first", one, other, one)
    assert {part: len(rows) for part, rows in parts.items()} == SIZES
    assert {section for rows in parts.values() for section, _ in rows} == set(SECTIONS)
    assert len({text for rows in parts.values() for _, text in rows}) == 30
    assert all(section in text for rows in parts.values() for section, text in rows)
    assert prepared(tmp_path / "second", other, one) == parts
    assert (tmp_path / "first" / "sections.txt").read_text() == "config\nentity\n"


def test_a_text_of_two_sections_of_another_section_or_of_two_words_is_left_out(tmp_path: Path) -> None:
    unwanted = {
        "config": {"a": "Stands in two sections", "b": "Two words"},
        "entity": {"a": "Stands in  two\nsections"},
        "title": "Of a section that nobody wants",
    }
    parts = prepared(tmp_path / "folder", made_up("config", 15), made_up("entity", 15), unwanted)
    assert all(text.startswith("Text ") for rows in parts.values() for _, text in rows)


def test_too_few_texts_are_told_with_the_numbers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^20 texts, and 20 \+ 10 are asked for"):
        prepared(tmp_path / "folder", made_up("config"))


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The dataset's class; what it reads is staged."""
    (tmp_path / "tokenizer").mkdir()
    for name, data in trained_tokenizer().items():
        (tmp_path / "tokenizer" / name).write_bytes(data)
    prepared(tmp_path / "texts", made_up("config"), made_up("entity"))
    monkeypatch.setenv("ORCHESTRATE_ASSET_TOKENIZER", str(tmp_path / "tokenizer"))
    monkeypatch.setenv("ORCHESTRATE_ASSET_TEXTS", str(tmp_path / "texts"))
    return CODE.load("data:Texts")


def test_every_row_has_its_section_as_a_number_and_its_length(texts: Any) -> None:
    train, held_out = texts("train"), texts("held_out")
    assert (len(train), len(held_out)) == (20, 10)
    assert {label for _, label in train} == {0, 1}
    assert [SECTIONS[label] in text for text, (_, label) in zip(train.texts, train, strict=True)] == [True] * 20
    assert train.lengths == [len(ids) for ids, _ in train]


def test_a_batch_is_padded_to_its_longest_and_the_mask_says_where(texts: Any) -> None:
    dataset = texts("train", most_tokens=5)
    assert set(dataset.lengths) == {5}, "longer texts are cut off"
    items = [(torch.tensor([7, 8, 9]), 1), (torch.tensor([7]), 0)]
    (ids, mask), labels = dataset.collate_fn(items)
    assert ids.tolist() == [[7, 8, 9], [7, 0, 0]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert labels.tolist() == [1, 0]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The recipe's model on a tiny encoder, with so much dropout that nobody could miss it."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=50, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5, **sizes)
    BertModel(config).save_pretrained(tmp_path / "encoder")
    monkeypatch.setenv("ORCHESTRATE_ASSET_ENCODER", str(tmp_path / "encoder"))
    return CODE.load("model:classifier")(num_sections=3)


def rows(*lengths: int) -> tuple[Tensor, Tensor]:
    """Random ids, the same ones for the same length, padded; and their mask."""
    ids, mask = torch.zeros(2, len(lengths), max(lengths), dtype=torch.int64)
    for number, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(length)
        ids[number, :length] = torch.randint(1, 50, (length,), generator=generator)
        mask[number, :length] = 1
    return ids, mask


def test_a_step_moves_the_head_and_nothing_of_the_encoder(model: Any) -> None:
    assert {name for name, each in model.named_parameters() if each.requires_grad} == {"head.weight", "head.bias"}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    loss, count = CODE.load("model:cross_entropy")(model(*rows(4, 6, 9)), torch.tensor([0, 1, 2]))
    loss.backward()
    torch.optim.SGD((each for each in model.parameters() if each.requires_grad), lr=0.1).step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"head.weight", "head.bias"} and count == 3
    assert all(parameter.grad is None for parameter in model.encoder.parameters())


def test_the_encoder_drops_nothing_while_the_head_is_trained(model: Any) -> None:
    model.train()
    assert model.training and model.head.training and not any(each.training for each in model.encoder.modules())
    assert torch.equal(model(*rows(4, 6, 9)), model(*rows(4, 6, 9)))


def test_padding_changes_no_row(model: Any) -> None:
    together = model(*rows(3, 5, 12))
    for number, length in enumerate((3, 5, 12)):
        torch.testing.assert_close(together[number], model(*rows(length))[0], rtol=1e-5, atol=1e-6)


def test_the_weights_are_those_of_the_folder(model: Any, tmp_path: Path) -> None:
    staged = BertModel.from_pretrained(tmp_path / "encoder").state_dict()
    assert all(torch.equal(value, staged[name]) for name, value in model.encoder.state_dict().items())


def test_accuracy_counts_the_right_ones() -> None:
    scores = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0]])
    assert [int(each) for each in CODE.load("model:accuracy")(scores, torch.tensor([0, 1, 1]))] == [2, 3]
