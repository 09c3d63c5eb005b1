"""From a command line to an exit code: errors that the user can mend become one message."""

import sys
from collections.abc import Sequence

import typer

from lrm4d.cli import describe, export, generate, path, reconstruct, refine, render, tune, video_to_4d, view, warp  # noqa: F401
from lrm4d.cli.app import app

USER_ERROR, INTERRUPTED = 2, 130
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Of the click that typer carries or imports, whichever it is."""


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code. Errors that the user can mend become one message."""
    try:
        return app(list(arguments) or ["--help"], prog_name="lrm4d", standalone_mode=False) or 0
    except UsageError as error:
        return fail(f"{error.format_message().rstrip('.')}. See: lrm4d --help.")
    except (ValueError, OSError) as error:
        return fail(str(error))
    except MemoryError:
        return fail("out of memory. Give fewer inputs, or smaller ones (--size).")
    except RuntimeError as error:
        if "out of memory" in str(error) or "can't allocate memory" in str(error):
            return fail(f"{str(error).splitlines()[0]} Give fewer inputs, smaller ones (--size), or --device cpu.")
        raise
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        return INTERRUPTED


def fail(message: str) -> int:
    """Print an error; returns the exit code for it."""
    typer.echo(f"error: {message}", err=True)
    return USER_ERROR


def main() -> None:
    """Be the command."""
    sys.exit(run(sys.argv[1:]))
