"""Masks of videos, and the only place that knows of more than one polarity.

- A **visibility** [time, 1, height, width] is True where a pixel is seen: known, and to be kept. False is a hole.
- A **region** [time, 1, height, width] is True within what a user drew or marked; `hide` makes it a visibility.
- diffusers' **inpainting masks** are the opposite of a visibility: 1 where something is to be generated. They exist
  only between `to_inpainting_mask` and the pipeline.

Frames are the first dimension; one frame stands for all where it is broadcast. Positions that users give are shares of
the picture, (0, 0) its upper left and (1, 1) its lower right corner, so that they hold at any size.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from lrm4d.video import read_video

COMPOSITES = ("visibility", "editing", "union")
"""What EasyCreator (arXiv 2506.04590) trains on, one kind a sample: holes of the warp, of the edit, or of both."""
NOISE_CELL = 6
"""Frames or pixels between the random values that frayed borders follow; linear between them."""


def to_inpainting_mask(visibility: Bool[Tensor, "*batch 1 height width"]) -> Float[Tensor, "*batch 1 height width"]:
    """diffusers' mask: 1 where a pixel is to be generated, 0 where it is kept."""
    return (~visibility).float()


def from_inpainting_mask(mask: Float[Tensor, "*batch 1 height width"]) -> Bool[Tensor, "*batch 1 height width"]:
    """The visibility of diffusers' mask (1 = generate), taken at a half."""
    return mask < 0.5


def hide(region: Bool[Tensor, "time 1 height width"]) -> Bool[Tensor, "time 1 height width"]:
    """The visibility of a video in which a region is to be made anew."""
    return ~region


def keep_first_frame(visibility: Bool[Tensor, "time 1 height width"]) -> Bool[Tensor, "time 1 height width"]:
    """The same with all of the first frame seen: it shows how an edit is to look (EasyCreator)."""
    return torch.cat([torch.ones_like(visibility[:1]), visibility[1:]])


def join_holes(*visibilities: Bool[Tensor, "#time 1 height width"]) -> Bool[Tensor, "time 1 height width"]:
    """The visibility whose holes are all of theirs; one frame stands for all."""
    return torch.stack(torch.broadcast_tensors(*visibilities)).all(dim=0)


def draw_composite(
    warped: Bool[Tensor, "time 1 height width"],
    edited: Bool[Tensor, "time 1 height width"],
    generator: torch.Generator,
) -> Bool[Tensor, "time 1 height width"]:
    """One of COMPOSITES, each as likely: the warp's visibility, the edit's, or both one's holes."""
    kind = COMPOSITES[int(torch.randint(len(COMPOSITES), (), generator=generator))]
    return {"visibility": warped, "editing": edited, "union": join_holes(warped, edited)}[kind]


def grow_holes(
    visibility: Bool[Tensor, "*batch 1 height width"], pixels: int
) -> Bool[Tensor, "*batch 1 height width"]:
    """The same with holes that reach so many pixels farther, diagonally too; for warps whose borders are unsure."""
    holes = (~visibility).float().reshape(-1, 1, *visibility.shape[-2:])
    grown = max_pool2d(holes, 2 * pixels + 1, stride=1, padding=pixels) > 0.5
    return ~grown.reshape(visibility.shape)


