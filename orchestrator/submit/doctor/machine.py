"""This machine, as the doctor looks at it: Python, packages, torchrun, limits, variables. Imports no torch."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import PurePath

from orchestrator.launch.torchrun import Endpoint, World, torchrun_command
from orchestrator.submit.doctor.ask import ask_probe
from orchestrator.submit.doctor.finding import Finding, Patient, without_secrets
from orchestrator.submit.doctor.installed import installed_file
from orchestrator.units import GIB

DISTRIBUTION = "orchestrator"
_LEAST_SHARED_BYTES = GIB
_LEAST_OPEN_FILES = 4096
_HUB_VARIABLES = ("HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def python_finding(patient: Patient) -> Iterator[Finding]:
    """This Python against the package's own requirement."""
    from packaging.specifiers import SpecifierSet

    wanted = distribution(DISTRIBUTION).metadata["Requires-Python"] or ""
    here = platform.python_version()
    if SpecifierSet(wanted).contains(here, prereleases=True):
        yield Finding("python", "ok", f"{here} ({wanted} wanted)")
    else:
        yield Finding("python", "problem", f"{here}, {wanted} is wanted", "make a virtual environment with a newer one")


def package_findings(patient: Patient) -> Iterator[Finding]:
    """Every package that pyproject.toml requires: those of no extra must be there, in a version that fits."""
    from packaging.requirements import Requirement

    fit, wrong, extras = [], [], set[str]()
    for line in distribution(DISTRIBUTION).requires or ():
        wanted = Requirement(line)
        found = _version_of(wanted.name)
        needed = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if needed and (found is None or not wanted.specifier.contains(found, prereleases=True)):
            wrong.append(f"'{wanted.name}{wanted.specifier}'")
            yield Finding("packages", "problem", f"{wanted.name} {found or 'is missing'}", f"pip install {wrong[-1]}")
        elif needed:
            fit.append(f"{wanted.name} {found}")
        elif found is None:
            extras.add(wanted.name)
    yield Finding("packages", "ok", ", ".join(fit))
    if extras:
        yield Finding("extras", "ok", f"not installed, and needed by some recipes or by developers: {_listed(extras)}")


def _version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _listed(words: set[str]) -> str:
    return ", ".join(sorted(words))


def torchrun_finding(patient: Patient) -> Iterator[Finding]:
    """Whether the installed torchrun knows every option it will be given, by the text of its source."""
    source = installed_file("torch", "distributed/run.py")
    if source is None:
        fix = "pip install torch, as its site says for your GPUs"
        yield Finding("torchrun", "problem", "torch is not installed", fix)
        return
    try:
        missing = missing_options(source.read_text())
    except OSError as error:
        yield Finding("torchrun", "problem", f"{source}: {error.strerror}", "install torch again")
        return
    if missing:
        fix = "pip install 'torch>=2.12': signals must reach the ranks, and there must be time to save"
        yield Finding("torchrun", "problem", f"does not know {', '.join(missing)}", fix)
    else:
        yield Finding("torchrun", "ok", "knows --signals-to-handle, --shutdown-timeout and all other options used")


def missing_options(source: str) -> tuple[str, ...]:
    """The options of our torchrun command that do not stand in the source of torchrun."""
    world = World(PurePath("run"), 0, "id", Endpoint("host", 1), 1, 1, 1)
    words = torchrun_command(world, node_rank=0, command=(), python="python")
    options = [word.partition("=")[0] for word in words[: words.index("--no-python") + 1] if word.startswith("--")]
    return tuple(option for option in options if f'"{option}"' not in source)


def shared_memory_finding(patient: Patient) -> Iterator[Finding]:
    """/dev/shm, through which loader processes hand over their batches."""
    try:
        room = os.statvfs("/dev/shm")
    except OSError as error:
        yield Finding("/dev/shm", "warning", f"{error.strerror}", "set loader.workers: 0, or mount a tmpfs there")
        return
    size, free = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
    seen = f"{free / GIB:.1f} of {size / GIB:.1f} GiB free"
    if free < _LEAST_SHARED_BYTES:
        fix = "set loader.workers: 0, or give the container more (docker run --shm-size=8g)"
        yield Finding("/dev/shm", "warning", seen, fix)
    else:
        yield Finding("/dev/shm", "ok", seen)


def open_files_finding(patient: Patient) -> Iterator[Finding]:
    """How many files a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _LEAST_OPEN_FILES:
        most = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
        fix = f"ulimit -n {_LEAST_OPEN_FILES} in the shell that submits (at most {most}): loaders and gloo use many"
        yield Finding("open files", "warning", f"at most {soft} in a process", fix)
    else:
        yield Finding("open files", "ok", "unlimited" if soft == resource.RLIM_INFINITY else f"at most {soft:,}")


def variable_findings(patient: Patient) -> Iterator[Finding]:
    """Variables of this shell that reach jobs, or stand in their way."""
    env = os.environ
    job = sorted(name for name in env if name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF")
    if job:
        seen = f"{len(job)} left here by a surrounding job or a profile script, such as {job[0]}"
        fix = "submit takes them away; your own srun and sbatch here would heed them: leave the job's shell"
        yield Finding("slurm variables", "warning", seen, fix)
    else:
        yield Finding("slurm variables", "ok", "none left here by a surrounding job")
    hub = [name for name in _HUB_VARIABLES if env.get(name)]
    if hub:
        fix = "unset them, and write env.mirrors.huggingface in the recipe: then the run says where its models are from"
        yield Finding("hub variables", "warning", f"set for every program of this shell: {', '.join(hub)}", fix)
    else:
        yield Finding("hub variables", "ok", "no mirror and no offline mode is set for the whole shell")


def proxy_finding(patient: Patient) -> Iterator[Finding]:
    """Proxies, which must not catch what is sent to this machine itself."""
    proxies = {name: value for name, value in patient.environment.items() if name.lower() in _PROXIES and value}
    if not proxies:
        yield Finding("proxies", "ok", "none set")
        return
    without = next((patient.environment[name] for name in ("no_proxy", "NO_PROXY") if name in patient.environment), "")
    caught = [host for host in _LOOPBACK if not goes_around(host, without)]
    seen = ", ".join(f"{name}={without_secrets(value)}" for name, value in sorted(proxies.items()))
    if caught:
        fix = f"export no_proxy={','.join(filter(None, (without, *caught)))}"
        yield Finding("proxies", "warning", f"{seen}; also for {', '.join(caught)}", fix)
    else:
        yield Finding("proxies", "ok", f"{seen}; not for this machine itself")


def goes_around(host: str, no_proxy: str) -> bool:
    """Whether `no_proxy` (names and domains, parted by commas, or *) keeps what is sent to `host` from the proxy."""
    entries = [entry.strip().lstrip(".").lower() for entry in no_proxy.split(",") if entry.strip()]
    return any(entry == "*" or host == entry or host.endswith(f".{entry}") for entry in entries)


_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def install_finding(patient: Patient) -> Iterator[Finding]:
    """Where this Python is installed: the nodes of a job start the same one."""
    if patient.uses_slurm:
        from orchestrator.submit.doctor.folder import is_shared

        facts = ask_probe("place", sys.prefix)
        where = f"{facts['folder']} on {facts['type']}"
        if is_shared(facts["type"]):
            yield Finding("installation", "ok", where)
        else:
            fix = "install into a folder that every node sees, or make sure that each has the same environment there"
            yield Finding("installation", "warning", f"{where}, which looks local to this machine", fix)
