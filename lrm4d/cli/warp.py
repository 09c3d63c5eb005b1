"""lrm4d warp: what a video shows to other cameras, holes and all; the cheap preview of `lrm4d generate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrm4d.cli.app import app
from lrm4d.cli.arguments import AsJson, Device, parse_color, parse_size
from lrm4d.cli.path import Times
from lrm4d.cli.printing import Bars, print_json
from lrm4d.cli.render import write_pictures

if TYPE_CHECKING:
    from torch import Tensor

    from lrm4d.cameras import Cameras
    from lrm4d.generation.geometry import Geometry

RUN = 8
"""Frames warped at a time."""


@app.command(
    epilog="""\b
Examples:
  lrm4d warp clip.mp4 -o preview.mp4
  lrm4d warp clip.mp4 --geometry clip_sgd_cvd_hr.npz --trajectory "arc:by=30; dolly:by=0.5" -o preview.mp4
  lrm4d warp frames/ --depth hf:depth-anything/Depth-Anything-V2-Small-hf --fov 65 --trajectory bullet -o frames_out/
  lrm4d warp clip.mp4 --geometry vipe_results/ --cameras transforms.json --drop-edges --visibility mask.mp4 -o out.mp4
\b
--geometry reads .npz of lrm4d or MegaSaM, folders of ViPE or GEN3C, and depth alone (.npy, .npz, .exr, folders of
them). Without it --depth estimates: an lrm4d network (a name or folder; for an object on white), or hf:MODEL.
A trajectory starts at the video's first camera and turns around the foreground, whose depth counts as 2.7 units;
`lrm4d path --help` lists the moves. --cameras takes a file's cameras as they are, in the geometry's own world."""
)
def warp(
    video: Annotated[Path, typer.Argument(help="A video, or a folder of pictures in the order of their names.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A file .mp4 or .gif, or a folder for PNG files.")],
    geometry: Annotated[Path | None, typer.Option(help="Depth, and cameras if known: a file or folder.")] = None,
    depth: Annotated[str, typer.Option(help="What estimates depth: an lrm4d network, or hf:MODEL.")] = "nano",
    trajectory: Annotated[str, typer.Option(help="The camera's path: moves.")] = "arc:by=40,ease=in-out",
    cameras: Annotated[Path | None, typer.Option(help="A file of cameras instead.")] = None,
    times: Times = "0:1",
    frames: Annotated[int | None, typer.Option(min=1, help="How many pictures (as many as came in).")] = None,
    size: Annotated[str | None, typer.Option(help="Pixels: N or WIDTHxHEIGHT (at most 512).")] = None,
    fov: Annotated[float, typer.Option(help="Of the video, horizontal degrees, where nothing tells it.")] = 55.0,
    fps: Annotated[float | None, typer.Option(help="Frames a second (the video's).")] = None,
    holes: Annotated[str, typer.Option(help="What holes show: white, black, gray or #RRGGBB.")] = "gray",
    visibility: Annotated[Path | None, typer.Option(help="Write the masks too (white: seen).")] = None,
    drop_edges: Annotated[bool, typer.Option("--drop-edges", help="Leave out what depth edges make unsure.")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Show a video from other cameras by its depth alone: no inpainting, holes stay holes."""
    import torch

    from lrm4d.pipeline.clip import read_clip
    from lrm4d.pipeline.depth import by_network, find_geometry
    from lrm4d.video import to_bytes

    clip = read_clip(video, parse_size(size, None))
    pictures = clip.on_white
    with Bars() as bars:
        known = find_geometry(clip, geometry, depth, fov, device, bars)
        known = known.without_edges() if drop_edges else known
        known, targets, moments = follow(known, by_network(geometry, depth), trajectory, cameras, frames, times)
        warped, seen = warp_all(pictures, known, targets, moments, torch.tensor(parse_color(holes)), bars)
    write_pictures(output, to_bytes(warped), fps or clip.rate)
    if visibility:
        write_pictures(visibility, to_bytes(seen.float().expand(-1, 3, -1, -1)), fps or clip.rate)
    shares = seen.float().mean((1, 2, 3))
    result = {"output": str(output), "frames": len(warped), "width": warped.shape[3], "height": warped.shape[2]}
    result |= {"seen_mean": round(shares.mean().item(), 4), "seen_least": round(shares.min().item(), 4)}
    said = f"{output}: {len(warped)} frames of {warped.shape[3]} x {warped.shape[2]}"
    said += f"; seen {100 * result['seen_mean']:.1f} %, at least {100 * result['seen_least']:.1f} %"
    print_json(result) if as_json else typer.echo(said)


def follow(
    known: "Geometry", at_origin: bool, trajectory: str, file: Path | None, frames: int | None, times: str
) -> tuple["Geometry", "Cameras", "Tensor"]:
    """The geometry where the cameras are, the cameras, and the source frame of each."""
    import torch

    from lrm4d.generation.placing import cameras_along, place
    from lrm4d.trajectories import load_path, parse_path

    path = load_path(file) if file else parse_path(trajectory)
    count = frames or path.natural_count or len(known)
    moments = (path.times(count, times) * (len(known) - 1)).round().long()
    if file:
        return known, path.cameras(count, known.cameras.width, known.cameras.height), moments
    known = place(known, torch.zeros(3) if at_origin else None)
    return known, cameras_along(path, known, count), moments


def warp_all(
    pictures: "Tensor", known: "Geometry", targets: "Cameras", moments: "Tensor", holes: "Tensor", bars: Bars
) -> tuple["Tensor", "Tensor"]:
    """The warps on a colour for holes, and what is seen, a few frames at a time."""
    import torch

    from lrm4d.generation.warping import warp as warp_frames

    images, seen = [], []
    for start in range(0, len(moments), RUN):
        now = moments[start : start + RUN]
        done = warp_frames(pictures[now], known[now], targets[start : start + RUN])
        images.append(torch.where(done.visibility, done.images, holes[:, None, None]))
        seen.append(done.visibility)
        bars("warp", min(start + RUN, len(moments)), len(moments))
    return torch.cat(images), torch.cat(seen)
