"""What tuning found in one run, the next one like it begins with; what is not like it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cluster import LOCAL, Cluster
from orchestrator.files import make_private_dir, read_json, write_json
from orchestrator.recipe.read import read_recipe
from orchestrator.run_dir import RunDir
from orchestrator.submit.tuned import begin_tuned
from orchestrator.tuned import Tuned, keep_tuned, read_tuned, share_tuned
from tests.support.command_line import TINY

DIGEST = "d" * 64


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def begin(run: RunDir, *overrides: str, digest: str = DIGEST, cluster: Cluster = LOCAL) -> Tuned | None:
    """What a run is told as it is submitted, or resumed."""
    make_private_dir(run.path)
    begin_tuned(run, read_recipe(TINY, ("loader.workers=2", *overrides)), cluster, code_digest=digest)
    return read_tuned(run.tuned)


@pytest.fixture
def found(tmp_path: Path) -> Tuned:
    """What an earlier run has found, and shared."""
    run = RunDir(tmp_path / "earlier")
    assert begin(run) is None
    keep_tuned(run, Tuned(6, most_workers=8))
    share_tuned(run)
    return Tuned(6)


def test_the_next_run_begins_with_what_was_found(tmp_path: Path, found: Tuned, cache: Path) -> None:
    """But that a process was killed is the earlier run's own story."""
    assert begin(RunDir(tmp_path / "next")) == found
    assert (
        begin(RunDir(tmp_path / "named"), "name=other", "tracking.sample_ids=true", "resources.walltime=4:00:00")
        == found
    )
    (kept,) = (cache / "orchestrate" / "tuned").iterdir()
    assert kept.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "override",
    [
        "loader.workers=3",
        "loader.prefetch=4",
        "precision=bf16",
        "resources.gpus_per_node=2",
        "batch.effective=32",
        "env.variables.OMP_NUM_THREADS=1",
    ],
)
def test_another_loader_step_or_allocation_begins_as_its_recipe_says(
    tmp_path: Path, found: Tuned, override: str
) -> None:
    assert begin(RunDir(tmp_path / "other"), override) is None


def test_other_code_and_another_cluster_begin_as_the_recipe_says(tmp_path: Path, found: Tuned) -> None:
    assert begin(RunDir(tmp_path / "other"), digest="e" * 64) is None
    assert begin(RunDir(tmp_path / "there"), cluster=LOCAL.model_copy(update={"name": "there"})) is None


@pytest.mark.parametrize("mode", ["off", "suggest"])
def test_a_run_that_is_not_tuned_is_told_nothing(tmp_path: Path, found: Tuned, mode: str) -> None:
    run = RunDir(tmp_path / "other")
    assert begin(run, f"tuning.workers={mode}") is None and not run.tuned_store.exists()


def test_a_resume_goes_on_with_what_its_own_attempts_have_found(tmp_path: Path, found: Tuned) -> None:
    run, own = RunDir(tmp_path / "run"), Tuned(9, most_workers=12)
    begin(run)
    keep_tuned(run, own)
    assert begin(run) == begin(run, "resources.num_nodes=2", "resources.walltime=4:00:00") == own
    assert begin(run, "loader.workers=4") is None, "somebody wants to begin there"


def test_a_user_without_a_home_keeps_it_in_the_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    run, own = RunDir(tmp_path / "run"), Tuned(5)
    assert begin(run) is None
    keep_tuned(run, own)
    share_tuned(run)
    assert begin(run) == own


def test_what_cannot_be_kept_or_read_stops_nothing(tmp_path: Path, cache: Path) -> None:
    run = RunDir(tmp_path / "run")
    begin(run)
    share_tuned(run)
    assert not cache.exists(), "nothing was found yet"
    for nonsense in ({"workers": "6"}, {"workers": -1}, {"workers": True}, {"other": 1}, [6], 6):
        write_json(run.tuned, nonsense)
        assert read_tuned(run.tuned) is None
    run.tuned.write_text("{")
    assert read_tuned(run.tuned) is None
    keep_tuned(run, Tuned(3))
    cache.write_text("a file where a folder should be")
    share_tuned(run)
    assert read_json(run.tuned) == {"workers": 3, "most_workers": 32, "prefetch": 2}
