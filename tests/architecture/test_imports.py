"""The walls of the house: what the login side may load, and the contracts of import-linter."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import TINY

PACKAGE = Path(__file__).parent.parent.parent / "orchestrator"
HEAVY = ("torch", "mlflow", "submitit", "numpy", "rich", "pandas", "sklearn")

LOADED = """
import sys
from orchestrator.cli.__main__ import main
sys.argv = ["orchestrate", *sys.argv[1:]]
try:
    main()
except SystemExit:
    pass
print(" ".join(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""


def loaded_by(*words: str, cwd: Path) -> set[str]:
    """Top-level modules in memory after a verb has run in a process of its own."""
    argv = (sys.executable, "-c", LOADED, *words)
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=60, check=True)
    return set(done.stderr.splitlines()[-1].split())


def test_help_loads_click_and_no_model_of_anything(tmp_path: Path) -> None:
    assert loaded_by("--help", cwd=tmp_path).isdisjoint({*HEAVY, "pydantic", "yaml", "omegaconf"})


def test_plan_loads_neither_torch_nor_mlflow_nor_submitit(tmp_path: Path) -> None:
    loaded = loaded_by("plan", str(TINY), cwd=tmp_path)
    assert loaded.isdisjoint({*HEAVY, "omegaconf"})
    assert {"pydantic", "yaml"} <= loaded


def test_plan_with_an_override_loads_omegaconf_and_still_nothing_heavy(tmp_path: Path) -> None:
    loaded = loaded_by("plan", str(TINY), "--set", "batch.effective=32", cwd=tmp_path)
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("words", [("status",), ("why", "none")])
def test_status_and_why_load_neither_torch_nor_mlflow_nor_submitit(words: tuple[str, ...], tmp_path: Path) -> None:
    assert loaded_by(*words, cwd=tmp_path).isdisjoint(HEAVY)


@pytest.mark.parametrize("room", ["job", "node"])
def test_driver_and_supervisor_load_neither_torch_nor_mlflow(room: str) -> None:
    program = f"import sys, orchestrator.{room}.__main__; print(*sys.modules)"
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, timeout=60, check=True)
    assert {name.partition(".")[0] for name in done.stdout.split()}.isdisjoint({"torch", "mlflow", "submitit", "numpy"})


def test_the_journal_needs_the_standard_library_alone() -> None:
    program = "import sys, orchestrator.tracking.journal; print(*sys.modules)"
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split() if not name.startswith("_")}
    assert loaded - sys.stdlib_module_names - {"orchestrator"} <= {"distutils-precedence", "sitecustomize"}


def test_package_init_files_import_nothing() -> None:
    for init in PACKAGE.rglob("__init__.py"):
        imports = [
            node for node in ast.walk(ast.parse(init.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert imports == [], init


def test_no_file_is_longer_than_300_lines_and_no_function_longer_than_60() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path}: {node.name}"


def test_every_public_name_has_a_docstring() -> None:
    missing = [
        f"{path.relative_to(PACKAGE)}: {node.name}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
        and not (isinstance(node, ast.ClassDef) and path.name == "errors.py")
    ]
    assert missing == []


def test_nothing_is_unpickled_and_no_shell_is_called() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                assert not any(
                    name.split(".")[0] in {"pickle", "cloudpickle", "shelve", "marshal"} for name in names
                ), path
            if isinstance(node, ast.Call):
                words = {keyword.arg: keyword.value for keyword in node.keywords}
                assert "shell" not in words, path
                if isinstance(node.func, ast.Attribute) and ast.unparse(node.func) == "torch.load":
                    assert ast.unparse(words["weights_only"]) == "True", path
