"""The evidence operator on CUDA, in Triton: imported only where there are CUDA tensors (or Triton's interpreter)."""

from typing import no_type_check

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256
"""Places on rays that one program asks about."""


def gather_evidence(
    out: Tensor,
    texels: Tensor,
    projections: Tensor,
    weights: Tensor,
    gaps: Tensor,
    owners: Tensor,
    origins: Tensor,
    directions: Tensor,
    velocities: Tensor,
    distances: Tensor,
    colors: Tensor,
    sharpness: float,
) -> None:
    """Fill out [pixel, step, 9] with what evidence.gather_evidence describes, all scenes in one launch.

    texels: [scene, view, height, width, 4], premultiplied RGBA. projections: [scene, view, 3, 4], world to homogeneous
    pixel coordinates. weights: [scene, view, view, 3]. gaps: [scene, view, view]. owners: [pixel], scene * views +
    view. The rest as there; all contiguous, float32 but for owners and out.
    """
    height, width = texels.shape[2:4]
    places = distances.numel()
    if places:
        rays = (owners, origins, directions, velocities, distances, colors)
        sizes = (places, distances.shape[1], texels.shape[1], height, width)
        grid = (triton.cdiv(places, BLOCK),)
        _gather[grid](out, texels, projections, weights, gaps, *rays, *sizes, sharpness, BLOCK=BLOCK)


@triton.jit
@no_type_check  # jaxtyping would wrap what Triton has to read
def _gather(
    out,
    texels,
    projections,
    weights,
    gaps,
    owners,
    origins,
    directions,
    velocities,
    distances,
    colors,
    places,
    steps,
    views,
    height,
    width,
    sharpness,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # neighbours lie on one ray: they read the same texels
    here = place < places
    pixel = place // steps
    distance = tl.load(distances + place, here, 0.0)
    ray = pixel * 3
    x = tl.load(origins + ray, here, 0.0) + distance * tl.load(directions + ray, here, 0.0)
    y = tl.load(origins + ray + 1, here, 0.0) + distance * tl.load(directions + ray + 1, here, 0.0)
    z = tl.load(origins + ray + 2, here, 0.0) + distance * tl.load(directions + ray + 2, here, 0.0)
    velocity_x = tl.load(velocities + ray, here, 0.0)
    velocity_y = tl.load(velocities + ray + 1, here, 0.0)
    velocity_z = tl.load(velocities + ray + 2, here, 0.0)
    red = tl.load(colors + ray, here, 0.0)
    green = tl.load(colors + ray + 1, here, 0.0)
    blue = tl.load(colors + ray + 2, here, 0.0)
    owner = tl.load(owners + pixel, here, 0).to(tl.int32)
    first = owner // views * views
    nothing = tl.zeros([BLOCK], tl.float32)
    covered_0, covered_1, covered_2 = nothing, nothing, nothing
    agreeing_0, agreeing_1, agreeing_2 = nothing, nothing, nothing
    total_0, total_1, total_2 = nothing, nothing, nothing
    view = 0
    while view < views:  # not a range: Triton's interpreter does not take one of a number that is not known
        pair = owner * views + view
        gap = tl.load(gaps + pair, here, 0.0)
        moved_x, moved_y, moved_z = x + gap * velocity_x, y + gap * velocity_y, z + gap * velocity_z
        row = projections + (first + view) * 12
        across = _project(row, moved_x, moved_y, moved_z, here)
        down = _project(row + 4, moved_x, moved_y, moved_z, here)
        depth = _project(row + 8, moved_x, moved_y, moved_z, here)
        inverse = 1.0 / tl.where(depth > 0, depth, 1.0)
        column, line = across * inverse - 0.5, down * inverse - 0.5  # texels' coordinates: centres at whole numbers
        valid = here & (depth > 0) & (column >= -0.5) & (column <= width - 0.5)
        valid = valid & (line >= -0.5) & (line <= height - 0.5)
        column = tl.minimum(tl.maximum(column, 0.0), width - 1.0)
        line = tl.minimum(tl.maximum(line, 0.0), height - 1.0)
        left, top = tl.floor(column), tl.floor(line)
        right_share, low_share = column - left, line - top
        left_column, upper = left.to(tl.int32), top.to(tl.int32)
        right_column, lower = tl.minimum(left_column + 1, width - 1), tl.minimum(upper + 1, height - 1)
        picture = texels + (first + view).to(tl.int64) * (height * width * 4)
        up, low = picture + upper * (width * 4), picture + lower * (width * 4)
        left_column, right_column = left_column * 4, right_column * 4
        alpha = _look_up(up + 3, low + 3, left_column, right_column, right_share, low_share, valid)
        straight = 1.0 / tl.maximum(alpha, 1e-3)
        gap_r = _look_up(up, low, left_column, right_column, right_share, low_share, valid) * straight - red
        gap_g = _look_up(up + 1, low + 1, left_column, right_column, right_share, low_share, valid) * straight - green
        gap_b = _look_up(up + 2, low + 2, left_column, right_column, right_share, low_share, valid) * straight - blue
        agreement = alpha * tl.exp(-sharpness * (gap_r * gap_r + gap_g * gap_g + gap_b * gap_b))
        weight_0 = tl.load(weights + pair * 3, valid, 0.0)
        weight_1 = tl.load(weights + pair * 3 + 1, valid, 0.0)
        weight_2 = tl.load(weights + pair * 3 + 2, valid, 0.0)
        covered_0, agreeing_0, total_0 = (
            covered_0 + weight_0 * alpha,
            agreeing_0 + weight_0 * agreement,
            total_0 + weight_0,
        )
        covered_1, agreeing_1, total_1 = (
            covered_1 + weight_1 * alpha,
            agreeing_1 + weight_1 * agreement,
            total_1 + weight_1,
        )
        covered_2, agreeing_2, total_2 = (
            covered_2 + weight_2 * alpha,
            agreeing_2 + weight_2 * agreement,
            total_2 + weight_2,
        )
        view += 1
    to = out + place.to(tl.int64) * 9
    _write(to, covered_0, agreeing_0, total_0, here)
    _write(to + 3, covered_1, agreeing_1, total_1, here)
    _write(to + 6, covered_2, agreeing_2, total_2, here)


@triton.jit
@no_type_check  # jaxtyping would wrap what Triton has to read
def _project(row, x, y, z, here):
    """One homogeneous coordinate: the dot product of a projection's row and (x, y, z, 1)."""
    value = tl.load(row, here, 0.0) * x + tl.load(row + 1, here, 0.0) * y
    return value + tl.load(row + 2, here, 0.0) * z + tl.load(row + 3, here, 0.0)


@triton.jit
@no_type_check  # jaxtyping would wrap what Triton has to read
def _look_up(up, low, left, right, right_share, low_share, valid):
    """A channel between four texels: two rows' pointers, two columns' offsets; 0 where not valid."""
    upper_left, upper_right = tl.load(up + left, valid, 0.0), tl.load(up + right, valid, 0.0)
    lower_left, lower_right = tl.load(low + left, valid, 0.0), tl.load(low + right, valid, 0.0)
    upper = upper_left + right_share * (upper_right - upper_left)
    lower = lower_left + right_share * (lower_right - lower_left)
    return upper + low_share * (lower - upper)


@triton.jit
@no_type_check  # jaxtyping would wrap what Triton has to read
def _write(to, covered, agreeing, total, here):
    """The three channels of one width in time."""
    inverse = 1.0 / tl.maximum(total, 1e-6)
    tl.store(to, covered * inverse, here)
    tl.store(to + 1, agreeing * inverse, here)
    tl.store(to + 2, total / (1.0 + total), here)
