"""GPUs, as the doctor looks at them: some or none here, and whether driver and torch fit. Imports no torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from orchestrator.machine import detect_accelerator, num_nvidia_gpus
from orchestrator.submit.doctor.ask import ask_probe
from orchestrator.submit.doctor.finding import Finding, Patient, Status
from orchestrator.submit.doctor.installed import installed_file


def gpu_findings(patient: Patient) -> Iterator[Finding]:
    """The GPUs of this machine; none is a problem only where the profile says that runs here have them."""
    needed = not patient.uses_slurm and detect_accelerator(patient.cluster.accelerator) == "cuda"
    if num_nvidia_gpus():
        source = installed_file("torch", "version.py")
        torch_cuda = None if source is None else cuda_of(source.read_text())
        yield judged_gpus(ask_probe("gpus"), torch_cuda, needed=needed)
    elif needed:
        fix = "load the driver, or write accelerator: cpu in the profile"
        yield Finding("gpus", "problem", "no NVIDIA driver shows one here", fix)
    else:
        where = "the nodes of jobs are checked when a job starts" if patient.uses_slurm else "ranks run on CPUs"
        yield Finding("gpus", "ok", f"no NVIDIA driver shows one here; {where}")


def judged_gpus(facts: dict[str, Any], torch_cuda: str | None, *, needed: bool) -> Finding:
    """The line for what NVML says of the GPUs here, and for the CUDA that torch is built for.

    A driver runs what was built for its own major version of CUDA or an older one.
    Source: NVIDIA, CUDA Compatibility, "minor version compatibility".
    """
    bad: Status = "problem" if needed else "warning"
    if "error" in facts:
        fix = "nvidia-smi should say the same: have the driver reloaded, or the machine drained"
        return Finding("gpus", bad, f"the NVIDIA driver says: {facts['error']}", fix)
    names = ", ".join(f"{facts['gpus'].count(name)} {name}" for name in dict.fromkeys(facts["gpus"]))
    seen = f"{names} (driver {facts['driver']}, for CUDA up to {facts['cuda']})"
    install = "pip install torch from the index of a CUDA that the driver runs, as pytorch.org says"
    if torch_cuda is None:
        return Finding("gpus", bad, f"{seen}; the installed torch is built without CUDA and cannot use them", install)
    if int(torch_cuda.partition(".")[0]) > int(facts["cuda"].partition(".")[0]):
        fix = f"{install}, or have the driver updated"
        return Finding("gpus", bad, f"{seen}; the installed torch is built for CUDA {torch_cuda}", fix)
    return Finding("gpus", "ok", f"{seen}; torch is built for CUDA {torch_cuda}")


def cuda_of(source: str) -> str | None:
    """The CUDA version that torch/version.py names, such as '12.8'; None for a torch built without."""
    for statement in ast.parse(source).body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        if isinstance(target, ast.Name) and target.id == "cuda":
            value = getattr(statement, "value", None)
            return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
    return None
