"""The command `lrm4d`. Results go to standard output, progress and errors to standard error."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from typer.core import TyperCommand

from lrm4d import __version__

# PyTorch takes seconds to import; --help and --version do not wait for it, so the commands import what they run.
if TYPE_CHECKING:
    from torch import Tensor

    from lrm4d.pipeline import Report

DEMO_SCENE = Path(__file__).resolve().parent / "scenes" / "demo"
LIST_FLAGS = ("--inputs", "--targets")
USER_ERROR, INTERRUPTED = 2, 130
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Of the click that typer carries or imports, whichever it is."""
COLORS = {"white": "#ffffff", "black": "#000000", "gray": "#808080"}

app = typer.Typer(
    name="lrm4d",
    help="A few posed pictures of something that moves become a 4D scene, to be seen from anywhere at any time.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

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


@app.command(
    epilog="""\b
Examples:
  lrm4d demo
  lrm4d demo -o /tmp/demo --json"""
)
def demo(
    output: Output = Path("out/demo"), model: Model = "nano", device: Device = "auto", as_json: AsJson = False
) -> None:
    """Reconstruct the scene that comes with lrm4d: a video, a contact sheet, every target's picture, scores."""
    report = run_reconstruction(DEMO_SCENE, output, model, device, protocol="demo")
    print_report(report, as_json)


@app.command(
    cls=ListCommand,
    epilog="""\b
Examples:
  lrm4d reconstruct SCENE -o out/scene --protocol random
  lrm4d reconstruct SCENE -o out/scene --inputs images/front_000.png images/left_000.png
  lrm4d reconstruct SCENE -o out/scene --inputs SCENE/images/rand0_*.png --targets @targets.txt
  lrm4d reconstruct SCENE -o out/scene --inputs @inputs.txt --size 256 --json

SCENE comes before --inputs and --targets, which take all that follows them. Without --protocol and --inputs the
protocol "random" is taken, or the scene's first, or all frames are inputs. Without --targets the protocol's are taken,
or all frames that are no inputs.""",
)
def reconstruct(
    scene: Annotated[Path, typer.Argument(help="Folder with transforms.json (nerfstudio or D-NeRF).")],
    output: Output,
    model: Model = "nano",
    protocol: Annotated[str | None, typer.Option(help="Inputs and targets by a name of protocols.json.")] = None,
    inputs: Annotated[
        list[str] | None, typer.Option(help="file_paths of the input pictures, or @FILE with one a line.")
    ] = None,
    targets: Annotated[
        list[str] | None, typer.Option(help="file_paths to render (and judge), or @FILE with one a line.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Resize the inputs: pixels of the longer side.")] = None,
    video: Annotated[bool, typer.Option(help="Write orbit.mp4 too.")] = True,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Turn posed pictures into a 4D scene; render and score the targets.

    Writes OUTPUT/scene.safetensors, OUTPUT/renders/<file_path> of every target (8-bit PNG on white),
    OUTPUT/contact_sheet.png and OUTPUT/orbit.mp4.
    """
    report = run_reconstruction(
        scene, output, model, device, protocol, expand_lists(inputs), expand_lists(targets), size, video
    )
    print_report(report, as_json)


def run_reconstruction(
    scene: Path,
    output: Path,
    model: str,
    device: str,
    protocol: str | None = None,
    inputs: list[str] | None = None,
    targets: list[str] | None = None,
    size: int | None = None,
    video: bool = True,
) -> "Report":
    """Reconstruct a scene folder, with bars; ValueError for what the user can mend."""
    from lrm4d.pipeline import Reconstructor, choose_frames, reconstruct_scene
    from lrm4d.scenes import load_scene

    loaded = load_scene(scene, pictures_required=False)
    choice = choose_frames(loaded, protocol, inputs, targets)
    reconstructor = Reconstructor.from_pretrained(model, device)
    with Bars() as bars:
        return reconstruct_scene(reconstructor, loaded, choice, output, model, size, video, bars)


def print_report(report: "Report", as_json: bool) -> None:
    """Print what was done, for a reader or for a program."""
    if as_json:
        print_json(report.to_json())
        return
    typer.echo(f"{report.choice} ({len(report.inputs)} in, {len(report.targets)} out)")
    typer.echo(f"{report.model} on {report.device}: {report.gaussians} Gaussians")
    if report.scores:
        psnr, inside, pictures = report.scores.values()
        typer.echo(f"PSNR {psnr:.2f} dB, on the object {inside:.2f} dB (mean of {pictures} pictures)")
    else:
        typer.echo("no scores: none of the targets has a picture")
    typer.echo("seconds: " + ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in report.seconds.items()))
    for name, path in report.files.items():
        typer.echo(f"{name:14}{path}")


def print_json(content: Any) -> None:
    """JSON on standard output."""
    typer.echo(json.dumps(content, indent=2, allow_nan=False))


@app.command(
    epilog="""\b
Examples:
  lrm4d render out/scene.safetensors -o orbit.mp4
  lrm4d render out/scene.safetensors --trajectory orbit:turns=2,elevation=30 --times 0:1:0 -o x.mp4 --frames 96
  lrm4d render out/scene.safetensors --trajectory static:azimuth=90 --size 640x360 --fov 40 -o side.gif
  lrm4d render out/scene.safetensors --trajectory arc --times 0.5 -o frames/

Trajectories: orbit, arc, dolly, static, each with options after a colon. A path without an extension is a folder
of PNG files."""
)
def render(
    scene: Annotated[Path, typer.Argument(help="The scene.safetensors that `lrm4d reconstruct` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A file .mp4 or .gif, or a folder for PNG files.")],
    trajectory: Annotated[str, typer.Option(help="The camera's path.")] = "orbit",
    times: Annotated[str, typer.Option(help="The clip's time: from:to, one moment, or there:and:back.")] = "0:1",
    frames: Annotated[int, typer.Option(min=1, help="How many pictures.")] = 72,
    size: Annotated[str | None, typer.Option(help="Pixels: N or WIDTHxHEIGHT (as the inputs were).")] = None,
    fov: Annotated[float | None, typer.Option(help="Horizontal, in degrees (as the inputs').")] = None,
    fps: Annotated[float, typer.Option(help="Frames a second of the video.")] = 24.0,
    background: Annotated[str, typer.Option(help="white, black, gray or #RRGGBB.")] = "white",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Render a 4D scene along a camera's path while its time runs."""
    import torch

    from lrm4d.gaussians4d import Gaussians4D, load_extra
    from lrm4d.reconstruction.reconstructor import choose_device, render_frames
    from lrm4d.trajectories import parse_times, parse_trajectory
    from lrm4d.video import to_bytes

    origin = load_extra(scene)
    width, height = parse_size(size, (origin.get("width", 256), origin.get("height", 256)))
    wanted = {"fov": fov} if fov is not None else {}
    path = complete_trajectory(trajectory, {key: origin[key] for key in ("fov", "distance") if key in origin} | wanted)
    cameras = parse_trajectory(path, frames, width, height)
    color = torch.tensor(parse_color(background))
    gaussians = Gaussians4D.load(scene).to(choose_device(device))
    with Bars() as bars:
        runs = render_frames(gaussians, cameras, parse_times(times, frames), color, bars)
        pictures = torch.cat([to_bytes(run.image).cpu() for run in runs])
    write_pictures(output, pictures, fps)
    result = {"output": str(output), "frames": frames, "width": width, "height": height, "trajectory": path}
    print_json(result) if as_json else typer.echo(f"{output}: {frames} frames of {width} x {height}, {path}")


def complete_trajectory(text: str, defaults: dict[str, float]) -> str:
    """A path's text form with those defaults that the path knows and the text does not set."""
    import inspect

    from lrm4d.trajectories import TRAJECTORIES

    name, _, rest = text.strip().partition(":")
    known = inspect.signature(TRAJECTORIES[name]).parameters if name in TRAJECTORIES else {}
    given = {item.partition("=")[0].strip() for item in rest.split(",")}
    options = [f"{key}={value:g}" for key, value in defaults.items() if key in known and key not in given]
    return f"{name}:{','.join(filter(None, [rest, *options]))}".rstrip(":")


def parse_size(text: str | None, default: tuple[int, int]) -> tuple[int, int]:
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


def write_pictures(output: Path, pictures: "Tensor", fps: float) -> None:
    """8-bit frames as a video, or as numbered PNG files where the path has no extension."""
    from lrm4d.scenes.pictures import save_pictures
    from lrm4d.video import write_video

    if output.suffix:
        write_video(output, pictures, fps)
        return
    digits = len(str(len(pictures) - 1))
    names = [output / f"frame_{index:0{digits}}.png" for index in range(len(pictures))]
    for start in range(0, len(names), 16):  # all frames at once as floats would take four times the memory
        part = slice(start, start + 16)
        save_pictures(names[part], pictures[part].float() / 255)


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


def show(value: Any) -> str:
    """A value for a reader."""
    if isinstance(value, list):
        return ", ".join(show(entry) for entry in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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


if __name__ == "__main__":
    main()
