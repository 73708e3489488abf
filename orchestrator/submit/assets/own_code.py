"""Which of the recipe's own modules a function hangs on, found by reading them: nothing is imported, nothing runs."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

from orchestrator.recipe.code_facts import Dotted, imported_name, tree_of
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
    waiting: list[Dotted] = [tuple(module.split("."))]
    while waiting:
        name = waiting.pop()
        file = module_file(folder, list(name), (".py",)) if name else None
        if len(name) > 1:  # a package, or the module that the last part is a name in
            waiting.append(name[:-1])
        if file is not None and file not in found:
            found.add(file)
            waiting.extend(_imported(file, file.relative_to(folder).parent.parts))
    return found


def _imported(file: Path, package: Dotted) -> Iterator[Dotted]:
    """All that the code of a module may import, wherever in it that stands."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (imported_name(node, alias, package) for alias in node.names)
