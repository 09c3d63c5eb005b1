"""TrajectoryCrafter's path text: three lines of numbers, theta, phi and r, spread evenly over the path.

They move the camera from where the video was taken, around the point that this camera looks at: theta degrees up, phi
degrees to the right, r forwards in parts of the distance to that point (rho). For a point p given from there in the
first camera's axes (x right, y down, z forward), the moved camera sees it at

    R_y(phi) R_x(theta) (p - (x, -y, r rho)) + (0, 0, rho)

Lines 4 and 5, if there are, are x (right) and y (up) in world units, as in its option --target_pose; the program
itself reads three lines. Up to three numbers are joined by straight lines, more by a natural cubic spline, which goes
through them (the program's own smooths a little). The first camera is where an orbit would start: a Rig's stand,
with its distance as rho; lens and times are the caller's.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras, invert_rigid
from lrm4d.checkpoint import write_text
from lrm4d.trajectories.clock import parse_times, show_number
from lrm4d.trajectories.formats.reading import read_numbers
from lrm4d.trajectories.path import CameraPath
from lrm4d.trajectories.state import START, Rig, cameras_of

LINES = ("theta", "phi", "r", "x", "y")
EXACT = 1e-3
"""How far, in degrees and world units, a camera may be from what the numbers can say."""


@dataclass(frozen=True)
class Offsets(CameraPath):
    """The lines: theta, phi (degrees), r (parts of the distance), x, y (world units), each of any length."""

    lines: tuple[tuple[float, ...], ...]

    @property
    def natural_count(self) -> int | None:
        """As many as its longest line, if that is one number for each picture and no few to go through."""
        longest = max(len(line) for line in self.lines)
        return longest if longest > 24 else None

    def cameras(self, count: int, width: int, height: int, start: Rig = START) -> Cameras:
        """Cameras [count] from the start's stand on, around the point in its middle at its distance."""
        theta, phi, r, x, y = (spline(torch.tensor(line, dtype=torch.float64), count) for line in self.lines)
        back = (_rotation(1, phi) @ _rotation(0, theta)).mT
        middle = theta.new_tensor([0, 0, start.distance])
        moved = torch.eye(4, dtype=theta.dtype).repeat(count, 1, 1)
        moved[:, :3, :3] = back
        moved[:, :3, 3] = torch.stack([x, -y, r * start.distance], dim=-1) - back @ middle + middle
        first = cameras_of(start.to_vector(), width, height)
        camera_to_world = first.camera_to_world.double() @ moved
        return Cameras(camera_to_world.float(), first.intrinsics.expand(count, 3, 3), width, height)

    def times(self, count: int, times: str = "0:1") -> Float[Tensor, "count"]:
        """The caller's times."""
        return parse_times(times, count)


def spline(values: Float[Tensor, "key"], count: int) -> Float[Tensor, "count"]:
    """Values at even steps through evenly spaced keys: straight for up to three, else the natural cubic spline."""
    if len(values) == 1:
        return values.expand(count)
    places = torch.arange(count, dtype=values.dtype) * ((len(values) - 1) / max(1, count - 1))
    before = places.floor().long().clamp(max=len(values) - 2)
    v = places - before
    bend = torch.zeros_like(values)
    if len(values) > 3:  # second derivatives: 4 inside, 1 beside, zero at both ends
        inner = len(values) - 2
        matrix = 4 * torch.eye(inner, dtype=values.dtype)
        matrix += torch.diag(values.new_ones(inner - 1), 1) + torch.diag(values.new_ones(inner - 1), -1)
        bend[1:-1] = torch.linalg.solve(matrix, 6 * (values[2:] - 2 * values[1:-1] + values[:-2]))
    straight = torch.lerp(values[before], values[before + 1], v)
    return straight + (((1 - v) ** 3 - (1 - v)) * bend[before] + (v**3 - v) * bend[before + 1]) / 6


def _rotation(axis: int, degrees: Float[Tensor, "count"]) -> Float[Tensor, "count 3 3"]:
    """Around x (0) or y (1)."""
    angle = torch.deg2rad(degrees)
    result = torch.eye(3, dtype=degrees.dtype).repeat(len(degrees), 1, 1)
    one, other = ((1, 2), (2, 0))[axis]
    result[:, one, one] = result[:, other, other] = angle.cos()
    result[:, one, other], result[:, other, one] = -angle.sin(), angle.sin()
    return result


def read(path: Path, part: str) -> Offsets:
    """The lines of a file."""
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        values = [[float(value) for value in row] for row in rows]
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not lines of numbers ({error}); expected theta, phi and r, a line each.") from error
    if len(values) not in (3, 5):
        raise ValueError(f"{path}: {len(values)} lines of numbers; expected 3 (theta, phi, r) or 5 (and x, y).")
    for name, line in zip(LINES, values, strict=False):
        read_numbers(path, name, line, -1)
    values += [[0.0]] * (len(LINES) - len(values))
    return Offsets(tuple(tuple(line) for line in values))


def write(path: Path, cameras: Cameras, times: Float[Tensor, "camera"], frames_per_second: float) -> None:
    """Write cameras [camera] as moves from the first one, around the point in its middle nearest to the origin.

    ValueError for a path that these numbers cannot say: one that rolls, or turns around another axis than the first
    camera's. Lens and times are lost.
    """
    poses = cameras.camera_to_world.double()
    distance = -(poses[0, :3, 2] @ poses[0, :3, 3])
    moved = invert_rigid(poses[0]) @ poses
    rotation = moved[:, :3, :3].mT
    theta = torch.rad2deg(torch.atan2(-rotation[:, 1, 2], rotation[:, 1, 1]))
    phi = _unwrap(torch.rad2deg(torch.atan2(-rotation[:, 2, 0], rotation[:, 0, 0])))
    middle = poses.new_tensor([0, 0, 1]) * distance
    x, down, forward = (moved[:, :3, 3] - middle + moved[:, :3, :3] @ middle).unbind(-1)
    if float(torch.rad2deg(rotation[:, 1, 0].abs().max())) > EXACT or distance <= 0:
        raise ValueError(
            f"{path}: trajectorycrafter's file turns cameras up and to the right around the first one's axes, and "
            "this path turns otherwise (an orbit must have elevation=0). Write nerfstudio or colmap instead."
        )
    lines = [theta, phi, forward / distance]
    if float(torch.cat([x, down]).abs().max()) > EXACT:
        lines += [x, -down]
    rows = (" ".join(show_number(round(value, 6) + 0.0) for value in line.tolist()) for line in lines)
    write_text(path, "\n".join(rows) + "\n")


def _unwrap(degrees: Float[Tensor, "camera"]) -> Float[Tensor, "camera"]:
    """Angles without the jumps from 180 to -180."""
    steps = degrees.diff()
    return torch.cat([degrees[:1], degrees[:1] + (steps - 360 * (steps / 360).round()).cumsum(0)])
