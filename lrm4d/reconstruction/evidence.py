"""A plane sweep for a transformer: do the other views agree, at each distance along each pixel's ray?"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample

from lrm4d.cameras import Cameras, project
from lrm4d.gaussians4d import to_model_time
from lrm4d.operators import load_operators
from lrm4d.views import Views

TIME_WIDTHS = (float("inf"), 0.35, 0.12)
"""Standard deviations (model time) of the weight that a view gets by its nearness in time to the pixel's frame."""
MIN_WEIGHT = 1e-3
"""Views whose weight is smaller have no say: most frames are far from one another, and asking costs time."""
COLOR_WIDTH = 0.15
"""Standard deviation (RGB in [0, 1]) of colour agreement."""
EVIDENCE_CHANNELS = 3 * len(TIME_WIDTHS)
"""For every time width: coverage, agreement in colour among what is covered, and how many views had a say."""


def sample_distances(spans: Float[Tensor, "*batch 2"], steps: int) -> Float[Tensor, "*batch step"]:
    """Distances at the middles of `steps` equal parts of each span (near, far)."""
    fractions = (torch.arange(steps, dtype=spans.dtype, device=spans.device) + 0.5) / steps
    return spans[..., :1] + (spans[..., 1:] - spans[..., :1]) * fractions


@torch.no_grad()
def gather_evidence(
    views: Views,
    view_indices: Int[Tensor, "pixel"],
    origins: Float[Tensor, "pixel 3"],
    directions: Float[Tensor, "pixel 3"],
    distances: Float[Tensor, "pixel step"],
    colors: Float[Tensor, "pixel 3"],
    velocities: Float[Tensor, "pixel 3"] | None = None,
    out: Float[Tensor, "pixel step channel"] | None = None,
) -> Float[Tensor, "pixel step channel"]:
    """How far the other views of one scene agree with each pixel at distances along its ray; values in [0, 1].

    views: batch shape [view]. view_indices: whose pixel it is. origins, directions, distances: its ray and the places
    on it. colors: the pixels' straight RGB. velocities: of what the pixels show, per model time; another view is asked
    about the place where it has moved to by then. At rest if not given. out: where to write it, contiguous, float32 or
    bfloat16; made (float32) if not given.
    Channel 3k: mean coverage (alpha) at the place's projections, over the other views that have it in their picture,
    weighted by nearness in time of width k; 3k + 1: the same mean of coverage times colour agreement; 3k + 2: the sum
    of weights w as w / (1 + w). Not differentiable.
    """
    times = to_model_time(views.times)
    gaps, weights = times - times[:, None], _weigh_views(times)
    velocities = torch.zeros_like(origins) if velocities is None else velocities
    rays = (origins, directions, velocities, distances, colors)
    out = distances.new_empty(*distances.shape, EVIDENCE_CHANNELS) if out is None else out
    if out.is_cuda or not load_operators():
        pictures = torch.cat([views.images * views.alphas, views.alphas], dim=1)
        rows = (weights[view_indices], gaps[view_indices])
        return out.copy_(gather_evidence_reference(pictures, views.cameras, *rows, *rays))
    projections = views.cameras.intrinsics @ views.cameras.world_to_camera[:, :3]
    inputs = (views.images, views.alphas, projections, weights, gaps, view_indices, *rays)
    torch.ops.lrm4d.gather_evidence(out, *(x.contiguous() for x in inputs), 0.5 / COLOR_WIDTH**2)
    return out


def _weigh_views(times: Float[Tensor, "view"]) -> Float[Tensor, "view view decay"]:
    """The weight of each view (second) for the pixels of each view (first) by nearness in time; none for their own."""
    gaps = times[:, None] - times
    weights = torch.stack([torch.exp(-0.5 * (gaps / width).square()) for width in TIME_WIDTHS], dim=-1)
    weights.diagonal().zero_()
    weights[weights < MIN_WEIGHT] = 0
    return weights


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
    """The same in plain PyTorch, from premultiplied RGBA pictures: the oracle of the operator, and the way on CUDA."""
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
