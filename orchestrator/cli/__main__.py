"""`orchestrate`: the verbs, in a table. Starting up imports click and nothing else; a verb is imported on use."""

from __future__ import annotations

import gc
import sys
from importlib import import_module

import click

from orchestrator import __version__
from orchestrator.errors import OrchestratorError

VERBS = {
    "plan": "Show what a recipe would do on an allocation; needs no cluster.",
    "submit": "Plan a recipe, write its run directory and start it.",
    "status": "Show the state of runs.",
    "logs": "Print, or follow, the output of a rank.",
    "why": "Say why a run ended, and what to do next.",
    "report": "Say how well a run used its machines.",
    "top": "Watch how a run goes, and how it uses its machines.",
    "cancel": "Let a run save, and end it.",
    "resume": "Go on from the last checkpoint, on any allocation.",
    "sync": "Bring to MLflow what it has not got yet.",
    "cluster": "Write a profile of the cluster at hand.",
    "fit": "Predict the largest micro-batch that fits a GPU.",
    "verify-topology": "Show that a recipe trains the same on any number of ranks.",
    "stage": "Fetch what a recipe declares, once, and lock it.",
    "doctor": "Look for what would go wrong on this machine.",
    "schema": "Print the JSON Schema of recipes, for editors.",
    "tokens": "Count tokens by rule and by tokenizer.",
}
"""Each verb and its one-line help: `--help` needs no more than this table."""


_OBJECTS_BETWEEN_COLLECTIONS = 100_000
"""A verb's modules make tens of thousands of objects, none of them garbage: looking for some took a fifth of `plan`."""


class _Verbs(click.Group):
    """A group whose commands live in `orchestrator.cli.<verb>`, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = import_module(f"orchestrator.cli.{name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from orchestrator.errors import did_you_mean

            raise click.UsageError(f"no such verb {args[0]!r}: {did_you_mean(args[0], VERBS)}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="orchestrate")
def orchestrate() -> None:
    """One recipe, any Slurm allocation, the same science.

    Exit codes: 0 done, 1 a bug or the world failed, 2 your input, 3 the scheduler refused,
    4 the run failed while being waited for, or topologies differ, 130 Ctrl-C.
    """


def _tell(error: OrchestratorError, *, as_json: bool) -> None:
    """The problems as data on stdout, or as lines on stderr."""
    if as_json:
        from orchestrator.cli.render.text import json_text

        click.echo(json_text({"problems": [problem.as_json() for problem in error.problems]}))
        return
    click.echo(str(error), err=True)
    if len(error.problems) > 1:
        click.echo(f"{len(error.problems)} problems", err=True)


def main() -> int:
    """Run a verb; the only place where an error becomes lines on stderr and an exit code."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    try:
        result = orchestrate.main(standalone_mode=False)
        return result if isinstance(result, int) else 0
    except OrchestratorError as error:
        _tell(error, as_json="--json" in sys.argv)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
