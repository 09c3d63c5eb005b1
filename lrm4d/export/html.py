"""A 4D scene as one HTML file that opens from disk and shows it in motion: no server, no network, no library.

The page's sources are in viewer/; write_html fills viewer.html with them, the packed Gaussians (packing.py), the input
pictures and a poster. docs/viewer.md tells how to use the page.
"""

import base64
import html
import io
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from lrm4d.cameras import Cameras
from lrm4d.checkpoint import write_text
from lrm4d.export.overview import find_extent, overview_camera, trail_duration
from lrm4d.export.packing import PackedGaussians, pack, unpack
from lrm4d.gaussians4d import Gaussians4D
from lrm4d.views import Views

SOURCES = Path(__file__).parent / "viewer"
SCRIPTS = (
    *("algebra", "payload", "view", "playback", "splats", "frusta"),
    *("sorting", "controls", "address", "panel", "main", "start"),
)
"""In the order in which the page runs them, after sorter.js, whose text the worker is made of."""
POSTER_SIDE, THUMBNAIL_SIDE, ATLAS_SIDE = 720, 160, 4096
"""Pixels: the poster's longer side, an input picture's, and the most that a phone's texture may have."""
FRUSTUM = 0.17
"""How deep the pyramid of an input camera is drawn, in distances of the nearest camera from the scene."""


@dataclass(frozen=True)
class HtmlFile:
    """What was written. gaussians: how many the page holds; pruned: how many more no one could ever have seen."""

    path: Path
    gaussians: int
    pruned: int
    bytes: int


def write_html(
    path: str | Path,
    gaussians: Gaussians4D,
    views: Views | None = None,
    title: str = "A 4D scene",
    description: str = "",
    home: Cameras | None = None,
    seconds: float = 3.0,
) -> HtmlFile:
    """Write the page of one scene, atomically.

    views: the input pictures [view], shown as cameras to stand in. home: the first view, batch shape []; unless given,
    one that shows the whole scene from about where the inputs show the most of it. seconds: how long the clip lasts.
    ValueError if nothing of the scene can be seen, or if the arguments do not fit it.
    """
    if gaussians.means.dim() != 2:
        raise ValueError(f"write_html: expected one scene, got a batch of shape {tuple(gaussians.means.shape[:-2])}.")
    if views is not None and len(views.shape) != 1:
        raise ValueError(f"write_html: views have batch shape {tuple(views.shape)}, expected [view].")
    if home is not None and home.shape:
        raise ValueError(f"write_html: the first view has batch shape {tuple(home.shape)}, expected one camera, [].")
    if not 0 < seconds < math.inf:
        raise ValueError(f"write_html: the clip lasts {seconds} seconds, expected more than 0.")
    packed = pack(gaussians)
    if home is None:
        home = overview_camera(*find_extent(unpack(packed)), POSTER_SIDE, views)
    payload = packed.to_bytes()
    header = describe(packed, gaussians, home, views) | {"seconds": seconds, "bytes": len(payload)}
    parts = f"{len(packed):,} Gaussians" + ("" if views is None else f" from {len(views)} pictures")
    shaders = {file.name.removesuffix(".glsl"): _read(file.name) for file in sorted(SOURCES.glob("*.glsl"))}
    page = fill(
        _read("viewer.html"),
        title=html.escape(title),
        subtitle=html.escape(parts),
        description=html.escape(description or f"{title}: a moving scene of {parts}, to be seen from anywhere."),
        style=_read("viewer.css"),
        poster=draw_poster(gaussians, home),
        atlas="" if views is None else f'<img id="atlas" alt="" src="{draw_atlas(views)}">',
        sorter=_read("sorter.js"),
        shaders=script_json(shaders),
        script="\n".join(_read(f"{name}.js") for name in SCRIPTS),
        header=script_json(header),
        payload=base64.b64encode(payload).decode("ascii"),
    )
    write_text(path, page)
    return HtmlFile(Path(path), len(packed), len(gaussians) - len(packed), len(page.encode()))


