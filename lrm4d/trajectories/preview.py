"""A picture of a camera path around the scene: where it goes, when, and what its cameras see."""

import math
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import normalize

from lrm4d.cameras import Cameras, intrinsics_from_fov, look_at, project, unproject

SHARP = 3
"""Drawn so many times larger and then reduced: smooth lines."""
FOV, AZIMUTH, ELEVATION = 38.0, -32.0, 32.0
"""Of the raised view, in degrees."""
FRUSTA = 8
"""As many cameras are drawn at most."""
TIME_COLORS = ((68, 62, 160), (38, 126, 190), (60, 170, 150), (150, 195, 70), (245, 170, 50), (225, 80, 60))
"""From time 0 to time 1."""
INK, GRAY, PALE, SHADOW = (40, 44, 52), (150, 155, 163), (222, 225, 230), (196, 200, 207)
NEAR = 0.05
CUTS = 6
"""Pieces that a line between two points is drawn in, each seen or hidden."""
Color = tuple[int, int, int]


def overlook(cameras: Cameras, width: int, height: int, margin: float = 0.8) -> Cameras:
    """A camera [1] that looks down on cameras [camera] and the unit sphere, all of them within its picture."""
    azimuth, elevation = math.radians(AZIMUTH), math.radians(ELEVATION)
    outward = torch.tensor(
        [math.cos(elevation) * math.sin(azimuth), -math.cos(elevation) * math.cos(azimuth), math.sin(elevation)]
    )
    points = torch.cat([_sphere_points(), cameras.origins, _frustum(cameras, _frustum_length(cameras)).flatten(0, 1)])
    points = torch.cat([points, _on_ground(cameras.origins)])
    middle = (points.amax(0) + points.amin(0)) / 2
    intrinsics = intrinsics_from_fov(math.radians(FOV), width, height)[None]
    size = torch.tensor([width, height])

    def stand(distance: float) -> Cameras:
        return Cameras(look_at((middle + outward * distance)[None], middle[None]), intrinsics, width, height)

    for _ in range(4):  # the nearest distance at which every point is within the margin, then the points' middle
        low, high = 0.1, 1000.0 * (1 + float((points - middle).norm(dim=-1).max()))
        for _ in range(40):
            distance = math.sqrt(low * high)
            pixels, depth = project(stand(distance), points)
            inside = bool((depth > NEAR).all()) and bool(((pixels / size * 2 - 1).abs() <= margin).all())
            low, high = (low, distance) if inside else (distance, high)
        pixels, _ = project(stand(high), points)
        centre = (pixels.amax(0) + pixels.amin(0)) / 2
        found = stand(high)
        middle = unproject(found, centre[None], torch.tensor([high]))[0]
    return found


def draw_path(
    cameras: Cameras,
    times: Float[Tensor, "camera"],
    viewpoint: Cameras,
    backdrop: Float[Tensor, "3 height width"] | None = None,
    depth: Float[Tensor, "height width"] | None = None,
    title: str = "",
) -> Float[Tensor, "3 height width"]:
    """The path of cameras [camera] seen from a viewpoint [1] (see overlook), coloured by their times.

    backdrop: the scene from the viewpoint, in [0, 1]; without it the unit sphere is drawn. depth: its depth (camera z,
    infinite where there is nothing), so that what lies behind the scene is drawn faintly.
    """
    canvas = _Canvas(viewpoint, backdrop, depth)
    _draw_ground(canvas, cameras)
    if backdrop is None:
        _draw_sphere(canvas)
    colors, flight = [_color_of(time) for time in times.tolist()], _flight(cameras)
    if len(flight) > 1:
        canvas.line(_on_ground(flight), SHADOW, 1.6)
    canvas.line(flight, colors, 2.6)
    eyes = project(viewpoint, cameras.origins)[1]
    for index in sorted(_shown(cameras), key=lambda i: -float(eyes[i])):
        _draw_camera(canvas, cameras, index, colors[index])
    _draw_ends(canvas, cameras, colors)
    picture = canvas.finish()
    _draw_legend(picture, times, title)
    return _to_tensor(picture)


