"""What a model's code says about itself, found by reading it: nothing is imported, nothing runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from orchestrator.recipe.schema import Recipe
from orchestrator.recipe.targets import module_file

_BATCH_NORM = re.compile(r"(Sync|Lazy)?BatchNorm([123]d)?|batch_norm")
"""torch.nn's modules and torch.nn.functional's function, by their own names."""


def batch_norm_in(recipe: Recipe, folder: Path) -> str | None:
    """The place (`model.py:14`) of a BatchNorm in the model's module, or in a module beside it that it imports.

    None where there is none to be seen: a model from an installed package is not looked at. `folder` holds the recipe.
    """
    if recipe.model is None:
        return None
    for file, tree in _modules_from(recipe.model.target.partition(":")[0], folder):
        named = (node for node in ast.walk(tree) if any(map(_BATCH_NORM.fullmatch, _names(node))))
        lines = [node.lineno for node in named if isinstance(node, ast.expr | ast.stmt)]
        if lines:
            return f"{file.relative_to(folder)}:{min(lines)}"
    return None


def _names(node: ast.AST) -> Iterator[str]:
    """What a node names: `nn.BatchNorm2d`, `BatchNorm2d`, or an import of it under any name."""
    if isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.name for alias in node.names)


def _modules_from(module: str, folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    """The files of `module` and of all modules in `folder` that it reaches by imports, each once, and their code."""
    waiting, seen = [module], set()
    while waiting:
        file = module_file(folder, waiting.pop(0).split("."), (".py",))
        if file is not None and file not in seen:
            seen.add(file)
            tree = _tree(file)
            yield file, tree
            waiting += _imported(tree, file.relative_to(folder).parent.parts)


def _imported(tree: ast.Module, package: tuple[str, ...]) -> Iterator[str]:
    """Every name that an import may mean as a module; `package` holds the importing file, for relative imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            parts = [*above, *filter(None, [node.module])]
            yield from (".".join([*parts, *last]) for last in ([], *([alias.name] for alias in node.names)))


def _tree(file: Path) -> ast.Module:
    """The parsed file; empty where it cannot be: `check_targets` says so."""
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return ast.Module(body=[], type_ignores=[])
