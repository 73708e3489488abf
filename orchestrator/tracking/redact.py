"""What must not reach MLflow: secrets by the name of their key, by their shape, and by exact value. Pure.

Redaction errs towards hiding, except where the field's own words look like secrets: `tokens_per_sample: 30`,
`tokenizer: bpe` and `pad_token: "<pad>"` stay readable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[redacted]"

_STRONG = r"secret|passw|passphrase|credential|api[_-]?key|access[_-]?key|private[_-]?key|signing[_-]?key"
_WEAK = r"(?:[a-z0-9_-]*[_-])?auth(?:orization)?(?:[_-][a-z0-9_-]*)?|[a-z0-9_-]*token"
_VOCABULARY = re.compile(
    r"(?:pad|eos|bos|unk|mask|cls|sep|start|end|begin|stop|blank|space|special|image|decoder_start|forced_[be]os)"
    r"(?:ding)?[_-]?token|per[_-]token|[a-z0-9_-]*_per_token",
    re.IGNORECASE,
)
_STRONG_KEY = re.compile(_STRONG, re.IGNORECASE)
_WEAK_KEY = re.compile(_WEAK, re.IGNORECASE)

_SHAPES = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}"  # Hugging Face
    r"|\bgh[pousr]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{16,}"  # GitHub
    r"|\bglpat-[\w-]{16,}"  # GitLab
    r"|\bsk-[\w-]{16,}"  # OpenAI and others
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{30,}"  # AWS, Google
    r"|\bxox[abeoprs]-[\w-]{10,}"  # Slack
    r"|\beyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*"  # JSON Web Token
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_USERINFO = re.compile(r"(?<=://)(?!git@)[^/\s@'\"]+(?=@)")
_BEARER = re.compile(r"\b(Bearer|Basic)(\s+)[A-Za-z0-9._~+/=\[\]-]{8,}", re.IGNORECASE)
# Words are looked at whole and once, so that a long one costs its length and not the square of it.
_SECRET_WORD = r"(?<![\w-])(?=[\w-]*?(?:" + _STRONG + r"|auth|token))(?P<key>[\w-]++)"
_VALUE = r"(?P<value>(?<=\")[^\"\n]+|(?<=')[^'\n]+|[^\s\"',;&}]+)"
_ASSIGNMENT = re.compile(_SECRET_WORD + r"(?P<between>[\"']?\s*[:=]\s*[\"']?)" + _VALUE, re.IGNORECASE)
_OPTION = re.compile(r"(?<![\w-])(?=-)" + _SECRET_WORD + r"(?P<between>\s+[\"']?)" + _VALUE, re.IGNORECASE)

_HARMLESS_NAME = re.compile(
    r"(?:OMP|MKL|NCCL|GLOO|TORCH|CUDA|PYTHON|LC|GIT_CONFIG)_?\w*|HF_ENDPOINT|LANG|PATH|TZ|HOME|TMPDIR"
)
_NOTHING = ("true", "false", "none", "null")
_HARMLESS_VALUE = re.compile(r"|true|false|none|null|yes|no|on|off|[\d.:,-]+|/[\w./:@+-]*", re.IGNORECASE)
_MIN_SECRET = 4
_MIN_VALUE = 6


def names_a_secret(key: str, value: Any) -> bool:
    """Whether a key such as `args.api_key` names a secret. Numbers under `token` or `auth` are none."""
    if value is None or isinstance(value, bool):
        return False
    for part in re.split(r"[.\s/]+", key):
        if _STRONG_KEY.search(part):
            return True
        if isinstance(value, str) and _WEAK_KEY.fullmatch(part) and not _VOCABULARY.fullmatch(part):
            return True
    return False


def secret_values(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The values of a job's environment that must appear nowhere, longest first.

    All of them, but numbers, truth values, plain paths and the settings of known libraries; under a name that says
    secret, also those.
    """
    secrets = set()
    for name, value in environment.items():
        named = names_a_secret(name, value) and len(value) >= _MIN_SECRET
        plain = _HARMLESS_NAME.fullmatch(name) or _HARMLESS_VALUE.fullmatch(value)
        if (named and value.lower() not in _NOTHING) or (len(value) >= _MIN_VALUE and not plain):
            secrets.add(value)
    return tuple(sorted(secrets, key=lambda secret: (-len(secret), secret)))


def _hide_value(match: re.Match[str]) -> str:
    key, value = match["key"].strip("-"), match["value"]
    kept = value == HIDDEN or value.startswith("$") or value.lower() in _NOTHING or re.fullmatch(r"[\d.]+", value)
    return match[0] if kept or not names_a_secret(key, value) else f"{match['key']}{match['between']}{HIDDEN}"


class Redactor:
    """Hides secrets in text, in values by key, and in trees of JSON. `secrets` are exact values, longest first."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        self._exact = re.compile("|".join(map(re.escape, secrets))) if secrets else None

    def text(self, text: str) -> str:
        """`text` without secrets, whatever it is: a log, a script, a message."""
        if self._exact is not None:
            text = self._exact.sub(HIDDEN, text)
        text = _SHAPES.sub(HIDDEN, text)
        text = _USERINFO.sub(HIDDEN, text)
        text = _BEARER.sub(rf"\1\2{HIDDEN}", text)
        return _OPTION.sub(_hide_value, _ASSIGNMENT.sub(_hide_value, text))

    def value(self, key: str, value: Any) -> Any:
        """The value of one key: hidden as a whole when the key names a secret, else redacted if it is text."""
        if names_a_secret(key, value):
            return HIDDEN
        return self.text(value) if isinstance(value, str) else value

    def tree(self, value: Any, key: str = "") -> Any:
        """A tree of dicts and lists as JSON or YAML hold it; below a key that names a secret, every leaf is hidden."""
        if isinstance(value, dict):
            return {name: self.tree(child, f"{key}.{name}") for name, child in value.items()}
        if isinstance(value, list):
            return [self.tree(child, key) for child in value]
        return self.value(key, value)
