"""What moves before several static, calibrated cameras: masks by background subtraction, agreed upon by all cameras.

A background is where a video hardly changes; a plate (a picture of the same place at another time) tells the rest. The
masks of all cameras then carve out where anything can be, and what lies outside of that is background in every frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from lrm4d.cameras import Cameras, project, sphere_spans, unproject
from lrm4d.generation.regions import close_gaps, drop_small_parts, fill_small_holes, grow, shrink

Masks = Bool[Tensor, "time 1 height width"]

DIFFERENCE = 0.1
"""Of levels in [0, 1], in any channel: beyond, a pixel is not the background."""
STEADY = 0.6
"""The share of frames that agree with their median where a video shows its background."""
SMALLEST_PART, SMALLEST_HOLE = 0.02, 0.002
"""Of the largest part of a mask, and of the picture: what is smaller is noise, and filled."""
GAP = 96
"""A gap in a mask is closed, where the others agree, if it is less than twice this part of the height."""
FARTHEST, LEAST_GAIN, SUSPECTS = 0.03, 0.02, 2
"""A camera's picture is shifted by at most this share of its height at once, and only for so much more overlap, summed
over the cameras; how many cameras are tried."""
SAMPLES, COARSE = 96, 4
"""Points on each ray, and pixels a side that share one, when space is carved."""


@dataclass(frozen=True)
class Foreground:
    """What moves. masks[k]: of video k. cameras: as given, their principal points shifted by `shifts` (x, y pixels).

    centre, radius: a sphere around what all cameras agree on at some time.
    """

    masks: tuple[Masks, ...]
    cameras: tuple[Cameras, ...]
    shifts: Float[Tensor, "camera 2"]
    centre: Float[Tensor, "3"]
    radius: float


def find_foreground(
    videos: Sequence[Float[Tensor, "time 3 height width"]],
    cameras: Sequence[Cameras],
    plates: Sequence[Float[Tensor, "3 height width"] | None],
) -> Foreground:
    """What moves in at least three synchronized videos, of any sizes; cameras (batch shape []) of the same.

    A camera that was touched after the calibration is shifted so that its masks fit the others' (`align`).
    """
    backgrounds = [estimate_background(video, plate) for video, plate in zip(videos, plates, strict=True)]
    masks = [clean_mask(differs(video, back)) for video, back in zip(videos, backgrounds, strict=True)]
    centre, radius = locate(masks, cameras)
    for missing in (1, 0):
        masks = _look_again(videos, backgrounds, masks, cameras, centre, radius, missing)
    shifts = align([mask[::3] for mask in masks], cameras, centre, radius)
    cameras = [shift(camera, by) for camera, by in zip(cameras, shifts, strict=True)]
    masks = _look_again(videos, backgrounds, masks, cameras, centre, radius, 0)
    hulls = [see_hull(k, masks, cameras, centre, radius, missing=0) for k in range(len(cameras))]
    # What only one camera sees is no thing; what is black before a black wall is one where the others say so.
    whole = [
        close_gaps(mask, max(1, mask.shape[-2] // GAP)) & grow(hull, 2)
        for mask, hull in zip(masks, hulls, strict=True)
    ]
    masks = [fill_small_holes(drop_small_parts(clean_mask(mask), SMALLEST_PART), SMALLEST_HOLE) for mask in whole]
    return Foreground(tuple(masks), tuple(cameras), shifts, *_bound(masks, cameras, centre, radius))


def _look_again(
    videos: Sequence[Tensor],
    backgrounds: Sequence[Tensor],
    masks: Sequence[Masks],
    cameras: Sequence[Cameras],
    centre: Tensor,
    radius: float,
    missing: int,
) -> list[Masks]:
    """Masks by backgrounds from where the other cameras' hull is not at a time, and the given where it always is."""
    found = []
    for k, (video, given) in enumerate(zip(videos, backgrounds, strict=True)):
        near = see_hull(k, masks, cameras, centre, radius, missing)
        empty = torch.where(grow(near, 2 * COARSE), torch.nan, video).nanmedian(dim=0).values
        background = torch.where(empty.isnan(), given, empty)
        found.append(clean_mask(differs(video, background) & grow(near, COARSE)))
    return found


