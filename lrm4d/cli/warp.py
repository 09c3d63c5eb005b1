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
    from lrm4d.generation.depth import DepthProvider
    from lrm4d.generation.geometry import Geometry

LONGER_SIDE = 512
"""Pixels: larger videos are made smaller unless a size is said."""
RUN = 8
"""Frames warped at a time."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


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
    size: Annotated[str | None, typer.Option(help=f"Pixels: N or WIDTHxHEIGHT (at most {LONGER_SIDE}).")] = None,
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

    from lrm4d.video import to_bytes

    pictures, rate = read_frames(video, size)
    provider, at_origin = choose_depth(geometry, depth, fov, device, pictures.shape[3], pictures.shape[2])
    with Bars() as bars:
        known = provider(pictures, bars)
        known = known.without_edges() if drop_edges else known
        known, targets, moments = follow(known, at_origin, trajectory, cameras, frames, times)
        warped, seen = warp_all(pictures, known, targets, moments, torch.tensor(parse_color(holes)), bars)
    write_pictures(output, to_bytes(warped), fps or rate)
    if visibility:
        write_pictures(visibility, to_bytes(seen.float().expand(-1, 3, -1, -1)), fps or rate)
    shares = seen.float().mean((1, 2, 3))
    result = {"output": str(output), "frames": len(warped), "width": warped.shape[3], "height": warped.shape[2]}
    result |= {"seen_mean": round(shares.mean().item(), 4), "seen_least": round(shares.min().item(), 4)}
    said = f"{output}: {len(warped)} frames of {warped.shape[3]} x {warped.shape[2]}"
    said += f"; seen {100 * result['seen_mean']:.1f} %, at least {100 * result['seen_least']:.1f} %"
    print_json(result) if as_json else typer.echo(said)


def read_frames(path: Path, size: str | None) -> tuple["Tensor", float]:
    """Frames [time, 3, height, width] in [0, 1] of a video or a folder, resized; and how many a second."""
    import torch
    from torch.nn.functional import interpolate

    from lrm4d.scenes.pictures import load_pictures
    from lrm4d.video import read_video

    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise ValueError(f"{path}: holds no pictures; expected {', '.join(SUFFIXES)}, or give a video file.")
        straight = load_pictures(files)
        pictures, rate = straight[:, :3] * straight[:, 3:] + 1 - straight[:, 3:], 24.0
    else:
        pictures, rate = read_video(path)
    height, width = pictures.shape[2:]
    factor = min(1.0, LONGER_SIDE / max(width, height))
    width, height = parse_size(size, (max(1, round(width * factor)), max(1, round(height * factor))))
    levels = 255.0 if pictures.dtype == torch.uint8 else 1.0
    return torch.cat([interpolate(x[None] / levels, (height, width), mode="area") for x in pictures]), rate


def choose_depth(
    geometry: Path | None, depth: str, fov: float, device: str, width: int, height: int
) -> tuple["DepthProvider", bool]:
    """What tells the depth, and whether the pivot is the origin of its world."""
    import torch

    from lrm4d.generation.depth import GivenDepth, HuggingFaceDepth, NetworkDepth
    from lrm4d.reconstruction.reconstructor import Reconstructor, choose_device
    from lrm4d.scenes.pictures import alpha_from_white
    from lrm4d.trajectories import Rig
    from lrm4d.trajectories.state import cameras_of

    if geometry:
        return GivenDepth(geometry, fov), False
    if depth.startswith("hf:"):
        return HuggingFaceDepth(depth.removeprefix("hf:"), str(choose_device(device)), fov), False
    camera = cameras_of(Rig(elevation=0).to_vector()[None].to(torch.float64), width, height)
    return NetworkDepth(Reconstructor.from_pretrained(depth, device).reconstruct, camera, alpha_from_white), True


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
