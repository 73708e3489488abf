"""Tokenizers by their behaviour: the vocabulary, what is unknown to them, what comes back; on which text, how often."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import Problem
from orchestrator.recipe.assets import Asset
from orchestrator.submit.assets.cache import AssetCache, locked_file
from orchestrator.submit.assets.declared import wanted_of
from orchestrator.submit.assets.lock import LockedAsset
from orchestrator.submit.assets.tokenizer_trial import Tokenizer, by_tokenizers, text_fault, vocabulary_fault
from orchestrator.submit.assets.tokenizers import ENGLISH, tokenizer_problems
from tests.support.hub_mirror import COMMIT, sentences

CHINESE = "".join(f"{line}\n" for line in ("今天的天气非常好。", "我们一起去公园散步。", "他昨天买了三本书。"))


@pytest.fixture
def folder(tmp_path: Path, tokenizer_files: dict[str, bytes]) -> Path:
    """A whole tokenizer in a folder."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for name, data in tokenizer_files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    return by_tokenizers(folder)


def test_a_good_tokenizer_passes_on_text_of_its_language(tokenizer: Tokenizer, folder: Path) -> None:
    assert vocabulary_fault(tokenizer, folder, 100) is None
    assert text_fault(tokenizer, ENGLISH, "x") is None
    assert text_fault(tokenizer, sentences(), "x") is None


def test_a_text_in_another_script_is_unknown_to_it(tokenizer: Tokenizer) -> None:
    assert text_fault(tokenizer, CHINESE.splitlines(), "zh.txt") == (
        "100.0% of the tokens of zh.txt are unknown to it (at most 1%)",
        "write sample: with a text in its language; or choose another tokenizer, or declare it as a model to stage it "
        "untested",
    )


def test_capitals_and_spaces_that_it_drops_by_its_own_word_are_no_loss(tokenizer: Tokenizer) -> None:
    assert text_fault(tokenizer, ["THE  Teacher saw\ta red Bicycle."], "x") is None
    honest = replace(tokenizer, normalise=str)
    assert text_fault(honest, ["A Red Bicycle."], "x") == (
        "1 of 1 lines of x do not come back: 'A Red Bicycle.' becomes 'a red bicycle .'",
        "choose another tokenizer, or declare it as a model to stage it untested",
    )


def test_a_tokenizer_that_makes_nothing_of_a_text_is_refused(tokenizer: Tokenizer) -> None:
    fault = text_fault(replace(tokenizer, encode=lambda text: []), ["a"], "x")
    assert fault is not None and fault[0] == "makes no tokens at all of x"


@pytest.mark.parametrize(("vocab_size", "passes"), [(204, True), (205, True), (408, True), (409, False), (203, False)])
def test_the_vocabulary_is_that_of_the_config_but_for_padding(
    tokenizer: Tokenizer, folder: Path, vocab_size: int, passes: bool
) -> None:
    (folder / "config.json").write_text(json.dumps({"vocab_size": vocab_size}))
    fault = vocabulary_fault(replace(tokenizer, size=204), folder, 100)
    assert (fault is None) == passes
    if fault is not None:
        assert fault[0] == f"has 204 words, and config.json beside it says vocab_size {vocab_size}"


def test_a_vocabulary_that_is_smaller_than_wanted_is_refused(tokenizer: Tokenizer, folder: Path) -> None:
    fault = vocabulary_fault(replace(tokenizer, size=204), folder, 205)
    assert fault is not None
    assert fault[0] == "loads without an error, with a vocabulary of 204 words where 205 are wanted"


