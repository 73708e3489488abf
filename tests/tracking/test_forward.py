"""The forwarder against a real sqlite store: what arrives, exactly once, whoever is killed."""

import random
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.files import encode_record, make_private_dir, read_json, write_atomically, write_json
from orchestrator.run_dir import RunDir
from orchestrator.tracking.forwarder import Forwarder, GaveUp
from orchestrator.tracking.journal import Journal
from tests.support.forwarding import Store, at_work, cursor_of, exactly, forward, forwarder_command, wait_until
from tests.support.run_dirs import RECIPE, end_attempt, make_run_dir, start_attempt

NewRun = Callable[..., RunDir]


def forwarder(run: RunDir, said: list[str] | None = None, patience_s: float = 0.0) -> Forwarder:
    """A forwarder in this process: what it does is the same, and MLflow is imported once."""
    return Forwarder(run, patience_s=patience_s, pause=lambda _: False, say=(said if said is not None else []).append)


def write_metrics(
    run: RunDir, steps: range, *, attempt: int = 0, rank: int = 0, scale: float = 1.0
) -> dict[tuple[str, int], float]:
    """Two metrics per step in a rank's journal; returns them as (key, step) -> value."""
    written: dict[tuple[str, int], float] = {}
    with Journal(run.path, attempt=attempt, node=f"node{rank}", rank=rank) as journal:
        for step in steps:
            values = {f"rank{rank}/loss": scale / (step + 1), f"rank{rank}/lr": scale * step}
            journal.metrics(step, values)
            written |= {(key, step): value for key, value in values.items()}
    return written


def test_a_run_is_told_from_its_creation_to_its_end(new_run: NewRun, database: Path) -> None:
    run = new_run(created_at=1_000_000.0)
    forwarder(run).create()
    store = Store(database, run)
    assert store.status == "SCHEDULED"
    assert store.params["optimizer.lr"] == "0.001"
    assert store.params["model.args.hidden.0"] == "64"
    assert store.params["plan.topology.world_size"] == "2"
    assert (store.artifacts / "config/job.sh").read_text() == run.job_script.read_text()
    assert (store.artifacts / "config/recipe.yaml").exists()
    assert (store.artifacts / "environment/pip-freeze.txt").exists()

    attempt = start_attempt(run)
    expected: dict[tuple[str, int], float] = {}
    for rank in range(3):
        expected |= write_metrics(run, range(400), rank=rank)
    with Journal(run.path, attempt=0, node="node1", rank=None) as journal:
        journal.system({"cpu_percent": 25.0})
        journal.tags({"gpu.name": "none"})
    make_private_dir(run.shown)
    (run.shown / "step-00000100.md").write_text("| You love me. | 你爱我。 |\n")
    forwarder(run).drain()
    assert (store.artifacts / "shown/step-00000100.md").read_text() == "| You love me. | 你爱我。 |\n"
    assert store.status == "RUNNING"
    assert not cursor_of(run)["complete"]

    end_attempt(attempt)
    forwarder(run).drain()
    assert store.status == "FINISHED"
    assert {key: cursor_of(run)[key] for key in ("complete", "points", "rejected")} == {
        "complete": True, "points": 3 * 400 * 2 + 1, "rejected": 0,
    }  # fmt: skip
    system = {point: times for point, times in store.points.items() if point[0].startswith("system/")}
    assert [(key, value) for key, _, value in system] == [("system/node1/cpu_percent", 25.0)]
    assert store.points - type(store.points)(system) == exactly(expected)
    assert min(store.times.values()) > 1_000_000_000
    tags = store.tags
    assert tags["orchestrate.run_uid"] == read_json(run.run)["uid"]
    assert tags["mlflow.runName"] == run.path.name
    assert tags["mlflow.user"] == "ada"
    assert tags["mlflow.source.git.commit"] == "c" * 40
    assert tags["slurm.job_id"] == "41"
    assert tags["orchestrate.nodes"] == "node1,node2"
    assert tags["orchestrate.hosts"] == "login1,node1.cluster,node2.cluster"
    assert (tags["orchestrate.attempt"], tags["orchestrate.outcome"]) == ("0", "done")
    assert tags["gpu.name"] == "none"
    assert (store.artifacts / "logs/rank-0.log").read_text() == "first line\nlast line\n"
    assert (store.artifacts / "attempts/000/verdict.json").exists()
    assert store.artifacts.is_relative_to(database.parent)
    assert stat.S_IMODE(database.stat().st_mode) == 0o600


def test_creating_a_run_twice_makes_one(new_run: NewRun, database: Path) -> None:
    run = new_run()
    forwarder(run).create()
    first = read_json(run.mlflow)
    run.mlflow.unlink()
    forwarder(run).create()
    assert read_json(run.mlflow) == first
    assert Store(database, run).num_runs(read_json(run.run)["uid"]) == 1


