"""A file by its URL: resumed where it broke off, checked against its sha256, in place only when it is whole."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from orchestrator.recipe.addresses import shown
from orchestrator.submit.assets.cache import AssetCache, file_name, locked_file, sha256_of
from orchestrator.submit.assets.declared import AssetFault, Progress, Wanted
from orchestrator.submit.assets.limits import ANSWER_S, SILENCE_S, reason, within
from orchestrator.submit.assets.lock import LockedAsset

_READ_AT_ONCE = 1 << 20
_AGAIN = "run it again: what has arrived is kept"


def fetch_file(url: str, wanted: Wanted, cache: AssetCache, progress: Progress) -> LockedAsset:
    """Fetch the file at `url`, query and all, into the cache.

    Raises AssetFault: no answer, a refusal, a break, or another sha256.
    """
    folder = cache.folder_of(wanted)
    target = folder / file_name(wanted.source)
    if not (target.is_file() and sha256_of(target) == wanted.revision):
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / ".partial"
        with _alone(partial):
            resumed = partial.stat().st_size > 0
            _download(url, partial, progress)
            found = sha256_of(partial)
            if found != wanted.revision and resumed:  # the server has another file now than when it broke off
                os.truncate(partial, 0)
                _download(url, partial, progress)
                found = sha256_of(partial)
            if found != wanted.revision:
                partial.unlink()
                what = f"what {wanted.source} holds has the sha256 {found}; it was thrown away"
                raise AssetFault("sha256", what, "write that sha256 if it is the file you mean, else mend the url")
            partial.replace(target)
    return LockedAsset(wanted, (locked_file(folder, target.name),))


@contextlib.contextmanager
def _alone(partial: Path) -> Iterator[None]:
    """Hold the unfinished file, made if it is not there; another process that fetches it has the lock."""
    with partial.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = "another process is fetching it"
            raise AssetFault("url", what, "run it again when that one has ended") from None
        except OSError:
            pass  # a file system without locks
        yield


def _download(url: str, partial: Path, progress: Progress) -> None:
    """Bring `partial` up to the whole file."""
    have = partial.stat().st_size
    try:
        with _opened(url, have) as answer:
            if getattr(answer, "status", None) != http.HTTPStatus.PARTIAL_CONTENT:
                have = 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else None
            with partial.open("r+b") as file:
                file.seek(have)
                file.truncate()
                have = _copied(answer, file, have, total, progress)
    except (OSError, http.client.HTTPException) as error:
        raise AssetFault("url", f"{shown(url)} broke off: {reason(error)}", _AGAIN) from None
    if total is not None and have < total:
        what = f"{shown(url)} broke off after {have:,} of {total:,} bytes"
        raise AssetFault("url", what, _AGAIN)


def _copied(answer: http.client.HTTPResponse, file: BinaryIO, have: int, total: int | None, progress: Progress) -> int:
    while block := answer.read(_READ_AT_ONCE):
        file.write(block)
        have += len(block)
        progress(have, total)
    return have


def _opened(url: str, have: int) -> http.client.HTTPResponse:
    """The server's answer, from byte `have` on where it can. Raises AssetFault."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    fix = "check the url and the network, then run it again"
    try:
        answer: http.client.HTTPResponse = within(ANSWER_S, lambda: urllib.request.urlopen(request, timeout=SILENCE_S))
        return answer
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return _opened(url, 0)
        raise AssetFault("url", f"{shown(url)} answers {error.code} {error.reason}", fix) from None
    except TimeoutError:
        raise AssetFault("url", f"{shown(url)} does not answer within {ANSWER_S:g} s", fix) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AssetFault("url", f"{shown(url)} cannot be read: {reason(error)}", fix) from None
