"""lrm4d path: a camera's path seen from above, or in another file format."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrm4d.cli.app import app
from lrm4d.cli.arguments import AsJson, find_scene, parse_size
from lrm4d.cli.printing import print_json

if TYPE_CHECKING:
    from lrm4d.trajectories import CameraPath, Rig

FRAMES, DRAWN = 72, 240
"""Pictures of a path that has no number of its own, and cameras that a preview's line goes through."""

Times = Annotated[str, typer.Option(help="The clip's time: from:to, one moment, or there:and:back.")]
Frames = Annotated[int | None, typer.Option(min=1, help=f"How many pictures (as many as a file has, else {FRAMES}).")]
Size = Annotated[str | None, typer.Option(help="Pixels: N or WIDTHxHEIGHT (as the inputs were).")]
Fov = Annotated[float | None, typer.Option(help="Horizontal, in degrees (as the inputs').")]


@app.command(
    epilog="""\b
Examples:
  lrm4d path "orbit + dolly:to=2; bullet:turns=0.5; arc:by=-60,rise=30" -o preview.png
  lrm4d path spiral:turns=2,elevation=-10,rise=50 --scene out/scene.safetensors -o preview.png
  lrm4d path "arc:azimuth=-30,by=60,ease=in-out" --frames 49 -o path.json
  lrm4d path camera_extrinsics.json#cam05 --format colmap -o model
\b
Moves, each begins where the one before it ended (its own options with what they are if not said):
  orbit:turns=1                    around the object; alone it loops
  arc:by=90,to=AZIMUTH,rise=0      a part of an orbit, by degrees or to an azimuth, rising by degrees of elevation
  spiral:turns=1,rise=40,to=DIST   an orbit that climbs, to a distance if one is said
  bullet:turns=1                   an orbit at the moment that was reached (or at time=...)
  dolly:by=0.8,to=DISTANCE         towards the object, by world units or to a distance
  dolly_zoom:by=0.8,to=DISTANCE    the same while the lens keeps the object's size
  zoom:by=1.5,to=FOV               the lens alone, by a factor or to a field of view
  truck:by=0.5  pedestal:by=0.5    the whole rig to its right, or up, by world units
  pan:by=15  tilt:by=10  roll:by=20    the camera turns right, up, or clockwise where it stands, by degrees
  static                           the camera stays
Every move takes azimuth, elevation, distance and fov (they place the camera when the move begins), ease (linear, in,
out, in-out), time (0:1, 0.5, 0:1:0, hold) and share (how long beside the others, 1).
"a; b" is a, then b. "a + b" is both together. "(a; b) + c" is c while a and then b.
A bank is cameras at rest, alone: fan, ring, rings, dome, kubric16 (`lrm4d generate --help` has their options).
\b
Files: nerfstudio's camera path and transforms.json (.json), ReCamMaster (.json#cam01), Vista4D (.npz, .npz#fsff),
TrajectoryCrafter (.txt), a COLMAP model (a folder). They are placed as they are. Where they cannot be told from the
output's name, --format chooses: nerfstudio, transforms, recammaster, vista4d, trajectorycrafter, colmap,
colmap-binary."""
)
def path(
    trajectory: Annotated[str, typer.Argument(help="The camera's path: moves, or a file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="preview.png, or a file or folder of a format.")],
    scene: Annotated[Path | None, typer.Option(help="A scene.safetensors or its folder, to be seen in it.")] = None,
    form: Annotated[str | None, typer.Option("--format", help="The format, where the name does not say.")] = None,
    times: Times = "0:1",
    frames: Frames = None,
    size: Size = None,
    fov: Fov = None,
    fps: Annotated[float, typer.Option(help="Frames a second, for formats that say them.")] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Draw a camera's path around the scene, or write it in another format."""
    from lrm4d.gaussians4d import load_extra
    from lrm4d.trajectories import read_path, save_path

    scene = find_scene(scene) if scene else None
    origin = load_extra(scene) if scene else {}
    start, route = start_of(origin, fov), read_path(trajectory)
    if output.suffix == ".png" and form is None:
        width, height = parse_size(size, (960, 720))
        preview(route, start, times, scene, output, width, height, trajectory)
        result = {"output": str(output), "width": width, "height": height, "trajectory": trajectory}
        print_json(result) if as_json else typer.echo(f"{output}: preview of {trajectory}")
        return
    width, height = parse_size(size, (origin.get("width", 256), origin.get("height", 256)))
    count = frames or route.natural_count or FRAMES
    cameras, moments = route.cameras(count, width, height, start), route.times(count, times)
    form = save_path(output, cameras, moments, fps, form)
    result = {"output": str(output), "format": form, "frames": count, "trajectory": trajectory}
    print_json(result) if as_json else typer.echo(f"{output}: {count} cameras as {form}")


def start_of(origin: dict, fov: float | None) -> "Rig":
    """Where a path begins that does not say: as far away and with the lens that the scene's inputs had."""
    from lrm4d.trajectories import Rig

    known = {key: origin[key] for key in ("distance", "fov") if key in origin}
    return Rig(**(known | ({} if fov is None else {"fov": fov})))


def preview(
    route: "CameraPath",
    start: "Rig",
    times: str,
    scene: Path | None,
    output: Path,
    width: int,
    height: int,
    title: str,
) -> None:
    """Write a picture of a path, with the scene in the middle of its time if one is given."""
    import torch

    from lrm4d.gaussians4d import Gaussians4D
    from lrm4d.scenes.pictures import save_picture
    from lrm4d.trajectories import Bank, draw_cameras, draw_path, overlook

    at_rest = isinstance(route, Bank)
    count = route.natural_count if at_rest else DRAWN
    cameras, moments = route.cameras(count, 640, 480, start), route.times(count, times)
    viewpoint, backdrop, depth = overlook(cameras, width, height), None, None
    if scene:
        with torch.no_grad():
            seen = Gaussians4D.load(scene).render(viewpoint, moments[count // 2, None])
        backdrop, alpha = seen.image[0], seen.alpha[0, 0]
        depth = torch.where(alpha > 0.5, seen.depth[0, 0], torch.inf)
    if at_rest:
        picture = draw_cameras(cameras, viewpoint, backdrop, depth, title)
    else:
        picture = draw_path(cameras, moments, viewpoint, backdrop, depth, title)
    save_picture(output, picture)
