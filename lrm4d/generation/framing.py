"""The square of a video's pictures that shows its object as networks expect it: in the middle, with some room."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, pad

from lrm4d.cameras import Cameras
from lrm4d.generation.geometry import Geometry

FILL = 0.8
"""Of the square's side that the object takes over the whole clip: a ball in the unit sphere seen from 2.7 units away
with a lens of 49.1 degrees takes 0.87 (data_tools and lrm4d.trajectories.state.START)."""


@dataclass(frozen=True)
class Framing:
    """A square of the pictures, the same in all. left, top, side: pixels; it may reach beyond the pictures."""

    left: int
    top: int
    side: int

    def crop(self, images: Float[Tensor, "time channel height width"], size: int, fill: float) -> Tensor:
        """The square [time, channel, size, size]; what lies beyond the pictures is `fill`."""
        height, width = images.shape[-2:]
        right, bottom = self.left + self.side - width, self.top + self.side - height
        # Negative padding cuts off.
        cut = pad(images, (-self.left, right, -self.top, bottom), value=fill)
        return interpolate(cut, (size, size), mode="area" if size <= self.side else "bilinear")

    def crop_cameras(self, cameras: Cameras, size: int) -> Cameras:
        """The same cameras of the square: the principal point moves, and a pixel is side / size as large."""
        intrinsics = cameras.intrinsics.clone()
        intrinsics[..., 0, 2] -= self.left
        intrinsics[..., 1, 2] -= self.top
        return replace(cameras, intrinsics=intrinsics, width=self.side, height=self.side).resize(size, size)

    def crop_geometry(self, geometry: Geometry, size: int) -> Geometry:
        """The same geometry of the square; beyond the pictures nothing is valid."""
        right = self.left + self.side - geometry.cameras.width
        bottom = self.top + self.side - geometry.cameras.height
        around = (-self.left, right, -self.top, bottom)
        cut = pad(torch.cat([geometry.depths, geometry.valid.to(geometry.depths)], dim=1), around)
        depths, valid = interpolate(cut, (size, size), mode="nearest-exact").split(1, dim=1)
        return Geometry(depths, self.crop_cameras(geometry.cameras, size), valid > 0.5)


def frame_object(alphas: Float[Tensor, "time 1 height width"], fill: float = FILL) -> Framing:
    """The square around all places where the object ever is. ValueError where it is nowhere."""
    ever = (alphas > 0.5).any(dim=0)[0]
    if not bool(ever.any()):
        raise ValueError("the object is in none of the pictures; give masks that show it (--mask).")
    rows, columns = ever.any(dim=1).nonzero()[:, 0], ever.any(dim=0).nonzero()[:, 0]
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    side = round(max(bottom - top, right - left) / fill)
    return Framing((left + right - side) // 2, (top + bottom - side) // 2, side)
