"""A small scene in closed form for the tests of grids and plans: a ball of stripes that turns, before nothing."""

from dataclasses import dataclass

import torch

from lrm4d.cameras import Cameras
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.grid import ViewGrid, start_grid
from lrm4d.trajectories import Rig, cameras_around, parse_bank

HOME = Rig(elevation=0.0, distance=2.7, fov=50.0)
RADIUS = 0.9


def see_ball(cameras: Cameras, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures, depths and where the ball is, for cameras [time, *view]; it turns a quarter from time 0 to 1."""
    origins, directions = cameras.rays()
    along = -(origins * directions).sum(-1)
    gap = along.square() - origins.square().sum(-1) + RADIUS**2
    hit = gap > 0
    distance = along - gap.clamp(min=0).sqrt()
    points = origins + directions * distance[..., None]
    forward = cameras.camera_to_world[..., None, None, :3, 2]
    depths = torch.where(hit, distance * (directions * forward).sum(-1), 0.0)
    turn = times.reshape(-1, *[1] * (hit.ndim - 1)) * torch.pi / 2
    angle = torch.atan2(points[..., 1], points[..., 0]) - turn
    colors = torch.stack(
        [0.5 + 0.4 * torch.sin(3 * angle), 0.5 + 0.4 * torch.cos(2 * angle), 0.5 + points[..., 2] / 2]
    )
    images = torch.where(hit, colors, 1.0).movedim(0, -3)
    return images, depths[..., None, :, :], hit[..., None, :, :]


def home_cameras(count: int, size: int) -> Cameras:
    still = cameras_around(torch.zeros(1), torch.zeros(1), torch.full((1,), 2.7), 50.0, size, size)
    return still[torch.zeros(count, dtype=torch.long)]


def ball_grid(bank: str = "fan:views=2,span=40", count: int = 3, size: int = 24) -> tuple[ViewGrid, Geometry]:
    """The grid of the ball's video and its exact geometry."""
    times = torch.linspace(0, 1, count)
    home = home_cameras(count, size)
    images, depths, hit = see_ball(home, times)
    geometry = Geometry(depths, home, hit)
    others = parse_bank(bank)
    return start_grid(images, geometry, others.cameras(others.natural_count, size, size, HOME), times), geometry


@dataclass
class BallDepth:
    """A depth provider that knows the ball, up to a scale and a shift of inverse depth; cameras [time, station]."""

    cameras: Cameras
    scale: float = 1.0
    shift: float = 0.0
    asked: int = 0

    def __call__(self, frames, progress=None) -> Geometry:
        self.asked += 1
        _, depths, hit = see_ball(self.cameras, torch.zeros(len(frames)))
        inverse = self.scale / depths.clamp(min=0.1) + self.shift
        return Geometry(torch.where(hit, 1 / inverse, 0.0), self.cameras, hit)
