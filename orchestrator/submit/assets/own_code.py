"""Which of the recipe's own modules a function hangs on, found by reading them: nothing is imported, nothing runs."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

from orchestrator.recipe.targets import module_file


def digest_of_code(target: str, folder: Path) -> str:
    """64 hex digits over the module of `target` and all that it imports of those in `folder`."""
    digest = hashlib.sha256()
    for path in sorted(_reached(target.partition(":")[0], folder)):
        code = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(code)}\0".encode() + code)
    return digest.hexdigest()


def _reached(module: str, folder: Path) -> set[Path]:
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = module_file(folder, name.split("."), (".py",))
        if file is None and "." in name:  # `from package import name` may name a module or not
            waiting.append(name.rpartition(".")[0])
        if file is not None and file not in found:
            found.add(file)
            waiting.extend(_imported(file, name))
    return found


def _imported(file: Path, name: str) -> Iterator[str]:
    """Every module that the code of module `name` may import, wherever in it that stands."""
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            start = [*above, *(node.module or "").split(".")] if node.module else above
            yield from (".".join([*start, alias.name]) for alias in node.names)
