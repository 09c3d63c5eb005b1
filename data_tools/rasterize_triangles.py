"""Triangles to samples of a picture, in plain torch: the same code on CPU and CUDA, no loop over pixels.

Every triangle that faces its picture is cut into the rows of samples it covers, every row into exactly the samples
between its edges, and one scatter of (1 / depth, triangle) keeps the nearest. The result does not depend on order.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

NEAR = 0.05
"""Triangles nearer than this (camera z, world units) are dropped."""


@dataclass(frozen=True)
class Samples:
    """The covered samples of a stack of pictures, each with the triangle that is nearest to the camera there.

    index: picture * height * width + row * width + column. triangles: which of the triangles given.
    depth: camera z. weights: perspective-correct weights of the triangle's corners.
    """

    index: Int[Tensor, "sample"]
    triangles: Int[Tensor, "sample"]
    depth: Float[Tensor, "sample"]
    weights: Float[Tensor, "sample 3"]


def rasterize_triangles(
    corners: Float[Tensor, "triangle 3 3"], pictures: Int[Tensor, "triangle"], count: int, height: int, width: int
) -> Samples:
    """The samples (centres at +0.5) of `count` pictures of height x width that triangles cover.

    corners: x, y in samples and camera z of each corner; seen counter-clockwise is front, back faces are dropped.
    """
    corners = _turn_around(corners)  # clockwise from here on: in y-down coordinates its area is positive
    kept, planes = _set_up(corners, height, width)
    if len(kept) == 0:
        empty = kept.new_zeros(0)
        return Samples(empty, empty, corners.new_zeros(0), corners.new_zeros(0, 3))
    corners = corners.index_select(0, kept)
    of_row, row = _expand_rows(corners, height)
    of_fragment, column = _expand_columns(corners, of_row, row, width)
    triangle, y = of_row.index_select(0, of_fragment), row.index_select(0, of_fragment)
    inverse = planes.sum(1)  # 1 / z is affine over the picture: the sum of the corners' shares
    share = inverse.index_select(0, triangle)
    inverse_depth = share[:, 0] * (column + 0.5) + share[:, 1] * (y + 0.5) + share[:, 2]
    nearest, farthest = _depth_range(corners)
    inverse_depth = inverse_depth.clamp(1 / farthest[triangle], 1 / nearest[triangle])
    # The bits of a positive number order like a whole number.
    key = (inverse_depth.view(torch.int32).long() << 32) | triangle
    target = ((pictures[kept] * height).index_select(0, triangle) + y) * width + column
    buffer = torch.zeros(count * height * width, dtype=torch.int64, device=corners.device)
    buffer.scatter_reduce_(0, target, key, "amax")
    index = buffer.nonzero()[:, 0]
    triangle = buffer.index_select(0, index) & 0xFFFFFFFF
    x, y = index % width + 0.5, torch.div(index, width, rounding_mode="floor") % height + 0.5
    plane = planes.index_select(0, triangle)
    parts = plane[..., 0] * x[:, None] + plane[..., 1] * y[:, None] + plane[..., 2]
    # The tolerance of the edges can put a sample a hair outside: its weights stay inside.
    parts = parts.clamp(min=0)
    total = (parts[:, :1] + parts[:, 1:2] + parts[:, 2:]).clamp(min=1e-9)  # much faster than a sum over three
    depth = (1 / total[:, 0]).clamp(nearest[triangle], farthest[triangle])
    return Samples(index, kept.index_select(0, triangle), depth, _turn_around(parts / total))


def farthest_depths(
    corners: Float[Tensor, "triangle 3 3"], pictures: Int[Tensor, "triangle"], count: int, height: int, width: int
) -> Float[Tensor, "sample"]:
    """Camera z of the farthest back face at every sample of `count` pictures, 0 where there is none.

    The arguments are those of rasterize_triangles. Where a ray leaves a closed surface for good.
    """
    kept, planes = _set_up(corners, height, width)  # not turned around: what is seen from behind has positive area
    corners = corners.index_select(0, kept)
    of_row, row = _expand_rows(corners, height)
    of_fragment, column = _expand_columns(corners, of_row, row, width)
    triangle, y = of_row.index_select(0, of_fragment), row.index_select(0, of_fragment)
    share = planes.sum(1).index_select(0, triangle)
    inverse_depth = share[:, 0] * (column + 0.5) + share[:, 1] * (y + 0.5) + share[:, 2]
    target = ((pictures[kept] * height).index_select(0, triangle) + y) * width + column
    nearest, farthest = _depth_range(corners)
    inverse_depth = inverse_depth.clamp(1 / farthest[triangle], 1 / nearest[triangle])
    nearness = torch.full((count * height * width,), float("inf"), device=corners.device)
    nearness.scatter_reduce_(0, target, inverse_depth, "amin")
    return 1 / nearness


def _turn_around(values: Tensor) -> Tensor:
    """Corners or their weights [triangle, corner, ...] the other way around; a list as an index stops a GPU."""
    a, b, c = values.unbind(1)
    return torch.stack([a, c, b], dim=1)


def _depth_range(corners: Tensor) -> tuple[Tensor, Tensor]:
    """The least and greatest depth of each triangle: a sliver's plane, a hair outside of it, goes anywhere."""
    return corners[..., 2].amin(1), corners[..., 2].amax(1)


