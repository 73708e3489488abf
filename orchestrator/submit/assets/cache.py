"""The shared cache: where each asset lies, what is known of its files, and whether they are as they were locked.

    huggingface/    the hub's own layout (HF_HOME)
    files/<sha256>/<name>
    prepared/<digest>/  what a recipe's own function has made of others
    git/<commit>/   a checkout without its .git
    records/        what each asset turned out to be, with the times of its files
    checked/        tokenizers that have passed their test
    locks/          held while something is fetched

Reading needs no right to write. What is new gets the permissions of the cache's folder: one that a group may write to
is filled for the group.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from orchestrator.files import read_json, sha256_of, write_atomically
from orchestrator.recipe.check_assets import CACHE_VARIABLE
from orchestrator.submit.assets.declared import HUB_KINDS, Wanted
from orchestrator.submit.assets.lock import LockedAsset, LockedFile
from orchestrator.submit.assets.package import package_root
from orchestrator.submit.user_cache import user_cache


@dataclass(frozen=True)
class AssetCache:
    """A cache by its folder, which need not exist yet."""

    root: Path

    @property
    def hub_home(self) -> Path:
        """What HF_HOME must be."""
        return self.root / "huggingface"

    def folder_of(self, wanted: Wanted) -> Path:
        """Where the paths of an asset's files start. Raises AssetFault for a package that is not installed."""
        if wanted.kind in HUB_KINDS:
            repository = f"models--{wanted.source.replace('/', '--')}"
            return self.hub_home / "hub" / repository / "snapshots" / wanted.revision
        if wanted.kind in ("url", "wheel"):
            return self.root / "files" / wanted.revision
        if wanted.kind == "prepare":
            return self.root / "prepared" / wanted.revision
        if wanted.kind == "git":
            return self.root / "git" / wanted.revision
        return package_root(wanted)

    def path_of(self, wanted: Wanted) -> Path:
        """What the job is given: the file, or the folder of a repository. Raises AssetFault as `folder_of` does."""
        if wanted.kind == "url":
            return self.folder_of(wanted) / file_name(wanted.source)
        if wanted.kind == "wheel":
            return self.folder_of(wanted) / f"{wanted.source.replace('==', '-')}.whl"
        if wanted.kind == "package":
            return self.folder_of(wanted) / wanted.select[0]
        return self.folder_of(wanted)

    def _record(self, wanted: Wanted) -> Path:
        return self.root / "records" / f"{wanted.key}.json"

    def remembered(self, wanted: Wanted) -> tuple[LockedAsset | None, dict[str, int]]:
        """What the asset was when it was last staged here, and the mtimes (ns) its files had; (None, {}) if never."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            record = read_json(self._record(wanted))
            if record is not None:
                return LockedAsset.from_json(record["asset"]), dict(record["mtimes_ns"])
        return None, {}

    def remember(self, locked: LockedAsset) -> None:
        """Write down what is staged now."""
        folder = self.folder_of(locked.wanted)
        mtimes = {file.path: (folder / file.path).stat().st_mtime_ns for file in locked.files}
        write_shared(self._record(locked.wanted), {"asset": locked.as_json(), "mtimes_ns": mtimes})

    def trouble_with(self, locked: LockedAsset, *, thorough: bool) -> str:
        """Why the files are not those of the lock, in words; '' when they are.

        Sizes always; with `thorough` the sha256 too, of files whose time is not the one remembered.
        """
        known, mtimes = self.remembered(locked.wanted) if thorough else (None, {})
        recorded = set(known.files) if known else set()
        folder = self.folder_of(locked.wanted)
        found = [(file.path, self._trouble(folder, file)) for file in locked.files]
        if thorough and not any(what for _, what in found):
            touched = (
                file for file in locked.files if file not in recorded or _mtime(folder, file) != mtimes.get(file.path)
            )
            found = [(file.path, _other_content(folder, file)) for file in touched]
        wrong = [f"{path} {what}" for path, what in found if what]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return f"{wrong[0]}{more}" if wrong else ""

    def _trouble(self, folder: Path, file: LockedFile) -> str:
        try:
            facts = (folder / file.path).stat()
        except FileNotFoundError:
            return f"is missing from {self.root}" if folder.is_relative_to(self.root) else "is missing"
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        if not stat.S_ISREG(facts.st_mode):
            return "is not a file"
        if facts.st_size != file.size:
            return f"has {facts.st_size:,} bytes, and the lock says {file.size:,}"
        return ""

    @contextlib.contextmanager
    def alone(self, wanted: Wanted, waits: Callable[[], None]) -> Iterator[None]:
        """Be the only process that fetches it, or what shares files with it; `waits` is called where another one is."""
        name = wanted.source.replace("/", "--") if wanted.kind in HUB_KINDS else wanted.revision
        path = self.root / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waits()
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                pass  # a file system without locks
            yield


def cache_at(option: Path | None, env: Mapping[str, str]) -> AssetCache:
    """The cache by the option, else ORCHESTRATE_CACHE, else XDG_CACHE_HOME/orchestrate/assets."""
    if option is not None:
        return AssetCache(option.absolute())
    if env.get(CACHE_VARIABLE):
        return AssetCache(Path(env[CACHE_VARIABLE]).absolute())
    return AssetCache(user_cache("assets", env))


def file_name(url: str) -> str:
    """The name a URL's file gets: the last part of its path, where that is a name that can be seen."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    return "file" if name.startswith(".") or not name else name


def locked_file(folder: Path, path: str) -> LockedFile:
    """The file at `path` below `folder` as it is now."""
    return LockedFile(path, (folder / path).stat().st_size, sha256_of(folder / path))


def _mtime(folder: Path, file: LockedFile) -> int:
    return (folder / file.path).stat().st_mtime_ns


def _other_content(folder: Path, file: LockedFile) -> str:
    try:
        return "" if sha256_of(folder / file.path) == file.sha256 else "is not what was locked: another sha256"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def locked_files(folder: Path) -> tuple[LockedFile, ...]:
    """All files below `folder`, by path."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return tuple(locked_file(folder, path) for path in paths)


@contextlib.contextmanager
def made_beside(folder: Path) -> Iterator[Path]:
    """A path for what is to be `folder`: it is moved there at the end of the block, and gone where that fails."""
    work = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    work.mkdir(parents=True)
    try:
        yield work / "new"
        if folder.exists():  # it was not as it should be, or another process was faster
            folder.rename(work / "old")
        (work / "new").rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def permissions_of(root: Path) -> Iterator[None]:
    """Make `root`; what is created meanwhile may be used by those who may use it."""
    root.mkdir(parents=True, exist_ok=True)
    before = os.umask(~root.stat().st_mode & 0o077)
    try:
        yield
    finally:
        os.umask(before)


def write_shared(path: Path, value: Any) -> None:
    """Write JSON with the permissions that the umask leaves."""
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text, mode=0o666)