class Staged:
    """A cache into which a tokenizer, and perhaps a text, have been put."""

    def __init__(self, root: Path, files: dict[str, bytes]) -> None:
        self.cache = AssetCache(root)
        self.assets: dict[str, Asset] = {}
        self.locked: dict[str, LockedAsset] = {}
        self.add("words", Asset(tokenizer="acme/words", revision=COMMIT), files)

    def add(self, name: str, asset: Asset, files: dict[str, bytes]) -> None:
        folder = self.cache.folder_of(wanted_of(asset))
        folder.mkdir(parents=True, exist_ok=True)
        for path, data in files.items():
            (folder / path).write_bytes(data)
        self.assets[name] = asset
        self.locked[name] = LockedAsset(wanted_of(asset), tuple(locked_file(folder, path) for path in sorted(files)))

    def add_text(self, name: str, text: str) -> None:
        asset = Asset(url=f"https://example.org/{name}.txt", sha256=hashlib.sha256(text.encode()).hexdigest())
        self.add(name, asset, {f"{name}.txt": text.encode()})

    def problems(self, folder: Path) -> list[Problem]:
        return tokenizer_problems(self.assets, self.locked, self.cache, folder=folder)


@pytest.fixture
def staged(tmp_path: Path, tokenizer_files: dict[str, bytes]) -> Staged:
    return Staged(tmp_path / "cache", tokenizer_files)


def test_a_text_among_the_assets_is_what_it_is_tried_on_and_a_failure_is_not_remembered(
    tmp_path: Path, staged: Staged
) -> None:
    staged.add_text("chinese", CHINESE)
    (problem,) = staged.problems(tmp_path)
    assert problem.where == "assets.words.tokenizer"
    assert problem.what == "100.0% of the tokens of chinese are unknown to it (at most 1%)"
    assert not (staged.cache.root / "checked").exists()


def test_the_recipes_own_sample_comes_before_and_what_has_passed_is_not_tried_again(
    tmp_path: Path, staged: Staged
) -> None:
    staged.add_text("chinese", CHINESE)
    (tmp_path / "english.txt").write_text("\n".join(sentences()))
    staged.assets["words"] = staged.assets["words"].model_copy(update={"sample": "english.txt"})
    assert staged.problems(tmp_path) == []
    (staged.cache.folder_of(wanted_of(staged.assets["words"])) / "tokenizer.json").write_text("{}")
    assert staged.problems(tmp_path) == []
    staged.assets["words"] = staged.assets["words"].model_copy(update={"min_vocabulary": 150})
    assert [problem.where for problem in staged.problems(tmp_path)] == ["assets.words.tokenizer"]


def test_files_that_another_recipe_has_staged_beside_the_locked_ones_do_not_help(
    tmp_path: Path, staged: Staged, tokenizer_files: dict[str, bytes]
) -> None:
    lone = Asset(tokenizer="acme/words", revision=COMMIT, files=("config.json",))
    staged.add("words", lone, {"config.json": tokenizer_files["config.json"]})
    assert (staged.cache.folder_of(wanted_of(lone)) / "tokenizer.json").exists()
    (problem,) = staged.problems(tmp_path)
    assert problem.what.endswith(
        "with a vocabulary of 5 words where 100 are wanted: only config.json is there, and no vocabulary"
    )


def test_where_the_cache_may_only_be_read_the_user_remembers(tmp_path: Path, staged: Staged) -> None:
    (staged.cache.root / "checked").write_text("in the way")
    assert staged.problems(tmp_path) == []
    own = Path(os.environ["XDG_CACHE_HOME"]) / "orchestrate" / "assets" / "checked"
    assert len(list(own.iterdir())) == 1


def test_a_sample_that_is_not_there_is_told_with_the_one_that_is(tmp_path: Path, staged: Staged) -> None:
    (tmp_path / "english.txt").write_text("words")
    staged.assets["words"] = staged.assets["words"].model_copy(update={"sample": "englsh.txt"})
    what = f"there is no file {tmp_path / 'englsh.txt'}, nor such an asset"
    assert staged.problems(tmp_path) == [Problem("assets.words.sample", what, "did you mean 'english.txt'?")]


def test_files_that_are_no_tokenizer_are_told_with_the_librarys_word(tmp_path: Path, staged: Staged) -> None:
    folder = staged.cache.folder_of(wanted_of(staged.assets["words"]))
    (folder / "tokenizer.json").write_text("{}")
    (problem,) = staged.problems(tmp_path)
    assert problem.what.startswith("cannot be loaded offline: ")
    assert problem.fix == "stage all the files it needs: see `files`"
