"""A camera path that was recorded camera by camera, as files hold it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.rotations import matrix_to_quaternion, quaternion_to_matrix
from lrm4d.trajectories.clock import parse_times
from lrm4d.trajectories.path import CameraPath
from lrm4d.trajectories.state import START, Rig

SQUARE = 1e-3
"""How far a file's rotations may be from rotations; six digits of text are well within."""


@dataclass(frozen=True)
class Recording(CameraPath):
    """Cameras as they were in a file: where it had them, in its units, only its axes turned into OpenCV's.

    camera_to_world: [camera, 4, 4], rigid, float64. lenses: [camera, 4], fx, fy and the place of the principal point
    from the picture's middle (x, y), all in widths of the picture; None where the file has none. moments: [camera]
    times in [0, 1], or None. Between cameras positions go straight, rotations the shortest way.
    """

    camera_to_world: Float[Tensor, "camera 4 4"]
    lenses: Float[Tensor, "camera 4"] | None = None
    moments: Float[Tensor, "camera"] | None = None

    @property
    def natural_count(self) -> int:
        """How many cameras it has."""
        return len(self.camera_to_world)

    def cameras(self, count: int, width: int, height: int, start: Rig = START) -> Cameras:
        """Cameras [count], the first and the last as recorded; start: its fov, where the file has no lens.

        A picture of another shape keeps the horizontal field of view.
        """
        before, after, between = self._places(count)
        poses = self.camera_to_world
        positions = torch.lerp(poses[before, :3, 3], poses[after, :3, 3], between[:, None])
        quaternions = matrix_to_quaternion(poses[:, :3, :3])
        rotations = quaternion_to_matrix(slerp(quaternions[before], quaternions[after], between))
        result = torch.eye(4, dtype=poses.dtype).repeat(count, 1, 1)
        result[:, :3, :3], result[:, :3, 3] = rotations, positions
        lenses = torch.tensor([[start.focal / 2, start.focal / 2, 0, 0]], dtype=poses.dtype).expand(len(poses), 4)
        if self.lenses is not None:
            lenses = self.lenses
        fx, fy, x, y = (width * torch.lerp(lenses[before], lenses[after], between[:, None])).unbind(-1)
        intrinsics = torch.zeros(count, 3, 3, dtype=poses.dtype)
        intrinsics[:, 0, 0], intrinsics[:, 0, 2] = fx, x + width / 2
        intrinsics[:, 1, 1], intrinsics[:, 1, 2] = fy, y + height / 2
        intrinsics[:, 2, 2] = 1
        return Cameras(result.float(), intrinsics.float(), width, height)

    def times(self, count: int, times: str = "0:1") -> Float[Tensor, "count"]:
        """Times [count]: as recorded, or the caller's where the file has none."""
        if self.moments is None:
            return parse_times(times, count)
        before, after, between = self._places(count)
        return torch.lerp(self.moments[before], self.moments[after], between).float()

    def _places(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The recorded cameras before and after each of `count` even steps, and how far between them it is."""
        last = len(self.camera_to_world) - 1
        places = torch.arange(count, dtype=torch.float64) * (last / max(1, count - 1))
        if count == last + 1:
            places = places.round()
        before = places.floor().long().clamp(max=max(0, last - 1))
        return before, (before + 1).clamp(max=last), (places - before).clamp(0, 1)


def slerp(
    first: Float[Tensor, "*batch 4"], second: Float[Tensor, "*batch 4"], between: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 4"]:
    """Quaternions between unit quaternions, the shortest way at an even speed."""
    cosine = (first * second).sum(-1)
    second = torch.where(cosine[..., None] < 0, -second, second)
    angle = torch.atan2((first - second).norm(dim=-1), (first + second).norm(dim=-1)) * 2
    near = angle < 1e-6
    sine = torch.where(near, 1.0, angle.sin())
    of_first = torch.where(near, 1 - between, ((1 - between) * angle).sin() / sine)
    of_second = torch.where(near, between, (between * angle).sin() / sine)
    return of_first[..., None] * first + of_second[..., None] * second


def lenses_of(cameras: Cameras) -> Float[Tensor, "camera 4"]:
    """The lenses of cameras [camera] in the form of a Recording."""
    k = cameras.intrinsics.double()
    centre = [k[:, 0, 2] - cameras.width / 2, k[:, 1, 2] - cameras.height / 2]
    return torch.stack([k[:, 0, 0], k[:, 1, 1], *centre], dim=-1) / cameras.width


def check_poses(where: str, poses: Float[Tensor, "camera 4 4"]) -> Float[Tensor, "camera 4 4"]:
    """The poses, if there is one at least and all are rigid and finite; else ValueError names file and camera."""
    if len(poses) == 0:
        raise ValueError(f"{where}: holds no cameras; expected at least one. Was it cut off while copying?")
    rotations = poses[:, :3, :3]
    error = (rotations.mT @ rotations - torch.eye(3, dtype=poses.dtype)).abs().amax(dim=(-2, -1))
    mirrored = torch.linalg.det(rotations.nan_to_num()) < 0
    wrong = ~(error <= SQUARE) | mirrored | ~poses.isfinite().all(dim=-1).all(dim=-1)
    if bool(wrong.any()):
        index = int(wrong.nonzero()[0])
        what = "a mirror image" if mirrored[index] else f"{error[index]:.2g} away from a rotation (at most {SQUARE:g})"
        raise ValueError(
            f"{where}: camera {index} is {what}; expected a finite camera pose without scale. "
            "Is this the format that its name says? Export it again."
        )
    return poses
