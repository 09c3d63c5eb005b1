"""lrm4d render: a 4D scene to pictures along a camera's path."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrm4d.cli.app import app
from lrm4d.cli.arguments import AsJson, Device, SceneFile, find_scene, parse_color, parse_size
from lrm4d.cli.path import FRAMES, Fov, Frames, Size, Times, start_of
from lrm4d.cli.printing import Bars, print_json

if TYPE_CHECKING:
    from torch import Tensor


@app.command(
    epilog="""\b
Examples:
  lrm4d render out/scene.safetensors -o orbit.mp4
  lrm4d render out/scene.safetensors --trajectory orbit:turns=2,elevation=30 --times 0:1:0 -o x.mp4 --frames 96
  lrm4d render out/scene.safetensors --trajectory "orbit:turns=0.5; bullet; dolly_zoom:to=1.6" -o matrix.mp4
  lrm4d render out/scene.safetensors --trajectory "arc:azimuth=-45,ease=in-out + pedestal" --times 0.5 -o frames/
  lrm4d render out/scene.safetensors --trajectory static:azimuth=90 --size 640x360 --fov 40 -o side.gif
  lrm4d render out/scene.safetensors --trajectory camera_path.json -o path.mp4
  lrm4d render out/scene.safetensors --mode depth -o depth.mp4

A trajectory is a text or a file; `lrm4d path --help` lists the moves and the formats, and previews them. An output
without an extension is a folder of PNG files."""
)
def render(
    scene: SceneFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="A file .mp4 or .gif, or a folder for PNG files.")],
    trajectory: Annotated[str, typer.Option(help="The camera's path: moves, or a file.")] = "orbit",
    times: Times = "0:1",
    frames: Frames = None,
    size: Size = None,
    fov: Fov = None,
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
    from lrm4d.trajectories import read_path
    from lrm4d.video import to_bytes

    file = find_scene(scene)
    origin = load_extra(file)
    width, height = parse_size(size, (origin.get("width", 256), origin.get("height", 256)))
    path = read_path(trajectory)
    count = frames or path.natural_count or FRAMES
    cameras, moments = path.cameras(count, width, height, start_of(origin, fov)), path.times(count, times)
    color = torch.tensor(parse_color(background))
    check_mode(mode)
    renderer = ModeRenderer(Gaussians4D.load(file).to(choose_device(device)))
    with Bars() as bars:
        drawn = renderer.render_frames(cameras, moments, mode, color, bars)
        pictures = torch.cat([to_bytes(frame.image).cpu() for frame in drawn])
    write_pictures(output, pictures, fps)
    result = {"output": str(output), "frames": count, "width": width, "height": height, "trajectory": trajectory}
    result |= {"mode": mode, "legend": renderer.legend(mode, cameras)}
    said = f"{output}: {count} frames of {width} x {height}, {trajectory}"
    print_json(result) if as_json else typer.echo(said if mode == "colour" else f"{said}\n{mode}: {result['legend']}")


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
