"""What the real allocation changed about the plan that was shown at submission. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.plan.plan import Plan


def differences(submitted: Plan, real: Plan) -> tuple[str, ...]:
    """`gpus_per_node 4 -> 2`, and so on; nothing for what the submitted plan left open."""
    before, after = dict(_facts(submitted)), dict(_facts(real))
    changed = (name for name, value in before.items() if value is not None and value != after[name])
    return tuple(f"{name} {before[name]} -> {after[name]}" for name in changed)


def _facts(plan: Plan) -> Iterator[tuple[str, object]]:
    topology, batch = plan.topology, plan.batch
    yield "num_nodes", topology.num_nodes
    yield "gpus_per_node", topology.gpus_per_node
    yield "cpus_per_node", topology.cpus_per_node
    yield "accelerator", topology.accelerator
    yield "world_size", topology.world_size
    yield "effective_batch_size", batch.effective_batch_size
    yield "micro_batch_size", batch.micro_batch_size
    yield "gradient_accumulation_steps", batch.gradient_accumulation_steps
    yield "peak_lr", plan.learning_rate.peak_lr
    yield "num_steps", plan.schedule.num_steps
