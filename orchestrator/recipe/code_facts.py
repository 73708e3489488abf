"""What a model's code says about itself, found by reading it: nothing is imported, nothing runs.

Only what the model's target reaches is looked at: the top-level statements that bind its name, those that bind the
names used in them, and so on through the modules beside the recipe, along with what runs whenever one of these is
imported. Where a name leads nowhere, its whole module counts. A session's model is what its whole script reaches.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath

from orchestrator.recipe.schema import Recipe
from orchestrator.recipe.targets import bound_names, module_file

_BATCH_NORM = re.compile(r"(Sync|Lazy)?BatchNorm([123]d)?|batch_norm")
"""torch.nn's modules and torch.nn.functional's function, by their own names."""
_KNOWN = sys.stdlib_module_names | {"torch", "numpy", "orchestrator"}
"""What of these holds a BatchNorm is known by name."""
_ANY_NAME = {"globals", "eval", "exec", "__import__", "import_module"}
"""Code that uses one of these may reach anything in its module."""
_BLOCKS = ast.If | ast.Try | ast.With | ast.For | ast.While | ast.Match

Dotted = tuple[str, ...]


def batch_norm_in(recipe: Recipe, folder: Path) -> str | None:
    """The place (`model.py:14`) of a BatchNorm in what the model's target, or a session's script, reaches in
    the modules beside the recipe.

    None where there is none to be seen: see `not_looked_into`. `folder` holds the recipe.
    """
    places = _Reach.of(recipe, folder).places
    file = next(iter(places), None)
    return None if file is None else f"{file.relative_to(folder)}:{min(places[file])}"


def not_looked_into(recipe: Recipe, folder: Path) -> tuple[str, ...]:
    """What else may hold the model's BatchNorm: installed packages that it reaches, or a command that is no module."""
    if recipe.model is None and _script_of(recipe) is None:
        return ("the command",)
    return tuple(sorted(_Reach.of(recipe, folder).outside - _KNOWN))


