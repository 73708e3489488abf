"""Addresses as people write them: what of them may be shown, and which cannot be used. Pure; none of this raises."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit


def split(address: str) -> SplitResult | None:
    """Its parts; None where it is no address, be it for its brackets or its port."""
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return None
    return parts


def redacted(text: str) -> str:
    """`text` without the names, passwords and queries of addresses in it, any of which may be a secret."""
    without_users = re.sub(r"://[^/?#\s'\"]*@", "://", text)
    return re.sub(r"(?<=[^\s'\"])\?[^\s'\"]*", "", without_users)


def shown(address: str) -> str:
    """One address for messages and files: without a name, a password, a query or a fragment."""
    return redacted(address.partition("?")[0].partition("#")[0])


def holds_secret(address: str) -> bool:
    """A password, or over http a lone name too, since tokens are passed so; ssh://git@host holds none."""
    found = re.match(r"(?P<scheme>[^:/?#]*)://(?P<user>[^/?#]*)@", address)
    return found is not None and (":" in found["user"] or found["scheme"].lower() in ("http", "https"))


def is_printable(address: str) -> bool:
    """Whether it holds neither white space nor a control character, written out; nor one in its %-signs."""
    return not re.search(r"\s", address) and not re.search(r"[\x00-\x1f\x7f]", unquote(address))
