"""Scenes to refine where no network has made one: random points in the hull of the silhouettes."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

from lrm4d.cameras import project
from lrm4d.gaussians4d import Gaussians4D, to_model_time
from lrm4d.views import Views

AGREEING = 0.8
"""Less than one, because what moves is within the silhouettes of some moments only."""
OPACITY, DURATION = 0.1, 0.3
HULL_GAUSSIANS = 20_000
CANDIDATES = 1 << 15
ROUNDS = 16


def start_in_hull(views: Views, count: int, generator: torch.Generator, low_pass: float = 0.1) -> Gaussians4D:
    """`count` round grey Gaussians at rest, at random moments and places where the silhouettes allow something.

    A point is kept if the pictures' alpha is above one half there in AGREEING times as many views as for the best
    points. Sizes are the points' mean spacing. ValueError if the silhouettes have nothing in common.
    """
    points = _draw_points(views, count, generator)
    spacing = (4.2 * points.std(dim=0).clamp(min=1e-3).prod() / count) ** (1 / 3)
    like = points.new_ones(count)
    upright = points.new_tensor([1.0, 0, 0, 0]).expand(count, 4).contiguous()
    moments = to_model_time(torch.rand(count, generator=generator)).to(points)
    return Gaussians4D(
        means=points,
        time_means=moments,
        scales=(0.7 * spacing * like)[:, None].expand(count, 3).contiguous(),
        time_scales=DURATION * like,
        left_quaternions=upright,
        right_quaternions=upright,
        opacities=OPACITY * like,
        colors=torch.full_like(points, 0.5),
        low_pass=low_pass,
    )


def _draw_points(views: Views, count: int, generator: torch.Generator) -> Float[Tensor, "count 3"]:
    found: list[Tensor] = []
    wanted = 1e-6
    for _ in range(ROUNDS):
        points = (2 * torch.rand(CANDIDATES, 3, generator=generator) - 1).to(views.images)
        shares = _share_within(views, points)
        if not found:
            wanted = max(wanted, AGREEING * shares.max().item())
        found.append(points[shares >= wanted])
        if sum(map(len, found)) >= count:
            return torch.cat(found)[:count]
        if len(found[0]) == 0:
            break
    few = torch.cat(found)
    if len(few) == 0:
        raise ValueError("the silhouettes have no place in common within the unit sphere: are the cameras right?")
    return few[torch.randint(len(few), (count,), generator=generator)]


def _share_within(views: Views, points: Float[Tensor, "point 3"]) -> Float[Tensor, "point"]:
    """Of each point: the share of the views that see it within the silhouette."""
    cameras = views.cameras
    size = points.new_tensor([cameras.width, cameras.height])
    within: list[Tensor] = []
    for view in range(len(views)):
        pixels, depth = project(cameras[view], points)
        places = (2 * pixels / size - 1)[None, None]
        alphas = grid_sample(views.alphas[view][None], places, align_corners=False)[0, 0, 0]
        within.append((alphas > 0.5) & (depth > 0))
    return torch.stack(within).float().mean(dim=0)
