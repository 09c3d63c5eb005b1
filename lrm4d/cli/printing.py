"""What the commands show: progress bars, results for a reader or for a program."""

import json
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Bars:
    """Progress bars with the time that is left, one a stage, on standard error where that is a terminal."""

    def __enter__(self) -> "Bars":
        console = Console(stderr=True)
        columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.tasks: dict[str, TaskID] = {}
        self.progress.start()
        return self

    def __exit__(self, *_) -> None:
        self.progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is."""
        if stage not in self.tasks:
            self.tasks[stage] = self.progress.add_task(stage, total=total)
        self.progress.update(self.tasks[stage], completed=done, total=total)


def print_json(content: Any) -> None:
    """JSON on standard output."""
    typer.echo(json.dumps(content, indent=2, allow_nan=False))


def show(value: Any) -> str:
    """A value for a reader."""
    if isinstance(value, list):
        return ", ".join(show(entry) for entry in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