def test_a_resumed_run_goes_on_in_place_and_sends_no_step_twice(new_run: NewRun, database: Path) -> None:
    run = new_run()
    attempt = start_attempt(run)
    expected = write_metrics(run, range(100))
    end_attempt(attempt, "stopped")
    forwarder(run).drain()
    store = Store(database, run)
    assert store.status == "KILLED"
    assert cursor_of(run)["complete"]

    write_json(run.plan, {"topology": {"world_size": 4}})
    forwarder(run).create()
    assert store.status == "SCHEDULED"
    assert not cursor_of(run)["complete"]
    assert store.params["plan.topology.world_size"] == "2"
    assert store.tags["orchestrate.param_changed.plan.topology.world_size"] == "4"

    attempt = start_attempt(run)
    replayed = write_metrics(run, range(80, 150), attempt=1, scale=7.0)
    forwarder(run).drain()
    assert store.status == "RUNNING"
    end_attempt(attempt, "failed")
    forwarder(run).drain()
    assert store.status == "FAILED"
    assert store.tags["orchestrate.attempt"] == "1"
    assert store.points == exactly(expected | {at: value for at, value in replayed.items() if at[1] >= 100})


def test_a_run_cancelled_before_it_started_is_killed(new_run: NewRun, database: Path) -> None:
    run = new_run()
    forwarder(run).create()
    write_json(run.cancel, {"requested_at": 1_700_000_000.0})
    forwarder(run).drain()
    assert Store(database, run).status == "KILLED"
    assert cursor_of(run)["complete"]


def test_damaged_lines_are_skipped_and_counted_and_an_unfinished_one_waits(new_run: NewRun, database: Path) -> None:
    run = new_run()
    start_attempt(run)
    expected = write_metrics(run, range(3))
    path = run.journal / "000.node0.rank-0.log"
    last = encode_record({"kind": "metrics", "time_ms": 1, "step": 3, "values": {"late": 1.0}})
    with path.open("ab") as file:
        file.write(b'0badbad0 {"kind":"metrics"}\n' + last[:20] + b"\n" + last[:30])
    forwarder(run).drain()
    assert Store(database, run).points == exactly(expected)
    assert cursor_of(run)["damaged"] == 2
    with path.open("ab") as file:
        file.write(last[30:])
    forwarder(run).drain()
    assert Store(database, run).points == exactly(expected | {("late", 3): 1.0})


def test_long_values_are_cut_with_a_mark(new_run: NewRun, database: Path) -> None:
    run = new_run(recipe=RECIPE | {"model": {"target": "model:make", "args": {"text": "x" * 7000}}})
    forwarder(run).create()
    value = Store(database, run).params["model.args.text"]
    assert len(value) == 6000
    assert value.endswith("[cut]")


CANARIES = {
    "shape": "hf_CanaryCanaryCanary1",
    "key": "canary-under-a-key",
    "value": "canary-of-the-environment",
    "url": "canary-in-a-url",
    "log": "canary-in-a-log",
    "script": "canary-in-a-script",
    "tag": "ghp_CanaryCanaryCanaryCanary1",
}


def test_no_secret_reaches_the_store(new_run: NewRun, database: Path) -> None:
    args = {
        "mirror": f"https://ada:{CANARIES['url']}@host/x",
        "api_key": CANARIES["key"],
        "note": f"uses {CANARIES['shape']} and {CANARIES['value']}",
    }
    recipe = RECIPE | {"model": {"target": "model:make", "args": args}}
    run = new_run(recipe=recipe, environment={"PLAIN_NAME": CANARIES["value"]})
    script = f"export HF_TOKEN={CANARIES['script']}\nexec python --password {CANARIES['script']}\n"
    write_atomically(run.job_script, script)
    attempt = start_attempt(run)
    log = f"{CANARIES['value']}\nlogin with secret={CANARIES['log']}\nTraceback: {CANARIES['shape']}\n"
    write_atomically(attempt.rank_log(0), log)
    with Journal(run.path, attempt=0, node="n", rank=0) as journal:
        journal.tags({"from": CANARIES["tag"], "my_secret": CANARIES["key"]})
    end_attempt(attempt)
    forwarder(run).drain()

    store = Store(database, run)
    stored = [path for path in store.artifacts.rglob("*") if path.is_file()]
    assert {path.name for path in stored} >= {"recipe.yaml", "job.sh", "rank-0.log"}
    for path in [database, *stored, run.forward / "mlflow.json"]:
        content = path.read_bytes()
        for name, canary in CANARIES.items():
            assert canary.encode() not in content, f"{name} in {path}"


