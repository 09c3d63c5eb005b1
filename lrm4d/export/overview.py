"""A scene at a glance: how large it is, from where to see all of it, and how far its parts move."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras, intrinsics_from_fov, look_at
from lrm4d.gaussians4d import MovingGaussians
from lrm4d.views import Views

SOLID = 0.1
"""The opacity from which a Gaussian counts."""
ELEVATION, FOV, TURN, MARGIN = 15.0, 40.0, 20.0, 1.25
"""Of an overview: degrees, degrees, degrees beside the best input, and room around the scene as a factor."""
TRAIL, LONGEST_TRAIL = 0.15, 40.0
"""How far the fast ones go within a trail, in radii of the scene; and model time, of which the clip is 2."""


def find_extent(moving: MovingGaussians) -> tuple[Float[Tensor, "3"], float]:
    """The middle of what is opaque, and the radius that holds 98 % of it; strays do not count."""
    solid = moving.means[moving.opacities >= min(SOLID, moving.opacities.max().item())]
    sample = solid[:: max(1, len(solid) // 100_000)]  # as many as torch.quantile takes
    low, high = torch.quantile(sample, torch.tensor([0.02, 0.98]), dim=0)
    center = (low + high) / 2
    radius = torch.quantile((sample - center).norm(dim=-1), 0.98).item()
    return center, max(radius, 1e-3)


def overview_camera(center: Float[Tensor, "3"], radius: float, side: int, views: Views | None = None) -> Cameras:
    """A level camera (batch shape [], side x side pixels) that shows everything, three quarters from the front.

    The front is where the input picture was taken that shows the most; without inputs it is at x and y.
    """
    azimuth, elevation = math.pi / 4, math.radians(ELEVATION)
    if views is not None:
        best = int(views.alphas.flatten(1).mean(dim=-1).argmax())
        x, y, _ = (views.cameras.origins[best] - center).tolist()
        azimuth = math.atan2(y, x) + math.radians(TURN)
    level = math.cos(elevation)
    direction = torch.tensor([math.cos(azimuth) * level, math.sin(azimuth) * level, math.sin(elevation)])
    fov = math.radians(FOV)
    pose = look_at(center + MARGIN * radius / math.sin(fov / 2) * direction, center)
    return Cameras(pose, intrinsics_from_fov(fov, side, side), side, side)


def trail_duration(moving: MovingGaussians, radius: float) -> float:
    """Model time in which the fast ones of what is opaque go far enough to be seen."""
    speeds = moving.velocities[moving.opacities >= min(SOLID, moving.opacities.max().item())].norm(dim=-1)
    fast = torch.quantile(speeds[:: max(1, len(speeds) // 100_000)], 0.9).item()
    return min(LONGEST_TRAIL, TRAIL * radius / max(fast, 1e-9))
