"""The one place where the lab calls other programs and waits for them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from lab.errors import CommandError


def search_path(env: Mapping[str, str]) -> str:
    """PATH with the system folders added, because daemons and ``ip`` lie in an sbin that users often lack."""
    folders = env.get("PATH", "").split(os.pathsep)
    folders += [folder for folder in ("/usr/sbin", "/usr/bin", "/sbin", "/bin") if folder not in folders]
    return os.pathsep.join(folder for folder in folders if folder)


def run(argv: Sequence[str], *, timeout_s: float = 10, stdin: str = "", env: Mapping[str, str] | None = None) -> str:
    """Run a program to its end and return its stdout. Raises CommandError with its last word on stderr."""
    called_with = {**os.environ, "PATH": search_path(os.environ), "LC_ALL": "C", **(env or {})}
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=timeout_s, env=called_with, check=False
        )
    except subprocess.TimeoutExpired:
        raise CommandError(f"`{argv[0]}` did not end within {timeout_s:g} s") from None
    except OSError as error:
        raise CommandError(f"`{argv[0]}` cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()
        raise CommandError(f"`{' '.join(argv[:3])}` failed: {said[-1]}")
    return done.stdout
