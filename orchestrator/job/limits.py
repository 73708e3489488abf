"""What the attempts of a run have learnt about memory: kept in the run, and for other runs where `submit` said so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from orchestrator.files import make_private_dir, read_json, write_json
from orchestrator.job.verdict import Verdict
from orchestrator.plan.learnt import LearntLimit, after_failure, after_success, limit_from_json
from orchestrator.plan.plan import Plan
from orchestrator.run_dir import RunDir


def limit_so_far(run: RunDir, submitted: Plan, *, device: str) -> LearntLimit | None:
    """What the next plan on this kind of device keeps to: by this run's attempts, else by what was known before."""
    known = (_read(run.learnt), submitted.learnt)
    return next((limit for limit in known if limit is not None and limit.device == device), None)


def learn(run: RunDir, plan: Plan, verdict: Verdict, *, device: str) -> None:
    """Take in how an attempt by `plan` ended. A store that cannot be written is passed over: no run hangs on it."""
    for path in _stores(run):
        kept = _read(path)
        known = after = kept if kept is not None and kept.device == device else plan.learnt
        if verdict.out_of_memory is not None and verdict.out_of_memory.micro_batch_size is not None:
            after = after_failure(known, verdict.out_of_memory.micro_batch_size, device=device)
        elif verdict.outcome == "done" and known is not None:
            after = after_success(known, plan.batch.micro_batch_size)
        if after == known:
            continue
        with contextlib.suppress(OSError):
            _keep(path, after)


def _keep(path: Path, limit: LearntLimit | None) -> None:
    if limit is None:
        path.unlink(missing_ok=True)
        return
    make_private_dir(path.parent)
    write_json(path, limit.as_json())


def _stores(run: RunDir) -> Iterator[Path]:
    yield run.learnt
    store = read_json(run.learnt_store)
    if store is not None:
        yield Path(store["file"])


def _read(path: Path) -> LearntLimit | None:
    with contextlib.suppress(OSError, ValueError):
        return limit_from_json(read_json(path))
    return None
