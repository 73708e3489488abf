"""`orchestrate cluster`: what there is to know of a site."""

from __future__ import annotations

import click

from orchestrator.cli.render.cluster import profile_text


@click.group("cluster")
def command() -> None:
    """Write a profile of the cluster at hand."""


@command.command("discover")
@click.option("--name", metavar="NAME", help="Name of the profile (default: Slurm's name of the cluster).")
def discover(name: str | None) -> None:
    """Ask this machine's Slurm what it has, and print a profile: orchestrate cluster discover > cluster/mine.yaml"""
    from orchestrator.submit.site.discover import discover as ask

    click.echo(profile_text(ask(name=name)), nl=False)
