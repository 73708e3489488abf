"""The journal: what is written, what happens when it cannot be, and that training never notices."""

import math
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.files import read_records
from orchestrator.run_dir import RunDir
from orchestrator.tracking import journal as journal_module
from orchestrator.tracking.journal import Journal, journal_files, read_journal_dir
from orchestrator.tracking.records import each_step


def records_of(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    return [record for _, record in read_journal_dir(run_dir) if record["kind"] == kind]


def steps_of(run_dir: Path) -> list[int]:
    return [record["step"] for record in records_of(run_dir, "metrics")]


def run_script(script: str, run_dir: Path) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-W", "error", "-c", script, str(run_dir))
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_rank_writes_a_start_and_then_what_it_is_told(tmp_path: Path) -> None:
    before_ms = time.time_ns() // 1_000_000
    with Journal(tmp_path, attempt=2, node="node1.cluster", rank=3) as journal:
        journal.metrics(7, {"train/loss": 0.5, "progress/samples": 448})
        journal.tags({"phase": "warm"})
        journal.event("saved", {"step": 7})
        journal.window(7, [[1, 2], [3]])

    file, start = next(read_journal_dir(tmp_path))
    assert (file.attempt, file.node, file.rank) == (2, "node1.cluster", 3)
    assert file.path.name == "002.node1.cluster.rank-3.log"
    assert {key: start[key] for key in ("schema", "attempt", "node", "rank", "pid")} == {
        "schema": 1, "attempt": 2, "node": "node1.cluster", "rank": 3, "pid": os.getpid(),
    }  # fmt: skip
    (metrics,) = records_of(tmp_path, "metrics")
    assert metrics["step"] == 7
    assert metrics["values"] == {"train/loss": 0.5, "progress/samples": 448}
    assert before_ms <= metrics["time_ms"] <= time.time_ns() // 1_000_000
    assert records_of(tmp_path, "tags")[0]["values"] == {"phase": "warm"}
    assert records_of(tmp_path, "event")[0]["detail"] == {"step": 7}
    assert records_of(tmp_path, "window")[0]["micro_batches"] == [[1, 2], [3]]


def test_a_supervisor_writes_the_node_file(tmp_path: Path) -> None:
    with Journal(tmp_path, attempt=0, node="node1", rank=None) as journal:
        journal.system({"cpu_percent": 12.5})
    (file,) = journal_files(tmp_path)
    assert (file.path.name, file.rank) == ("000.node1.node.log", -1)
    assert records_of(tmp_path, "system")[0]["values"] == {"cpu_percent": 12.5}


def test_numbers_that_json_has_not_are_written_as_words(tmp_path: Path) -> None:
    with Journal(tmp_path, attempt=0, node="n", rank=0) as journal:
        journal.metrics(1, {"a": math.nan, "b": math.inf, "c": -math.inf})
    assert records_of(tmp_path, "metrics")[0]["values"] == {"a": "nan", "b": "inf", "c": "-inf"}


def test_values_are_taken_as_they_are_at_the_call(tmp_path: Path) -> None:
    values = {"train/loss": 1.0}
    with Journal(tmp_path, attempt=0, node="n", rank=0) as journal:
        journal.metrics(1, values)
        values["train/loss"] = 2.0
    assert records_of(tmp_path, "metrics")[0]["values"] == {"train/loss": 1.0}


def test_files_are_private(tmp_path: Path) -> None:
    Journal(tmp_path / "run", attempt=0, node="n", rank=0).close()
    (file,) = journal_files(tmp_path / "run")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_a_second_start_of_the_same_rank_gets_a_file_of_its_own(tmp_path: Path) -> None:
    for step in (1, 2):
        with Journal(tmp_path, attempt=0, node="n", rank=0) as journal:
            journal.metrics(step, {"a": 1.0})
    assert [file.path.name for file in journal_files(tmp_path)] == ["000.n.rank-0.1.log", "000.n.rank-0.log"]
    assert sorted(steps_of(tmp_path)) == [1, 2]


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    directory = RunDir(tmp_path).journal
    directory.mkdir(mode=0o700)
    (directory / "000.n.rank-0.log").symlink_to(victim)
    Journal(tmp_path, attempt=0, node="n", rank=0).close()
    assert victim.read_text() == "mine"


def test_flush_returns_when_all_records_are_in_the_file(tmp_path: Path) -> None:
    with Journal(tmp_path, attempt=0, node="n", rank=0) as journal:
        for round_number in range(5):
            journal.metrics(round_number, {"a": 1.0})
            assert journal.flush()
            assert steps_of(tmp_path) == list(range(round_number + 1))


def test_records_wait_while_the_journal_cannot_be_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    RunDir(tmp_path).journal.write_text("a file where the folder should be")
    with Journal(tmp_path, attempt=0, node="n", rank=0) as journal:
        for step in range(100):
            journal.metrics(step, {"a": 1.0})
        assert not journal.flush(0.2)
        RunDir(tmp_path).journal.unlink()
    assert steps_of(tmp_path) == list(range(100))
    assert capfd.readouterr().err.count("training goes on") == 1


def test_what_does_not_fit_the_queue_is_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "QUEUE_RECORDS", 10)
    RunDir(tmp_path).journal.write_text("a file where the folder should be")
    with Journal(tmp_path, attempt=0, node="n", rank=0) as journal:
        for step in range(25):
            journal.metrics(step, {"a": 1.0})
        RunDir(tmp_path).journal.unlink()
    assert steps_of(tmp_path) == list(range(10))
    assert sum(record["count"] for record in records_of(tmp_path, "dropped")) == 15


