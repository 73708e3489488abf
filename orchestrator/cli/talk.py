"""Talk goes to stderr, so that stdout holds nothing but data."""

from __future__ import annotations

import click


def say(line: str) -> None:
    """A line of talk."""
    click.echo(line, err=True)
