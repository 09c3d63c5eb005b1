"""A plane sweep for a transformer: do the other views agree, at each distance along each pixel's ray?"""

import functools
import importlib.util
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample

from lrm4d.cameras import Cameras, project
from lrm4d.gaussians4d import to_model_time
from lrm4d.operators import load_operators
from lrm4d.views import Views

TimeWidths = tuple[float, float, float]
TIME_WIDTHS: TimeWidths = (0.0, 0.35, 0.12)
"""Standard deviations (model time) of the weight that a view gets by its nearness in time to the pixel's frame; 0: all
views alike."""
MIN_WEIGHT = 1e-3
"""Views whose weight is smaller have no say: most frames are far from one another, and asking costs time."""
COLOR_WIDTH = 0.15
"""Standard deviation (RGB in [0, 1]) of colour agreement."""
SHARPNESS = 0.5 / COLOR_WIDTH**2
EVIDENCE_CHANNELS = 3 * len(TIME_WIDTHS)
"""For every time width: coverage, agreement in colour among what is covered, and how many views had a say."""


def sample_distances(spans: Float[Tensor, "*batch 2"], steps: int) -> Float[Tensor, "*batch step"]:
    """Distances at the middles of `steps` equal parts of each span (near, far)."""
    fractions = (torch.arange(steps, dtype=spans.dtype, device=spans.device) + 0.5) / steps
    return spans[..., :1] + (spans[..., 1:] - spans[..., :1]) * fractions


