"""MLflow down, killed, refusing or stalling: everything arrives, once, and nothing blocks for ever."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.files import read_json
from orchestrator.run_dir import RunDir
from orchestrator.tracking.forwarder import Forwarder, GaveUp
from orchestrator.tracking.journal import Journal
from tests.support.forwarding import Store, at_work, cursor_of, exactly, forward, wait_until
from tests.support.mlflow_server import MlflowServer
from tests.support.refusing_mlflow import RefusingMlflow, refusing_mlflow
from tests.support.run_dirs import end_attempt, make_run_dir, start_attempt


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture
def refusing(tmp_path: Path) -> Iterator[tuple[RunDir, RefusingMlflow]]:
    """A run with one point, and the server it is tracked on."""
    with refusing_mlflow(tmp_path / "artifacts") as (url, mlflow):
        run = make_run_dir(tmp_path / "run", uri=url)
        start_attempt(run)
        with Journal(run.path, attempt=0, node="n", rank=0) as journal:
            journal.metrics(1, {"loss": 0.5})
        yield run, mlflow


def drain(run: RunDir) -> None:
    """Drain in this process, without patience."""
    Forwarder(run, patience_s=0.0, pause=lambda _: False, say=lambda _: None).drain()


def artifacts_of(run_id: str, server: MlflowServer) -> set[str]:
    """The files in `config/` that the server lists for its user interface."""
    listing = f"{server.url}/api/2.0/mlflow/artifacts/list?run_id={run_id}&path=config"
    with urllib.request.urlopen(listing, timeout=30) as answer:
        return {file["path"] for file in json.load(answer)["files"]}


def test_what_was_written_while_the_server_was_away_arrives_exactly_once(tmp_path: Path, server: MlflowServer) -> None:
    run = make_run_dir(tmp_path / "run", uri=server.url)
    attempt = start_attempt(run)
    done = forward(run, "--drain", "--timeout-s=0.5")
    assert done.returncode == 4
    assert "MLflow could not be reached within 0.5 s; the journal keeps everything" in done.stderr
    assert "Traceback" not in done.stderr

    expected: dict[tuple[str, int], float] = {}
    with Journal(run.path, attempt=0, node="node1", rank=0) as journal, at_work(run, "--follow"):

        def train(steps: range) -> None:
            for step in steps:
                journal.metrics(step, {"train/loss": 1.0 / (step + 1), "train/lr": 0.1 * step})
                expected.update({("train/loss", step): 1.0 / (step + 1), ("train/lr", step): 0.1 * step})
            assert journal.flush()

        train(range(1000))
        server.start()
        wait_until(lambda: cursor_of(run)["points"] >= 2000)
        train(range(1000, 2000))
        wait_until(lambda: cursor_of(run)["points"] > 2000)
        server.kill()
        train(range(2000, 3000))
        server.start()
        wait_until(lambda: cursor_of(run)["points"] == 6000)
        end_attempt(attempt)
        wait_until(lambda: cursor_of(run)["complete"])

    store = Store(server.db, run)
    assert store.points == exactly(expected)
    assert (store.status, store.num_runs(read_json(run.run)["uid"])) == ("FINISHED", 1)
    assert artifacts_of(store.run_id, server) == {"config/recipe.yaml", "config/plan.json", "config/job.sh"}
    log = (run.forward / "forward.log").read_text()
    assert log.count("cannot be reached, trying again") == log.count("answers again") + 1


def test_what_was_written_without_a_server_is_shown_by_one(tmp_path: Path, server: MlflowServer) -> None:
    run = make_run_dir(tmp_path / "run", uri=f"sqlite:///{server.db}", experiment="local")
    drain(run)
    if not server.answers():
        server.start()
    shown = artifacts_of(read_json(run.mlflow)["run_id"], server)
    assert shown == {"config/recipe.yaml", "config/plan.json", "config/job.sh"}


def test_a_refused_point_is_set_aside_and_the_others_arrive(refusing: tuple[RunDir, RefusingMlflow]) -> None:
    run, mlflow = refusing
    with Journal(run.path, attempt=0, node="n", rank=1) as journal:
        for step in range(50):
            journal.metrics(step, {"good": 1.0, **({"bad": 2.0} if step in (7, 31) else {})})
    mlflow.refused_key = "bad"
    drain(run)
    assert sorted(metric["step"] for metric in mlflow.metrics if metric["key"] == "good") == list(range(50))
    assert {key: cursor_of(run)[key] for key in ("points", "rejected")} == {"points": 51, "rejected": 2}
    refused = [json.loads(line) for line in (run.forward / "rejected.log").read_text().splitlines()]
    assert len(refused) == 2
    assert "no bad, please" in refused[0]["why"]
    assert "step=7" in refused[0]["refused"]


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        ((403, "Invalid Host header - possible DNS rebinding attack detected"), "--allowed-hosts"),
        ((500, '{"error_code": "INTERNAL_ERROR", "message": "sorry"}'), "500"),
        ((503, "Service Unavailable"), "503"),
        ((401, "Unauthorized"), "401"),
        ((404, "<html>not MLflow</html>"), "404"),
    ],
)
def test_a_server_that_fails_is_waited_for_and_loses_nothing(
    refusing: tuple[RunDir, RefusingMlflow], failure: tuple[int, str], told: str
) -> None:
    run, mlflow = refusing
    drain(run)
    with Journal(run.path, attempt=0, node="n", rank=1) as journal:
        journal.metrics(1, {"later": 1.0})
    mlflow.failure = failure
    with pytest.raises(GaveUp, match=told):
        drain(run)
    assert cursor_of(run)["rejected"] == 0
    mlflow.failure = None
    drain(run)
    assert [metric["key"] for metric in mlflow.metrics] == ["loss", "later"]


def test_a_run_that_a_stalled_server_made_twice_becomes_one(refusing: tuple[RunDir, RefusingMlflow]) -> None:
    run, mlflow = refusing
    drain(run)
    mlflow.runs.append("b" * 32)
    end_attempt(run.attempt(0))
    drain(run)
    assert mlflow.runs == [read_json(run.mlflow)["run_id"]]


def test_another_store_gets_all_of_the_run_again(refusing: tuple[RunDir, RefusingMlflow], tmp_path: Path) -> None:
    run, _ = refusing
    drain(run)
    with refusing_mlflow(tmp_path / "other") as (url, other):
        identity = read_json(run.run)
        identity["tracking"]["uri"] = url
        run.run.write_text(json.dumps(identity))
        other.runs.append("c" * 32)
        drain(run)
        assert [metric["key"] for metric in other.metrics] == ["loss"]
        assert read_json(run.mlflow)["run_id"] == "c" * 32


def test_a_resumed_run_is_not_complete_even_while_mlflow_is_away(refusing: tuple[RunDir, RefusingMlflow]) -> None:
    run, mlflow = refusing
    end_attempt(run.attempt(0))
    drain(run)
    assert cursor_of(run)["complete"]
    start_attempt(run)
    mlflow.failure = (503, "Service Unavailable")
    with pytest.raises(GaveUp):
        drain(run)
    assert not cursor_of(run)["complete"]
