"""Two descriptions of an order of samples, compared in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LONGEST_SHOWN = 24


def order_changes(before: Mapping[str, Any], after: Mapping[str, Any], *above: str) -> Iterator[str]:
    """`dataset 'x' was added`, `num_samples of 'y': 100 -> 120`, `seed: 7 -> 8`: one line for each difference.

    Both are nested mappings with plain values; `above` are the keys that lead to them.
    """
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from order_changes(old, new, *above, key)
        elif old != new:
            yield _told(key, old, new, above)
    if before.keys() == after.keys() and list(before) != list(after):
        yield f"{above[-1] if above else 'keys'}: {', '.join(before)} -> {', '.join(after)}"


def _told(key: str, old: Any, new: Any, above: tuple[str, ...]) -> str:
    if above and isinstance(new if old is None else old, Mapping) and (old is None or new is None):
        return f"{above[-1].removesuffix('s')} {key!r} was {'added' if old is None else 'removed'}"
    name = key if not above else f"{key} of {above[-1]!r}"
    shown = [_shown(value) for value in (old, new)]
    return f"{name}: {shown[0]} -> {shown[1]}" if all(shown) else f"{name} has changed"


def _shown(value: Any) -> str:
    """A value as people compare it; '' for one that is too long for that, such as a hash."""
    text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST_SHOWN else ""