@torch.no_grad()
def gather_evidence(
    views: Views,
    owners: Int[Tensor, "pixel"],
    origins: Float[Tensor, "pixel 3"],
    directions: Float[Tensor, "pixel 3"],
    distances: Float[Tensor, "pixel step"],
    colors: Float[Tensor, "pixel 3"],
    velocities: Float[Tensor, "pixel 3"] | None = None,
    out: Float[Tensor, "pixel step channel"] | None = None,
    widths: TimeWidths = TIME_WIDTHS,
) -> Float[Tensor, "pixel step channel"]:
    """How far the other views of its scene agree with each pixel at distances along its ray; values in [0, 1].

    views: batch shape [scene, view]. owners: whose pixel it is, scene * views + view, scene after scene. origins,
    directions, distances: its ray and the places on it. colors: the pixels' straight RGB. velocities: of what the
    pixels show, per model time; another view is asked about the place where it has moved to by then. At rest if not
    given. out: where to write it, contiguous, float32 or bfloat16; made (float32) if not given. widths: as
    TIME_WIDTHS.
    Channel 3k: mean coverage (alpha) at the place's projections, over the other views that have it in their picture,
    weighted by nearness in time of width k; 3k + 1: the same mean of coverage times colour agreement; 3k + 2: the sum
    of weights w as w / (1 + w). Not differentiable.
    """
    velocities = torch.zeros_like(origins) if velocities is None else velocities
    rays = (origins, directions, velocities, distances, colors)
    out = distances.new_empty(*distances.shape, EVIDENCE_CHANNELS) if out is None else out
    if out.is_cuda and has_triton():
        return gather_evidence_by_triton(views, owners, rays, out, widths)
    gather = _gather_by_operator if not out.is_cuda and load_operators() else _gather_by_reference
    count = views.shape[1]
    sizes = torch.bincount(owners // count, minlength=len(views)).tolist()
    pieces = zip(*(values.split(sizes) for values in (owners, *rays, out)), strict=True)
    for scene, (owner, *ray, piece) in enumerate(pieces):
        gather(views[scene], owner - scene * count, ray, piece, widths)
    return out


@functools.cache
def has_triton() -> bool:
    """Whether Triton is there: it comes with PyTorch for CUDA, but not everywhere."""
    return importlib.util.find_spec("triton") is not None


def gather_evidence_by_triton(
    views: Views, owners: Tensor, rays: tuple[Tensor, ...], out: Tensor, widths: TimeWidths = TIME_WIDTHS
) -> Tensor:
    """All scenes in one launch."""
    from lrm4d.reconstruction import evidence_cuda

    pictures = torch.cat([views.images * views.alphas, views.alphas], dim=2).movedim(2, -1)
    projections = views.cameras.intrinsics @ views.cameras.world_to_camera[..., :3, :]
    inputs = (pictures, projections, *_compare_times(views.times, widths), owners, *rays)
    evidence_cuda.gather_evidence(out, *(x.contiguous() for x in inputs), SHARPNESS)
    return out


def _gather_by_operator(views: Views, owners: Tensor, rays: list[Tensor], out: Tensor, widths: TimeWidths) -> None:
    """One scene on the CPU, in C++."""
    projections = views.cameras.intrinsics @ views.cameras.world_to_camera[:, :3]
    gaps_and_weights = _compare_times(views.times, widths)
    inputs = (views.images, views.alphas, projections, *gaps_and_weights, owners, *rays)
    torch.ops.lrm4d.gather_evidence(out, *(x.contiguous() for x in inputs), SHARPNESS)


def _gather_by_reference(views: Views, owners: Tensor, rays: list[Tensor], out: Tensor, widths: TimeWidths) -> None:
    """One scene in plain PyTorch."""
    weights, gaps = _compare_times(views.times, widths)
    pictures = torch.cat([views.images * views.alphas, views.alphas], dim=1)
    out.copy_(gather_evidence_reference(pictures, views.cameras, weights[owners], gaps[owners], *rays))


def _compare_times(times: Float[Tensor, "*batch view"], widths: TimeWidths) -> tuple[Tensor, Tensor]:
    """For the pixels of each view (first): the weight of each view (second) by nearness in time, [*batch, view, view,
    decay], none for their own, and how much later in model time it is, [*batch, view, view]."""
    times = to_model_time(times)
    gaps = times[..., None, :] - times[..., :, None]
    weights = torch.stack([torch.exp(-0.5 * (gaps / (width or math.inf)).square()) for width in widths], dim=-1)
    own = torch.eye(times.shape[-1], dtype=torch.bool, device=times.device)[..., None]
    return weights.masked_fill(own | (weights < MIN_WEIGHT), 0), gaps


def gather_evidence_reference(
    pictures: Float[Tensor, "view 4 height width"],
    cameras: Cameras,
    weights: Float[Tensor, "pixel view decay"],
    gaps: Float[Tensor, "pixel view"],
    origins: Float[Tensor, "pixel 3"],
    directions: Float[Tensor, "pixel 3"],
    velocities: Float[Tensor, "pixel 3"],
    distances: Float[Tensor, "pixel step"],
    colors: Float[Tensor, "pixel 3"],
) -> Float[Tensor, "pixel step channel"]:
    """The same in plain PyTorch, from premultiplied RGBA pictures: the oracle of both operators."""
    sums = distances.new_zeros(weights.shape[-1], 3, *distances.shape)
    points = origins[:, None] + directions[:, None] * distances[..., None]
    for index in range(len(cameras)):
        moved = points + (gaps[:, index, None] * velocities)[:, None]
        covered, agreeing, valid = _compare(pictures[index], cameras[index], moved, colors)
        said = torch.stack([covered, agreeing, valid.to(covered)])
        sums += said * (weights[:, index].T[:, None, :, None] * valid)
    totals = sums[:, 2:]
    evidence = torch.cat([sums[:, :2] / totals.clamp(min=1e-6), totals / (1 + totals)], dim=1)
    return evidence.flatten(0, 1).movedim(0, -1)


def _compare(
    picture: Float[Tensor, "4 height width"],
    camera: Cameras,
    points: Float[Tensor, "pixel step 3"],
    colors: Float[Tensor, "pixel 3"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Coverage, coverage times colour agreement, and whether the picture has the point at all."""
    pixels, depth = project(camera, points)
    grid = pixels / pixels.new_tensor([camera.width, camera.height]) * 2 - 1
    valid = (depth > 0) & (grid.abs() <= 1).all(dim=-1)
    grid = torch.where(valid[..., None], grid, 2.0)
    samples = grid_sample(picture[None], grid[None], align_corners=False, padding_mode="border")[0]
    premultiplied, covered = samples[:3], samples[3]
    difference = premultiplied / covered.clamp(min=1e-3) - colors.T[:, :, None]
    agreement = torch.exp(difference.square().sum(dim=0) * (-0.5 / COLOR_WIDTH**2))
    return covered, covered * agreement, valid
