"""Secrets by key, by shape and by value; and the field's own words, which are none."""

import time
from typing import Any

import pytest

from orchestrator.tracking.redact import HIDDEN, Redactor, names_a_secret, secret_values

PLAIN = Redactor()

SHAPES = [
    "hf_AbCdEfGhIjKlMnOpQrSt",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "github_pat_11AAAAAAA0aaaaaaaaaaaaaaaaaaaa",
    "glpat-abcdefghijklmnopqrst",
    "sk-abcdefghijklmnopqrstuvwx",
    "sk-proj-abc_def-ghijklmnop",
    "AKIAIOSFODNN7EXAMPLE",
    "xoxb-1234567890-abcdefghij",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAK\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("secret", SHAPES)
@pytest.mark.parametrize("frame", ["{}", "x={} y", "see '{}'.", "before\n{}\nafter"])
def test_a_secret_is_known_by_its_shape(secret: str, frame: str) -> None:
    assert PLAIN.text(frame.format(secret)) == frame.format(HIDDEN)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("https://ada:hunter2@host/x", f"https://{HIDDEN}@host/x"),
        ("torch @ git+https://tok3n@github.com/a/b", f"torch @ git+https://{HIDDEN}@github.com/a/b"),
        ("ssh://git@github.com/a/b", "ssh://git@github.com/a/b"),
        ("Authorization: Bearer abcdefgh12345", f"Authorization: {HIDDEN} {HIDDEN}"),
        ("export MLFLOW_TRACKING_PASSWORD=hunter2", f"export MLFLOW_TRACKING_PASSWORD={HIDDEN}"),
        ("--api-key abc --lr 0.1", f"--api-key {HIDDEN} --lr 0.1"),
        ("--hf-token=abc", f"--hf-token={HIDDEN}"),
        ('{"client_secret": "abc", "lr": 1}', f'{{"client_secret": "{HIDDEN}", "lr": 1}}'),
        ("?sig=1&access_key=abc&x=2", f"?sig=1&access_key={HIDDEN}&x=2"),
        ("HF_TOKEN: ${oc.env:HF_TOKEN}", "HF_TOKEN: ${oc.env:HF_TOKEN}"),
        ("the token was lost, the secret is safe", "the token was lost, the secret is safe"),
        ("tokens_per_sample: 30, tokenizer: bpe", "tokens_per_sample: 30, tokenizer: bpe"),
        ("author: ada", "author: ada"),
        ("password: 'three words long', lr: 1", f"password: '{HIDDEN}', lr: 1"),
    ],
)
def test_text_is_redacted_by_what_stands_before_the_secret(text: str, redacted: str) -> None:
    assert PLAIN.text(text) == redacted


@pytest.mark.parametrize(
    ("key", "value", "secret"),
    [
        ("model.args.api_key", "abc", True),
        ("PASSWORD", 1234, True),
        ("credentials.user", "ada", True),
        ("wandb-token", "abc", True),
        ("basic_auth", "abc", True),
        ("password", None, False),
        ("duration.tokens", 10**9, False),
        ("datasets.0.tokens_per_sample", 30, False),
        ("tokenizer", "bpe", False),
        ("model.args.pad_token", "<pad>", False),
        ("eos_token", "</s>", False),
        ("author", "ada", False),
        ("train/loss_per_token", 0.5, False),
    ],
)
def test_a_secret_is_known_by_its_key(key: str, value: Any, secret: bool) -> None:
    assert names_a_secret(key, value) is secret


def test_everything_below_a_key_that_names_a_secret_is_hidden() -> None:
    credentials = {"user": "ada", "parts": ["x", 2]}
    tree = {"args": {"credentials": credentials, "lr": 0.1}, "names": ["hf_AbCdEfGhIjKlMnOpQrSt"]}
    assert PLAIN.tree(tree) == {
        "args": {"credentials": {"user": HIDDEN, "parts": [HIDDEN, HIDDEN]}, "lr": 0.1},
        "names": [HIDDEN],
    }


def test_the_values_of_the_environment_are_hidden_wherever_they_stand() -> None:
    environment = {"DSN": "plain-looking-value", "LONGER": "plain-looking-value-2", "MY_TOKEN": "abcd"}
    redactor = Redactor(secret_values(environment))
    assert redactor.text("at plain-looking-value-2, plain-looking-value; abcd") == f"at {HIDDEN}, {HIDDEN}; {HIDDEN}"


def test_ordinary_settings_are_no_secrets() -> None:
    ordinary = {
        "OMP_NUM_THREADS": "1", "DATA_DIR": "/data/images", "HF_ENDPOINT": "https://mirror.example", "DEBUG": "true",
        "MY_SECRET": "", "USE_TOKEN": "true", "PORT_RANGE": "20000-30000", "SHORT": "abc",
    }  # fmt: skip
    assert secret_values(ordinary) == ()


@pytest.mark.parametrize("piece", ["x", "token", "secret-", "a_", "://", "auth ", "key = ", "eyJ.", "word word=1\n"])
def test_a_text_twice_as_long_takes_about_twice_as_long(piece: str) -> None:
    def seconds(length: int) -> float:
        text, started = piece * (length // len(piece)), time.process_time()
        PLAIN.text(text)
        return time.process_time() - started

    both = [(seconds(40_000), seconds(80_000)) for _ in range(7)]  # in turns: a machine may be slow for a while
    short_s, long_s = map(min, zip(*both, strict=True))
    assert long_s < 3 * short_s + 0.005
