"""What a silhouette tells of other views: where a pixel's ray passes beside the object, there is nothing (a visual
hull of one picture: Laurentini, 1994). So an object on white leaves other cameras white pixels that are known."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import grid_sample

from lrm4d.cameras import Cameras, project, sphere_spans
from lrm4d.generation.grid import ViewGrid
from lrm4d.generation.regions import grow

SAMPLES = 32
"""Points along each ray."""


def see_background(
    alphas: Float[Tensor, "time 1 height width"], source: Cameras, targets: Cameras, radius: float
) -> Bool[Tensor, "time view 1 height width"]:
    """True where targets [time, view] cannot see the object, which lies within `radius` of the world's origin and
    within its silhouette as sources [time] see it. Points that a source does not show may be of the object."""
    silhouette = grow(alphas > 0.05, 1).float()
    empty = []
    for time in range(len(alphas)):  # one at a time: memory
        origins, directions = targets[time].rays()
        near, far = sphere_spans(origins, directions, radius)
        shares = (torch.arange(SAMPLES).to(near) + 0.5) / SAMPLES
        distances = near[..., None] + (far - near)[..., None] * shares
        points = origins[..., None, :] + directions[..., None, :] * distances[..., None]
        pixels, depth = project(source[time], points)
        places = pixels / pixels.new_tensor([source.width, source.height]) * 2 - 1
        beyond = (places.abs() > 1).any(-1) | (depth <= 0)
        flat = places.reshape(1, -1, SAMPLES, 2).to(silhouette)
        inside = grid_sample(silhouette[time, None], flat, mode="nearest", padding_mode="border", align_corners=False)
        may = (inside.reshape(beyond.shape) > 0.5) | beyond
        empty.append(~(may & (far > near)[..., None]).any(-1)[..., None, :, :])
    return torch.stack(empty)


def carve_grid(
    grid: ViewGrid, alphas: Float[Tensor, "time 1 height width"], radius: float
) -> tuple[ViewGrid, Bool[Tensor, "time view 1 height width"]]:
    """The grid with white, known, where its video's silhouettes say that there is nothing; and where that is."""
    empty = see_background(alphas, grid.cameras[:, 0], grid.cameras, radius) & ~grid.known
    images = torch.where(empty, 1.0, grid.images)
    return replace(grid, images=images, known=grid.known | empty), empty
