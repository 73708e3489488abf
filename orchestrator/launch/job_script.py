"""The job script: a list of lines, byte for byte what the scheduler gets. Pure.

No text of a recipe reaches the shell: a directive's value passes an allow-list pattern, and the one command is the
driver with the run directory.
"""

from __future__ import annotations

import re
import shlex
from pathlib import PurePath

from orchestrator.cluster import Cluster
from orchestrator.errors import Problem, RecipeError
from orchestrator.plan.plan import Plan
from orchestrator.recipe.schema import Resources
from orchestrator.units import format_mebibytes, format_walltime, parse_bytes, parse_walltime

_ALLOWED = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_.,:/@%+=&|\[\]*-]{0,999}")
SAVE_MARGIN_S = 60
"""The scheduler warns this long before the time limit; Slurm may send the signal up to 60 s earlier still."""


def job_script(resources: Resources, plan: Plan, cluster: Cluster, *, run_dir: PurePath, python: str) -> str:
    """The script `plan` shows and `submit` sends. Raises RecipeError for a value that may not stand in a directive."""
    lines = [
        "#!/bin/bash",
        *(_directive(flag, value) for flag, value in _directives(resources, plan, cluster, run_dir).items()),
        f"exec {shlex.join((python, '-m', 'orchestrator.job', str(run_dir)))}",
    ]
    return "\n".join(lines) + "\n"


def _directives(resources: Resources, plan: Plan, cluster: Cluster, run_dir: PurePath) -> dict[str, str | None]:
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
        "signal": f"USR2@{SAVE_MARGIN_S}" if walltime and parse_walltime(walltime) > 4 * SAVE_MARGIN_S else None,
        "partition": topology.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "no-requeue": "",
        "open-mode": "append",
        "output": f"{run_dir}/logs/job-%j.log",
    }
    return {flag: value for flag, value in found.items() if value is not None}


def _gpu_request(cluster: Cluster, resources: Resources, gpus_per_node: int) -> dict[str, str | None]:
    """`--gpus-per-node=a100:4` or `--gres=gpu:a100:4`, as the site wants it; a type only where the recipe names one."""
    gpus = f"{resources.gpu_type}:{gpus_per_node}" if resources.gpu_type else str(gpus_per_node)
    if cluster.gpu_request == "gres":
        return {"gres": f"gpu:{gpus}"}
    return {"gpus-per-node": gpus if cluster.gpu_request == "gpus-per-node" else None}


def _directive(flag: str, value: str | None) -> str:
    if not value:
        return f"#SBATCH --{flag}"
    if not _ALLOWED.fullmatch(value):
        what = f"{value!r} may not stand in a job script"
        raise RecipeError(Problem(f"--{flag}", what, "use letters, digits and . , : / @ % + = - only, without spaces"))
    return f"#SBATCH --{flag}={value}"