def test_a_deleted_run_is_waited_for_instead_of_losing_its_points(new_run: NewRun, database: Path) -> None:
    run = new_run()
    start_attempt(run)
    forwarder(run).create()
    store = Store(database, run)
    sink = forwarder(run)
    sink.create()
    sink._sink._client.delete_run(store.run_id)
    expected = write_metrics(run, range(10))
    said: list[str] = []
    with pytest.raises(GaveUp, match="was deleted: restore it"):
        forwarder(run, said).drain()
    sink._sink._client.restore_run(store.run_id)
    forwarder(run).drain()
    assert store.points == exactly(expected)


def test_a_store_that_mlflow_refuses_is_told_in_one_line(tmp_path: Path) -> None:
    run = make_run_dir(tmp_path / "run", uri=f"file://{tmp_path}/mlruns")
    said: list[str] = []
    with pytest.raises(GaveUp, match="maintenance mode"):
        forwarder(run, said).create()
    assert len(said) == 1


def test_killed_at_any_moment_it_sends_every_point_exactly_once(new_run: NewRun, database: Path) -> None:
    run = new_run()
    attempt = start_attempt(run)
    expected: dict[tuple[str, int], float] = {}
    for rank in range(3):
        expected |= write_metrics(run, range(2500), rank=rank)
    chance = random.Random(3)
    for _ in range(5):
        before = cursor_of(run)["points"]
        with at_work(run, "--drain") as process:
            wait_until(lambda: cursor_of(run)["points"] > before)  # noqa: B023
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.0, 0.2))
            process.kill()
    end_attempt(attempt)
    forwarder(run).drain()
    assert Store(database, run).points == exactly(expected)
    assert cursor_of(run)["points"] == len(expected)


def test_one_run_has_one_forwarder_which_ends_by_itself_or_when_asked(new_run: NewRun, database: Path) -> None:
    run = new_run()
    attempt = start_attempt(run)
    with at_work(run, "--follow") as first:
        wait_until(run.mlflow.exists)
        second = forward(run, "--follow")
        assert second.returncode == 3
        assert f"another forwarder is at work on this run: process {first.pid} on" in second.stderr
        assert len(second.stderr.splitlines()) == 1
        first.send_signal(signal.SIGTERM)
        assert first.wait(20) == 0
    with at_work(run, "--follow") as third:
        expected = write_metrics(run, range(50))
        wait_until(lambda: cursor_of(run)["points"] == len(expected))
        end_attempt(attempt)
        assert third.wait(20) == 0
    assert cursor_of(run)["complete"]
    assert Store(database, run).status == "FINISHED"


def test_where_another_job_goes_on_the_forwarder_sends_all_and_ends_with_its_own(
    new_run: NewRun, database: Path
) -> None:
    """A driver waits for it, in a job that Slurm is about to end."""
    run = new_run()
    attempt = start_attempt(run)
    with at_work(run, "--follow") as process:
        expected = write_metrics(run, range(50))
        end_attempt(attempt, "preempted", final=False, successor="17")
        assert process.wait(20) == 0
    assert Store(database, run).points == exactly(expected)
    assert Store(database, run).status == "RUNNING" and not cursor_of(run)["complete"]

    start_attempt(run)
    with at_work(run, "--follow") as process:
        expected |= write_metrics(run, range(50, 60), attempt=1)
        wait_until(lambda: cursor_of(run)["points"] == len(expected))
        assert process.poll() is None
        end_attempt(run.last_attempt())
        assert process.wait(20) == 0
    assert Store(database, run).points == exactly(expected)
    assert Store(database, run).status == "FINISHED"


def test_four_runs_share_one_fresh_database(tmp_path: Path) -> None:
    database = tmp_path / "new" / "mlflow.db"
    runs = [make_run_dir(tmp_path / f"run{number}", uri=f"sqlite:///{database}") for number in range(4)]
    expected = [write_metrics(run, range(200), scale=number + 1.0) for number, run in enumerate(runs)]
    for run in runs:
        end_attempt(start_attempt(run))
    processes = [
        subprocess.Popen(forwarder_command(run, "--drain"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for run in runs
    ]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out == "400 of 400 points are in MLflow; the run is complete\n"
    for run, points in zip(runs, expected, strict=True):
        assert Store(database, run).points == exactly(points)


def test_a_folder_that_is_no_run_is_refused_in_two_lines(tmp_path: Path) -> None:
    done = forward(RunDir(tmp_path), "--create")
    assert done.returncode == 2
    assert "is not the identity of a run" in done.stderr
    assert "Traceback" not in done.stderr
