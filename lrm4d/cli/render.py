"""lrm4d render: a 4D scene to pictures along a camera's path."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrm4d.cli.app import app
from lrm4d.cli.arguments import AsJson, Device, parse_color, parse_size
from lrm4d.cli.printing import Bars, print_json

if TYPE_CHECKING:
    from torch import Tensor


@app.command(
    epilog="""\b
Examples:
  lrm4d render out/scene.safetensors -o orbit.mp4
  lrm4d render out/scene.safetensors --trajectory orbit:turns=2,elevation=30 --times 0:1:0 -o x.mp4 --frames 96
  lrm4d render out/scene.safetensors --trajectory static:azimuth=90 --size 640x360 --fov 40 -o side.gif
  lrm4d render out/scene.safetensors --trajectory arc --times 0.5 -o frames/
  lrm4d render out/scene.safetensors --mode depth -o depth.mp4

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
    mode: Annotated[str, typer.Option(help="colour, alpha, depth, velocity or birth.")] = "colour",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Render a 4D scene along a camera's path while its time runs."""
    import torch

    from lrm4d.export.modes import ModeRenderer, check_mode
    from lrm4d.gaussians4d import Gaussians4D, load_extra
    from lrm4d.reconstruction.reconstructor import choose_device
    from lrm4d.trajectories import parse_times, parse_trajectory
    from lrm4d.video import to_bytes

    origin = load_extra(scene)
    width, height = parse_size(size, (origin.get("width", 256), origin.get("height", 256)))
    wanted = {"fov": fov} if fov is not None else {}
    path = complete_trajectory(trajectory, {key: origin[key] for key in ("fov", "distance") if key in origin} | wanted)
    cameras = parse_trajectory(path, frames, width, height)
    color = torch.tensor(parse_color(background))
    check_mode(mode)
    renderer = ModeRenderer(Gaussians4D.load(scene).to(choose_device(device)))
    with Bars() as bars:
        drawn = renderer.render_frames(cameras, parse_times(times, frames), mode, color, bars)
        pictures = torch.cat([to_bytes(frame.image).cpu() for frame in drawn])
    write_pictures(output, pictures, fps)
    result = {"output": str(output), "frames": frames, "width": width, "height": height, "trajectory": path}
    result |= {"mode": mode, "legend": renderer.legend(mode, cameras)}
    said = f"{output}: {frames} frames of {width} x {height}, {path}"
    print_json(result) if as_json else typer.echo(f"{said}\n{mode}: {result['legend']}" if mode != "colour" else said)


def complete_trajectory(text: str, defaults: dict[str, float]) -> str:
    """A path's text form with those defaults that the path knows and the text does not set."""
    import inspect

    from lrm4d.trajectories import TRAJECTORIES

    name, _, rest = text.strip().partition(":")
    known = inspect.signature(TRAJECTORIES[name]).parameters if name in TRAJECTORIES else {}
    given = {item.partition("=")[0].strip() for item in rest.split(",")}
    options = [f"{key}={value:g}" for key, value in defaults.items() if key in known and key not in given]
    return f"{name}:{','.join(filter(None, [rest, *options]))}".rstrip(":")


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
