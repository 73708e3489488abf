"""The output of a run as it grows: a rank's, across attempts, or the driver's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.run_dir import RunDir

_CHUNK = 1 << 20


class LogFollower:
    """Hands out what a rank (or, with rank None, the driver) has written since the last call, attempt after attempt."""

    def __init__(self, run_dir: RunDir, *, rank: int | None) -> None:
        self._run_dir = run_dir
        self._rank = rank
        self._offsets: dict[Path, int] = {}

    def new_text(self) -> str:
        """Text written since the last call; '' when there is none."""
        return "".join(self.chunks())

    def chunks(self) -> Iterator[str]:
        """The same in pieces of at most 1 MiB: a long log never stands in memory whole."""
        for path in log_files(self._run_dir, rank=self._rank):
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                while data := file.read(_CHUNK):
                    self._offsets[path] = file.tell()
                    yield data.decode(errors="replace")


def log_files(run_dir: RunDir, *, rank: int | None) -> list[Path]:
    """The files that hold a rank's output, or the driver's for None, oldest first; only those that exist."""
    if rank is None:
        return sorted(run_dir.job_logs.glob("job-*.log"), key=lambda path: path.stat().st_mtime)
    logs = (attempt.rank_log(rank) for attempt in run_dir.all_attempts())
    return [log for log in logs if log.is_file()]


def ranks_with_output(run_dir: RunDir) -> list[int]:
    """Ranks of the last attempt that have written something."""
    last = run_dir.last_attempt()
    names = last.logs.glob("rank-*.log") if last else ()
    return sorted(int(path.stem.removeprefix("rank-")) for path in names)
