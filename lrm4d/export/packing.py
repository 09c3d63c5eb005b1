"""4D Gaussians in 32 bytes each: what the HTML viewer carries and its vertex shader reads.

A record is eight little-endian 32-bit words; "low" and "high" are a word's halves.

    word  low 16 bits                high 16 bits
    0     mean x, unorm16            mean y, unorm16             of the box of all means
    1     mean z, unorm16            time mean, unorm16          of the span of all time means
    2     velocity x, float16        velocity y, float16         world units per unit of model time
    3     velocity z, float16        time deviation, float16
    4     rotation: the three smaller components of a unit quaternion, 10 bits each from -1/sqrt(2) to 1/sqrt(2),
          from bit 0 in the order (w, x, y, z) without the largest one, whose index is in bits 30 and 31
    5     scale 0, float16           scale 1, float16            standard deviations along the rotated axes
    6     scale 2, float16           opacity, float16
    7     red, green, blue, 10 bits each from bit 0, of [0, color_scale]; bits 30 and 31 are zero
"""

import gzip
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt32
from torch import Tensor

from lrm4d.gaussians3d import compose_covariances, decompose_covariances
from lrm4d.gaussians4d import Gaussians4D, MovingGaussians

WORDS = 8
"""32-bit words of a record."""
LARGEST_HALF, SMALLEST_HALF = 65504.0, 2.0**-14
"""The range in which float16 keeps eleven bits."""
LEVELS = 1023
"""Of the 10-bit numbers."""


@dataclass(frozen=True)
class PackedGaussians:
    """Records, and what their whole numbers are fractions of. Space in world units, time in model time."""

    records: UInt32[np.ndarray, "n 8"]
    box_low: tuple[float, float, float]
    box_size: tuple[float, float, float]
    time_low: float
    time_size: float
    color_scale: float

    def __len__(self) -> int:
        """The number of Gaussians."""
        return len(self.records)

    def to_bytes(self) -> bytes:
        """Gzipped byte planes: byte 0 of every record, then byte 1 of every record, to byte 31."""
        planes = np.ascontiguousarray(self.records.astype("<u4").view(np.uint8).T)
        return gzip.compress(planes.tobytes(), compresslevel=6, mtime=0)


def pack(gaussians: Gaussians4D) -> PackedGaussians:
    """The Gaussians of one scene that can be seen, neighbours in space near each other (which compresses better)."""
    moving = gaussians.to_moving().visible()
    if not len(moving.means):
        raise ValueError(
            f"none of the {len(gaussians)} Gaussians can be seen: all are transparent (opacity below 1/255) or not "
            "finite. Was the scene trained?"
        )
    order = _order_in_space(moving.means.detach().cpu())
    fields = {name: value.detach().cpu()[order] for name, value in vars(moving).items()}
    low, size = _span(fields["means"])
    time_low, time_size = _span(fields["time_means"])
    color_scale = max(1.0, fields["colors"].max().item())

    scales, quaternions = decompose_covariances(fields["covariances"])
    scales = _half(scales)
    mean = _whole((fields["means"] - low) / size, 65535)
    time_mean = _whole((fields["time_means"] - time_low) / time_size, 65535)
    velocity = _half(fields["velocities"])
    deviation = _half(fields["time_deviations"].clamp(min=SMALLEST_HALF))
    red, green, blue = _whole(fields["colors"] / color_scale, LEVELS).T
    words = (
        mean[:, 0] | mean[:, 1] << 16,
        mean[:, 2] | time_mean << 16,
        velocity[:, 0] | velocity[:, 1] << 16,
        velocity[:, 2] | deviation << 16,
        _pack_rotations(quaternions),
        scales[:, 0] | scales[:, 1] << 16,
        scales[:, 2] | _half(fields["opacities"]) << 16,
        red | green << 10 | blue << 20,
    )
    return PackedGaussians(
        records=np.stack(words, axis=-1),
        box_low=tuple(low.tolist()),
        box_size=tuple(size.tolist()),
        time_low=time_low.item(),
        time_size=time_size.item(),
        color_scale=color_scale,
    )


