"""A data file inside an installed package, found without importing the package."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path, PurePosixPath

from orchestrator.errors import did_you_mean
from orchestrator.submit.assets.declared import AssetFault, Wanted


def package_version(wanted: Wanted) -> str:
    """The installed version. Raises AssetFault where the package is not installed."""
    return _distribution(wanted).version


def package_root(wanted: Wanted) -> Path:
    """The folder from which the file's path counts, site-packages as a rule. Raises AssetFault where there is none.

    An editable install lists no files: there the top-level module's own place counts.
    """
    distribution = _distribution(wanted)
    path = PurePosixPath(wanted.select[0])
    root = Path(str(distribution.locate_file("")))
    if path in (distribution.files or ()) and (root / path).is_file():
        return root
    for place in _places_of_module(distribution, path.parts[0]):
        if Path(place).parent.joinpath(path).is_file():
            return Path(place).parent
    raise AssetFault("path", f"{wanted.source} {distribution.version} has no {path}", _nearest(distribution, wanted))


def _places_of_module(distribution: importlib.metadata.Distribution, module: str) -> list[str]:
    """Where a top-level module lies, as long as no other package has brought it."""
    owners = importlib.metadata.packages_distributions().get(module, [distribution.name])
    spec = importlib.util.find_spec(module) if module.isidentifier() and distribution.name in owners else None
    return list((spec and spec.submodule_search_locations) or ())


def _nearest(distribution: importlib.metadata.Distribution, wanted: Wanted) -> str:
    """The fix: a file of the package with that name, or with one much like it."""
    listed = [str(file) for file in distribution.files or () if not str(file).endswith((".py", ".pyc"))]
    same_name = [file for file in listed if PurePosixPath(file).name == PurePosixPath(wanted.select[0]).name]
    near = did_you_mean(wanted.select[0], listed) if listed else ""
    if same_name:
        return f"write {same_name[0]}"
    return near if near.startswith("did you mean") else f"see: pip show -f {wanted.source}"


def _distribution(wanted: Wanted) -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(wanted.source)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise AssetFault("package", f"{wanted.source} is not installed", f"pip install {wanted.source}") from None
