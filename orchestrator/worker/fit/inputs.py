"""What of this machine a simulation saw: the user's modules that stand elsewhere, and the variables the user reads."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

_STANDARD = ("<frozen", *(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib")))
_OURS = f"{Path(__file__).parents[1]}{os.sep}"
_PACKAGES = {"site-packages", "dist-packages"}


def is_users(file: str) -> bool:
    """Whether nobody installed the code in `file`: it is no part of Python, of a package or of this program."""
    return not file.startswith((*_STANDARD, _OURS)) and not _PACKAGES.intersection(Path(file).parts)


class Inputs:
    """Digests of what was seen. `folder` holds the recipe; what is in it is known to whoever asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = dict(os.environ)
        self._asked: set[str] = set()
        self._looked_at: set[str] = set()
        self._modules: dict[str, str] = {}

    def watch_variables(self) -> None:
        """From now on notice which variables the user's own code asks for."""
        asked = self._asked

        class Watched(type(os.environ)):  # type: ignore[misc]
            """Every way of asking, `in` and os.getenv included, ends here."""

            def __getitem__(self, name: str) -> Any:
                if is_users(_asker()):
                    asked.add(name)
                return super().__getitem__(name)

        os.environ.__class__ = Watched

    def variables(self) -> dict[str, str | None]:
        """Name -> sha256 of the value it had at first; None where there was no such variable."""
        values = {name: self._before.get(name) for name in sorted(self._asked)}
        return {name: None if value is None else _sha256(value.encode()) for name, value in values.items()}

    def modules(self) -> dict[str, str]:
        """File -> sha256 of every module of the user's that was loaded from outside the recipe's folder."""
        files = {str(getattr(module, "__file__", None)) for module in list(sys.modules.values())}
        for file in map(Path, filter(is_users, files - self._looked_at)):
            if file.is_file() and not file.resolve().is_relative_to(self._folder):
                self._modules[str(file.resolve())] = _sha256(file.read_bytes())
        self._looked_at |= files
        return self._modules


def _asker() -> str:
    """The file of the code that asked for a variable, through os and collections.abc or not."""
    frame = sys._getframe(2)
    through = {os.environ.get.__code__.co_filename, os.getenv.__code__.co_filename}
    while frame.f_back is not None and frame.f_code.co_filename in through:
        frame = frame.f_back
    return frame.f_code.co_filename


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