def describe(packed: PackedGaussians, gaussians: Gaussians4D, home: Cameras, views: Views | None) -> dict:
    """What the page knows besides the records, as JSON. Times in [0, 1], except those that the records are made of."""
    moving = unpack(packed)
    center, radius = find_extent(moving)
    cameras = [] if views is None else [describe_camera(views.cameras[i]) for i in range(len(views))]
    for index, camera in enumerate(cameras):
        camera["time"] = views.times[index].item()
    distances = [math.dist(camera["pose"][3:12:4], center.tolist()) for camera in cameras]
    return {
        "count": len(packed),
        "boxLow": packed.box_low,
        "boxSize": packed.box_size,
        "timeLow": packed.time_low,
        "timeSize": packed.time_size,
        "colorScale": packed.color_scale,
        "lowPass": gaussians.low_pass,
        "compensate": gaussians.compensate,
        "center": center.tolist(),
        "radius": radius,
        "trailDuration": trail_duration(moving, radius),
        "frustumDepth": FRUSTUM * min(distances, default=1.0),
        "home": describe_camera(home),
        "cameras": cameras,
        "atlas": dict(zip(("columns", "rows"), atlas_grid(len(cameras)), strict=True)),
    }


def describe_camera(camera: Cameras) -> dict:
    """One camera (batch shape []) as the page has it: pose, camera_to_world row by row; lens, in pixels."""
    k = camera.intrinsics
    lens = {"fx": k[0, 0], "fy": k[1, 1], "cx": k[0, 2], "cy": k[1, 2], "skew": k[0, 1]}
    size = {"width": camera.width, "height": camera.height}
    return {
        "pose": camera.camera_to_world.flatten().tolist(),
        "lens": {name: value.item() for name, value in lens.items()} | size,
    }


def draw_poster(gaussians: Gaussians4D, home: Cameras) -> str:
    """The first view at time 0, with alpha, as a data: address; the page shows it before (or instead of) itself."""
    factor = POSTER_SIDE / max(home.width, home.height)
    camera = home.resize(max(1, round(home.width * factor)), max(1, round(home.height * factor)))
    with torch.no_grad():
        rendering = gaussians.render(camera.reshape(1), torch.zeros(1), gaussians.means.new_zeros(3))
    image, alpha = rendering.image[0], rendering.alpha[0]
    return picture_address(torch.cat([image / alpha.clamp(min=1e-4), alpha]))


def draw_atlas(views: Views) -> str:
    """The input pictures on white in one picture, a grid row by row, as a data: address."""
    columns, rows = atlas_grid(len(views))
    width, height = views.cameras.width, views.cameras.height
    factor = min(THUMBNAIL_SIDE, ATLAS_SIDE // columns) / max(width, height)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    pictures = interpolate(views.composite(views.images.new_ones(3)), size, mode="bilinear", antialias=True)
    empty = pictures.new_ones(columns * rows - len(pictures), *pictures.shape[1:])
    grid = torch.cat([pictures, empty]).unflatten(0, (rows, columns))
    return picture_address(grid.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2))


def atlas_grid(count: int) -> tuple[int, int]:
    """Columns and rows of a grid that is about square."""
    columns = max(1, math.ceil(math.sqrt(count)))
    return columns, max(1, math.ceil(count / columns))


def picture_address(picture: Float[Tensor, "channel height width"]) -> str:
    """RGB or RGBA in [0, 1] as a WebP picture in a data: address."""
    buffer = io.BytesIO()
    levels = (picture.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous()
    Image.fromarray(levels.cpu().numpy()).save(buffer, format="WEBP", quality=86, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def script_json(content: object) -> str:
    """JSON that cannot end the script element that it stands in."""
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def fill(template: str, **values: str) -> str:
    """The template with each {{name}} replaced by its value, once (values may hold braces); all must be known."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def _read(name: str) -> str:
    return (SOURCES / name).read_text(encoding="utf-8")
