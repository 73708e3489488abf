"""`orchestrate tokens`: files of several kinds and languages, a tokenizer trained here, a dataset of a recipe."""

from __future__ import annotations

import csv
import gzip
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import RecipeError
from orchestrator.submit.text_files import BLOCK_CHARACTERS, blocks_of
from orchestrator.submit.token_count import NUM_BLOCKS, TokenReport, count_tokens
from tests.plan.test_token_rules import CHINESE, ENGLISH, RUSSIAN
from tests.support.command_line import TINY, orchestrate


def report_of(path: Path | str, tokenizer: Path | None = None) -> TokenReport:
    return count_tokens(str(path), tokenizer=tokenizer and str(tokenizer))


def refusal(path: Path | str, tokenizer: str | None = None) -> tuple[str, str, str]:
    with pytest.raises(RecipeError) as caught:
        count_tokens(str(path), tokenizer=tokenizer)
    (problem,) = caught.value.problems
    return problem.where, problem.what, problem.fix


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE of 400 words, trained on three sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([ENGLISH, RUSSIAN, CHINESE], trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    made.save(str(folder / "tokenizer.json"))
    return folder


def own_count(folder: Path, text: str) -> int:
    from tokenizers import Tokenizer

    return len(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False))


def test_a_file_without_a_tokenizer_is_counted_by_three_rules(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(ENGLISH)
    done = orchestrate("tokens", "text.txt", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "text       text.txt",
        "           87 characters, 17 words, 87 bytes",
        "letters    100% Latin",
        "chars/4    22 tokens",
        "words/0.75 23 tokens",
        "bytes/4    22 tokens",
        "trust      chars/4: its letters are Latin: within 10 % for English, too low for other languages and for code",
    ]


@pytest.mark.parametrize("text", [ENGLISH, RUSSIAN, CHINESE], ids=["English", "Russian", "Chinese"])
def test_a_real_tokenizer_shows_the_error_of_each_rule(text: str, tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(text * 3)
    done = orchestrate("tokens", "text.txt", "--tokenizer", tokenizer, "--json", cwd=tmp_path)
    facts = json.loads(done.stdout)
    tokens = own_count(tokenizer, text * 3)
    assert facts["measured"] == {
        "tokenizer": str(tokenizer),
        "tokens": tokens,
        "half_width": 0,
        "sample_bytes": 3 * len(text.encode()),
        "unknown_share": 0.0,
    }
    estimate = -(-3 * len(text) // 4)
    assert facts["errors_percent"]["chars/4"] == pytest.approx(100 * (estimate - tokens) / tokens)
    screen = orchestrate("tokens", "text.txt", "--tokenizer", tokenizer / "tokenizer.json", cwd=tmp_path).stdout
    told = next(line for line in screen.splitlines() if line.startswith("chars/4"))
    assert told.split()[1:] == [str(estimate), "tokens", f"{facts['errors_percent']['chars/4']:+.1f}", "%"]
    assert "tokens   counted\n" in screen


def test_of_a_large_file_a_sample_is_tokenized_and_the_interval_holds_the_truth(
    tokenizer: Path, tmp_path: Path
) -> None:
    lines = [f"{ENGLISH} {index}\n" if index % 3 else f"{RUSSIAN}\n" for index in range(30_000)]
    text = "".join(lines)
    (tmp_path / "large.txt").write_text(text)
    report = report_of(tmp_path / "large.txt", tokenizer)
    assert report.measured is not None
    assert (report.counts.characters, report.counts.words) == (len(text), len(text.split()))
    assert report.measured.sample_bytes < 2 * NUM_BLOCKS * BLOCK_CHARACTERS < report.counts.bytes
    truth = own_count(tokenizer, text)
    assert 0 < report.measured.half_width < truth / 50
    assert abs(report.measured.tokens - truth) <= report.measured.half_width
    assert report == report_of(tmp_path / "large.txt", tokenizer), "the sample is seeded"


@pytest.mark.parametrize("text", [ENGLISH * 2000, CHINESE * 20_000, "x" * 200_000 + " y", " " * 100_000, "\n\n", ""])
def test_blocks_hold_the_whole_text_and_are_bounded(text: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("\ufeff" + text, newline="")
    blocks = [block[0] for block in blocks_of(path)]
    assert "".join(blocks) == text
    assert all(len(block) <= 4 * BLOCK_CHARACTERS for block in blocks)
    if " " in text and "x" not in text:
        assert sum(len(block.split()) for block in blocks) == len(text.split())


def test_records_count_by_their_text_alone(tmp_path: Path) -> None:
    records = [{"id": 12345, "text": ENGLISH, "turns": [{"said": RUSSIAN}, None]}, {"text": "\ud83d"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert report_of(tmp_path / "a.jsonl").counts.characters == len(ENGLISH) + len(RUSSIAN) + 1
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "text"), (1, f'"{ENGLISH}"\n'), (2.5, CHINESE)])
    assert report_of(tmp_path / "a.csv").counts.characters == len(ENGLISH) + 3 + len(CHINESE)


def test_a_folder_is_all_its_files_gzipped_ones_too_and_hidden_ones_not(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.txt").write_text(ENGLISH)
    with gzip.open(tmp_path / "b.txt.gz", "wt", encoding="utf-8") as file:
        file.write(CHINESE)
    (tmp_path / ".hidden").write_text(RUSSIAN)
    report = report_of(tmp_path)
    assert (report.num_files, report.counts.characters) == (2, len(ENGLISH) + len(CHINESE))


def test_many_small_files_are_all_tokenized(tokenizer: Path, tmp_path: Path) -> None:
    for index in range(3 * NUM_BLOCKS):
        (tmp_path / f"{index}.txt").write_text(f"{ENGLISH} {index}")
    measured = report_of(tmp_path, tokenizer).measured
    assert measured is not None and measured.half_width == 0
    assert measured.tokens == sum(own_count(tokenizer, file.read_text()) for file in tmp_path.glob("*.txt"))


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("latin.txt", b"x" * 70_000 + "Tür".encode("latin1"), "not UTF-8 text (byte 70001)"),
        ("wide.txt", "Tür".encode("utf-16-le"), "not UTF-8 text: byte 1 is zero"),
        ("torn.txt", "Tü".encode()[:-1], "not UTF-8 text (byte 1)"),
        ("a.jsonl", b'{"a": "b"}\n{"a": \n', "not JSON: Expecting value: line 2 column 1 (char 7)"),
        ("a.txt.gz", b"no gzip", "it is not a whole gzip file"),
        ("b.txt.gz", gzip.compress(b"text" * 1000)[:-12], "it is not a whole gzip file"),
    ],
)
def test_what_cannot_be_read_is_one_line(name: str, content: bytes, what: str, tmp_path: Path) -> None:
    where, told, fix = refusal(write(tmp_path / name, content))
    assert told == what and where.startswith(str(tmp_path / name)) and fix
    assert "\n" not in told


def test_a_source_that_is_not_there_says_what_may_be_named(tmp_path: Path) -> None:
    done = orchestrate("tokens", "nowhere.txt", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "nowhere.txt: there is no such file or folder",
        "    name a text file, a folder of them, or a dataset of a recipe: recipe.yaml:train",
    ]


def test_a_tokenizer_that_is_not_here_is_refused_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    text = write(tmp_path / "text.txt", b"text")
    assert refusal(text, "some/model") == (
        "--tokenizer some/model",
        "neither a file here nor in the hub's cache",
        "fetch it once where there is a network: hf download some/model --include 'tokenizer*'",
    )
    assert refusal(text, "a b/c")[1] == "neither a file nor a name of the hub"
    assert "is no tokenizer" in refusal(text, str(write(tmp_path / "model.json", b"{}")))[1]


def test_an_id_is_found_in_the_hubs_cache(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    repository, commit = tmp_path / "hub" / "models--some--model", "0" * 40
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
    text = write(tmp_path / "text.txt", ENGLISH.encode())
    measured = count_tokens(str(text), tokenizer="some/model").measured
    assert measured is not None and measured.tokens == own_count(tokenizer, ENGLISH)


TIKTOKEN = """
import urllib.request
def list_encoding_names(): return ["letters_base", "far_base"]
class get_encoding:
    def __init__(self, name):
        if name == "far_base": urllib.request.urlopen(URL)
    def encode(self, text, disallowed_special): return list(text)
"""
"""A tiktoken whose encodings count letters, and one of which is on a server."""


def test_a_name_of_tiktoken_is_counted_by_tiktoken_which_reaches_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = write(tmp_path / "text.txt", ENGLISH.encode())
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/far_base"
        write(tmp_path / "tiktoken.py", TIKTOKEN.replace("URL", repr(url)).encode())
        measured = count_tokens(str(text), tokenizer="letters_base").measured
        assert measured is not None and measured.tokens == len(ENGLISH)
        assert refusal(text, "far_base")[1] == "tiktoken has not got it here: URLError"
        with pytest.raises(BlockingIOError):
            server.accept()


DATA = """
class Pairs:
    def __init__(self, num_samples):
        print("a dataset that talks")
        self.num_samples = num_samples
    def __len__(self):
        return self.num_samples
    def __getitem__(self, index):
        return {"source": "a" * (index % 7), "index": index}, ["bc"]

def broken(num_samples):
    raise OSError("no such disk")
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    text = TINY.read_text().replace("data:clouds", "pairs:Pairs").replace(", seed: 1", "").replace(", seed: 2", "")
    (tmp_path / "pairs.py").write_text(DATA)
    (tmp_path / "recipe.yaml").write_text(text)
    return tmp_path / "recipe.yaml"


def test_a_dataset_of_a_recipe_gives_what_the_recipe_may_declare(recipe: Path, tokenizer: Path) -> None:
    done = orchestrate("tokens", "recipe.yaml:clouds", "--json", cwd=recipe.parent)
    facts: dict[str, Any] = json.loads(done.stdout)
    characters = sum(2 + index % 7 for index in range(64))
    assert facts["counts"]["characters"] == characters
    assert facts["per_sample"]["characters"] == characters / 64
    assert facts["per_sample"]["characters_half_width"] == 0.0
    screen = orchestrate("tokens", "recipe.yaml:clouds", "--tokenizer", tokenizer, cwd=recipe.parent).stdout
    assert screen.splitlines()[-1].startswith("sample     tokens_per_sample: ")


def test_of_a_large_dataset_seeded_items_are_read_and_the_interval_holds_the_mean(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("num_samples: 64", "num_samples: 700000"))
    report = report_of(f"{recipe}:clouds")
    mean = report.per_sample
    assert mean is not None and (mean.num_read, mean.num_samples) == (4096, 700_000)
    assert abs(mean.characters - 5) <= mean.characters_half_width < 0.1
    assert report == report_of(f"{recipe}:clouds")


def test_a_dataset_that_has_no_text_or_cannot_be_opened_is_one_line(recipe: Path) -> None:
    where, what, _ = refusal(f"{TINY}:clouds")
    assert (where, what) == (f"{TINY}:clouds", "its items hold no text")
    assert refusal(f"{recipe}:cluods")[2] == "did you mean 'clouds'?"
    recipe.write_text(recipe.read_text().replace("pairs:Pairs", "pairs:broken"))
    assert "no such disk" in refusal(f"{recipe}:clouds")[1]


def test_a_quotation_mark_in_a_tsv_is_a_letter_and_swallows_no_lines(tmp_path: Path) -> None:
    rows = ['"Hello, she said.\tBonjour.', "How are you?\tComment allez-vous ?", 'An 8" disk.\tUn disque.']
    (tmp_path / "a.tsv").write_text("\n".join(rows) + "\n")
    assert report_of(tmp_path / "a.tsv").counts.characters == sum(len(row) - 1 for row in rows)


@pytest.mark.parametrize("header", ["text\tlabel", "id\tsentence en\tsentence-fr", "\ttext", "文本\t标签"])
def test_a_tables_header_is_told_from_a_first_row_of_text(tmp_path: Path, header: str) -> None:
    row = f"{ENGLISH}\tand more.\n"
    (tmp_path / "a.tsv").write_text(f"{header}\n{row}")
    (tmp_path / "b.tsv").write_text(row)
    characters = [report_of(tmp_path / name).counts.characters for name in ("a.tsv", "b.tsv")]
    assert characters == 2 * [len(row) - 2]


def test_no_tokens_have_no_error_in_percent_and_unknown_ones_are_told(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"[UNK]": 0, "known": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "blank.txt").write_text(" \n")
    blank = report_of(tmp_path / "blank.txt", tmp_path / "tokenizer.json")
    assert blank.measured is not None and (blank.measured.tokens, blank.errors) == (0, {})
    (tmp_path / "text.txt").write_text("known one known two")
    done = orchestrate("tokens", "text.txt", "--tokenizer", "tokenizer.json", cwd=tmp_path)
    assert "50.0% of the tokens are unknown to it" in done.stdout
