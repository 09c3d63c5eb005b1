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
    origin_x, origin_y, origin_z = _load_three(origins + pixel * 3, here)
    direction_x, direction_y, direction_z = _load_three(directions + pixel * 3, here)
    velocity_x, velocity_y, velocity_z = _load_three(velocities + pixel * 3, here)
    red, green, blue = _load_three(colors + pixel * 3, here)
    x, y, z = origin_x + distance * direction_x, origin_y + distance * direction_y, origin_z + distance * direction_z
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
        column, line, valid = _find(row, moved_x, moved_y, moved_z, height, width, here)
        picture = texels + (first + view).to(tl.int64) * (height * width * 4)
        r, g, b, alpha = _look_up(picture, column, line, height, width, valid)
        straight = 1.0 / tl.maximum(alpha, 1e-3)
        gap_r, gap_g, gap_b = r * straight - red, g * straight - green, b * straight - blue
        agreement = alpha * tl.exp(-sharpness * (gap_r * gap_r + gap_g * gap_g + gap_b * gap_b))
        weight_0, weight_1, weight_2 = _load_three(weights + pair * 3, valid)
        covered_0, covered_1, covered_2 = _add(covered_0, covered_1, covered_2, alpha, weight_0, weight_1, weight_2)
        agreeing_0, agreeing_1, agreeing_2 = _add(
            agreeing_0, agreeing_1, agreeing_2, agreement, weight_0, weight_1, weight_2
        )
        total_0, total_1, total_2 = total_0 + weight_0, total_1 + weight_1, total_2 + weight_2
        view += 1
    to = out + place.to(tl.int64) * 9
    _write(to, covered_0, agreeing_0, total_0, here)
    _write(to + 3, covered_1, agreeing_1, total_1, here)
    _write(to + 6, covered_2, agreeing_2, total_2, here)


@triton.jit
@no_type_check  # jaxtyping would wrap what Triton has to read
def _load_three(at, here):
    """Three numbers side by side; 0 where not here."""
    return tl.load(at, here, 0.0), tl.load(at + 1, here, 0.0), tl.load(at + 2, here, 0.0)


@triton.jit
@no_type_check  # jaxtyping would wrap what Triton has to read
def _add(sum_0, sum_1, sum_2, value, weight_0, weight_1, weight_2):
    """What a view says, by its weight in each width in time."""
    return sum_0 + weight_0 * value, sum_1 + weight_1 * value, sum_2 + weight_2 * value


@triton.jit
@no_type_check  # jaxtyping would wrap what Triton has to read
def _find(row, x, y, z, height, width, here):
    """Where a point falls in a picture (texels, whose centres are whole numbers), and whether it does."""
    across, down = _project(row, x, y, z, here), _project(row + 4, x, y, z, here)
    depth = _project(row + 8, x, y, z, here)
    inverse = 1.0 / tl.where(depth > 0, depth, 1.0)
    column, line = across * inverse - 0.5, down * inverse - 0.5
    valid = here & (depth > 0) & (column >= -0.5) & (column <= width - 0.5)
    return column, line, valid & (line >= -0.5) & (line <= height - 0.5)


@triton.jit
@no_type_check  # jaxtyping would wrap what Triton has to read
def _project(row, x, y, z, here):
    """One homogeneous coordinate: the dot product of a projection's row and (x, y, z, 1)."""
    value = tl.load(row, here, 0.0) * x + tl.load(row + 1, here, 0.0) * y
    return value + tl.load(row + 2, here, 0.0) * z + tl.load(row + 3, here, 0.0)


@triton.jit
@no_type_check  # jaxtyping would wrap what Triton has to read
def _look_up(picture, column, line, height, width, valid):
    """A picture's four channels between four texels; 0 where not valid."""
    column = tl.minimum(tl.maximum(column, 0.0), width - 1.0)
    line = tl.minimum(tl.maximum(line, 0.0), height - 1.0)
    left_column, upper_line = tl.floor(column), tl.floor(line)
    right_share, low_share = column - left_column, line - upper_line
    left, upper = left_column.to(tl.int32), upper_line.to(tl.int32)
    right, lower = tl.minimum(left + 1, width - 1), tl.minimum(upper + 1, height - 1)
    up, low = picture + upper * (width * 4), picture + lower * (width * 4)
    red = _mix(up, low, left * 4, right * 4, right_share, low_share, valid)
    green = _mix(up + 1, low + 1, left * 4, right * 4, right_share, low_share, valid)
    blue = _mix(up + 2, low + 2, left * 4, right * 4, right_share, low_share, valid)
    return red, green, blue, _mix(up + 3, low + 3, left * 4, right * 4, right_share, low_share, valid)


@triton.jit
@no_type_check  # jaxtyping would wrap what Triton has to read
def _mix(up, low, left, right, right_share, low_share, valid):
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
