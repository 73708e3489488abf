"""A hub on loopback: the routes that huggingface_hub 2.4 asks, plain files besides, and a log of what was asked.

It can fail as mirrors do: a repository or commit it does not have, gated or private ones, a file that is not what it
lists, a connection that breaks off or pauses, a status, a login, no answer at all.
"""

from __future__ import annotations

import hashlib
import json
import re
import string
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_canary_2b61f0"
_INFO = re.compile(r"/api/models/(.+?)/revision/(\w+)")
_RESOLVE = re.compile(r"/(.+?)/resolve/(\w+)/(.+)")


@dataclass
class Repository:
    """Files at one commit; `gated` ones are listed for everybody, `private` ones are not there without the token."""

    files: dict[str, bytes]
    commit: str = COMMIT
    gated: bool = False
    private: bool = False


@dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class HubMirror:
    """What there is to be had, and what was asked for: (method, path) in `asked`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.repositories: dict[str, Repository] = {}
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.authorised: list[str] = []
        """Paths asked with a token."""
        self.tampered: dict[str, bytes] = {}
        """What is handed out instead of a listed file, by its name."""
        self.breaks_after: dict[str, int] = {}
        """File -> bytes after which its connection is cut, the next time."""
        self.statuses: dict[str, int] = {}
        """What is answered instead of a file, by its name."""
        self.wants_login = False
        """Whether everything is refused without the token, in plain HTTP, as a proxy does."""
        self.holds: dict[str, threading.Event] = {}
        """File -> what its second half waits for."""
        self.awake = threading.Event()
        """While it is clear, nothing is answered."""
        self.awake.set()

    def answer(self, path: str, headers: dict[str, str]) -> Answer:
        has_token = headers.get("authorization") == f"Bearer {TOKEN}"
        if has_token:
            self.authorised.append(path)
        if self.wants_login and not has_token:
            return Answer(401)
        if (name := path.rpartition("/")[2]) in self.statuses:
            return Answer(self.statuses[name])
        if path.startswith("/files/"):
            name = path.removeprefix("/files/")
            return _part(self.files[name], headers) if name in self.files else Answer(404)
        if match := _INFO.fullmatch(path):
            return self._info(*match.groups(), has_token=has_token)
        if match := _RESOLVE.fullmatch(path):
            return self._file(*match.groups(), has_token=has_token)
        return Answer(200, b"[]") if path == "/api/models" else Answer(404)

    def _found(self, name: str, commit: str, *, has_token: bool) -> Repository | Answer:
        repository = self.repositories.get(name)
        if repository is None:
            return Answer(404, headers={"X-Error-Code": "RepoNotFound"})
        if repository.private and not has_token:
            return Answer(401, headers={"X-Error-Code": "RepoNotFound"})
        if commit != repository.commit:
            return Answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        return repository

    def _info(self, name: str, commit: str, *, has_token: bool) -> Answer:
        found = self._found(name, commit, has_token=has_token)
        if isinstance(found, Answer):
            return found
        siblings = [
            {"rfilename": path, "size": len(data), "blobId": blob_id(data)} for path, data in found.files.items()
        ]
        facts = {"id": name, "modelId": name, "sha": commit, "private": found.private, "siblings": siblings}
        return Answer(200, json.dumps(facts).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, commit: str, path: str, *, has_token: bool) -> Answer:
        found = self._found(name, commit, has_token=has_token)
        if isinstance(found, Answer):
            return found
        if found.gated and not has_token:
            return Answer(401, headers={"X-Error-Code": "GatedRepo"})
        data = self.tampered.get(path, found.files.get(path))
        if data is None:
            return Answer(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        return Answer(200, data, {"ETag": f'"{blob_id(data)}"', "X-Repo-Commit": commit})


def blob_id(data: bytes) -> str:
    """git's name for a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _part(data: bytes, headers: dict[str, str]) -> Answer:
    wanted = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
    if wanted is None:
        return Answer(200, data)
    first = int(wanted[1])
    return Answer(206, data[first:]) if first < len(data) else Answer(416)


@contextmanager
def hub_mirror() -> Iterator[HubMirror]:
    """The mirror, answering until the block ends; then its port is closed."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            mirror.asked.append((self.command, self.path))
            if not mirror.awake.wait(timeout=60):
                return
            path = unquote(urlsplit(self.path).path)
            answer = mirror.answer(path, {name.lower(): value for name, value in self.headers.items()})
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command == "GET":
                name = path.rpartition("/")[2]
                cut = mirror.breaks_after.pop(name, None)
                if name in mirror.holds:
                    half = len(answer.body) // 2
                    self.wfile.write(answer.body[:half])
                    mirror.holds[name].wait(timeout=60)
                    self.wfile.write(answer.body[half:])
                    return
                self.wfile.write(answer.body[:cut])
                self.close_connection = cut is not None

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: `asked` is the log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    mirror = HubMirror(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        mirror.awake.set()
        for held in mirror.holds.values():
            held.set()
        server.shutdown()
        thread.join()
        server.server_close()


def trained_tokenizer() -> dict[str, bytes]:
    """The files of a real tokenizer: byte pairs of some hundred sentences, in small letters, with an unknown word."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    alphabet = [character for character in string.printable if not character.isspace()]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["[UNK]", "[PAD]"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    loader = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "pad_token": "[PAD]"}
    config = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": tokenizer.get_vocab_size()}
    return {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(loader).encode(),
    }


def sentences() -> list[str]:
    """240 different sentences."""
    people = ("The teacher", "My brother", "A young doctor", "The old farmer", "Her neighbour", "Our captain")
    deeds = ("saw", "bought", "painted", "forgot", "described", "repaired", "counted", "carried")
    things = ("a red bicycle", "the wooden table", "seven small boats", "an empty bottle", "the broken clock")
    return [f"{who} {did} {what}." for who in people for did in deeds for what in things]
