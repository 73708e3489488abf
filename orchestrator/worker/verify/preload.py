"""What the recipe's modules import from elsewhere, imported once before ranks are forked: each of them has it then.

The recipe's own modules are not: a rank imports them itself, when torchrun's variables are there for them to read.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path


def preload(folder: Path) -> None:
    """Import the installed modules that the files in `folder` name at their top; what fails is left to the ranks."""
    own = {path.stem for path in folder.iterdir()}
    names = {name for file in sorted(folder.rglob("*.py")) for name in _imported_by(file)}
    import_module("torch._dynamo")  # which torch's dispatch modes load when they are first used
    for name in sorted(names):
        if name.partition(".")[0] not in own:
            with contextlib.suppress(Exception, SystemExit):
                import_module(name)


def _imported_by(file: Path) -> Iterator[str]:
    """The modules in the import statements at the top of `file`; nothing for a file that cannot be read."""
    with contextlib.suppress(SyntaxError, ValueError, OSError):
        for node in ast.parse(file.read_bytes()).body:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module
