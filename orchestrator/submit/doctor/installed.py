"""Installed packages, by their files: importing torch would cost seconds."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def installed_file(package: str, name: str) -> Path | None:
    """The path of a file of a package, such as torch's `distributed/run.py`; None where the package is missing."""
    spec = find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / name
