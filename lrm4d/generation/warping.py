"""Warping: what other cameras see of a video whose geometry is known, and which of their pixels it does not tell.

Also the training pairs of masked inpainting (SEE4D, arXiv 2510.26796; EasyCreator, arXiv 2506.04590): a video warped
to other cameras and back has true disocclusions as holes, while the video itself is what belongs there.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.splatting import splat
from lrm4d.rotations import quaternion_to_matrix


@dataclass(frozen=True)
class Warp:
    """Pictures as other cameras would see them.

    images: [*batch, 3, height, width]; black where nothing is known. visibility: [*batch, 1, height, width], True
    where the source shows the pixel. depths: [*batch, 1, height, width], camera z; 0 where nothing is known.
    """

    images: Float[Tensor, "*batch 3 height width"]
    visibility: Bool[Tensor, "*batch 1 height width"]
    depths: Float[Tensor, "*batch 1 height width"]

    @property
    def coverage(self) -> Float[Tensor, "*batch"]:
        """The share of each picture that is seen."""
        return self.visibility.float().mean((-3, -2, -1))


def warp(images: Float[Tensor, "time 3 h w"], geometry: Geometry, cameras: Cameras) -> Warp:
    """Each frame as the cameras of its time would see it; splatting.py says how.

    images: any range of values. cameras: batch shape [time], or [time, *view] for several views of each frame, of any
    picture size; the warp has their batch shape and size. Differentiable by images, depths and cameras.
    """
    if images.shape[-2:] != geometry.depths.shape[-2:] or len(images) != len(geometry):
        raise ValueError(
            f"warp: images of shape {tuple(images.shape)} and depths of shape {tuple(geometry.depths.shape)}; "
            "expected as many of the same size: use Geometry.resize."
        )
    if cameras.shape[:1] != (len(images),):
        raise ValueError(
            f"warp: {len(images)} frames and cameras of batch shape {tuple(cameras.shape)}; expected [{len(images)}] "
            "or, for several views of each frame, [time, *view]."
        )
    matrices, offsets = relate(geometry.cameras.reshape(-1, 1), cameras.reshape(len(images), -1))
    depths = geometry.depths.masked_fill(~geometry.valid, 0.0)[:, 0]
    transform = (matrices.to(depths), offsets.to(depths))
    image, depth, nearest = splat(images, depths, *transform, cameras.width, cameras.height)
    image, depth, nearest = (x.reshape(*cameras.shape, *x.shape[2:]) for x in (image, depth, nearest))
    return Warp(image, nearest[..., None, :, :] >= 0, depth[..., None, :, :])


def relate(source: Cameras, target: Cameras) -> tuple[Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch 3"]]:
    """M and b that take a source pixel (u, v) of depth z to homogeneous target pixels z M (u, v, 1) + b.

    Double precision, so that a camera that does not move gives the identity. Batch shapes broadcast.
    """
    source, target = source.to(torch.float64), target.to(torch.float64)
    between = torch.linalg.inv(target.camera_to_world) @ source.camera_to_world
    rotated = target.intrinsics @ between[..., :3, :3]
    return rotated @ torch.linalg.inv(source.intrinsics), (target.intrinsics @ between[..., :3, 3:])[..., 0]


def reproject_twice(
    video: Float[Tensor, "time 3 height width"],
    geometry: Geometry,
    cameras: Cameras,
    jitter: Float[Tensor, "time 4 4"] | None = None,
) -> Warp:
    """The video warped to other cameras [time] and back to its own: what both see, with holes for the rest.

    jitter: rigid motions of the other cameras, in their own axes, between the way there and the way back (see
    draw_jitter): real warps do not lie exactly where they belong either. With the video's own cameras and no jitter
    the video comes back unchanged, all of it seen. The clean target is the video itself.
    """
    there = warp(video, geometry, cameras)
    moved = cameras if jitter is None else replace(cameras, camera_to_world=cameras.camera_to_world @ jitter)
    return warp(there.images, Geometry(there.depths, moved, there.visibility), geometry.cameras)


def draw_jitter(count: int, degrees: float, distance: float, generator: torch.Generator) -> Float[Tensor, "count 4 4"]:
    """Random rigid motions: turns and shifts whose parts along each axis are normal, of these standard deviations.

    degrees: of the turns. distance: of the shifts, in world units: take a share of the geometry's median depth. Expand
    one over time for a pose that is wrong but steady.
    """
    turns = torch.randn(count, 3, generator=generator) * math.radians(degrees)
    half = turns.norm(dim=-1, keepdim=True) / 2
    quaternions = torch.cat([half.cos(), turns / 2 * torch.sinc(half / math.pi)], dim=-1)
    motions = torch.eye(4).repeat(count, 1, 1)
    motions[:, :3, :3] = quaternion_to_matrix(quaternions)
    motions[:, :3, 3] = torch.randn(count, 3, generator=generator) * distance
    return motions
