"""Options that several verbs share, spelt once."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.errors import Problem, RunError

recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
run_argument = click.argument("run")
cluster_option = click.option(
    "--cluster",
    "profile",
    metavar="PROFILE",
    type=click.Path(path_type=Path),
    help="Cluster profile (default: this machine).",
)
set_option = click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a value of the recipe; may be repeated."
)
offline_option = click.option("--offline", is_flag=True, help="Ask no Slurm: plan by the profile alone.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
wait_option = click.option("--wait", is_flag=True, help="Stay until the run has ended; exit 4 if it failed.")
follow_option = click.option("--follow", is_flag=True, help="Like --wait, with the output of rank 0.")


def current_folder() -> Path:
    """Where the verb was called. Raises RunError where that folder has been deleted."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise RunError(Problem("", "the current folder is not there any more", "cd to one that is")) from None
