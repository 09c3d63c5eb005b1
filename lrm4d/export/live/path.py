"""A camera path through keyframes: each has a pose, a field of view and a time, and the path goes through all."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from lrm4d.cameras import Cameras, join_cameras
from lrm4d.export.live.frames import camera_of_fov
from lrm4d.rotations import matrix_to_quaternion, quaternion_to_matrix


@dataclass(frozen=True)
class Keyframe:
    """Where a path's camera stands. fov: vertical, radians. time in [0, 1]."""

    camera_to_world: Float[Tensor, "4 4"]
    fov: float
    time: float


def interpolate(keyframes: Sequence[Keyframe], places: Float[Tensor, "place"]) -> list[Keyframe]:
    """The path at places: 0 is the first keyframe, 1 the second, and so on; between them it is smooth.

    Positions, orientations and fields of view follow Catmull-Rom splines, with no bend at the ends; times go straight,
    so that none leaves [0, 1].
    """
    if len(keyframes) < 2:
        raise ValueError(f"a path of {len(keyframes)} keyframes; add at least 2.")
    poses = torch.stack([keyframe.camera_to_world for keyframe in keyframes]).double()
    quaternions = align_signs(matrix_to_quaternion(poses[:, :3, :3]))
    fovs, times = torch.tensor([[keyframe.fov, keyframe.time] for keyframe in keyframes]).double().T
    bent = catmull_rom(torch.cat([poses[:, :3, 3], quaternions, fovs[:, None]], dim=-1), places.double())
    before = places.double().floor().long().clamp(0, len(keyframes) - 2)
    straight = torch.lerp(times[before], times[before + 1], places.double() - before)
    matrices = torch.eye(4).repeat(len(places), 1, 1)
    matrices[:, :3, :3] = quaternion_to_matrix(normalize(bent[:, 3:7], dim=-1)).float()
    matrices[:, :3, 3] = bent[:, :3].float()
    return [Keyframe(*values) for values in zip(matrices, bent[:, 7].tolist(), straight.tolist(), strict=True)]


def align_signs(quaternions: Float[Tensor, "key 4"]) -> Float[Tensor, "key 4"]:
    """The same rotations, each with the sign that is nearer to the one before."""
    flips = (quaternions[1:] * quaternions[:-1]).sum(-1, keepdim=True).sign()
    flips = torch.where(flips == 0, 1.0, flips)
    return quaternions * torch.cat([torch.ones_like(flips[:1]), flips.cumprod(0)])


def catmull_rom(
    points: Float[Tensor, "key channel"], places: Float[Tensor, "place"]
) -> Float[Tensor, "place channel"]:
    """The spline through points at places in [0, key - 1]; the ends are continued in a straight line."""
    points = torch.cat([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    before = places.floor().long().clamp(0, len(points) - 4)
    t = (places - before)[:, None]
    a, b, c, d = (points[before + step] for step in range(4))
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))


def sample_path(keyframes: Sequence[Keyframe], frames: int, width: int, height: int) -> tuple[Cameras, Tensor]:
    """Cameras [frame] and times [frame] evenly along a path, first and last keyframe included."""
    path = interpolate(keyframes, torch.linspace(0, len(keyframes) - 1, frames, dtype=torch.float64))
    cameras = [camera_of_fov(key.camera_to_world, key.fov, width, height) for key in path]
    return join_cameras(cameras), torch.tensor([key.time for key in path]).clamp(0, 1)