def fray(
    visibility: Bool[Tensor, "time 1 height width"], most: int, generator: torch.Generator
) -> Bool[Tensor, "time 1 height width"]:
    """The same with holes that reach farther by 0 to `most` pixels, differently from place to place.

    Real warps have ragged borders, which exact geometry does not give. The borders move smoothly over time.
    """
    cells = [max(2, -(-size // NOISE_CELL) + 1) for size in (len(visibility), *visibility.shape[-2:])]
    noise = torch.rand(1, 1, *cells, generator=generator)
    size = (len(visibility), *visibility.shape[-2:])
    reach = most * interpolate(noise, size, mode="trilinear", align_corners=True)[0, 0, :, None].to(visibility.device)
    frayed = visibility
    for pixels in range(1, most + 1):
        frayed = frayed & (grow_holes(visibility, pixels) | (reach < pixels))
    return frayed


def mark_boxes(boxes: Float[Tensor, "time 4"], height: int, width: int) -> Bool[Tensor, "time 1 height width"]:
    """The region of a box a frame: (left, top, right, bottom), shares of the picture. Pixels by their centres."""
    columns, rows = _pixel_centres(height, width)
    left, top, right, bottom = boxes[:, :, None, None].unbind(1)
    inside = (columns >= left) & (columns < right) & (rows[:, None] >= top) & (rows[:, None] < bottom)
    return inside[:, None]


def mark_stroke(
    points: Float[Tensor, "point 2"], thickness: float, height: int, width: int
) -> Bool[Tensor, "1 1 height width"]:
    """The region of a line through points (x, y) with round ends, in every frame.

    points: shares of the picture. thickness: share of its width.
    """
    columns, rows = _pixel_centres(height, width)
    aspect = points.new_tensor([1.0, height / width])
    pixels = torch.stack(torch.broadcast_tensors(columns, rows[:, None]), dim=-1) * aspect
    corners = points * aspect
    starts, ends = (corners[:-1], corners[1:]) if len(points) > 1 else (corners, corners)
    along = (ends - starts)[:, None, None]
    offsets = pixels - starts[:, None, None]
    place = (offsets * along).sum(-1, keepdim=True) / along.square().sum(-1, keepdim=True).clamp(min=1e-12)
    distances = (offsets - place.clamp(0, 1) * along).norm(dim=-1).amin(dim=0)
    return (distances <= thickness / 2)[None, None]


def draw_region(
    count: int, height: int, width: int, generator: torch.Generator
) -> Bool[Tensor, "time 1 height width"]:
    """A random region for training: a box that drifts, or a stroke that stays, each as likely."""
    draw = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    if draw(()) < 0.5:
        return mark_stroke(draw(4, 2), 0.05 + 0.15 * float(draw(())), height, width).expand(count, -1, -1, -1)
    centres = torch.lerp(draw(2), draw(2), torch.linspace(0, 1, count)[:, None])
    half = 0.1 + 0.2 * draw(2)
    return mark_boxes(torch.cat([centres - half, centres + half], dim=1), height, width)


def hide_side(
    visibility: Bool[Tensor, "time 1 height width"], generator: torch.Generator, least: float = 0.2, most: float = 0.7
) -> Bool[Tensor, "time 1 height width"]:
    """The same without all that lies beyond a random straight line: from `least` to `most` of what is seen, in all
    frames together. So a camera that goes around an object loses a side of it."""
    height, width = visibility.shape[-2:]
    angle, share = torch.rand(2, generator=generator).tolist()
    columns, rows = _pixel_centres(height, width)
    along = columns * math.cos(2 * math.pi * angle) + rows[:, None] * math.sin(2 * math.pi * angle) * height / width
    along = along.to(visibility.device).expand(visibility.shape)
    if not bool(visibility.any()):
        return visibility
    return visibility & (along >= along[visibility].quantile(least + (most - least) * share))


def load_region(path: str | Path, count: int, height: int, width: int) -> Bool[Tensor, "time 1 height width"]:
    """A region from a file or folder, brought to a video's size: white is inside.

    A picture stands for every frame; a video, or a folder of pictures in the order of their names, must have `count`
    frames. Levels above 127 are inside. Raises ValueError for what cannot be read or does not fit.
    """
    path = Path(path)
    levels = _read_levels(path)
    if len(levels) not in (1, count):
        raise ValueError(
            f"{path}: {len(levels)} mask frames for {count} of the video; expected as many, or one picture."
        )
    region = interpolate((levels > 127).float(), (height, width), mode="nearest-exact") > 0.5
    return region.expand(count, -1, -1, -1)


def _read_levels(path: Path) -> Float[Tensor, "time 1 height width"]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
        return _read_pictures(path, files)
    if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"):
        return _read_pictures(path, [path])
    return read_video(path)[0].float().mean(1, keepdim=True)


def _read_pictures(path: Path, files: Sequence[Path]) -> Float[Tensor, "time 1 height width"]:
    levels = []
    for file in files:
        try:
            with Image.open(file) as picture:
                levels.append(torch.from_numpy(np.array(picture.convert("L"), dtype=np.float32))[None])
        # Pillow raises a dozen types for broken files; all mean the same.
        except Exception as error:
            raise ValueError(f"{file}: cannot be read as a mask ({error}); save it again as an 8-bit PNG.") from error
    if len({level.shape for level in levels}) != 1:
        sizes = ", ".join(sorted({f"{level.shape[2]} x {level.shape[1]}" for level in levels}))
        raise ValueError(f"{path}: holds {sizes or 'no pictures'}; expected pictures (PNG, JPEG, WebP) of one size.")
    return torch.stack(levels)


def _pixel_centres(height: int, width: int) -> tuple[Float[Tensor, "width"], Float[Tensor, "height"]]:
    """As shares of the picture."""
    return (torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height