def align(
    masks: Sequence[Masks], cameras: Sequence[Cameras], centre: Float[Tensor, "3"], radius: float
) -> Float[Tensor, "camera 2"]:
    """Shifts (x, y) of principal points by which all masks fit the hulls of the other cameras' best, in pixels.

    A camera that is off spoils the others' hulls too, so what counts is the sum over all of them: one camera at a time
    is shifted to where it fits best, of the SUSPECTS which could gain most the one that helps most.
    """
    fit = lambda cameras: [  # noqa: E731
        _fit(see_hull(k, masks, cameras, centre, radius, missing=0), masks[k]) for k in range(len(cameras))
    ]
    cameras, shifts = list(cameras), torch.zeros(len(cameras), 2)
    fits = fit(cameras)
    for _ in cameras:
        suspects = sorted(range(len(cameras)), key=lambda k: fits[k].now - fits[k].best)[:SUSPECTS]
        trials = [[shift(c, fits[s].by) if k == s else c for k, c in enumerate(cameras)] for s in suspects]
        results = [fit(trial) for trial in trials]
        totals = [sum(one.now for one in result) for result in results]
        best = totals.index(max(totals))
        if totals[best] < sum(one.now for one in fits) + LEAST_GAIN:
            break
        shifts[suspects[best]] += fits[suspects[best]].by
        cameras, fits = trials[best], results[best]
    return shifts


class _Fit(NamedTuple):
    """Intersection over union of a mask with a hull: now, and with the hull shifted `by` (x, y) pixels, its best."""

    now: float
    best: float
    by: Float[Tensor, "2"]


def shift(camera: Cameras, by: Float[Tensor, "2"]) -> Cameras:
    """The camera of a picture whose content lies (x, y) pixels farther."""
    intrinsics = camera.intrinsics.clone()
    intrinsics[:2, 2] += by
    return replace(camera, intrinsics=intrinsics)


def overlap(one: Masks, other: Masks) -> Float[Tensor, "time"]:
    """Intersection over union at each time; NaN where both are empty."""
    return (one & other).sum((1, 2, 3)) / (one | other).sum((1, 2, 3))


