"""A file by its URL: resumed where it broke off, checked against its sha256, in place only when it is whole."""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from orchestrator.files import sha256_of
from orchestrator.recipe.addresses import shown
from orchestrator.submit.assets.cache import AssetCache, file_name, locked_file
from orchestrator.submit.assets.declared import AssetFault, NoAnswer, Progress, Wanted
from orchestrator.submit.assets.limits import ANSWER_S, LEAST_BYTES, SILENCE_S, reason, within
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
        partial.touch()
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


def _download(url: str, partial: Path, progress: Progress) -> None:
    """Bring `partial` up to the whole file. Raises AssetFault, or OSError where it cannot be stored."""
    have = partial.stat().st_size
    with _opened(url, have) as answer:
        if getattr(answer, "status", None) != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0
        length = answer.headers.get("Content-Length") or ""
        total = have + int(length) if length.isdecimal() else None
        with partial.open("r+b") as file:
            file.seek(have)
            file.truncate()
            for piece in _pieces(url, answer):
                file.write(piece)
                have += len(piece)
                progress(have, total)
    if total is not None and have < total:
        what = f"{shown(url)} broke off after {have:,} of {total:,} bytes"
        raise AssetFault("url", what, _AGAIN)


def _pieces(url: str, answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """What arrives, as it arrives. Raises AssetFault where it breaks off, or is too slow to be waited for."""
    until, missing = time.monotonic() + SILENCE_S, LEAST_BYTES
    try:
        while piece := answer.read1(_READ_AT_ONCE):
            yield piece
            missing -= len(piece)
            if missing <= 0:
                until, missing = time.monotonic() + SILENCE_S, LEAST_BYTES
            elif time.monotonic() > until:
                what = f"{shown(url)} is too slow: less than {LEAST_BYTES:,} bytes in {SILENCE_S:g} s"
                raise AssetFault("url", what, _AGAIN)
    except (OSError, http.client.HTTPException) as error:
        raise AssetFault("url", f"{shown(url)} broke off: {reason(error)}", _AGAIN) from None


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
        raise NoAnswer("url", f"{shown(url)} does not answer within {ANSWER_S:g} s", fix) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AssetFault("url", f"{shown(url)} cannot be read: {reason(error)}", fix) from None
