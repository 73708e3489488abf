"""What ranks and supervisors write: one append-only file per process, checksummed records, standard library only.

A call puts a record on a bounded queue and returns; one thread encodes and writes. So a call costs microseconds, a
hung file system stalls the thread and never a step, and nothing here ever raises into training. What reached the file
survives the death of the process; the thread makes it durable about once a second.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from orchestrator.files import PRIVATE_FILE, encode_record, make_private_dir, read_records, sync_dir
from orchestrator.run_dir import RunDir
from orchestrator.tracking.records import StepValues, as_record, each_step

SCHEMA = 1
QUEUE_RECORDS = 65_536
_POLL_S = 0.05
_DURABLE_S = 1.0
_RETRY_S = 1.0
_PACE_RECORDS = 16
_PACE_S = 0.002
_BACKLOG_RECORDS = 1024
_CLOSE_S = 5.0
_NAME = re.compile(r"(?P<attempt>\d{3,})\.(?P<node>.+)\.(?:rank-(?P<rank>\d+)|node)(?:\.\d+)?\.log")

_Queued = tuple[str, int, tuple[Any, ...]]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class _AppendFile:
    """Whole records at the end of a file that this process alone writes. Every method may raise OSError."""

    def __init__(self, directory: Path, stem: str) -> None:
        self._directory = directory
        self._stem = stem
        self._fd = -1
        self._torn = False
        self._unsynced = False

    def _open(self) -> None:
        """Create the file; where the name is taken (a second start of the same rank), the next free one."""
        make_private_dir(self._directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        for number in range(1000):
            name = f"{self._stem}.{number}.log" if number else f"{self._stem}.log"
            try:
                self._fd = os.open(self._directory / name, flags, PRIVATE_FILE)
                break
            except FileExistsError:
                continue
        sync_dir(self._directory)

    def append(self, lines: list[bytes]) -> None:
        """Write the records, taking from `lines` what is whole in the file. A torn line is closed with LF first."""
        if self._fd < 0:
            self._open()
        prefix = b"\n" if self._torn else b""
        data = memoryview(prefix + b"".join(lines))
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        finally:
            self._unsynced = self._unsynced or written > 0
            rest = written - len(prefix)
            while lines and len(lines[0]) <= rest:
                rest -= len(lines.pop(0))
            self._torn = rest > 0 if written else self._torn

    @property
    def is_durable(self) -> bool:
        """Whether all that was written is."""
        return not self._unsynced

    def sync(self) -> None:
        """Make what was written durable."""
        if self._unsynced and self._fd >= 0:
            os.fdatasync(self._fd)
            self._unsynced = False

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Journal:
    """The journal of one rank (`rank` given) or of one node's supervisor (`rank` None) in one attempt.

    Records are kept in memory while the file cannot be written, up to QUEUE_RECORDS; beyond that they are dropped,
    and a `dropped` record counts them. Use as a context manager, or call `close`; both wait a bounded time.
    """

    def __init__(
        self, run_dir: Path, *, attempt: int, node: str, rank: int | None, close_timeout_s: float = _CLOSE_S
    ) -> None:
        stem = f"{attempt:03d}.{node}.{'node' if rank is None else f'rank-{rank}'}"
        self._file = _AppendFile(RunDir(run_dir).journal, stem)
        self._queue: deque[_Queued] = deque()
        self._overflowed = self._unencodable = self._reported = 0
        self._pid = os.getpid()
        self._close_timeout_s = close_timeout_s
        self._closing = False
        self._wake = threading.Event()
        self._dozes = False
        """Whether the thread waits to be woken; else it looks again by itself."""
        self._flush_request = threading.Event()
        self._complained = False
        start = {"kind": "start", "schema": SCHEMA, "time_ms": _now_ms(), "attempt": attempt, "node": node}
        start |= {"host": socket.gethostname(), "rank": rank, "pid": self._pid}
        self._lines = [encode_record(start)]
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Values at an optimizer step; the first value of a (key, step) is the one that reaches MLflow."""
        self._put("metrics", (step, dict(values)))

    def steps(self, steps: Sequence[StepValues]) -> None:
        """Values of several optimizer steps, each (step, milliseconds, values): one record, cheaper than one a step."""
        self._put("steps", (tuple(steps),))

    def system(self, values: Mapping[str, float]) -> None:
        """Host and device samples, at the present time."""
        self._put("system", (dict(values),))

    def tags(self, values: Mapping[str, str]) -> None:
        """Tags of the run; the last value of a key wins."""
        self._put("tags", (dict(values),))

    def event(self, name: str, detail: Mapping[str, Any]) -> None:
        """Something that happened; `detail` is JSON. Kept for reports, not sent to MLflow."""
        self._put("event", (name, dict(detail)))

    def window(self, step: int, micro_batches: Sequence[Sequence[int]]) -> None:
        """The sample ids of this rank's micro-batches in one step. Not sent to MLflow."""
        self._put("window", (step, tuple(micro_batches)))

    def flush(self, timeout_s: float = _CLOSE_S) -> bool:
        """Wait until all records so far are durable; False when it takes longer. For before a checkpoint is written."""
        if os.getpid() != self._pid or not self._thread.is_alive():
            return False
        request = self._flush_request = threading.Event()
        self._wake.set()
        return request.wait(timeout_s)

    def close(self) -> None:
        """Write what is queued, for at most `close_timeout_s` seconds, and end the thread. Safe to call twice."""
        if os.getpid() != self._pid:
            return
        self._closing = True
        self._wake.set()
        self._thread.join(self._close_timeout_s)
        atexit.unregister(self.close)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, kind: str, fields: tuple[Any, ...]) -> None:
        if len(self._queue) >= QUEUE_RECORDS:
            self._overflowed += 1
        else:
            self._queue.append((kind, _now_ms(), fields))
            if self._dozes and os.getpid() == self._pid:
                self._wake.set()

    def _run(self) -> None:
        """The writer thread. While records come it polls: waking it for each would cost the step a system call."""
        synced_at = time.monotonic()
        while True:
            closing, request, pause_s = self._closing, self._flush_request, _POLL_S
            urgent = closing or not request.is_set()
            try:
                idle = not self._write_queue(hurry=urgent or len(self._queue) > _BACKLOG_RECORDS)
                if urgent or time.monotonic() - synced_at >= _DURABLE_S:
                    self._file.sync()
                    synced_at = time.monotonic()
                request.set()
            except OSError as error:
                self._complain(error)
                idle, pause_s = False, _RETRY_S
            if closing:
                break
            self._wait(pause_s, synced_at, idle=idle)
        self._file.close()

    def _wait(self, pause_s: float, synced_at: float, *, idle: bool) -> None:
        """Some time, or until somebody wants something; where no record came since the last time, until one does."""
        if idle and not self._queue:
            self._dozes = True
            pause_s = threading.TIMEOUT_MAX if self._file.is_durable else synced_at + _DURABLE_S - time.monotonic()
        if not (self._dozes and self._queue):
            self._wake.wait(max(0.0, pause_s))
        self._dozes = False
        self._wake.clear()

    def _write_queue(self, *, hurry: bool) -> bool:
        """Write all that is queued by now; False when nothing is. A few records at a time, unless there is a hurry:
        between them the interpreter belongs to training again.
        """
        num_queued = len(self._queue)
        if not (num_queued or self._lines or self._num_dropped):
            return False
        while True:
            num_queued -= self._encode_some()
            self._file.append(self._lines)
            if num_queued <= 0:
                return True
            if not hurry:
                time.sleep(_PACE_S)

    @property
    def _num_dropped(self) -> int:
        """How many records were dropped since the last time that the journal said so."""
        return self._overflowed + self._unencodable - self._reported

    def _encode_some(self) -> int:
        """Encode the next few records into `_lines`; how many were taken from the queue."""
        num_taken = 0
        while self._queue and len(self._lines) < _PACE_RECORDS:
            num_taken += 1
            try:
                self._lines.append(encode_record(as_record(*self._queue.popleft())))
            except Exception:  # a value's own __float__ or __str__ may raise anything
                self._unencodable += 1
        if dropped := self._num_dropped:
            self._reported += dropped
            self._lines.append(encode_record(as_record("dropped", _now_ms(), (dropped,))))
        return num_taken

    def _complain(self, error: OSError) -> None:
        """Say once, on stderr, that the journal cannot be written; standard error may be as full as the disk."""
        if self._complained:
            return
        self._complained = True
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"the journal cannot be written ({error}); training goes on, records wait in memory\n")


@dataclass(frozen=True, order=True)
class JournalFile:
    """One file of a run's journal, and who wrote it (`rank` -1: the node's supervisor)."""

    attempt: int
    node: str
    rank: int
    path: Path


def journal_files(run_dir: Path) -> list[JournalFile]:
    """The files of a run's journal: by attempt, then by node, the supervisor's before the ranks'."""
    directory = RunDir(run_dir).journal
    found = []
    for path in directory.iterdir() if directory.is_dir() else ():
        if match := _NAME.fullmatch(path.name):
            found.append(JournalFile(int(match["attempt"]), match["node"], int(match["rank"] or -1), path))
    return sorted(found)


def read_journal_dir(run_dir: Path) -> Iterator[tuple[JournalFile, dict[str, Any]]]:
    """Every whole record of a run, file by file, as `each_step` gives them; damaged lines are skipped."""
    for file in journal_files(run_dir):
        for record, _ in read_records(file.path):
            if record is not None:
                yield from ((file, each) for each in each_step(record))
