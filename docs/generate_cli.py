"""Print docs/cli.md, made from the verbs' own help: `python docs/generate_cli.py > docs/cli.md`."""

from __future__ import annotations

import sys

import click

from orchestrator.cli.__main__ import VERBS, orchestrate

HEAD = """\
# Command reference

<!-- Made by docs/generate_cli.py from the help texts; a test compares them. -->

stdout carries data (a plan, a run directory, JSON with `--json`); stderr carries talk. RUN is a run directory, its name
under `./runs`, or an unambiguous beginning of that name. What `why` and `status RUN` tell of a run's attempts:
[attempts.md](attempts.md).

| Exit code | Meaning |
|---|---|
| 0 | done |
| 1 | a bug, or the world failed |
| 2 | your input |
| 3 | the scheduler refused |
| 4 | the run failed while being waited for, or `verify-topology` found a difference |
| 130 | Ctrl-C |
"""

WIDTH = {"max_content_width": 100, "terminal_width": 100}


def reference() -> str:
    """The whole page: a section a verb, its help as the terminal shows it at 100 columns."""
    parent = click.Context(orchestrate, info_name="orchestrate", **WIDTH)
    sections = [HEAD]
    for verb in VERBS:
        command = orchestrate.get_command(parent, verb)
        assert command is not None
        context = click.Context(command, info_name=verb, parent=parent, **WIDTH)
        sections.append(section(command, context))
        for name, below in getattr(command, "commands", {}).items():
            sections.append(section(below, click.Context(below, info_name=name, parent=context, **WIDTH)))
    return "\n".join(sections)


def section(command: click.Command, context: click.Context) -> str:
    """One command's help under its own heading."""
    return f"## {context.command_path}\n\n```\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