def unpack(packed: PackedGaussians) -> MovingGaussians:
    """What the viewer reads from the records, in float32."""
    words = packed.records.astype(np.uint32)
    low, high = words & 0xFFFF, words >> 16
    halves = lambda *columns: np.stack(columns, -1).astype(np.uint16).view(np.float16).astype(np.float32)  # noqa: E731
    mean = np.stack([low[:, 0], high[:, 0], low[:, 1]], -1) / np.float32(65535)
    scales = torch.from_numpy(halves(low[:, 5], high[:, 5], low[:, 6]))
    colors = np.stack([words[:, 7] >> shift & LEVELS for shift in (0, 10, 20)], -1) / np.float32(LEVELS)
    return MovingGaussians(
        means=torch.from_numpy(mean).float() * torch.tensor(packed.box_size) + torch.tensor(packed.box_low),
        velocities=torch.from_numpy(halves(low[:, 2], high[:, 2], low[:, 3])),
        covariances=compose_covariances(scales, _unpack_rotations(words[:, 4])),
        time_means=torch.from_numpy(high[:, 1] / np.float32(65535)).float() * packed.time_size + packed.time_low,
        time_deviations=torch.from_numpy(halves(high[:, 3])[:, 0]),
        opacities=torch.from_numpy(halves(high[:, 6])[:, 0]),
        colors=torch.from_numpy(colors).float() * packed.color_scale,
    )


def _span(values: Float[Tensor, "n *axes"]) -> tuple[Tensor, Tensor]:
    """The least value and the size of the range, never zero (it is divided by)."""
    low = values.amin(0)
    return low, (values.amax(0) - low).clamp(min=1e-6)


def _whole(fractions: Tensor, levels: int) -> np.ndarray:
    """Fractions in [0, 1] as whole numbers up to `levels`."""
    return (fractions.double().clamp(0, 1) * levels).round().numpy().astype(np.uint32)


def _half(values: Tensor) -> np.ndarray:
    """The bits of float16."""
    return values.clamp(-LARGEST_HALF, LARGEST_HALF).half().numpy().view(np.uint16).astype(np.uint32)


def _pack_rotations(quaternions: Float[Tensor, "n 4"]) -> np.ndarray:
    """Word 4 of each record."""
    largest = quaternions.abs().argmax(dim=-1, keepdim=True)
    positive = quaternions * torch.where(torch.take_along_dim(quaternions, largest, -1) < 0, -1, 1)
    others = positive[torch.arange(4) != largest].reshape(-1, 3)
    first, second, third = _whole(others * 0.5**0.5 + 0.5, LEVELS).T
    return first | second << 10 | third << 20 | largest[:, 0].numpy().astype(np.uint32) << 30


def _unpack_rotations(words: np.ndarray) -> Float[Tensor, "n 4"]:
    """Unit quaternions (w, x, y, z) of word 4."""
    others = np.stack([words >> shift & LEVELS for shift in (0, 10, 20)], -1) / LEVELS * 2 - 1
    others *= 0.5**0.5
    quaternions = np.empty((len(words), 4))
    largest = np.arange(4) == (words >> 30)[:, None]
    quaternions[largest] = np.sqrt(np.maximum(0, 1 - (others**2).sum(-1)))
    quaternions[~largest] = others.ravel()
    return torch.from_numpy(quaternions).float()


def _order_in_space(means: Float[Tensor, "n 3"]) -> Tensor:
    """Indices along a Morton curve of 1024 steps an axis."""
    low, size = _span(means)
    cells = _whole((means - low) / size, LEVELS).astype(np.int64)
    code = sum((cells[:, axis] >> bit & 1) << (3 * bit + axis) for axis in range(3) for bit in range(10))
    return torch.from_numpy(np.argsort(code, kind="stable"))