class _Reach:
    """What code leads to. `places` has the lines of each file that name a BatchNorm, files in the order of reaching."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._trees: dict[Path, ast.Module] = {}
        self._seen: set[tuple[object, ...]] = set()
        self._waiting: list[tuple[str, str | None]] = []
        self.places: dict[Path, set[int]] = {}
        self.outside: set[str] = set()

    @classmethod
    def of(cls, recipe: Recipe, folder: Path) -> _Reach:
        found = cls(folder)
        if recipe.model is not None:
            module, _, attribute = recipe.model.target.partition(":")
            found._waiting.append((module, attribute))
        elif (script := _script_of(recipe)) is not None:
            found._waiting.append((script, None))
        while found._waiting:
            found._reach(*found._waiting.pop(0))
        return found

    def _reach(self, module: str, name: str | None) -> None:
        """Look at what binds `name` in a module; None: at all of it."""
        file = module_file(self._folder, module.split("."), (".py",))
        if file is None:
            self.outside.add(module.partition(".")[0])
        elif (file, name) not in self._seen:
            self._seen.add((file, name))
            body = self._body(file)
            wanted = body if name is None else [each for each in body if name in bound_names([each])]
            for statement in wanted or body:
                self._look(file, statement, name if wanted else None)

    def _body(self, file: Path) -> list[ast.stmt]:
        """The statements of a file; at the first time, those that run at any import are looked at too."""
        if file not in self._trees:
            self._trees[file] = tree_of(file)
            for statement in filter(self._runs_at_import, self._trees[file].body):
                self._look(file, statement, None)
        return self._trees[file].body

    def _runs_at_import(self, statement: ast.stmt) -> bool:
        """Whether a statement does something beyond binding names, such as putting a class into a registry."""
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return any(root not in _KNOWN for each in statement.decorator_list for root, *_ in _uses(each))
        if isinstance(statement, ast.ImportFrom):
            return any(alias.name == "*" for alias in statement.names)
        if isinstance(statement, ast.Assign):
            return any(isinstance(node, ast.Attribute | ast.Subscript) for node in statement.targets)
        if isinstance(statement, _BLOCKS):
            nested = (node for node in ast.walk(statement) if isinstance(node, ast.stmt) and node is not statement)
            return not _is_main_guard(statement) and any(map(self._runs_at_import, nested))
        return isinstance(statement, ast.Expr) and not isinstance(statement.value, ast.Constant)

    def _look(self, file: Path, statement: ast.stmt, name: str | None) -> None:
        """Note what a statement names and follow what it uses; of an import only what binds `name`, if there is one."""
        if isinstance(statement, ast.Import | ast.ImportFrom):
            self._follow_import(file, statement, name, ())
            return
        if (file, statement) in self._seen:
            return
        self._seen.add((file, statement))
        for node in ast.walk(statement):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._follow_import(file, node, None, ())
            elif any(map(_BATCH_NORM.fullmatch, _names(node))) and isinstance(node, ast.expr):
                self.places.setdefault(file, set()).add(node.lineno)
        for used in _uses(statement):
            self._follow(file, used)

    def _follow(self, file: Path, used: Dotted) -> None:
        """Look at what binds the first part of a dotted name at the top level of its file."""
        if _ANY_NAME.intersection(used):
            self._waiting.append((_module_name(file, self._folder), None))
        for statement in self._trees[file].body:
            if used[0] not in bound_names([statement]):
                continue
            if isinstance(statement, ast.Import | ast.ImportFrom):
                self._follow_import(file, statement, used[0], used[1:])
            else:
                self._look(file, statement, None)

    def _follow_import(
        self, file: Path, statement: ast.Import | ast.ImportFrom, name: str | None, rest: Dotted
    ) -> None:
        """Follow what an import binds to `name` (None: to any), and of that the attributes `rest`."""
        package = file.relative_to(self._folder).parent.parts
        for alias in statement.names:
            bound = alias.asname or alias.name.partition(".")[0]
            if name not in (None, bound):
                continue
            parts = imported_name(statement, alias, package)
            if isinstance(statement, ast.ImportFrom):
                if _BATCH_NORM.fullmatch(alias.name):
                    self.places.setdefault(file, set()).add(statement.lineno)
            elif name is not None and alias.asname is None:
                parts = (bound,)
            self._wait_for((*parts, *rest))

    def _wait_for(self, parts: Dotted) -> None:
        """Reach the longest module beside the recipe that a dotted name begins with, and in it the part after it."""
        for length in range(len(parts), 0, -1):
            if module_file(self._folder, list(parts[:length]), (".py",)) is not None:
                self._waiting.append((".".join(parts[:length]), parts[length] if length < len(parts) else None))
                return
        self.outside.update(parts[:1])


def _script_of(recipe: Recipe) -> str | None:
    """The script of a session as a module beside the recipe; None for another program, and without a session."""
    if not recipe.opens_session:
        return None
    first, *rest = recipe.command
    if first == "-m":
        return rest[0] if rest else None
    script = PurePath(first)
    return ".".join(script.with_suffix("").parts) if script.suffix == ".py" and not script.is_absolute() else None


def imported_name(statement: ast.Import | ast.ImportFrom, alias: ast.alias, package: Dotted) -> Dotted:
    """What an import in a module of `package` takes, in full, be it a module or not; of a star import the module."""
    parts = tuple(alias.name.split("."))
    if isinstance(statement, ast.Import):
        return parts
    above = package[: len(package) - statement.level + 1] if statement.level else ()
    module = tuple(filter(None, (statement.module or "").split(".")))
    return (*above, *module, *(() if alias.name == "*" else parts))


def _names(node: ast.AST) -> Iterator[str]:
    """What a node names: `nn.BatchNorm2d`, `BatchNorm2d`."""
    if isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Name):
        yield node.id


def _uses(node: ast.AST) -> Iterator[Dotted]:
    """The dotted names in a piece of code, each as long as it is written: ('torch', 'nn', 'Linear')."""
    parts: list[str] = []
    below = node
    while isinstance(below, ast.Attribute):
        parts.append(below.attr)
        below = below.value
    if isinstance(below, ast.Name):
        yield (below.id, *reversed(parts))
        return
    for child in ast.iter_child_nodes(below):
        yield from _uses(child)


def _is_main_guard(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ("__name__",) in _uses(statement.test)


def _module_name(file: Path, folder: Path) -> str:
    parts = file.relative_to(folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tree_of(file: Path) -> ast.Module:
    """The parsed file; empty where it cannot be: `check_targets` says so."""
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return ast.Module(body=[], type_ignores=[])
