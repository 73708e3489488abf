"""The job script: a list of lines, byte for byte what the scheduler gets. Pure.

No text of a recipe reaches the shell: a directive's value passes an allow-list pattern, and the one command is the
driver with the run directory.
"""

from __future__ import annotations

import math
import re
import shlex
from pathlib import PurePath

from orchestrator.cluster import Cluster
from orchestrator.last_save import END_S, SAVES
from orchestrator.launch.directives import allowed
from orchestrator.plan.plan import Plan
from orchestrator.recipe.schema import Resources
from orchestrator.units import format_mebibytes, format_walltime, parse_bytes, parse_walltime

SAVE_MARGIN_S = 60
"""The scheduler warns at least this long before the time limit; Slurm may send the signal up to 60 s earlier still."""


def job_script(
    resources: Resources,
    plan: Plan,
    cluster: Cluster,
    *,
    run_dir: PurePath,
    python: str,
    save_s: float | None = None,
) -> str:
    """The script `plan` shows and `submit` sends; `save_s` is what the run's saves took so far, for one that goes on.

    Raises RecipeError for a value that may not stand in a directive.
    """
    lines = [
        "#!/bin/bash",
        *(_directive(flag, value) for flag, value in _directives(resources, plan, cluster, run_dir, save_s).items()),
        f"exec {shlex.join((python, '-m', 'orchestrator.job', str(run_dir)))}",
    ]
    return "\n".join(lines) + "\n"


def _directives(
    resources: Resources, plan: Plan, cluster: Cluster, run_dir: PurePath, save_s: float | None
) -> dict[str, str | None]:
    topology = plan.topology
    walltime = resources.walltime
    found: dict[str, str | None] = {
        "job-name": plan.name,
        "nodes": str(topology.num_nodes),
        "ntasks-per-node": "1",
        "cpus-per-task": None if topology.cpus_per_node is None else str(topology.cpus_per_node),
        **_gpu_request(cluster, resources, topology.gpus_per_node),
        "mem": format_mebibytes(parse_bytes(resources.memory)) if resources.memory else None,
        "time": format_walltime(parse_walltime(walltime)) if walltime else None,
        "signal": _warning(parse_walltime(walltime), save_s) if walltime else None,
        "partition": topology.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "no-kill": "" if topology.num_nodes > 1 else None,
        "no-requeue": "",
        "open-mode": "append",
        "output": f"{run_dir}/logs/job-%j.log",
    }
    return {flag: value for flag, value in found.items() if value is not None}


def _warning(limit_s: int, save_s: float | None) -> str | None:
    """`USR2@60`, or earlier where saves are known to be long; a quarter of the limit at the most, and none for a limit
    too short for a minute."""
    if limit_s <= 4 * SAVE_MARGIN_S:
        return None
    wanted_s = math.ceil(SAVES * (save_s or 0.0) + END_S)
    return f"USR2@{max(SAVE_MARGIN_S, min(wanted_s, limit_s // 4))}"


def warned_ahead_s(script: str) -> int:
    """Seconds before its time limit at which a job with this script is warned at the latest."""
    found = re.search(r"^#SBATCH --signal=USR2@(\d+)$", script, re.MULTILINE)
    return int(found[1]) if found else SAVE_MARGIN_S


def _gpu_request(cluster: Cluster, resources: Resources, gpus_per_node: int) -> dict[str, str | None]:
    """`--gpus-per-node=a100:4` or `--gres=gpu:a100:4`, as the site wants it; a type only where the recipe names one."""
    gpus = f"{resources.gpu_type}:{gpus_per_node}" if resources.gpu_type else str(gpus_per_node)
    if cluster.gpu_request == "gres":
        return {"gres": f"gpu:{gpus}"}
    return {"gpus-per-node": gpus if cluster.gpu_request == "gpus-per-node" else None}


def _directive(flag: str, value: str | None) -> str:
    return f"#SBATCH --{flag}={allowed(f'--{flag}', value)}" if value else f"#SBATCH --{flag}"