def _fit(hull: Masks, mask: Masks) -> _Fit:
    """The best shift within FARTHEST of the height; correlating gives the intersections of all shifts at once."""
    shared = torch.fft.rfft2(mask.float()) * torch.fft.rfft2(hull.float()).conj()
    shared = torch.fft.irfft2(shared.sum(dim=(0, 1)), s=mask.shape[-2:])
    scores = shared / (hull.sum() + mask.sum() - shared)
    reach = max(1, int(FARTHEST * mask.shape[-2]))
    near = torch.roll(scores, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    row, column = divmod(int(near.argmax()), near.shape[1])
    by = torch.tensor([column - reach, row - reach]).float()
    return _Fit(float(scores[0, 0]), float(near.max()), by)


def estimate_background(
    video: Float[Tensor, "time 3 height width"], plate: Float[Tensor, "3 height width"] | None
) -> Float[Tensor, "3 height width"]:
    """The temporal median; where a plate is given, the plate wherever the video moves, or agrees with it at times."""
    median = video.median(dim=0).values
    if plate is None:
        return median
    agrees = (~differs(video, plate)).float().sum(dim=0) >= 2
    steady = (~differs(video, median)).float().mean(dim=0) >= STEADY
    return torch.where(steady & ~agrees, median, plate)


def differs(video: Float[Tensor, "time 3 height width"], background: Float[Tensor, "3 height width"]) -> Masks:
    """Pixels that are not the background."""
    return (video - background).abs().amax(dim=1, keepdim=True) > DIFFERENCE


def clean_mask(mask: Masks) -> Masks:
    """Without cracks and specks."""
    return grow(shrink(close_gaps(mask, 2), 1), 1)


def triangulate(pixels: Sequence[Float[Tensor, "2"]], cameras: Sequence[Cameras]) -> Float[Tensor, "3"]:
    """The world point nearest to the rays through a pixel of each camera, least squares."""
    matrix, offset = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for pixel, camera in zip(pixels, cameras, strict=True):
        camera = camera.to(torch.float64)
        ray = normalize(
            unproject(camera, pixel.double(), torch.ones((), dtype=torch.float64)) - camera.origins, dim=-1
        )
        across = torch.eye(3, dtype=torch.float64) - ray[:, None] * ray
        matrix, offset = matrix + across, offset + across @ camera.origins
    return torch.linalg.solve(matrix, offset).float()


def centre_of(mask: Bool[Tensor, "1 height width"]) -> Float[Tensor, "2"]:
    """The median place (x, y) of a mask's pixels, which a few wrong ones do not move; NaN for an empty mask."""
    rows, columns = mask[0].nonzero(as_tuple=True)
    return (
        torch.stack([columns, rows]).float().quantile(0.5, dim=1) + 0.5 if len(rows) else torch.full((2,), torch.nan)
    )


def locate(masks: Sequence[Masks], cameras: Sequence[Cameras]) -> tuple[Float[Tensor, "3"], float]:
    """Roughly where the masks' thing is over the whole time: a centre, and a radius that is too large."""
    moments = range(len(masks[0]))
    found = torch.stack([triangulate([centre_of(m[t]) for m in masks], cameras) for t in moments])
    if not bool(found.isfinite().any()):
        raise ValueError("nothing moves in one of the videos, so there is nothing to cut out.")
    centre = found.nanquantile(0.5, dim=0)
    radii = []
    for mask, camera in zip(masks, cameras, strict=True):
        _, _, rows, columns = mask.nonzero(as_tuple=True)
        middle, depth = project(camera, centre)
        away = (torch.stack([columns, rows], dim=-1) + 0.5 - middle).norm(dim=-1).double()
        radii.append(float(away.sort().values[int(0.9 * (len(away) - 1))] * depth / camera.intrinsics[0, 0]))
    return centre, 1.5 * sorted(radii)[len(radii) // 2]


def count_masks(
    points: Float[Tensor, "*shape 3"], masks: Sequence[Masks], cameras: Sequence[Cameras]
) -> UInt8[Tensor, "time *shape"]:
    """In how many masks world points lie, at each time."""
    total = torch.zeros(len(masks[0]), *points.shape[:-1], dtype=torch.uint8)
    for mask, camera in zip(masks, cameras, strict=True):
        pixels, depths = project(camera, points)
        columns, rows = pixels.floor().long().unbind(-1)
        inside = (depths > 0) & (columns >= 0) & (columns < camera.width) & (rows >= 0) & (rows < camera.height)
        place = (rows * camera.width + columns).masked_fill(~inside, 0)
        total += mask.flatten(1)[:, place] & inside
    return total


def see_hull(
    index: int,
    masks: Sequence[Masks],
    cameras: Sequence[Cameras],
    centre: Float[Tensor, "3"],
    radius: float,
    missing: int,
    coarse: int = COARSE,
) -> Masks:
    """What a camera sees of the hull of the other cameras' masks within a sphere, all but `missing` of them agreeing.

    One ray for coarse x coarse pixels.
    """
    camera = cameras[index]
    others = [k for k in range(len(cameras)) if k != index]
    points = _points_on_rays(camera.resize(camera.width // coarse, camera.height // coarse), centre, radius)
    votes = count_masks(points, [masks[k] for k in others], [cameras[k] for k in others])
    seen = (votes >= len(others) - missing).any(dim=-1)[:, None]
    return interpolate(seen.float(), (camera.height, camera.width), mode="nearest-exact") > 0.5


def _points_on_rays(camera: Cameras, centre: Tensor, radius: float) -> Float[Tensor, "height width sample 3"]:
    """Even samples of each pixel's ray within a sphere."""
    origins, directions = camera.rays()
    near, far = sphere_spans((origins - centre) / radius, directions)
    steps = (torch.arange(SAMPLES) + 0.5) / SAMPLES
    distances = radius * torch.lerp(near[..., None], far[..., None], steps)
    return origins[..., None, :] + directions[..., None, :] * distances[..., None]


def _bound(
    masks: Sequence[Masks], cameras: Sequence[Cameras], centre: Tensor, radius: float
) -> tuple[Float[Tensor, "3"], float]:
    """The sphere, around the middle of its bounds, of all points that lie in all masks at some time."""
    camera = cameras[0].resize(cameras[0].width // COARSE, cameras[0].height // COARSE)
    points = _points_on_rays(camera, centre, radius)
    agreed = (count_masks(points, masks, cameras) == len(cameras)).any(dim=0)
    inside = points[agreed & ((points - centre).norm(dim=-1) <= radius)]
    if not len(inside):
        raise ValueError("the cameras' masks have no point in common: is the calibration of these videos?")
    middle = (inside.amin(dim=0) + inside.amax(dim=0)) / 2
    return middle, float((inside - middle).norm(dim=-1).max())
