"""Pinhole cameras: OpenCV axes (x right, y down, z forward), intrinsics in pixels, pixel centres at +0.5."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from lrm4d.rotations import matrix_to_quaternion, quaternion_to_matrix

OPENGL_TO_OPENCV = (1.0, -1.0, -1.0, 1.0)
"""What the camera's axes are multiplied by between OpenGL or Blender (y up, z back) and OpenCV; its own inverse."""
TENSORS = ("camera_to_world", "intrinsics")


@dataclass(frozen=True)
class Cameras:
    """Any number of cameras that share one picture size.

    camera_to_world: [*batch, 4, 4], rigid. intrinsics: [*batch, 3, 3], pixels. width, height: pixels.
    """

    camera_to_world: Float[Tensor, "*batch 4 4"]
    intrinsics: Float[Tensor, "*batch 3 3"]
    width: int
    height: int

    @property
    def shape(self) -> torch.Size:
        """The batch shape."""
        return self.camera_to_world.shape[:-2]

    @property
    def origins(self) -> Float[Tensor, "*batch 3"]:
        """The cameras' centres in the world."""
        return self.camera_to_world[..., :3, 3]

    @property
    def world_to_camera(self) -> Float[Tensor, "*batch 4 4"]:
        """The inverse of camera_to_world, which is rigid."""
        return invert_rigid(self.camera_to_world)

    def __getitem__(self, index) -> "Cameras":
        """Cameras chosen along the batch dimensions."""
        return replace(self, camera_to_world=self.camera_to_world[index], intrinsics=self.intrinsics[index])

    def __len__(self) -> int:
        """The size of the first batch dimension."""
        return self.shape[0]

    def to(self, *args, **kwargs) -> "Cameras":
        """Moved to a device or dtype, as Tensor.to."""
        return replace(
            self,
            camera_to_world=self.camera_to_world.to(*args, **kwargs),
            intrinsics=self.intrinsics.to(*args, **kwargs),
        )

    def reshape(self, *shape: int) -> "Cameras":
        """The same cameras with another batch shape."""
        return replace(
            self,
            camera_to_world=self.camera_to_world.reshape(*shape, 4, 4),
            intrinsics=self.intrinsics.reshape(*shape, 3, 3),
        )

    def expand(self, *shape: int) -> "Cameras":
        """The same cameras seen through a larger batch shape, without copying."""
        return replace(
            self,
            camera_to_world=self.camera_to_world.expand(*shape, 4, 4),
            intrinsics=self.intrinsics.expand(*shape, 3, 3),
        )

    def resize(self, width: int, height: int) -> "Cameras":
        """The same cameras taking pictures of another size (pixels), with the same field of view."""
        scale = self.intrinsics.new_tensor([width / self.width, height / self.height, 1.0])
        return replace(self, intrinsics=self.intrinsics * scale[:, None], width=width, height=height)

    def rays(self) -> tuple[Float[Tensor, "*batch 1 1 3"], Float[Tensor, "*batch height width 3"]]:
        """The origin [*batch, 1, 1, 3] and unit direction [*batch, height, width, 3] of every pixel centre's ray."""
        like = self.intrinsics
        columns = torch.arange(self.width, dtype=like.dtype, device=like.device) + 0.5
        rows = torch.arange(self.height, dtype=like.dtype, device=like.device) + 0.5
        pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
        points = unproject(self.reshape(*self.shape, 1, 1), pixels, torch.ones_like(pixels[..., 0]))
        origins = self.origins[..., None, None, :]
        return origins, normalize(points - origins, dim=-1)


def join_cameras(parts: Sequence[Cameras], dim: int = 0) -> Cameras:
    """Cameras one after the other along a batch dimension, counted from the first.

    ValueError if their pictures differ in size.
    """
    sizes = {(part.width, part.height) for part in parts}
    if len(sizes) != 1:
        raise ValueError(f"join_cameras: pictures of {sorted(sizes)} pixels; resize them to one size first.")
    poses, intrinsics = (torch.cat([getattr(part, name) for part in parts], dim) for name in TENSORS)
    return replace(parts[0], camera_to_world=poses, intrinsics=intrinsics)


