"""What the commands take: options that several share, and the forms of their values."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from typer.core import TyperCommand

LIST_FLAGS = ("--inputs", "--targets")
Size = TypeVar("Size", tuple[int, int], None)
COLORS = {"white": "#ffffff", "black": "#000000", "gray": "#808080"}

SceneFile = Annotated[Path, typer.Argument(help="What `lrm4d reconstruct` wrote: a scene.safetensors or its folder.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write into.")]
Model = Annotated[str, typer.Option(help="Shipped weights by name, a folder, or a Hugging Face hub id.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]


class ListCommand(TyperCommand):
    """A command whose --inputs and --targets take any number of values each."""

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        """Parse arguments as typer does, once every value has its own flag."""
        return super().parse_args(ctx, repeat_flags(args, LIST_FLAGS))


def repeat_flags(arguments: Sequence[str], flags: Sequence[str]) -> list[str]:
    """["--flag", "a", "b"] as ["--flag", "a", "--flag", "b"], up to the next argument that starts with a dash."""
    repeated: list[str] = []
    flag, first = None, True
    for argument in arguments:
        if argument.startswith("-"):
            flag, first = (argument if argument in flags else None), True
        elif flag and not first:
            repeated.append(flag)
        else:
            first = False
        repeated.append(argument)
    return repeated


def expand_lists(values: Sequence[str] | None) -> list[str] | None:
    """Paths as given; @FILE stands for the file's lines, without empty ones and those that start with #."""
    paths: list[str] = []
    for value in values or ():
        if not value.startswith("@"):
            paths.append(value)
            continue
        file = Path(value[1:])
        if not file.is_file():
            raise ValueError(f"{value}: no such file as {file}; expected a text file with one file_path a line.")
        lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise ValueError(f"{value}: {file} names nothing; expected one file_path a line.")
        paths += found
    return paths or None


def find_scene(path: Path) -> Path:
    """The scene's file: the path, or scene.safetensors in it."""
    file = path / "scene.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{file}: no such file. Give the folder, or its scene.safetensors, of `lrm4d reconstruct`.")
    return file


def parse_size(text: str | None, default: Size) -> tuple[int, int] | Size:
    """Width and height in pixels of "256" or "640x360"."""
    if text is None:
        return default
    match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text.strip().lower())
    if not match:
        raise ValueError(f"--size '{text}': expected pixels as 256 or 640x360.")
    return int(match[1]), int(match[2] or match[1])


def parse_color(text: str) -> list[float]:
    """RGB in [0, 1] of a color's name or #RRGGBB."""
    digits = re.fullmatch(r"#([0-9a-f]{6})", COLORS.get(text.lower(), text.lower()))
    if not digits:
        raise ValueError(f"--background '{text}': expected {', '.join(COLORS)} or #RRGGBB.")
    return [value / 255 for value in bytes.fromhex(digits[1])]
