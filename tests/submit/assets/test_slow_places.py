"""Places that are slow, silent or down, and two processes at once: nobody waits for minutes without a word."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.errors import RecipeError
from orchestrator.recipe.read import read_recipe
from orchestrator.submit.assets import fetch_file, fetch_git
from orchestrator.submit.assets.cache import cache_at
from orchestrator.submit.assets.fetch_hub import hub_environment
from orchestrator.submit.assets.stage import stage
from tests.support.asset_recipes import recipe_with, refusal
from tests.support.hub_mirror import COMMIT, HubMirror, Repository
from tests.support.raw_server import raw_server

TEXT = b"one two three\n" * 100_000
SHA256 = hashlib.sha256(TEXT).hexdigest()
IMPATIENT = """
import sys
from orchestrator.submit.assets import hub_download
hub_download.SILENCE_S = 2.0
sys.exit(hub_download.main(sys.argv[1:]))
"""


def test_a_hub_that_stops_in_the_middle_of_a_file_is_given_up_after_the_silence_however_often_the_client_retries(
    tmp_path: Path, mirror: HubMirror
) -> None:
    mirror.holds["config.json"] = threading.Event()
    environment = hub_environment({**os.environ, "HF_ENDPOINT": mirror.url}, cache_at(None, os.environ))
    argv = (sys.executable, "-c", IMPATIENT, "model", "acme/words", COMMIT, "config.json")
    environment["HF_HUB_DOWNLOAD_TIMEOUT"] = "1"
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    told = json.loads(done.stderr.splitlines()[-1])
    assert told["fault"][1] == f"{mirror.url} is silent for 2 s, or next to it" and told["down"]


def test_a_hub_that_is_down_is_waited_for_once(tmp_path: Path, mirror: HubMirror) -> None:
    mirror.awake.clear()
    assets = [f"a{number}: {{model: acme/words, revision: {COMMIT[:-1]}{number}}}" for number in range(4)]
    told = refusal(recipe_with(tmp_path, *assets, mirror=mirror)).splitlines()[::2]
    silent = f"{mirror.url} does not answer within 5 s"
    assert [line.partition(".model: ")[2] for line in told] == [silent, *3 * [f"not tried: {silent}"]]
    assert len(mirror.asked) == 1


def test_a_file_that_trickles_is_given_up_and_what_has_arrived_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_file, "SILENCE_S", 1.0)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1400000\r\n\r\n"
    with raw_server([head, *(TEXT[i : i + 1] for i in range(1000))], pause_s=0.1) as place:
        told = refusal(recipe_with(tmp_path, f"corpus: {{url: 'http://{place}/x.txt', sha256: {SHA256}}}"))
    assert f"http://{place}/x.txt is too slow: less than 32,768 bytes in 1 s\n    run it again: what has" in told
    (partial,) = cache_at(None, os.environ).root.rglob(".partial")
    assert TEXT.startswith(partial.read_bytes()) and partial.stat().st_size > 5


def test_a_length_that_is_no_number_is_not_heeded(tmp_path: Path) -> None:
    with raw_server([b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nhello"]) as place:
        told = refusal(recipe_with(tmp_path, f"corpus: {{url: 'http://{place}/x.txt', sha256: {SHA256}}}"))
    assert f"holds has the sha256 {hashlib.sha256(b'hello').hexdigest()}" in told


@pytest.mark.parametrize(
    "asset", ["corpus: {{url: '{url}/files/corpus.txt', sha256: {sha}}}", "corpus: {{model: a/b, revision: {c}}}"]
)
def test_of_two_processes_one_fetches_and_the_other_says_that_it_waits(
    tmp_path: Path, mirror: HubMirror, asset: str
) -> None:
    mirror.files["corpus.txt"] = TEXT
    mirror.repositories["a/b"] = Repository({"corpus.txt": TEXT})
    mirror.holds["corpus.txt"] = threading.Event()
    recipe = recipe_with(tmp_path, asset.format(url=mirror.url, sha=SHA256, c=COMMIT), mirror=mirror)
    argv = (sys.executable, "-m", "orchestrator.cli", "stage", str(recipe))
    first = subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stderr is not None and first.stderr.readline().startswith("corpus: fetching")
    second = subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert second.stderr is not None
    assert second.stderr.readline() == "corpus: another process is fetching it; waiting for that one\n"
    mirror.holds["corpus.txt"].set()
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert "fetched" in outputs[0] and "there already" in outputs[1]
    assert len([path for verb, path in mirror.asked if verb == "GET" and path.endswith("corpus.txt")]) == 1


def test_git_tells_how_much_has_arrived_and_is_given_up_when_it_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    counting = "Receiving objects:  45%% (9/20), 1.50 MiB | 1.00 MiB/s\\r"
    program.write_text(f'#!/bin/sh\ncase "$*" in *" fetch "*) printf "{counting}{counting}" >&2; sleep 30;; esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(fetch_git, "_SILENT_S", 1.0)
    recipe = recipe_with(tmp_path, f"tools: {{git: 'https://code.example.org/t.git', commit: {COMMIT}}}")
    seen: list[tuple[str, int, int | None]] = []
    with pytest.raises(RecipeError, match=r"t\.git does not answer within 1 s, or not to the end"):
        stage(read_recipe(recipe), recipe, cache_at(None, os.environ), watch=lambda *told: seen.append(told))
    assert set(seen) == {("tools", 3 * 2**19, None)}
