"""`python -m orchestrator.submit.assets.hub_download KIND REPOSITORY REVISION [PATTERN...]`: fetch from a hub.

A process of its own, because huggingface_hub reads HF_ENDPOINT and HF_HOME when it is imported. It talks in JSON, a
line each on stderr: {"done": bytes, "total": bytes} as they arrive; at the end {"files": [...], "token": whether one
was wanted}, or {"fault": [key, what, fix], "down": ...}. A token is sent only to a hub that asks for one.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from orchestrator.files import sha256_of
from orchestrator.recipe.addresses import redacted
from orchestrator.submit.assets.declared import AssetFault, NoAnswer
from orchestrator.submit.assets.limits import ANSWER_S, LEAST_BYTES, SILENCE_S
from orchestrator.submit.assets.watchdog import Watchdog, tell, tell_fault

TOKENIZER_FILES = ("*.json", "*.txt", "*.model", "*.spm", "*.bpe", "*.tiktoken", "*.jinja")
"""What a tokenizer is made of, by their names in the top folder."""


class Hub:
    """One repository at one commit, seen through the hub's own client."""

    def __init__(self, kind: str, repository: str, revision: str) -> None:
        from huggingface_hub import constants

        self.kind, self.repository, self.revision = kind, repository, revision
        self.endpoint = redacted(constants.ENDPOINT)
        self.asked = repository
        self.token: bool = False
        self.watchdog = Watchdog()
        self.done = self.total = 0
        self._most = 0
        constants.DOWNLOAD_CHUNK_SIZE = LEAST_BYTES  # the client tells of whole chunks only

    def fault(self, what: str, fix: str = "") -> AssetFault:
        """A fault of the hub as a whole."""
        mend = "check env.mirrors.huggingface, or HF_ENDPOINT, then run it again"
        return AssetFault(self.kind, f"{self.endpoint} {what}", fix or mend)

    def down(self, what: str) -> NoAnswer:
        """A hub that hands out nothing at all."""
        fault = self.fault(what)
        return NoAnswer(fault.key, fault.what, fault.fix)

    def listing(self) -> list[Any]:
        """Every file, with its size and digests where the hub tells them. Raises AssetFault."""
        from huggingface_hub import HfApi, errors

        def ask() -> Any:
            try:
                return HfApi().model_info(
                    self.repository, revision=self.revision, files_metadata=True, timeout=ANSWER_S, token=self.token
                )
            except errors.HFValidationError as error:
                raise AssetFault(self.kind, f"is no repository's name: {_line(error)}", "write org/name") from None
            except (ValueError, KeyError, TypeError):
                raise self.fault("does not speak the hub's API") from None

        self.watchdog.expect(ANSWER_S, self.down(f"does not answer within {ANSWER_S:g} s"))
        info = self._opened(ask)
        self.watchdog.rest()
        if info.sha != self.revision:
            raise AssetFault("revision", f"{self.endpoint} answers with the commit {info.sha}", "mend the mirror")
        return list(info.siblings or ())

    def _opened(self, ask: Callable[[], Any]) -> Any:
        """What `ask` returns, with the user's token if it is wanted and there is one. Raises AssetFault."""
        from huggingface_hub import get_token

        try:
            return self._translated(ask)
        except _Closed as closed:
            if self.token or get_token() is None:
                raise closed.fault from None
        self.token = True
        try:
            return self._translated(ask)
        except _Closed as closed:
            raise closed.fault from None

    def _translated(self, ask: Callable[[], Any]) -> Any:
        """What `ask` returns; the client's errors as faults."""
        from huggingface_hub import errors

        try:
            return ask()
        except errors.RevisionNotFoundError:
            what = f"{self.endpoint} has no commit {self.revision} of {self.repository}"
            raise AssetFault("revision", what, "write a commit that the repository's history shows") from None
        except errors.GatedRepoError:
            raise _Closed(self._closed(f"{self.repository} is gated")) from None
        except errors.RepositoryNotFoundError as error:
            fix = "check the name, and what the mirror in env.mirrors.huggingface holds"
            missing = self.fault(f"has no repository {self.repository}", fix)
            if error.response is None or error.response.status_code == 404:
                raise missing from None
            raise _Closed(self._closed(f"{self.repository} is private, or is not there")) from None
        except errors.HfHubHTTPError as error:
            raise self._refusal(error) from None
        except AssetFault:
            raise
        except Exception as error:
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> AssetFault:
        """Any other error of the client: of this machine's disk, of the network, or of the file."""
        from huggingface_hub import errors

        cause = error.__cause__
        if isinstance(cause, errors.HfHubHTTPError):
            return self._refusal(cause)
        if isinstance(cause, errors.FileMetadataError):
            return self.fault(f"does not hand it out: {_line(cause)}")
        of_network = isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith("httpx")
        if isinstance(error, OSError) and error.errno is not None and not of_network:
            return AssetFault(self.kind, f"cannot be stored: {error.strerror}", "make room, or choose another --cache")
        if of_network or isinstance(error, OSError):
            return self.down(f"does not answer: {_line(cause or error)}")
        return self.fault(f"does not hand it out: {_line(error)}")

    def _refusal(self, error: Any) -> AssetFault:
        """An answer by HTTP that is none of the hub's own kinds. Raises _Closed where it asks who is there."""
        status = error.response.status_code if error.response is not None else 0
        if status == 401:
            raise _Closed(self._closed(f"{self.endpoint} wants to know who asks"))
        told = f"answers {status} for {self.asked}"
        return self.down(told) if status >= 500 else self.fault(told, "look at what the mirror's log says about it")

    def _closed(self, what: str) -> AssetFault:
        if self.token:
            fix = "ask for access on the repository's page, or use a token that has it"
            return AssetFault(self.kind, f"{what}, and your token may not read it", fix)
        fix = "ask for access on the repository's page, then: hf auth login, or export HF_TOKEN"
        return AssetFault(self.kind, f"{what}, and there is no token", fix)

    def fetch(self, file: Any) -> dict[str, Any]:
        """Bring one file into the cache and check it against the hub's digests. Raises AssetFault."""
        path = self._downloaded(file, again=False)
        if not _as_told(path, file):
            self.done -= path.stat().st_size
            path = self._downloaded(file, again=True)
        if not _as_told(path, file):
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise self.fault(f"hands out a {file.rfilename} that is not what it lists; it was thrown away")
        return {"path": file.rfilename, "size": path.stat().st_size, "sha256": sha256_of(path)}

    def _downloaded(self, file: Any, *, again: bool) -> Path:
        from huggingface_hub import hf_hub_download

        self.asked = f"{self.repository}/{file.rfilename}"

        def ask() -> Path:
            path = hf_hub_download(
                self.repository,
                file.rfilename,
                revision=self.revision,
                etag_timeout=ANSWER_S,
                token=self.token,
                force_download=again,
                tqdm_class=_bar(self),
            )
            return Path(path)

        before = self._most = self.done
        self.watchdog.expect(SILENCE_S, self.down(f"does not hand out {file.rfilename}: silent for {SILENCE_S:g} s"))
        path: Path = self._opened(ask)
        self.arrived(before + path.stat().st_size - self.done)
        self.watchdog.rest()
        return path

    def arrived(self, num_bytes: float) -> None:
        """So many bytes more are here; fewer, where the client begins anew, and then the time goes on."""
        self.done += int(num_bytes)
        if self.done > self._most:
            self._most = self.done
            self.begun()
        tell(done=self.done, total=self.total)

    def begun(self) -> None:
        """A file comes, or goes on."""
        self.watchdog.expect(SILENCE_S, self.down(f"is silent for {SILENCE_S:g} s, or next to it"))


