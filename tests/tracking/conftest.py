"""One sqlite store for all runs of this room: setting up a fresh one costs seconds of CPU."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.run_dir import RunDir
from tests.support.run_dirs import make_run_dir


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "mlflow.db"


@pytest.fixture
def new_run(database: Path, tmp_path: Path) -> Callable[..., RunDir]:
    """Make a run directory that is tracked in the shared store."""

    def make(name: str = "digits-ffffffff", **options: object) -> RunDir:
        return make_run_dir(tmp_path / name, uri=f"sqlite:///{database}", **options)  # type: ignore[arg-type]

    return make
