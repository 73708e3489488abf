"""Whether the user's own code is where the recipe says, found out without running any of it.

A module beside the recipe is read with `ast`; any other is only looked for among the installed packages, because
importing it would run it (and may take seconds).
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from orchestrator.errors import Problem, did_you_mean
from orchestrator.recipe.schema import Recipe
from orchestrator.recipe.section import Section
from orchestrator.survey import Check

_SUFFIXES = (".py", *importlib.machinery.EXTENSION_SUFFIXES)


def target_checks(folder: Path) -> tuple[Check[Recipe], ...]:
    """One check a section: every target and script that is not there. `folder` holds the recipe."""

    def check_of(targets: Callable[[Recipe], Iterator[tuple[str, str]]]) -> Check[Recipe]:
        return lambda recipe: (
            problem for key, target in targets(recipe) for problem in _check_target(key, target, folder)
        )

    return (*map(check_of, _TARGETS), lambda recipe: _check_command(recipe.command, folder))


def check_targets(recipe: Recipe, folder: Path) -> tuple[Problem, ...]:
    """Every target and script of a whole `recipe` that is not there; `where` is its dotted key."""
    return tuple(problem for check in target_checks(folder) for problem in check(recipe))


def _named_in(where: str, section: Section | None) -> Iterator[tuple[str, str]]:
    """(dotted key, `module:attribute`) of all that a section names, where that could be read."""
    for name in ("target", "count", "finish", "prepare"):
        target = getattr(section, name, None)
        if target is not None:
            yield f"{where}.{name}", target


def _named_in_each(where: str, sections: Iterable[tuple[object, Section]]) -> Iterator[tuple[str, str]]:
    return chain.from_iterable(_named_in(f"{where}.{key}", section) for key, section in sections)


_TARGETS: tuple[Callable[[Recipe], Iterator[tuple[str, str]]], ...] = (
    lambda recipe: _named_in("model", recipe.model),
    lambda recipe: _named_in_each("datasets", enumerate(recipe.datasets)),
    lambda recipe: _named_in_each("validation", enumerate(recipe.validation)),
    lambda recipe: _named_in("loss", recipe.loss),
    lambda recipe: _named_in("optimizer", recipe.optimizer),
    lambda recipe: _named_in_each("metrics", recipe.metrics.items()),
    lambda recipe: _named_in("evaluation.show", getattr(recipe.evaluation, "show", None)),
    lambda recipe: _named_in_each("assets", recipe.assets.items()),
)


def _check_target(key: str, target: str, folder: Path) -> Iterator[Problem]:
    module, _, attribute = target.partition(":")
    file = module_file(folder, module.split("."), (".py",))
    if file is None:
        yield from _check_installed(key, module, folder)
    else:
        yield from _check_attribute(key, file, attribute)


def _check_attribute(key: str, file: Path, attribute: str) -> Iterator[Problem]:
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except SyntaxError as fault:
        yield Problem(key, f"{file}:{fault.lineno}:{fault.offset} is not valid Python: {fault.msg}", "mend the file")
        return
    except (OSError, ValueError) as fault:
        yield Problem(key, f"{file} cannot be read: {fault}", "check the file and its permissions")
        return
    names = frozenset(bound_names(tree.body))
    if not names & {attribute, "*", "__getattr__"}:
        fix = did_you_mean(attribute, names) if names else "define it there"
        yield Problem(key, f"{file} defines no {attribute!r}", fix)


def bound_names(body: list[ast.stmt]) -> Iterator[str]:
    """Names that module-level statements bind, `*` for a star import; what is bound by `exec` and such is not seen."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in statement.names)
        else:
            yield from _names_below(statement)


def _names_below(statement: ast.stmt) -> Iterator[str]:
    """Names bound by an assignment, or inside `if`, `for`, `with`, `try`, `match`."""
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.stmt):
            yield from bound_names([child])
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            yield from bound_names(child.body)
        else:
            yield from (
                node.id for node in ast.walk(child) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            )


def _check_installed(key: str, module: str, folder: Path) -> Iterator[Problem]:
    top, *below = module.split(".")
    looked_at = folder.joinpath(*module.split(".")).with_suffix(".py")
    roots = _installed_roots(top)
    if roots is None:
        near = did_you_mean(top, [file.stem for file in folder.glob("*.py")])
        fix = near if near.startswith("did") else "write the module beside the recipe, or install its package"
        yield Problem(key, f"there is no {looked_at}, and no installed package {top!r}", fix)
    elif below and not any(module_file(root, below, _SUFFIXES) for root in roots):
        yield Problem(
            key, f"there is no {looked_at}, and the installed {top!r} has no module {module!r}", "check the name"
        )


def _installed_roots(top: str) -> list[Path] | None:
    """Folders in which the submodules of an importable top-level module stand; None where there is no such module."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    return None if spec is None else [Path(root) for root in spec.submodule_search_locations or ()]


def module_file(folder: Path, names: list[str], suffixes: tuple[str, ...]) -> Path | None:
    """The file of module `a.b` in `folder`: `a/b.py`, or the package `a/b/__init__.py`."""
    base = folder.joinpath(*names)
    files = [base / "__init__.py", *(base.with_name(base.name + suffix) for suffix in suffixes)]
    return next((file for file in files if file.is_file()), None)


def _check_command(command: tuple[str, ...], folder: Path) -> Iterator[Problem]:
    if not command:
        return
    if command[0] == "-m":
        if len(command) == 1:
            yield Problem("command", "-m without a module", "write [-m, module, ...]")
        elif module_file(folder, command[1].split("."), (".py",)) is None:
            yield from _check_installed("command.1", command[1], folder)
        return
    script = folder / command[0]
    if not script.is_file():
        near = did_you_mean(command[0], [file.name for file in folder.glob("*.py")])
        fix = near if near.startswith("did") else "write the script beside the recipe"
        yield Problem("command.0", f"there is no {script}", fix)
    elif not Path(command[0]).is_absolute() and not script.resolve().is_relative_to(folder.resolve()):
        fix = "move it there, or write its absolute path"
        yield Problem("command.0", f"{command[0]} is outside the recipe's folder, so no snapshot would hold it", fix)
