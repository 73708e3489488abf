"""What a run's journal holds beyond a cursor, in batches that MLflow takes at once."""

from __future__ import annotations

from orchestrator.files import read_records
from orchestrator.run_dir import RunDir
from orchestrator.tracking.journal import journal_files
from orchestrator.tracking.replay import Batch, Cursor, Source, add_record

_FULL_POINTS = 900  # leaves room for one more record below MLflow's 1000
_FULL_TAGS = 90


def next_batch(run: RunDir, cursor: Cursor, created_at: float, *, look_twice: bool = False) -> tuple[Batch, bool, bool]:
    """What the journal holds beyond `cursor`, which moves: (batch, whether it moved, whether there may be more).

    `look_twice` opens files whose size says that there is nothing new: on a network file system sizes arrive late.
    """
    batch, moved = Batch(), False
    for file in journal_files(run.path):
        begin = cursor.offsets.get(file.path.name, 0)
        if not look_twice and file.path.stat().st_size <= begin:
            continue
        source = Source(file.attempt, file.node, created_at)
        for record, offset in read_records(file.path, begin):
            cursor.offsets[file.path.name], moved = offset, True
            if record is None:
                cursor.damaged += 1
            else:
                add_record(batch, cursor, source, record)
            if len(batch.points) >= _FULL_POINTS or len(batch.tags) >= _FULL_TAGS:
                return batch, True, True
    return batch, moved, False
