"""The user's own code: imported from the run's snapshot by file path, under names that clash with nothing.

The recipe's folder becomes a package with a made-up name. Its modules import each other as they would in a script
(`from model import Net`, `from layers.attention import Attention`) or relatively; they never shadow an installed
package for anyone else, and no installed package shadows them.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import sys
from collections.abc import Callable
from functools import partial
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from orchestrator.errors import Problem, RecipeError, did_you_mean
from orchestrator.recipe.data import Target
from orchestrator.worker.failure import one_line


class UserCode:
    """The modules in `folder`, and behind them what is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._package = f"recipe_{hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]}"
        if self._package not in sys.modules:
            package = ModuleType(self._package)
            package.__path__ = [str(self.folder)]
            sys.modules[self._package] = package
            sys.meta_path.insert(0, _Finder(self._package, self._import))

    def load(self, target: str) -> Any:
        """The attribute that `module:attribute` names. Raises RecipeError, naming the file, when it cannot."""
        module_name, _, attribute = target.partition(":")
        module = self._module(target, module_name)
        try:
            return getattr(module, attribute)
        except AttributeError:
            names = [name for name in vars(module) if not name.startswith("_")]
            where = getattr(module, "__file__", module_name)
            problem = Problem(target, f"{where} has no {attribute!r}", did_you_mean(attribute, names))
            raise RecipeError(problem) from None

    def modules(self) -> list[ModuleType]:
        """The user's own modules that have been imported so far."""
        return [module for name, module in list(sys.modules.items()) if name.startswith(f"{self._package}.")]

    def build(self, wanted: Target) -> Any:
        """What `wanted` makes when called with its arguments. Raises RecipeError in one line when the call fails."""
        function = self.load(wanted.target)
        return self._told(wanted.target, "cannot be made", lambda: function(**wanted.args))

    def make(self, target: str, argument: Any, keywords: dict[str, Any]) -> Any:
        """What `target` makes of one argument and keywords. Raises RecipeError in one line when the call fails."""
        function = self.load(target)
        return self._told(target, "cannot be made", lambda: function(argument, **keywords))

    def bind(self, wanted: Target) -> Callable[..., Any]:
        """`wanted` as a function, with its `args` as keyword arguments of every call."""
        function: Callable[..., Any] = self.load(wanted.target)
        return partial(function, **wanted.args) if wanted.args else function

    def _module(self, target: str, module_name: str) -> ModuleType:
        if _file_of(self.folder, module_name.partition(".")[0]):
            module_name = f"{self._package}.{module_name}"
        module: ModuleType = self._told(target, "cannot be imported", lambda: importlib.import_module(module_name))
        return module

    def _told(self, target: str, what: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except RecipeError:
            raise
        except (Exception, SystemExit) as error:
            raise RecipeError(Problem(target, f"{what}: {one_line(error, self.folder)}")) from error

    def _import(
        self,
        name: str,
        globals: dict[str, Any] | None = None,
        locals: dict[str, Any] | None = None,
        fromlist: tuple[str, ...] = (),
        level: int = 0,
    ) -> ModuleType:
        """`__import__` as the user's modules see it: their siblings first."""
        top = name.partition(".")[0]
        if level or not _file_of(self.folder, top):
            return builtins.__import__(name, globals, locals, fromlist, level)
        module = builtins.__import__(f"{self._package}.{name}", globals, locals, fromlist or ("__name__",), 0)
        return module if fromlist else sys.modules[f"{self._package}.{top}"]


def build_model(code: UserCode, wanted: Target) -> torch.nn.Module:
    """The model that `wanted` makes. Raises RecipeError, in one line, for anything else."""
    model = code.build(wanted)
    if not isinstance(model, torch.nn.Module):
        what = f"{wanted.target} gave {type(model).__name__}"
        raise RecipeError(Problem("model", what, "return a torch.nn.Module"))
    return model


def _file_of(folder: Path, name: str) -> Path | None:
    """The file of module or package `name` in `folder`."""
    candidates = (folder / f"{name}.py", folder / name / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


class _Finder:
    """Finds the modules of one made-up package, and gives them the import function that knows their siblings."""

    def __init__(self, package: str, import_function: Callable[..., ModuleType]) -> None:
        self._package = package
        self._builtins = {**vars(builtins), "__import__": import_function}

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not fullname.startswith(self._package + ".") or not path:
            return None
        file = _file_of(Path(next(iter(path))), fullname.rpartition(".")[2])
        if file is None:
            return None
        search = [str(file.parent)] if file.name == "__init__.py" else None
        loader = _Loader(fullname, str(file), self._builtins)
        return spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=search)


class _Loader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, builtins_of_module: dict[str, Any]) -> None:
        super().__init__(fullname, path)
        self._builtins = builtins_of_module

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = self._builtins
        super().exec_module(module)
