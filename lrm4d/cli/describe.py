"""lrm4d info and lrm4d doctor: what a thing is, and what this machine has."""

from typing import Annotated

import typer

from lrm4d import __version__
from lrm4d.cli.app import app
from lrm4d.cli.arguments import AsJson
from lrm4d.cli.printing import print_json, show


@app.command(
    epilog="""\b
Examples:
  lrm4d info out/scene.safetensors
  lrm4d info nano
  lrm4d info SCENE --json"""
)
def info(
    thing: Annotated[str, typer.Argument(help="A scene.safetensors, a network (name or folder), or a scene folder.")],
    as_json: AsJson = False,
) -> None:
    """Say what a file, a network or a scene folder is; a scene folder is checked in full."""
    from lrm4d.info import describe

    content = describe(thing)
    if as_json:
        print_json(content)
        return
    for key, value in content.items():
        if isinstance(value, dict):
            typer.echo(f"{key}:")
            for name, entry in value.items():
                typer.echo(f"    {name:22}{entry}")
        else:
            typer.echo(f"{key:16}{show(value)}")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what is installed, which backends run here, what is missing and how to get it."""
    from dataclasses import asdict

    from lrm4d.doctor import diagnose

    findings = diagnose()
    if as_json:
        print_json({"version": __version__, "findings": [asdict(finding) for finding in findings]})
        return
    typer.echo(f"lrm4d {__version__}")
    for finding in findings:
        mark = "ok" if finding.well else "--"
        typer.echo(f"{mark:4}{finding.name:14}{finding.found}")
        if not finding.well and finding.remedy:
            typer.echo(f"{'':18}{finding.remedy}")
