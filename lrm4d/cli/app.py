"""The command itself, which the groups of commands add theirs to."""

from typing import Annotated

import typer

from lrm4d import __version__

app = typer.Typer(
    name="lrm4d",
    help="A few posed pictures of something that moves become a 4D scene, to be seen from anywhere at any time.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def show_version(wanted: bool) -> bool:
    """Print the version and end, if that is wanted."""
    if wanted:
        typer.echo(f"lrm4d {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def lrm4d(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Take the options that belong to no command."""
