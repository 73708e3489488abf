"""torch.compile at work in a rank: the model in place, its compiler, where compiled code is kept, what went wrong.

The module stays the one that the recipe made: parameters keep their names, and a checkpoint of a compiled run is one
of an eager run. Micro-batches of other sizes are compiled for once, not each: torch takes a size that has changed for
variable, and treats 1 alone apart.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from orchestrator.errors import LaunchError, Problem, TrainingError
from orchestrator.files import PRIVATE_DIR, make_private_dir
from orchestrator.worker.preemption import signals_kept_from_children

RECOMPILE_LIMIT = 32
"""Graphs of one model. torch stops at 8, for two ragged dimensions (batch and padded length) too few: in training and
in evaluation a dimension may be as it was first seen, 1, or any other."""
_THREADS = "TORCHINDUCTOR_COMPILE_THREADS"
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_EAGER = "or write compile: false"
_COMPILERS = ("torch._dynamo.", "torch._inductor.")
_REASONS = (re.compile(r"^.*\berror: .*$", re.MULTILINE), re.compile(r"\bgot (\w+\(.*\))"))
"""What a compiler says in its output, and what a call inside the model was told."""


def compile_model(model: torch.nn.Module, device: torch.device) -> None:
    """Let calls of `model` run compiled; each kind of call is compiled when it first comes. Call it before DDP.

    What is compiled is kept in a folder of this node, for all its ranks and for later attempts. Raises LaunchError
    where others can write to that folder, or a CPU has no C++ compiler.
    """
    import torch._dynamo.config
    import torch._functorch.config
    import torch._inductor.config
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    make_cache_private(Path(default_cache_dir()))
    if _THREADS not in os.environ:
        torch._inductor.config.compile_threads = torch.get_num_threads()  # torch would take all cores for each rank
    torch._dynamo.config.recompile_limit = max(RECOMPILE_LIMIT, torch._dynamo.config.recompile_limit)
    torch._functorch.config.force_non_lazy_backward_lowering = True  # nothing is left to compile outside the call
    if device.type == "cpu":
        _check_compiler()

    def call(*args: Any, **kwargs: Any) -> Any:
        return model._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]

    compiled = torch.compile(call)

    def guarded(*args: Any, **kwargs: Any) -> Any:
        with signals_kept_from_children(), compile_errors_told():
            return compiled(*args, **kwargs)

    # As model.compile() does it; but that silently leaves a module of torch's own, such as a Sequential, uncompiled.
    model._compiled_call_impl = guarded


def make_cache_private(folder: Path) -> None:
    """Make the folder that torch keeps compiled code in, and see to it that nobody else can write there.

    What is in it is unpickled and loaded, and its name is known: in /tmp another user may have made it first. torch
    takes it for precompiled headers even where TORCHINDUCTOR_CACHE_DIR names another for the rest. Raises LaunchError.
    """
    with contextlib.suppress(FileExistsError):
        make_private_dir(folder)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & _OTHERS_MAY_WRITE:
        fix = "remove it, or name another place for temporary files in env.variables.TMPDIR"
        raise LaunchError(Problem("compile", f"{folder} is not a folder that only you can write to", fix))
    folder.chmod(PRIVATE_DIR)


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        what = f"there is no C++ compiler on {socket.gethostname()}, and torch.compile needs one"
        fix = f"install g++ there, name one in env.variables.CXX, {_EAGER}"
        raise LaunchError(Problem("compile", what, fix)) from None


@contextlib.contextmanager
def compile_errors_told() -> Iterator[None]:
    """Where torch.compile fails within, TrainingError is raised with what to do; other errors stay what they are."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(_COMPILERS):
            raise
        raise TrainingError(
            Problem("compile", f"torch.compile failed: {_reason(error)}", f"mend that, {_EAGER}")
        ) from error


def _reason(error: Exception) -> str:
    """The one line in the many of such an error that says why."""
    text = str(error)
    found = next(filter(None, (reason.search(text) for reason in _REASONS)), None)
    lines = [line for line in text.splitlines() if line.strip()] or [type(error).__name__]
    return (found[found.lastindex or 0] if found else lines[0]).strip()