def draw_cameras(
    cameras: Cameras,
    viewpoint: Cameras,
    backdrop: Float[Tensor, "3 height width"] | None = None,
    depth: Float[Tensor, "height width"] | None = None,
    title: str = "",
) -> Float[Tensor, "3 height width"]:
    """Cameras at rest [camera], all of them, numbered from 1; the rest as draw_path."""
    canvas = _Canvas(viewpoint, backdrop, depth)
    _draw_ground(canvas, cameras)
    if backdrop is None:
        _draw_sphere(canvas)
    eyes = project(viewpoint, cameras.origins)[1]
    for index in sorted(range(len(cameras)), key=lambda i: -float(eyes[i])):
        _draw_camera(canvas, cameras, index, INK)
        canvas.text(canvas.place(cameras.origins[index, None])[0][0], str(index + 1))
    picture = canvas.finish()
    ImageDraw.Draw(picture).text((14, 10), title, fill=INK, font=ImageFont.load_default(14))
    return _to_tensor(picture)


def _to_tensor(picture: Image.Image) -> Float[Tensor, "3 height width"]:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


class _Canvas:
    """Lines in the world, drawn from a viewpoint onto a large picture."""

    def __init__(self, viewpoint: Cameras, backdrop: Tensor | None, depth: Tensor | None):
        self.viewpoint, self.depth = viewpoint, depth
        size = (viewpoint.width * SHARP, viewpoint.height * SHARP)
        if backdrop is None:
            self.image = Image.new("RGB", size, "white")
        else:
            levels = (backdrop.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            self.image = Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC)
        self.pen = ImageDraw.Draw(self.image, "RGBA")

    def place(self, points: Float[Tensor, "point 3"]) -> tuple[list[tuple[float, float]], list[bool]]:
        """Where points are on the large picture, and which can be seen."""
        pixels, depth = project(self.viewpoint, points)
        seen = depth > NEAR
        if self.depth is not None:
            column = pixels[:, 0].nan_to_num().long().clamp(0, self.viewpoint.width - 1)
            row = pixels[:, 1].nan_to_num().long().clamp(0, self.viewpoint.height - 1)
            seen = seen & (depth <= self.depth[row, column])
        return [(x * SHARP, y * SHARP) for x, y in pixels.tolist()], seen.tolist()

    def line(self, points: Float[Tensor, "point 3"], colors: Color | list[Color], width: float) -> None:
        """A line through points, of one colour or of one for each piece; what lies behind the scene is faint."""
        colors = colors if isinstance(colors, list) else [colors] * len(points)
        steps = torch.linspace(0, 1, CUTS + 1)[:-1, None]
        cut = torch.lerp(points[:-1, None], points[1:, None], steps).flatten(0, 1)
        places, seen = self.place(torch.cat([cut, points[-1:]]))
        for index, (start, end) in enumerate(pairwise(places)):
            alpha = 255 if seen[index] and seen[index + 1] else 60
            self.pen.line([start, end], fill=(*colors[index // CUTS], alpha), width=max(1, round(width * SHARP)))

    def face(self, points: Float[Tensor, "point 3"], color: Color, alpha: int) -> None:
        """A filled polygon."""
        self.pen.polygon(self.place(points)[0], fill=(*color, alpha))

    def dot(self, point: Float[Tensor, "3"], color: Color, radius: float) -> tuple[float, float]:
        """A disc with a white rim; returns its place."""
        (x, y), r = self.place(point[None])[0][0], radius * SHARP
        rim = r + 1.5 * SHARP
        self.pen.ellipse([x - rim, y - rim, x + rim, y + rim], fill=(255, 255, 255, 255))
        self.pen.ellipse([x - r, y - r, x + r, y + r], fill=(*color, 255))
        return x, y

    def text(self, place: tuple[float, float], words: str, color: Color = INK, raised: float = 9.0) -> None:
        """Words beside a place, below it where there is no room, with a white rim."""
        font = ImageFont.load_default(14 * SHARP)
        gap, most = 10 * SHARP, self.image.width - font.getlength(words) - 4 * SHARP
        at = (place[0] + gap, place[1] - raised * SHARP) if place[0] + gap <= most else (most, place[1] + gap)
        self.pen.text(at, words, fill=color, font=font, stroke_width=3 * SHARP, stroke_fill=(255, 255, 255, 230))

    def finish(self) -> Image.Image:
        return self.image.resize((self.viewpoint.width, self.viewpoint.height), Image.Resampling.LANCZOS)


def _color_of(time: float) -> Color:
    place = min(max(time, 0.0), 1.0) * (len(TIME_COLORS) - 1)
    before = min(int(place), len(TIME_COLORS) - 2)
    pair = zip(TIME_COLORS[before], TIME_COLORS[before + 1], strict=True)
    return tuple(round(one + (place - before) * (other - one)) for one, other in pair)


def _circle(radius: float, height: float, count: int = 97) -> Float[Tensor, "point 3"]:
    angle = torch.linspace(0, 2 * math.pi, count)
    return torch.stack([radius * angle.cos(), radius * angle.sin(), torch.full_like(angle, height)], dim=-1)


def _sphere_points() -> Float[Tensor, "point 3"]:
    return torch.cat([_circle(1.0, 0.0, 25), torch.tensor([[0.0, 0, 1], [0, 0, -1]]), _circle(1.0, -1.0, 25)])


def _on_ground(points: Float[Tensor, "point 3"]) -> Float[Tensor, "point 3"]:
    return torch.cat([points[:, :2], torch.full_like(points[:, 2:], -1.0)], dim=-1)


def _flight(cameras: Cameras) -> Float[Tensor, "point 3"]:
    """The cameras' places; a path whose next camera would be its first is closed."""
    places = cameras.origins
    if len(places) < 3:
        return places
    steps = (places[1:] - places[:-1]).norm(dim=-1)
    closing = float((places[0] - places[-1]).norm())
    return torch.cat([places, places[:1]]) if 1e-6 < closing <= 1.2 * float(steps.max()) else places


def _shown(cameras: Cameras) -> list[int]:
    """Which cameras are drawn: evenly many, the first and the last among them, but no more than do not overlap."""
    if len(cameras) < 2:
        return [0]
    places, forward = cameras.origins, cameras.camera_to_world[:, :3, :3]
    moved = (places[1:] - places[:-1]).norm(dim=-1) / (2 * _frustum_length(cameras))
    cosine = ((forward[1:] * forward[:-1]).sum((-2, -1)) - 1) / 2
    turned = torch.rad2deg(cosine.clamp(-1, 1).acos()) / 30
    zoomed = cameras.intrinsics[:, 0, 0].log().diff().abs() / 0.5
    length = float(torch.maximum(moved, turned).sum() + zoomed.sum())
    count = 1 if length < 0.02 else min(FRUSTA, max(2, round(length) + 1))
    last = len(cameras) - 1 if len(_flight(cameras)) == len(cameras) else len(cameras) * (count - 1) / count
    return sorted({round(i * last / max(1, count - 1)) for i in range(count)})


def _draw_ground(canvas: _Canvas, cameras: Cameras) -> None:
    """Rings on the ground below the unit sphere."""
    reach = float(cameras.origins[:, :2].norm(dim=-1).max())
    for radius in range(1, min(12, math.ceil(reach)) + 1):
        canvas.line(_circle(float(radius), -1.0), PALE, 1.0)
    front = torch.tensor([[0.0, -1.0, -1.0], [0.0, -1.35, -1.0]])
    canvas.line(front, GRAY, 1.2)
    canvas.text(canvas.place(front[1:])[0][0], "front", GRAY)


def _draw_sphere(canvas: _Canvas) -> None:
    """The unit sphere, which the object lies in: its equator, two meridians and its outline."""
    equator = _circle(1.0, 0.0)
    for ring in (equator, equator[:, [0, 2, 1]], equator[:, [2, 0, 1]]):
        canvas.line(ring, (205, 209, 216), 1.0)
    eye = canvas.viewpoint.origins[0]
    outward, distance = normalize(eye, dim=0), float(eye.norm())
    side = normalize(torch.linalg.cross(torch.tensor([0.0, 0, 1]), outward), dim=0)
    over = torch.linalg.cross(outward, side)
    radius, angle = math.sqrt(max(0.0, 1 - 1 / distance**2)), torch.linspace(0, 2 * math.pi, 97)[:, None]
    canvas.line(outward / distance + radius * (angle.cos() * side + angle.sin() * over), GRAY, 1.2)


def _frustum_length(cameras: Cameras) -> float:
    """How deep the drawn frusta are: a fraction of how far around the cameras reach."""
    return 0.13 * max(1.0, float(cameras.origins.norm(dim=-1).median()))


def _frustum(cameras: Cameras, length: float) -> Float[Tensor, "camera 4 3"]:
    """The corners of what cameras see at a depth; all frusta are about as large, whatever their lens."""
    w, h = float(cameras.width), float(cameras.height)
    corners = torch.tensor([[0.0, 0.0], [w, 0.0], [w, h], [0.0, h]])
    focal = cameras.intrinsics[..., 0, 0] / w
    depth = length * (0.5 + focal.clamp(0.3, 4.0)).sqrt()
    return unproject(cameras.reshape(-1, 1), corners, depth[:, None].expand(-1, 4))


def _draw_camera(canvas: _Canvas, cameras: Cameras, index: int, color: Color) -> None:
    """A frustum with a roof that shows which way is up, and a plumb line to the ground."""
    one = cameras[index : index + 1]
    eye, corners = one.origins[0], _frustum(one, _frustum_length(cameras))[0]
    canvas.line(torch.stack([eye, _on_ground(eye[None])[0]]), PALE, 1.0)
    canvas.face(corners, color, 60)
    canvas.line(torch.cat([corners, corners[:1]]), color, 1.5)
    for corner in corners:
        canvas.line(torch.stack([eye, corner]), color, 1.5)
    top = (corners[0] + corners[1]) / 2 + 0.35 * (corners[0] - corners[3])
    canvas.face(
        torch.stack([torch.lerp(corners[0], corners[1], 0.3), top, torch.lerp(corners[0], corners[1], 0.7)]),
        color,
        255,
    )


def _draw_ends(canvas: _Canvas, cameras: Cameras, colors: list[Color]) -> None:
    flight = _flight(cameras)
    ends = flight[[0, -1]]
    apart = float((ends[0] - ends[1]).norm()) > 1e-6
    if apart:
        canvas.text(canvas.dot(ends[1], colors[-1], 5.5), "end", raised=18.0)
    canvas.text(canvas.dot(ends[0], colors[0], 5.5), "start" if apart else "start, end", raised=0.0 if apart else 9.0)


def _draw_legend(picture: Image.Image, times: Float[Tensor, "camera"], title: str) -> None:
    """The colours of time, and a title."""
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    pen.text((14, 10), title, fill=INK, font=font)
    left, top, long, thick = 14, picture.height - 24, 140, 8
    pen.text((left, top - 22), "time", fill=INK, font=font)
    for x in range(long):
        pen.line([left + x, top, left + x, top + thick], fill=_color_of(x / (long - 1)))
    low, high = float(times.min()), float(times.max())
    for value in {low, high}:
        x = left + value * (long - 1)
        pen.line([x, top - 3, x, top + thick + 3], fill=INK, width=2)
    words = f"{low:.2f}" if high - low < 1e-6 else f"{low:.2f} to {high:.2f}"
    pen.text((left + long + 10, top - 5), words, fill=INK, font=font)