def test_a_value_that_is_no_number_costs_its_record_only(tmp_path: Path) -> None:
    with Journal(tmp_path, attempt=0, node="n", rank=0) as journal:
        journal.metrics(1, {"a": object()})  # type: ignore[dict-item]
        journal.event("odd", {"what": {1, 2}})
        journal.metrics(2, {"a": 1.0})
    assert steps_of(tmp_path) == [2]
    assert sum(record["count"] for record in records_of(tmp_path, "dropped")) == 2


FULL_DISK = """
import resource, sys, time
from pathlib import Path
from orchestrator.tracking.journal import Journal
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
with Journal(Path(sys.argv[1]), attempt=0, node="n", rank=0) as journal:
    journal.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    slowest = 0.0
    for step in range(100):
        started = time.perf_counter()
        journal.metrics(step, {"train/loss": 0.5})
        slowest = max(slowest, time.perf_counter() - started)
    assert not journal.flush(0.5), "the disk is full"
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(slowest)
"""


def test_a_full_disk_tears_one_line_and_loses_nothing(tmp_path: Path) -> None:
    done = run_script(FULL_DISK, tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.1
    assert done.stderr.count("training goes on") == 1
    (file,) = journal_files(tmp_path)
    assert len([line for line in file.path.read_bytes().split(b"\n") if line]) == 1 + 100 + 1
    assert steps_of(tmp_path) == list(range(100))


FULL_TO_THE_END = """
import resource, sys
from pathlib import Path
from orchestrator.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]), attempt=0, node="n", rank=0)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for step in range(100):
    journal.metrics(step, {"train/loss": 0.5})
print("trained")
"""


def test_a_disk_that_stays_full_does_not_fail_the_process(tmp_path: Path) -> None:
    done = run_script(FULL_TO_THE_END, tmp_path)
    assert (done.returncode, done.stdout) == (0, "trained\n")
    assert steps_of(tmp_path) == list(range(len(steps_of(tmp_path))))


FORKS = """
import os, sys, warnings
from pathlib import Path
from orchestrator.tracking.journal import Journal
warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside a thread: that is what is tested
with Journal(Path(sys.argv[1]), attempt=0, node="n", rank=0) as journal:
    journal.metrics(1, {"a": 1.0})
    child = os.fork()
    if child == 0:
        journal.metrics(2, {"a": 2.0})
        journal.close()
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_a_forked_loader_process_leaves_the_journal_alone(tmp_path: Path) -> None:
    done = run_script(FORKS, tmp_path)
    assert done.returncode == 0, done.stderr
    assert steps_of(tmp_path) == [1]


ENDS_WITHOUT_CLOSE = """
import sys
from pathlib import Path
from orchestrator.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]), attempt=0, node="n", rank=0)
journal.metrics(1, {"a": 1.0})
raise RuntimeError("training failed")
"""


def test_a_process_that_fails_still_leaves_its_records(tmp_path: Path) -> None:
    assert run_script(ENDS_WITHOUT_CLOSE, tmp_path).returncode == 1
    assert steps_of(tmp_path) == [1]


def test_a_damaged_line_and_an_unfinished_one_are_skipped(tmp_path: Path) -> None:
    with Journal(tmp_path, attempt=0, node="n", rank=0) as journal:
        for step in range(3):
            journal.metrics(step, {"a": 1.0})
    (file,) = journal_files(tmp_path)
    lines = file.path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"step":1', b'"step":8')
    file.path.write_bytes(b"".join(lines)[:-5])
    assert steps_of(tmp_path) == [0]


def test_several_steps_in_one_record_are_read_as_one_record_each(tmp_path: Path) -> None:
    with Journal(tmp_path, attempt=0, node="n", rank=0) as journal:
        journal.steps([(1, 100, {"a": 1.0}), (2, 101, {"a": math.nan, "b": 5})])
    first, second = records_of(tmp_path, "metrics")
    assert first == {"kind": "metrics", "time_ms": 100, "step": 1, "values": {"a": 1.0}}
    assert second == {"kind": "metrics", "time_ms": 101, "step": 2, "values": {"a": "nan", "b": 5}}
    assert sum(record is not None for record, _ in read_records(journal_files(tmp_path)[0].path)) == 2


@pytest.mark.parametrize(
    "damaged", [{}, {"step": 3}, {"step": [1], "times_ms": 4}, {"step": [1, 2], "times_ms": [1], "values": {"a": []}}]
)
def test_a_record_of_several_steps_that_is_none_harms_no_reader(damaged: dict[str, object]) -> None:
    for record in each_step({"kind": "steps", **damaged}):
        assert record["kind"] == "metrics" and not isinstance(record.get("step"), int)