def invert_rigid(matrices: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """The inverse of rigid transforms."""
    rotations = matrices[..., :3, :3].mT
    translations = -rotations @ matrices[..., :3, 3:]
    return torch.cat([torch.cat([rotations, translations], dim=-1), matrices[..., 3:, :]], dim=-2)


def project(
    cameras: Cameras, points: Float[Tensor, "*batch 3"]
) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch"]]:
    """Pixel coordinates (x, y) and depth (camera z) of world points; the batch shapes broadcast."""
    in_camera = (cameras.world_to_camera[..., :3, :3] @ points[..., None])[..., 0] + cameras.world_to_camera[
        ..., :3, 3
    ]
    depth = in_camera[..., 2]
    pixels = (cameras.intrinsics @ (in_camera / depth[..., None])[..., None])[..., :2, 0]
    return pixels, depth


def unproject(
    cameras: Cameras, pixels: Float[Tensor, "*pixels 2"], depth: Float[Tensor, "*depth"]
) -> Float[Tensor, "*batch 3"]:
    """World points seen at pixel coordinates (x, y) at a depth (camera z); the batch shapes broadcast."""
    k = cameras.intrinsics
    y = (pixels[..., 1] - k[..., 1, 2]) / k[..., 1, 1]
    x = (pixels[..., 0] - k[..., 0, 2] - k[..., 0, 1] * y) / k[..., 0, 0]
    in_camera = torch.stack(torch.broadcast_tensors(x, y, torch.ones_like(x)), dim=-1) * depth[..., None]
    world = cameras.camera_to_world
    return (world[..., :3, :3] @ in_camera[..., None])[..., 0] + world[..., :3, 3]


def plucker_rays(origins: Float[Tensor, "*batch 3"], directions: Float[Tensor, "*rays 3"]) -> Float[Tensor, "*out 6"]:
    """Pluecker coordinates (direction, origin x direction) of rays; the same wherever on the ray the origin lies."""
    origins, directions = torch.broadcast_tensors(origins, directions)
    return torch.cat([directions, torch.linalg.cross(origins, directions)], dim=-1)


def nearest_points_to_world_origin(
    origins: Float[Tensor, "*batch 3"], directions: Float[Tensor, "*rays 3"]
) -> Float[Tensor, "*out 3"]:
    """The point of each ray's line that is nearest to the world's origin: o - <o, d> d (4D-LRM, input channels)."""
    return origins - (origins * directions).sum(-1, keepdim=True) * directions


def sphere_spans(
    origins: Float[Tensor, "*batch 3"], directions: Float[Tensor, "*rays 3"], radius: float = 1.0
) -> tuple[Float[Tensor, "*out"], Float[Tensor, "*out"]]:
    """Distances at which rays enter and leave the sphere around the world's origin.

    A ray that misses the sphere gets the span of length zero at its nearest point; no distance is negative.
    """
    middle = -(origins * directions).sum(-1)
    nearest = nearest_points_to_world_origin(origins, directions)
    half = (radius**2 - nearest.square().sum(-1)).clamp(min=0).sqrt()
    return (middle - half).clamp(min=0), (middle + half).clamp(min=0)


def look_at(
    origins: Float[Tensor, "*batch 3"],
    targets: Float[Tensor, "*targets 3"],
    up: tuple[float, float, float] = (0.0, 0.0, 1.0),
) -> Float[Tensor, "*batch 4 4"]:
    """camera_to_world of upright cameras at origins that look at targets. Looking along `up` is an error."""
    forward = normalize(targets - origins, dim=-1)
    right = torch.linalg.cross(forward, forward.new_tensor(up).expand_as(forward))
    if bool((right.norm(dim=-1) < 1e-6).any()):
        raise ValueError(f"look_at: a camera looks along its up direction {up}; choose another up or another target.")
    right = normalize(right, dim=-1)
    down = torch.linalg.cross(forward, right)
    columns = torch.stack([right, down, forward, origins.expand_as(forward)], dim=-1)
    last = columns.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*columns.shape[:-2], 1, 4)
    return torch.cat([columns, last], dim=-2)


def intrinsics_from_fov(fov_x: float | Tensor, width: int, height: int) -> Float[Tensor, "*batch 3 3"]:
    """Square-pixel intrinsics [*batch, 3, 3] of a horizontal field of view (radians), centred."""
    focal = 0.5 * width / torch.tan(torch.as_tensor(fov_x, dtype=torch.float32) / 2)
    zero, one = torch.zeros_like(focal), torch.ones_like(focal)
    rows = (
        (focal, zero, one * (width / 2)),
        (zero, focal, one * (height / 2)),
        (zero, zero, one),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def convert_opengl_opencv(camera_to_world: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """camera_to_world between OpenGL / Blender / nerfstudio axes (y up, z back) and OpenCV's, either way."""
    return camera_to_world * camera_to_world.new_tensor(OPENGL_TO_OPENCV)


def from_colmap(
    quaternions: Float[Tensor, "*batch 4"], translations: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """camera_to_world of COLMAP's world-to-camera pose (QW QX QY QZ, TX TY TZ), which has OpenCV axes."""
    upper = torch.cat([quaternion_to_matrix(quaternions), translations[..., None]], dim=-1)
    last = upper.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*upper.shape[:-2], 1, 4)
    return invert_rigid(torch.cat([upper, last], dim=-2))


def to_colmap(
    camera_to_world: Float[Tensor, "*batch 4 4"],
) -> tuple[Float[Tensor, "*batch 4"], Float[Tensor, "*batch 3"]]:
    """COLMAP's (QW QX QY QZ) and (TX TY TZ) of camera_to_world; the inverse of from_colmap."""
    world_to_camera = invert_rigid(camera_to_world)
    return matrix_to_quaternion(world_to_camera[..., :3, :3]), world_to_camera[..., :3, 3]
