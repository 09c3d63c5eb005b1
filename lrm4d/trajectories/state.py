"""Where a camera stands: a small vector that moves add to, so that moves made together commute.

Angles in degrees. Azimuth 0 looks at the front (from -y), 90 at the left (from +x), 180 at the back; elevation 90
looks straight down. Distances in world units: the object lies in the unit sphere around the world's origin, the pivot.
"""

import math
from dataclasses import astuple, dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras

Number = float | int

COMPONENTS = ("azimuth", "elevation", "log_distance", "truck", "pedestal", "pan", "tilt", "roll", "log_focal")
"""Of the vector: a Rig with the logarithms of its distance and of its focal length (in halves of the picture)."""
LARGEST = 50.0
"""Of the logarithms; beyond, pictures are not computed in single precision any more."""


@dataclass(frozen=True)
class Rig:
    """One stand of a camera around the world's origin.

    azimuth, elevation, distance: of the eye on its sphere. truck, pedestal: how far the whole rig, eye and target, is
    moved to its right and up. pan (right), tilt (up), roll (clockwise): how the camera is then turned on its head; the
    horizon stays level without roll. fov: horizontal. Raises ValueError for a distance or fov that cannot be.
    """

    azimuth: Number = 0.0
    elevation: Number = 20.0
    distance: Number = 2.7
    truck: Number = 0.0
    pedestal: Number = 0.0
    pan: Number = 0.0
    tilt: Number = 0.0
    roll: Number = 0.0
    fov: Number = 49.1

    def __post_init__(self) -> None:
        for field in fields(self):
            if not math.isfinite(getattr(self, field.name)):
                raise ValueError(f"{field.name} {getattr(self, field.name)}: expected a finite number.")
        if self.distance <= 0:
            raise ValueError(f"distance {self.distance:g}: expected world units, above 0.")
        if not 0 < self.fov < 180:
            raise ValueError(f"fov {self.fov:g}: expected horizontal degrees between 0 and 180.")

    @property
    def focal(self) -> float:
        """The focal length in halves of the picture's width: 1 / tan(fov / 2)."""
        return 1 / math.tan(math.radians(self.fov) / 2)

    def to_vector(self) -> Float[Tensor, "9"]:
        """The COMPONENTS, float64."""
        azimuth, elevation, distance, *rest, _ = astuple(self)
        values = [azimuth, elevation, math.log(distance), *rest, math.log(self.focal)]
        return torch.tensor(values, dtype=torch.float64)

    @staticmethod
    def from_vector(vector: Float[Tensor, "9"]) -> "Rig":
        """The inverse of to_vector."""
        azimuth, elevation, log_distance, *rest, log_focal = vector.tolist()
        if max(abs(log_distance), abs(log_focal)) > LARGEST:
            raise ValueError(
                f"the path comes to a distance of e^{log_distance:.0f}, a focal length of e^{log_focal:.0f}."
            )
        fov = 2 * math.degrees(math.atan(math.exp(-log_focal)))
        return Rig(azimuth, elevation, math.exp(log_distance), *rest, fov)


START = Rig()
"""Where a path begins that does not say."""


def cameras_of(states: Float[Tensor, "*batch 9"], width: int, height: int) -> Cameras:
    """The cameras of stands given as vectors; pixels are square and the picture is centred. No stand is singular."""
    angle = lambda name: torch.deg2rad(states[..., COMPONENTS.index(name)])  # noqa: E731
    azimuth, elevation, roll = angle("azimuth"), angle("elevation"), angle("roll")
    truck, pedestal = states[..., 3, None], states[..., 4, None]
    up = states.new_tensor([0.0, 0.0, 1.0])
    right, outward = _axes(azimuth, elevation)
    eyes = truck * right + pedestal * up + states[..., 2, None].exp() * outward

    right, backward = _axes(azimuth - angle("pan"), elevation - angle("tilt"))
    down = torch.linalg.cross(-backward, right)
    cosine, sine = roll.cos()[..., None], roll.sin()[..., None]
    columns = [cosine * right + sine * down, cosine * down - sine * right, -backward, eyes]
    upper = torch.stack(columns, dim=-1)
    last = states.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*upper.shape[:-2], 1, 4)

    focal = states[..., 8].exp() * width / 2
    zero, one = torch.zeros_like(focal), torch.ones_like(focal)
    rows = ((focal, zero, one * (width / 2)), (zero, focal, one * (height / 2)), (zero, zero, one))
    intrinsics = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    return Cameras(torch.cat([upper, last], dim=-2).float(), intrinsics.float(), width, height)


def _axes(azimuth: Tensor, elevation: Tensor) -> tuple[Tensor, Tensor]:
    """The level axis to the right, and the one from the pivot outwards."""
    zero = torch.zeros_like(azimuth)
    right = torch.stack([azimuth.cos(), azimuth.sin(), zero], dim=-1)
    outward = torch.stack([elevation.cos() * azimuth.sin(), -elevation.cos() * azimuth.cos(), elevation.sin()], dim=-1)
    return right, outward


def cameras_around(
    azimuths: Float[Tensor, "*batch"],
    elevations: Float[Tensor, "*batch"],
    distances: Float[Tensor, "*batch"],
    fov: float,
    width: int,
    height: int,
) -> Cameras:
    """Upright cameras that look at the world's origin; angles in degrees, fov horizontal."""
    states = Rig(fov=fov).to_vector().expand(*azimuths.shape, 9).clone()
    states[..., 0], states[..., 1], states[..., 2] = azimuths, elevations, distances.log()
    return cameras_of(states, width, height)
