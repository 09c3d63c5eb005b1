"""Geometry of a video: each frame's depth and camera, from which its pixels become points in the world."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from lrm4d.cameras import Cameras, intrinsics_from_fov, look_at, unproject

EDGE_JUMP = 0.05
"""Neighbouring pixels whose depths differ by more than this share of the smaller are at an edge (as GEN3C's
filter_points_threshold)."""
DEFAULT_FOV = 55.0
"""Degrees, horizontal: what a video is taken with for want of better knowledge."""


@dataclass(frozen=True)
class Geometry:
    """What a video's frames show, in space.

    depths: [time, 1, height, width], camera z of the pixel centres' surface, in the unit of the cameras' positions.
    cameras: batch shape [time], of the depths' size. valid: [time, 1, height, width], True where the depth is to be
    trusted; what is False is never warped. Raises ValueError where they do not fit each other.
    """

    depths: Float[Tensor, "time 1 height width"]
    cameras: Cameras
    valid: Bool[Tensor, "time 1 height width"]

    def __post_init__(self):
        time, _, height, width = self.depths.shape
        got = (tuple(self.cameras.shape), self.cameras.width, self.cameras.height, tuple(self.valid.shape))
        expected = ((time,), width, height, tuple(self.depths.shape))
        if got != expected:
            raise ValueError(
                f"geometry: depths of shape {tuple(self.depths.shape)} with cameras of shape {got[0]} and "
                f"{got[1]} x {got[2]} pixels and valid of shape {got[3]}; expected a camera a frame, of its size."
            )

    def __len__(self) -> int:
        """The number of frames."""
        return len(self.depths)

    def __getitem__(self, index: slice | Tensor) -> "Geometry":
        """Frames chosen by a slice, a mask or indices."""
        return Geometry(self.depths[index], self.cameras[index], self.valid[index])

    def to(self, device: torch.device | str) -> "Geometry":
        """Moved to a device."""
        return Geometry(self.depths.to(device), self.cameras.to(device), self.valid.to(device))

    def points(self) -> Float[Tensor, "time height width 3"]:
        """The world points that the pixels show; meaningless where not valid."""
        like = self.depths
        columns = torch.arange(self.cameras.width, dtype=like.dtype, device=like.device) + 0.5
        rows = torch.arange(self.cameras.height, dtype=like.dtype, device=like.device) + 0.5
        pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
        return unproject(self.cameras.reshape(-1, 1, 1), pixels, self.depths[:, 0])

    def resize(self, width: int, height: int) -> "Geometry":
        """The same at another size (pixels). Takes the nearest pixel's depth: no surface is at a mean of two."""
        both = torch.cat([self.depths, self.valid.to(self.depths)], dim=1)
        depths, valid = interpolate(both, (height, width), mode="nearest-exact").split(1, dim=1)
        return Geometry(depths, self.cameras.resize(width, height), valid > 0.5)

    def edges(self, jump: float = EDGE_JUMP) -> Bool[Tensor, "time 1 height width"]:
        """Valid pixels at an edge: of the pixels around, diagonals too, one is not valid or depths differ by more than
        `jump` of the smaller.

        There a depth model smears and a pixel mixes two surfaces' colours, so its warp is unreliable.
        """
        unknown = ~self.valid
        nearest = -max_pool2d(-self.depths.masked_fill(unknown, torch.inf), 3, stride=1, padding=1)
        farthest = max_pool2d(self.depths.masked_fill(unknown, -torch.inf), 3, stride=1, padding=1)
        beside_unknown = max_pool2d(unknown.to(self.depths), 3, stride=1, padding=1) > 0
        return self.valid & ((farthest > nearest * (1 + jump)) | beside_unknown)

    def without_edges(self, jump: float = EDGE_JUMP) -> "Geometry":
        """With the pixels at edges not valid: their wrong colours leave holes instead (arXiv 2601.10214)."""
        return replace(self, valid=self.valid & ~self.edges(jump))

    def foreground(self) -> Bool[Tensor, "time 1 height width"]:
        """Valid pixels nearer than the inverse depth that parts the whole clip best in two (Otsu, 1979)."""
        known = 1 / self.depths[self.valid]
        if not known.numel():
            raise ValueError("geometry: no pixel's depth is valid, so there is no foreground.")
        return self.valid & (1 / self.depths.clamp(min=1e-12) >= otsu_threshold(known))

    def median_depths(self, mask: Bool[Tensor, "time 1 height width"] | None = None) -> Float[Tensor, "time"]:
        """Each frame's median depth over the valid pixels (of a mask); NaN for a frame without any."""
        chosen = self.valid if mask is None else self.valid & mask
        return self.depths.masked_fill(~chosen, torch.nan).flatten(1).nanmedian(dim=1).values

    def pivot(self, mask: Bool[Tensor, "time 1 height width"] | None = None) -> Float[Tensor, "3"]:
        """The point that cameras turn around: the median, an axis at a time, of the points that the first frame shows
        of a mask (the object), else of the foreground.
        """
        chosen = self.valid[0, 0] & (self.foreground() if mask is None else mask)[0, 0]
        if not bool(chosen.any()):
            raise ValueError("geometry: the first frame shows no valid pixel of the object; give another mask.")
        return self[:1].points()[0][chosen].median(dim=0).values

    def recentre(self, pivot: Float[Tensor, "3"], scale: float = 1.0) -> "Geometry":
        """The same scene with the pivot at the world's origin and all lengths times `scale`."""
        poses = self.cameras.camera_to_world.clone()
        poses[:, :3, 3] = (poses[:, :3, 3] - pivot) * scale
        return replace(self, depths=self.depths * scale, cameras=replace(self.cameras, camera_to_world=poses))


def static_cameras(count: int, width: int, height: int, fov: float = DEFAULT_FOV) -> Cameras:
    """A camera that does not move, for videos without poses: upright at the origin, looking along +y (at the front).

    fov: horizontal, degrees, square pixels. Batch shape [count].
    """
    pose = look_at(torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))
    intrinsics = intrinsics_from_fov(torch.deg2rad(torch.tensor(float(fov))), width, height)
    return Cameras(pose.expand(count, 4, 4), intrinsics.expand(count, 3, 3), width, height)


def otsu_threshold(values: Float[Tensor, "n"], bins: int = 256) -> Float[Tensor, ""]:
    """The value that parts values in two classes with the largest variance between them (Otsu, 1979)."""
    low, high = values.min(), values.max()
    places = ((values - low) / (high - low).clamp(min=1e-12) * bins).long().clamp(max=bins - 1)
    counts = torch.bincount(places, minlength=bins).double()
    below = counts.cumsum(0)
    centres = torch.arange(bins, dtype=torch.float64, device=values.device) + 0.5
    moments = (counts * centres).cumsum(0)
    above = below[-1] - below
    gap = moments / below.clamp(min=1) - (moments[-1] - moments) / above.clamp(min=1)
    best = (below * above * gap.square())[:-1].argmax()
    return low + (high - low) * ((best + 1) / bins).to(values)
