"""The whole way with a real tokenizer and a real encoder, and the refusals where there is no hub."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from pathlib import Path

from tests.recipes.closed_network.own_run import RECIPE, place_at, repository
from tests.recipes.workplace import Workplace

NOBODY = "http://127.0.0.1:9"
VOCABULARY = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
"""The sha256 of bert-base-uncased's vocab.txt."""


def test_offline_the_frozen_encoder_is_far_above_the_largest_class(trained: Workplace) -> None:
    """0.83 after one epoch; the largest class is 0.40, and the same encoder with random weights comes to 0.72."""
    texts = Path(trained.environment["ORCHESTRATE_ASSET_TEXTS"])
    held_out = [line.split("\t")[0] for line in (texts / "held_out.tsv").read_text().splitlines()]
    largest = max(Counter(held_out).values()) / len(held_out)
    assert len(held_out) == 1000 and 0.2 < largest < 0.45
    assert trained.result["step"] == 94
    assert trained.result["metrics"]["val/accuracy"] >= largest + 0.36


def test_the_job_asks_no_hub_and_reads_what_was_staged(trained: Workplace) -> None:
    assert trained.environment["HF_HUB_OFFLINE"] == "1"
    for asset in ("tokenizer", "encoder"):
        name, commit = repository(asset)
        folder = Path(trained.environment[f"ORCHESTRATE_ASSET_{asset.upper()}"])
        assert folder.parts[-3:] == (f"models--{name.replace('/', '--')}", "snapshots", commit)
    encoder = Path(trained.environment["ORCHESTRATE_ASSET_ENCODER"])
    assert sorted(path.name for path in encoder.iterdir()) == ["config.json", "model.safetensors"]
    vocabulary = Path(trained.environment["ORCHESTRATE_ASSET_TOKENIZER"], "vocab.txt")
    assert hashlib.sha256(vocabulary.read_bytes()).hexdigest() == VOCABULARY


def test_every_section_is_in_both_parts_and_no_text_is_in_two(trained: Workplace) -> None:
    folder = Path(trained.environment["ORCHESTRATE_ASSET_TEXTS"])
    sections = (folder / "sections.txt").read_text().split()
    parts = [
        [line.split("\t") for line in (folder / f"{part}.tsv").read_text().splitlines()]
        for part in ("train", "held_out")
    ]
    assert [len(rows) for rows in parts] == [6000, 1000]
    assert all({section for section, _ in rows} == set(sections) for rows in parts)
    assert len({text for rows in parts for _, text in rows}) == 7000


def test_without_a_hub_it_is_refused_before_anything_is_submitted(tmp_path: Path) -> None:
    place = place_at(tmp_path / "recipe", hub=NOBODY)
    refused = place.orchestrate("submit", "--wait")
    assert refused.returncode == 2 and not (place.folder / "runs").exists()
    stage = "orchestrate stage closed_network.yaml"
    silent = f"not staged, and {NOBODY} does not answer: Connection refused"
    fix = f"    set env.mirrors.huggingface, or HF_ENDPOINT, to a hub that answers; then run: {stage}"
    told = refused.stderr.splitlines()
    assert [line.partition(" assets.")[2] or line for line in told] == [
        *(f"tokenizer: {silent}", fix),
        *(f"encoder: {silent}", fix),
        *("homeassistant: not staged", f"    run: {stage}"),
        *("texts: not staged", f"    run: {stage}"),
        "4 problems",
    ]
    shown = "".join(f"    {line}\n" for line in told[:2]).replace(NOBODY, "https://...")
    assert shown in (RECIPE / "README.md").read_text()


def test_staging_from_a_hub_that_is_down_says_so_within_seconds(tmp_path: Path) -> None:
    place = place_at(tmp_path / "recipe", hub=NOBODY)
    nothing_there = {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    begun = time.monotonic()
    refused = place.orchestrate("stage", **nothing_there)
    assert time.monotonic() - begun < 20, "the hub's own client tries again for a minute"
    assert refused.returncode == 2 and list(place.folder.glob("*.lock.json")) == []
    told = [line.partition(" assets.")[2] for line in refused.stderr.splitlines() if " assets." in line]
    assert told[:2] == [
        f"tokenizer.tokenizer: {NOBODY} does not answer: Connection refused",
        f"encoder.model: not tried: {NOBODY} does not answer: Connection refused",
    ]
    assert [line.partition(".")[0] for line in told] == ["tokenizer", "encoder", "homeassistant"]
