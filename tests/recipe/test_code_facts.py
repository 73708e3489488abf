"""A BatchNorm in the model's code is found by reading it, wherever its modules reach; nothing of it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.recipe.code_facts import batch_norm_in, not_looked_into
from orchestrator.recipe.data import Target
from orchestrator.recipe.schema import Recipe

CODE: dict[str, dict[str, str]] = {
    "none": {"model.py": "# BatchNorm2d\ndef build():\n    'No BatchNorm2d.'\n    return nn.Linear(1, 1)"},
    "attribute": {"model.py": "from torch import nn\n\ndef build():\n    return nn.BatchNorm2d(3)"},
    "synchronised": {"model.py": "import torch\nbuild = torch.nn.SyncBatchNorm"},
    "lazy": {"model.py": "import torch\nbuild = torch.nn.LazyBatchNorm3d"},
    "function": {"model.py": "from torch.nn.functional import batch_norm\n"},
    "renamed": {"model.py": "from torch.nn import (\n    BatchNorm1d as Norm,\n)\n"},
    "the first of several": {"model.py": "\nif True:\n    f = nn.BatchNorm1d\ng = nn.BatchNorm2d"},
    "sibling": {"model.py": "import blocks", "blocks.py": "import torch\nN = torch.nn.BatchNorm2d"},
    "sibling of a sibling": {"model.py": "import a", "a.py": "from b import x", "b.py": "N = nn.BatchNorm2d"},
    "in a package": {"model.py": "from parts.deep import B", "parts/deep.py": "\nN = nn.BatchNorm2d"},
    "module from a package": {"model.py": "from parts import deep", "parts/deep.py": "\nN = nn.BatchNorm2d"},
    "relative": {"model.py": "import p.a", "p/a.py": "from .b import c", "p/b.py": "N = nn.BatchNorm2d"},
    "relative module": {"model.py": "import p.a", "p/a.py": "from . import b", "p/b.py": "N = nn.BatchNorm2d"},
    "two levels up": {"model.py": "import p.q.a", "p/q/a.py": "from ..b import c", "p/b.py": "N = nn.BatchNorm2d"},
    "a module that is not imported": {"model.py": "import a", "a.py": "", "other.py": "N = nn.BatchNorm2d"},
    "in a circle": {"model.py": "import a", "a.py": "import model, b", "b.py": "N = nn.BatchNorm2d"},
    "an own one that is frozen": {"model.py": "class FrozenBatchNorm2d: ...\nbuild = FrozenBatchNorm2d"},
    "unused beside the target": {"model.py": "def build(): ...\nclass Old:\n    n = nn.BatchNorm2d"},
    "unused import": {"model.py": "from torch.nn import BatchNorm2d\ndef build():\n    return 1"},
    "unused in a sibling": {
        "model.py": "import blocks\nfrom blocks import B\ndef build():\n    return blocks.A(), B()",
        "blocks.py": "class A: ...\nclass B: ...\nclass C:\n    n = nn.BatchNorm2d",
    },
    "only as a script": {"model.py": "def build(): ...\nif __name__ == '__main__':\n    nn.BatchNorm2d(3)"},
    "by an attribute of a sibling": {
        "model.py": "import blocks as b\ndef build():\n    return b.C()",
        "blocks.py": "class A: ...\nclass C:\n    n = nn.BatchNorm2d",
    },
    "by the base of the base": {
        "model.py": "from blocks import C\nclass build(C): ...",
        "blocks.py": "class A:\n    n = nn.BatchNorm2d\nclass C(A): ...",
    },
    "through a constant": {"model.py": "NORM = nn.BatchNorm2d\nLAYERS = [NORM]\ndef build():\n    return LAYERS"},
    "by an alias of the import": {"model.py": "from torch.nn import BatchNorm1d as N\n\ndef build(n=N): ..."},
    "by a star": {"model.py": "from blocks import *\ndef build():\n    return C()", "blocks.py": "C = nn.BatchNorm2d"},
    "in a registry": {
        "model.py": "KINDS = {}\ndef register(c): ...\n@register\nclass C:\n    n = nn.BatchNorm2d\n"
        "def build(kind):\n    return KINDS[kind]()",
    },
    "put into a registry": {"model.py": "KINDS = {}\nKINDS['a'] = nn.BatchNorm2d\ndef build(k): return KINDS[k]"},
    "by any name": {"model.py": "class C:\n    n = nn.BatchNorm2d\ndef build(kind):\n    return globals()[kind]()"},
    "by getattr of a module": {
        "model.py": "import blocks\ndef build(kind):\n    return getattr(blocks, kind)()",
        "blocks.py": "C = nn.BatchNorm2d",
    },
    "imported where it is used": {
        "model.py": "def build():\n    from blocks import C\n    return C()",
        "blocks.py": "C = nn.BatchNorm2d",
    },
    "broken": {"model.py": "def build(:"},
    "not there": {},
}  # fmt: skip
FOUND = {
    "attribute": "model.py:4",
    "synchronised": "model.py:2",
    "lazy": "model.py:2",
    "function": "model.py:1",
    "renamed": "model.py:1",
    "the first of several": "model.py:3",
    "sibling": "blocks.py:2",
    "sibling of a sibling": "b.py:1",
    "in a package": "parts/deep.py:2",
    "module from a package": "parts/deep.py:2",
    "relative": "p/b.py:1",
    "relative module": "p/b.py:1",
    "two levels up": "p/b.py:1",
    "in a circle": "b.py:1",
    "by an attribute of a sibling": "blocks.py:3",
    "by the base of the base": "blocks.py:2",
    "through a constant": "model.py:1",
    "by an alias of the import": "model.py:1",
    "by a star": "blocks.py:1",
    "in a registry": "model.py:5",
    "put into a registry": "model.py:2",
    "by any name": "model.py:2",
    "by getattr of a module": "blocks.py:1",
    "imported where it is used": "blocks.py:1",
}


def recipe(target: str | None) -> Recipe:
    model = None if target is None else Target(target=target)
    return Recipe.model_construct(model=model)


@pytest.mark.parametrize("name", CODE)
def test_a_batch_norm_is_told_by_its_place(name: str, tmp_path: Path) -> None:
    for file, text in CODE[name].items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    assert batch_norm_in(recipe("model:build"), tmp_path) == FOUND.get(name)


SCRIPT = {
    "train.py": "from model import build\nfrom orchestrator.worker import session\n\n"
    "if __name__ == '__main__':\n    with session.start() as run:\n        build()",
    "model.py": "import timm\nfrom torch import nn\n\ndef build():\n    return timm.x, nn.BatchNorm2d(3)\n"
    "def other():\n    return nn.BatchNorm1d(3)",
}


@pytest.mark.parametrize(
    ("command", "place", "unseen"),
    [
        (("train.py",), "model.py:5", ("timm",)),
        (("-m", "train", "--lr=${plan.lr}"), "model.py:5", ("timm",)),
        (("-m",), None, ("the command",)),
        (("/bin/train.py",), None, ("the command",)),
        (("./train.sh",), None, ("the command",)),
    ],
)
def test_a_session_is_looked_into_from_its_script_on(
    command: tuple[str, ...], place: str | None, unseen: tuple[str, ...], tmp_path: Path
) -> None:
    for file, text in SCRIPT.items():
        (tmp_path / file).write_text(text)
    session = Recipe.model_construct(command=command, datasets=(object(),))
    plain = Recipe.model_construct(command=command)
    assert (batch_norm_in(session, tmp_path), not_looked_into(session, tmp_path)) == (place, unseen)
    assert (batch_norm_in(plain, tmp_path), not_looked_into(plain, tmp_path)) == (None, ("the command",))


def test_an_installed_model_and_a_command_are_not_looked_at(tmp_path: Path) -> None:
    assert batch_norm_in(recipe("torchvision.models:resnet50"), tmp_path) is None
    assert batch_norm_in(recipe(None), tmp_path) is None


def test_what_was_not_looked_into_is_named(tmp_path: Path) -> None:
    assert not_looked_into(recipe("torchvision.models:resnet50"), tmp_path) == ("torchvision",)
    assert not_looked_into(recipe(None), tmp_path) == ("the command",)
    (tmp_path / "model.py").write_text(
        "import math, torch, timm, sklearn\nfrom torch import nn\nfrom torchvision import models\n"
        "def build():\n    return timm.create_model('a'), nn.Linear(math.floor(1.5), 2)\n"
        "def other():\n    return models.resnet50()\n"
    )
    assert not_looked_into(recipe("model:build"), tmp_path) == ("timm",)
    assert not_looked_into(recipe("model:other"), tmp_path) == ("torchvision",)
