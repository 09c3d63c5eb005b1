"""Camera paths for a video: its geometry is placed as paths expect it, and a path starts from where it was taken.

Paths turn around the world's origin, z up, in units in which a camera stands START.distance away. A video has its own
world; its pivot becomes the origin, the first camera's up is up, and lengths are relative to the pivot's depth.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras, invert_rigid
from lrm4d.generation.geometry import Geometry
from lrm4d.trajectories import CameraPath, Rig
from lrm4d.trajectories.state import START, cameras_of


def place(geometry: Geometry, pivot: Float[Tensor, "3"] | None = None) -> Geometry:
    """The same scene in the world of camera paths; pivot: in the geometry's world, else Geometry.pivot().

    The first camera then looks along +y, upright, and the pivot lies START.distance before it in depth (aside where it
    was aside in the picture). Raises ValueError for a pivot that is not before the first camera.
    """
    pivot = geometry.pivot() if pivot is None else pivot
    first = geometry.cameras.camera_to_world[0, :3]
    depth = float((pivot - first[:, 3]) @ first[:, 2])
    if not depth > 0:
        raise ValueError(f"pivot {pivot.tolist()}: lies at depth {depth:g} of the first camera; expected above 0.")
    centred = geometry.recentre(pivot, START.distance / depth)
    axes = torch.stack([first[:, 0], first[:, 2], -first[:, 1]])
    poses = centred.cameras.camera_to_world.clone()
    poses[:, :3] = axes @ poses[:, :3]
    return replace(centred, cameras=replace(centred.cameras, camera_to_world=poses))


def cameras_along(path: CameraPath, geometry: Geometry, count: int) -> Cameras:
    """Cameras [count] along a path that starts as the first camera of a placed geometry, of its picture size.

    A move is made as if the pivot were in the middle of the picture, so that the framing stays; azimuth and elevation
    0 are the first camera's own, and zooming is relative to its lens.
    """
    first = geometry.cameras[:1].to(torch.float64)
    fov = 2 * math.degrees(math.atan(first.width / 2 / float(first.intrinsics[0, 0, 0])))
    start = Rig(azimuth=0.0, elevation=0.0, distance=START.distance, fov=fov)
    stands = path.cameras(count, first.width, first.height, start).to(torch.float64)
    home = cameras_of(start.to_vector()[None], first.width, first.height).to(torch.float64)
    poses = stands.camera_to_world @ invert_rigid(home.camera_to_world) @ first.camera_to_world
    intrinsics = first.intrinsics.repeat(count, 1, 1)
    intrinsics[:, :2, :2] *= (stands.intrinsics[:, 0, 0] / home.intrinsics[0, 0, 0])[:, None, None]
    return Cameras(poses, intrinsics, first.width, first.height).to(geometry.depths)


def place_cameras(cameras: Cameras, before: Geometry, after: Geometry) -> Cameras:
    """Cameras (any batch shape) of a geometry's own world, moved as `place` moved it from before to after."""
    chosen = before.valid
    scale = (after.depths[chosen] / before.depths[chosen]).median().to(cameras.camera_to_world)
    old, new = before.cameras.camera_to_world[0], after.cameras.camera_to_world[0]
    turn = new[:3, :3] @ old[:3, :3].mT
    poses = cameras.camera_to_world.clone()
    poses[..., :3, :3] = turn @ cameras.camera_to_world[..., :3, :3]
    poses[..., :3, 3] = (cameras.origins - old[:3, 3]) @ turn.mT * scale + new[:3, 3]
    return replace(cameras, camera_to_world=poses)