def _set_up(corners: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Triangles that can be seen, and [triangle, corner, 3]: each corner's share of 1 / z as a x + b y + c."""
    x, y, z = corners.unbind(-1)
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    rows = (y.amax(1) - 0.5).floor() - (y.amin(1) - 0.5).ceil()
    seen = (area > 1e-6) & (z.amin(1) > NEAR) & (rows >= 0)
    seen &= (x.amax(1) > 0) & (x.amin(1) < width) & (y.amax(1) > 0) & (y.amin(1) < height)
    kept = seen.nonzero()[:, 0]
    x, y, z = corners.index_select(0, kept).unbind(-1)
    area = area[kept]
    next_x, next_y = x.roll(-1, 1), y.roll(-1, 1)
    last_x, last_y = x.roll(-2, 1), y.roll(-2, 1)
    a, b = next_y - last_y, last_x - next_x
    c = next_x * last_y - last_x * next_y
    return kept, torch.stack([a, b, c], -1) / (area[:, None] * z)[..., None]


def _expand_rows(corners: Tensor, height: int) -> tuple[Tensor, Tensor]:
    """For every row that a triangle's height spans: which triangle, which row."""
    y = corners[..., 1]
    first = (y.amin(1) - 0.5).ceil().clamp(min=0).long()
    last = (y.amax(1) - 0.5).floor().clamp(max=height - 1).long()
    return _expand(first, (last - first + 1).clamp(min=0))


def _expand_columns(corners: Tensor, of_row: Tensor, row: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """For every sample between a triangle's edges: which row (of those given), which column."""
    x, y = corners[..., 0], corners[..., 1]
    dx, dy = x.roll(-1, 1) - x, y.roll(-1, 1) - y
    level = dy.abs() < 1e-7
    slope = dx / torch.where(level, 1.0, dy)
    # Going around clockwise (y down), edges that go down are on the right.
    side = torch.where(level, 0.0, dy.sign())
    edge = torch.stack([x - y * slope, slope, side], -1).index_select(0, of_row)
    crossing = edge[..., 0] + edge[..., 1] * (row + 0.5)[:, None]
    left = torch.where(edge[..., 2] < 0, crossing, -1e9).amax(-1)
    right = torch.where(edge[..., 2] > 0, crossing, 1e9).amin(-1)
    tolerance = 2e-3  # two triangles' roundings of their common edge must leave no sample between them
    first = (left - 0.5 - tolerance).ceil().clamp(0, width).long()
    last = (right - 0.5 + tolerance).floor().clamp(-1, width - 1).long()
    return _expand(first, (last - first + 1).clamp(min=0))


def _expand(first: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Repeats each entry `counts` times: which entry, and first, first + 1, ... within it."""
    of = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    starts = counts.cumsum(0) - counts
    return of, torch.arange(len(of), device=counts.device) - (starts - first).index_select(0, of)
