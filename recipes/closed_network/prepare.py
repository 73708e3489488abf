"""The texts of a user interface with the section of the program that each stands in, read from a wheel.

`orchestrate stage` calls `texts` once; jobs find what it wrote. The wheel is a zip file that is only read.
"""

import hashlib
import json
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

Row = tuple[str, str]
"""A section, and a text of it."""


def texts(
    assets: dict[str, Path],
    folder: Path,
    *,
    sections: Sequence[str],
    fewest_words: int,
    train: int,
    held_out: int,
) -> None:
    """Write `train.tsv` and `held_out.tsv`, a row of section and text each, so many of them, and `sections.txt`."""
    rows = unambiguous(english(zipfile.ZipFile(assets["homeassistant"])), sections, fewest_words)
    parts = split(rows, train=train, held_out=held_out)
    (folder / "sections.txt").write_text("".join(f"{section}\n" for section in sections))
    for part, chosen in parts.items():
        (folder / f"{part}.tsv").write_text("".join(f"{section}\t{text}\n" for section, text in chosen))
        found = Counter(section for section, _ in chosen)
        print(f"{part}: {len(chosen):,} texts, {', '.join(f'{found[each]:,} {each}' for each in sections)}")


def english(wheel: zipfile.ZipFile) -> Iterator[Row]:
    """Every English text: for each component one file, whose outermost keys are the sections."""
    for path in wheel.namelist():
        if path.startswith("homeassistant/components/") and path.endswith("/translations/en.json"):
            for section, inside in json.loads(wheel.read(path)).items():
                yield from ((section, " ".join(text.split())) for text in leaves(inside))


def leaves(value: object) -> Iterator[str]:
    """The texts in nested dictionaries."""
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, str):
        yield value


def unambiguous(rows: Iterator[Row], sections: Sequence[str], fewest_words: int) -> list[Row]:
    """Each text once, with its section: those that stand in one section alone, which is one of `sections`.

    Texts of fewer words are left out: nobody could say where "Name" belongs.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for section, text in rows:
        found[text].add(section)
    alone = ((min(places), text) for text, places in found.items() if len(places) == 1)
    return [(section, text) for section, text in alone if section in sections and len(text.split()) >= fewest_words]


def split(rows: list[Row], *, train: int, held_out: int) -> dict[str, list[Row]]:
    """So many rows of each part, chosen by the hash of their texts, so that no order of files matters.

    Raises ValueError where there are too few.
    """
    if len(rows) < train + held_out:
        raise ValueError(
            f"{len(rows)} texts, and {train} + {held_out} are asked for: take more sections, or fewer texts"
        )
    ordered = sorted(rows, key=lambda row: hashlib.sha256(row[1].encode()).digest())
    return {"held_out": ordered[:held_out], "train": ordered[held_out : held_out + train]}
