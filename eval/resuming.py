"""Programs that score scene after scene: a file for each that is done, so that the same command goes on; a bar."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lrm4d.checkpoint import read_json, write_text


def read_done(task: Any, folders: Sequence[Path], output: Path, what: str = "scores") -> dict[str, Any]:
    """{scene: what an earlier run of the same task (a flat dataclass) left}; another task's is a ValueError."""
    done = {}
    for folder in folders:
        path = _scene_file(output, folder.name)
        if not path.exists():
            continue
        content = read_json(path)
        if content.get("task") != vars(task):
            raise ValueError(
                f"{path}: holds {what} of {content.get('task')}, and this run is {vars(task)}; "
                "use another folder with -o, or --restart to score again."
            )
        done[folder.name] = content[what]
    return done


def save_done(task: Any, name: str, result: Any, output: Path, what: str = "scores") -> None:
    """Write down what a scene's turn gave."""
    write_text(_scene_file(output, name), json.dumps({"task": vars(task), what: result}, indent=1) + "\n")


def _scene_file(output: Path, name: str) -> Path:
    return output / "scenes" / f"{name}.json"


def make_bar() -> Progress:
    """A bar on standard error with what is done, of how much, and the time that is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
