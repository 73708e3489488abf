"""The help: every verb of the table exists, and says of itself what the table says."""

from __future__ import annotations

import pytest

from orchestrator import __version__
from orchestrator.cli.__main__ import VERBS, orchestrate


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_of_the_table_is_a_command_with_a_docstring(verb: str) -> None:
    import click

    context = click.Context(orchestrate)
    found = orchestrate.get_command(context, verb)
    assert found is not None and found.name == verb and found.help


def test_the_version_is_a_literal_and_the_packages_own() -> None:
    from importlib.metadata import version

    assert version("orchestrator") == __version__
