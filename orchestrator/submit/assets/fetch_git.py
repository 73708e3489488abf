"""A git repository at one commit: checked out beside its place, moved there when it is whole, without its .git."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from orchestrator.recipe.addresses import redacted
from orchestrator.submit.assets.cache import AssetCache, locked_files, made_beside
from orchestrator.submit.assets.declared import AssetFault, Progress, Wanted
from orchestrator.submit.assets.lock import LockedAsset
from orchestrator.submit.commands import find_program, watch_command

_ANSWER_S = 10.0
_LOCAL_S = 300.0
_FETCH_S = 3600.0
_SILENT_S = 60.0
"""Without a word of progress, whichever way git has taken to the server."""
_FAIR = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30", "-c", "core.autocrlf=false")
"""A server that sends less than 1 kB/s for 30 s is given up; everybody gets the same bytes."""
_EVERYTHING = ("refs/heads/*:refs/remotes/origin/*", "refs/tags/*:refs/tags/*")
_ARRIVED = re.compile(r"^Receiving objects:.*, ([0-9.]+) (bytes|KiB|MiB|GiB)")
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_FIX = "check the URL and env.mirrors.git, then run it again"


def fetch_git(
    url: str, wanted: Wanted, cache: AssetCache, environment: Mapping[str, str], progress: Progress
) -> LockedAsset:
    """Check the commit at `url` out into the cache; `environment` says where git's mirrors are. Raises AssetFault."""
    if find_program("git") is None:
        raise AssetFault("git", "git is not on PATH", "load the cluster's module for git")
    ssh = {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=5"}
    git = _Git(url, wanted, {**ssh, **environment, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}, progress)
    folder = cache.folder_of(wanted)
    with made_beside(folder) as new:
        git.check_out(new)
        shutil.rmtree(new / ".git")
        _refuse_links_that_leave(new)
    files = locked_files(folder)
    if not files:
        raise AssetFault("commit", f"{wanted.source} holds no files at that commit", "write another commit")
    progress(*2 * (sum(file.size for file in files),))
    return LockedAsset(wanted, files)


def _refuse_links_that_leave(folder: Path) -> None:
    """Raise AssetFault for a symbolic link whose target is not in the folder, wherever that will lie."""
    real = folder.resolve()
    for link in sorted(path for path in folder.rglob("*") if path.is_symlink()):
        target = Path(os.path.realpath(link))
        if link.readlink().is_absolute() or not target.is_relative_to(real) or not target.exists():
            what = f"its link {link.relative_to(folder)} -> {link.readlink()} leads to nothing inside the repository"
            raise AssetFault("git", what, "mend the repository, or declare what it leads to as an asset of its own")


class _Git:
    """git with what one asset needs."""

    def __init__(self, url: str, wanted: Wanted, environment: Mapping[str, str], progress: Progress) -> None:
        self._url = url
        self._wanted = wanted
        self._environment = environment
        self._progress = progress

    def check_out(self, work: Path) -> None:
        """The commit alone where the server hands it out by name, else all branches and tags, and the commit of these.

        Raises AssetFault.
        """
        source, commit = self._url, self._wanted.revision
        self._run("ls-remote", "--", source, "HEAD", timeout_s=_ANSWER_S)
        self._run("init", "--quiet", str(work), timeout_s=_LOCAL_S)
        here = ("-C", str(work))
        fetch = (*here, "fetch", "--progress", "--no-tags")
        try:
            self._run(*fetch, "--depth=1", "--", source, commit, timeout_s=_FETCH_S)
        except AssetFault:
            self._run(*fetch, "--", source, *_EVERYTHING, timeout_s=_FETCH_S)
        try:
            self._run(*here, "checkout", "--quiet", "--detach", commit, timeout_s=_LOCAL_S)
        except AssetFault:
            fix = "write a commit that one of its branches or tags holds"
            raise AssetFault("commit", f"{self._wanted.source} has no commit {commit}", fix) from None

    def _run(self, *words: str, timeout_s: float) -> None:
        """Raises AssetFault with git's own word where it fails or takes too long."""
        lines: list[str] = []

        def listen(line: str) -> None:
            if arrived := _ARRIVED.search(line):
                self._progress(round(float(arrived[1]) * _UNITS[arrived[2]]), None)
            else:
                lines.append(line)

        argv, where = ("git", *_FAIR, *words), self._wanted.source
        code = watch_command(argv, timeout_s=timeout_s, silence_s=_SILENT_S, env=self._environment, on_line=listen)
        if code is None:
            limit_s = min(timeout_s, _SILENT_S)
            raise AssetFault("git", f"{where} does not answer within {limit_s:g} s, or not to the end", _FIX)
        if code != 0:
            told = [line for line in lines if line.startswith(("fatal:", "error:", "ssh:"))] or lines
            raise AssetFault(
                "git", f"{where} cannot be fetched: {redacted(told[0]) if told else 'no reason given'}", _FIX
            )
