"""Runs that went at a known speed, as their jobs would have left them."""

from __future__ import annotations

from pathlib import Path

from orchestrator.cluster import Cluster
from orchestrator.documents import dump_yaml
from orchestrator.files import encode_record, make_private_dir, write_json
from orchestrator.plan.plan import Plan, plan_to_json
from orchestrator.recipe.schema import Recipe
from orchestrator.run_dir import RunDir


def leave_run(path: Path, recipe: Recipe, cluster: Cluster, plan: Plan, *speeds: float, steps: int = 50) -> RunDir:
    """A run with one attempt for each of `speeds` (samples per second), all of them on the allocation of `plan`."""
    run = RunDir(make_private_dir(path))
    run.recipe.write_text(dump_yaml(recipe.model_dump(mode="json")))
    write_json(run.cluster, cluster.model_dump(mode="json"))
    write_json(run.run, {"name": path.name})
    make_private_dir(run.journal)
    for number, speed in enumerate(speeds):
        attempt = run.attempt(number)
        make_private_dir(attempt.path)
        write_json(attempt.plan, plan_to_json(plan))
        records = _records(steps, plan.batch.effective_batch_size, speed)
        (run.journal / f"{number:03d}.node1.rank-0.log").write_bytes(b"".join(records))
    return run


def _records(steps: int, batch: int, samples_per_s: float) -> list[bytes]:
    """A start that took a minute, steps of equal length, and an evaluation of nine seconds."""
    lines = [encode_record({"kind": "start", "time_ms": 0})]
    for step in range(1, steps + 1):
        time_ms = round(60_000 + step * batch / samples_per_s * 1000)
        values = {"train/loss": 1.0, "progress/samples": step * batch}
        lines.append(encode_record({"kind": "metrics", "time_ms": time_ms, "step": step, "values": values}))
    lines.append(encode_record({"kind": "metrics", "time_ms": time_ms + 9000, "step": steps, "values": {"val/x": 1.0}}))
    return lines