class _Closed(Exception):
    """A token is wanted."""

    def __init__(self, fault: AssetFault) -> None:
        super().__init__(fault.what)
        self.fault = fault


def _bar(hub: Hub) -> Any:
    """A progress bar, as the client wants one, that tells instead of drawing."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **options)  # type: ignore[no-untyped-call]
            hub.begun()

        def update(self, n: float | None = 1) -> None:
            hub.arrived(n or 0)

    return Bar


def _as_told(path: Path, file: Any) -> bool:
    """Whether a file has the size and the digest that the hub lists, as far as it lists them."""
    size = path.stat().st_size
    if file.size is not None and file.size != size:
        return False
    if file.lfs is not None:
        return bool(file.lfs.sha256 == sha256_of(path))
    if file.blob_id is None or size > 1 << 26:  # git's own digest is of small files
        return True
    return bool(file.blob_id == hashlib.sha1(b"blob %d\0" % size + path.read_bytes()).hexdigest())


def chosen(names: Sequence[str], kind: str, patterns: Sequence[str]) -> list[str]:
    """The files wanted of those there are, sorted: by the patterns, whose `*` matches folders too."""
    if not patterns and kind == "tokenizer":
        return sorted(n for n in names if "/" not in n and any(fnmatchcase(n, p) for p in TOKENIZER_FILES))
    return sorted(name for name in names if not patterns or any(fnmatchcase(name, p) for p in patterns))


def download(kind: str, repository: str, revision: str, *patterns: str) -> dict[str, Any]:
    """Path, size and sha256 of all `files`, now in the cache, and whether a `token` was wanted. Raises AssetFault."""
    hub = Hub(kind, repository, revision)
    files = {file.rfilename: file for file in hub.listing()}
    names = chosen(list(files), kind, patterns)
    if not names:
        there = ", ".join(sorted(files)[:8]) or "nothing"
        raise AssetFault("files", f"none of the {len(files)} files of {repository} is wanted", f"it has {there}")
    hub.total = sum(files[name].size or 0 for name in names)
    return {"files": [hub.fetch(files[name]) for name in names], "token": hub.token}


def _line(error: BaseException) -> str:
    """What an error says, in one line."""
    line = redacted(str(error).strip().partition("\n")[0])
    return re.sub(r"^\[Errno -?\d+\] ", "", line) or type(error).__name__


def main(arguments: Sequence[str]) -> int:
    """Fetch what the arguments say; 0 when all of it is here."""
    try:
        tell(**download(*arguments))
    except AssetFault as fault:
        tell_fault(fault)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
