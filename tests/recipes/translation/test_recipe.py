"""The whole way on sentences of our own: staged, trained on two ranks, shown, opened again, translated."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from evaluate import counts, scores
from sacrebleu.metrics import BLEU, CHRF

from tests.recipes.translation.own_run import SMALL, place_at, text_of, translate
from tests.recipes.workplace import Workplace
from tests.support.own_pairs import own_pairs


def test_sentences_that_it_has_never_seen_are_translated(trained: Workplace) -> None:
    (lock,) = trained.folder.glob("*.lock.json")
    assert {"tatoeba", "text"} == set(json.loads(lock.read_text())["assets"])
    folder = text_of(trained)
    unseen = [line.split("\t") for line in (folder / "tatoeba.test.tsv").read_text().splitlines()]
    seen = (folder / "tatoeba.train.tsv").read_text()
    assert len(unseen) == 16 and all(f"{english}\t" not in seen for english, _ in unseen)
    ended = translate(trained, "en_zh", text="".join(f"{english}\n" for english, _ in unseen))
    assert ended.stdout.splitlines() == [chinese for _, chinese in unseen], ended.stderr


def test_bleu_and_chrf_and_a_table_come_with_each_evaluation_and_reach_mlflow(trained: Workplace) -> None:
    done = trained.result["metrics"]
    assert done["val/bleu"] == pytest.approx(100) and done["val/chrf"] == pytest.approx(100)
    pages = sorted(path.name for path in (trained.run / "shown").iterdir())
    assert len(pages) == 3
    table = (trained.run / "shown" / pages[-1]).read_text().splitlines()
    assert table[:2] == ["| source | translation | reference |", "|---|---|---|"] and len(table) == 14
    source, translation, reference = (cell.strip() for cell in table[2].strip("|").split("|"))
    assert (source, reference) in own_pairs() and translation == reference
    artifacts = [path.name for path in (trained.folder / "mlruns").rglob("step-*.md")]
    assert sorted(artifacts) == pages
    with sqlite3.connect(trained.folder / "mlflow.db") as database:
        keys = {key for (key,) in database.execute("select distinct key from metrics")}
    assert {"val/bleu", "val/chrf", "val/right_tokens"} <= keys


@pytest.mark.parametrize("language", ["zh", "de"])
def test_counts_added_over_batches_and_ranks_come_to_what_sacrebleu_gives_for_the_whole(language: str) -> None:
    references = [chinese if language == "zh" else english for english, chinese in own_pairs()]
    translations = [*references[:60], *references[65:], *references[60:65]]
    batches = [slice(0, 7), slice(7, 100), slice(100, None)]
    parts = [counts(translations[batch], references[batch], language) for batch in batches]
    found = scores([float(sum(numbers)) for numbers in zip(*parts, strict=True)], len(references))
    bleu, chrf = BLEU(tokenize="zh" if language == "zh" else "13a"), CHRF()
    assert found["bleu"] == pytest.approx(bleu.corpus_score(translations, [references]).score, rel=1e-12)
    assert found["chrf"] == pytest.approx(chrf.corpus_score(translations, [references]).score, rel=1e-12)
    assert 5 < found["bleu"] < 95


def test_how_the_beams_grew_is_a_picture(trained: Workplace) -> None:
    ended = translate(
        trained, "en_zh", "--beam", "3", "--length", "gnmt", "--alpha", "0.6", "--show-beams", "You love us."
    )
    lines = ended.stdout.splitlines()
    assert lines[0].split() == ["token", "beam", "1", "beam", "2", "beam", "3"]
    assert lines[-1] == "你爱我们。" and any(line.startswith("■ 你爱我们。  score -0.0") for line in lines)
    assert "█" in lines[1] and "你" in lines[1]


def test_a_sweep_finds_a_cell_and_logs_its_picture_to_the_run(trained: Workplace) -> None:
    ended = translate(trained, "en_zh", "--sweep")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("bleu of the part for development, beam 4, length gnmt\n   alpha  beta 0.0")
    (found,) = (trained.folder / "mlruns").rglob("sweep.json")
    facts = json.loads(found.read_text())
    assert len(facts["table"]) == 4 and facts["dev"] == max(map(max, facts["table"]))
    assert facts["test"]["greedy"]["bleu"] == pytest.approx(100)
    assert (found.parent / "alpha_beta.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--beam", "0", "x"], "a beam of 0: write 1 (greedy), or more"),
        (["--alpha", "0.6", "x"], "alpha is 0.6, and lengths do not count: write length power or gnmt"),
        (["I love you.", " "], "sentence 2 is empty: write some words"),
        (["love" + " love" * 199], "sentence 1 has 201 tokens, and the model 128 positions: split it"),
    ],
)
def test_bad_input_is_told_in_one_line(trained: Workplace, words: list[str], told: str) -> None:
    ended = translate(trained, "en_zh", *words)
    assert (ended.returncode, ended.stderr) == (2, f"translate.py: {told}\n")


def test_an_unknown_sign_is_told_and_the_rest_is_translated(trained: Workplace) -> None:
    ended = translate(trained, "en_zh", "I love ☃.")
    assert ended.stderr == "translate.py: no token holds '☃': it is read as unknown\n" and ended.stdout.strip()


def test_another_tokenizer_than_the_runs_is_refused(trained: Workplace) -> None:
    folder = text_of(trained)
    own = (folder / "tokenizer.json").read_bytes()
    try:
        (folder / "tokenizer.json").write_bytes(own.replace(b"<unk>", b"<unc>"))
        ended = translate(trained, "en_zh", "I love you.")
    finally:
        (folder / "tokenizer.json").write_bytes(own)
    assert ended.returncode == 2 and "tokenizer.json: is not what this run was trained with" in ended.stderr


def test_it_trains_the_same_model_on_any_topology(tmp_path: Path) -> None:
    """Grouped by length, without dropout, whose masks hang on the rank."""
    settings = ("model.args.dropout=0.0", "model.args.width=32", "model.args.feed_forward=64")
    place = place_at(tmp_path / "recipe", *SMALL, *settings)
    assert place.orchestrate("stage").returncode == 0
    ended = place.orchestrate("verify-topology", "--worlds", "1,2")
    assert ended.returncode == 0 and "holds      6 of 6 topologies" in ended.stdout, ended.stdout + ended.stderr
