"""How things move: waves over time, spines that bend and twist, parts that hang on parts.

A part is a tube of rows along its local z axis. Every row has a frame (a matrix and a position) that follows the
part's joints; a part's own frame hangs on its parent's spine. All of it is a smooth function of time.
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

WAVE = 11
"""Numbers of a wave: base, (amplitude, frequency, phase) twice, step height, step time, step width, slope."""

MOVING = (0, 1, 4, 7, 10)
"""Which of them are heights: a wave with none is nothing at all times."""

JOINTS = 4
"""Joints of a part at most."""


def wave(
    base: float = 0.0,
    amplitude: float = 0.0,
    frequency: float = 1.0,
    phase: float = 0.0,
    second: tuple[float, float, float] = (0.0, 2.0, 0.0),
    step: tuple[float, float, float] = (0.0, 0.5, 0.5),
    slope: float = 0.0,
) -> tuple[float, ...]:
    """A value over time: base + two sines (phases in turns) + a step (height, time, width) + slope (t - 1/2)."""
    return (base, amplitude, frequency, phase, *second, *step, slope)


STILL = wave()


def hop(height: float, frequency: float, phase: float) -> tuple[float, ...]:
    """Jumps: up to a height and down half of the time, on the ground the other half; its first two harmonics."""
    return wave(0.0, 0.5 * height, frequency, phase, (0.212 * height, 2 * frequency, 2 * phase - 0.25))


def evaluate_waves(waves: Float[Tensor, "*batch 11"], times: Float[Tensor, "*times"]) -> Float[Tensor, "*out"]:
    """The values of waves at times; the batch shapes broadcast."""
    base, a, f, p, b, g, q, height, middle, width, slope = waves.unbind(-1)
    turn = 2 * torch.pi
    step = ((times - middle) / width + 0.5).clamp(0, 1)
    return (
        base
        + a * torch.sin(turn * (f * times + p))
        + b * torch.sin(turn * (g * times + q))
        + height * step * step * (3 - 2 * step)
        + slope * (times - 0.5)
    )


def rotate_about_plane_axis(
    direction: Float[Tensor, "*batch"], angles: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 3 3"]:
    """Rotations by angles about the axis (cos direction, sin direction, 0)."""
    x, y = direction.cos(), direction.sin()
    c, s = angles.cos(), angles.sin()
    d = 1 - c
    rows = (c + x * x * d, x * y * d, y * s, x * y * d, c + y * y * d, -x * s, -y * s, x * s, c)
    return torch.stack(torch.broadcast_tensors(*rows), dim=-1).unflatten(-1, (3, 3))


def rotate_about_axes(angles: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rz(angles z) Ry(angles y) Rx(angles x)."""
    (a, b, c), (d, e, f) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = (
        c * b, c * e * d - f * a, c * e * a + f * d,
        f * b, f * e * d + c * a, f * e * a - c * d,
        -e, b * d, b * a,
    )  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def ease(values: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """0 below 0, 1 above 1, smooth between."""
    values = values.clamp(0, 1)
    return values * values * (3 - 2 * values)


@dataclass(frozen=True)
class Spines:
    """How the spines of parts are bent at times.

    stretch: along x, y, z. twist: radians a unit of height. socket: turns about x, y, z at the spine's start, which
    come in over the height `blend`: 0 turns all of it, more leaves its root where the parent is.
    Joints are sorted from the root to the tip: each turns all that lies beyond it, gradually over its width, about its
    direction in the xy plane; those not used turn nothing.
    """

    stretch: Float[Tensor, "part view 3"]
    twist: Float[Tensor, "part view"]
    socket: Float[Tensor, "part view 3"]
    blend: Float[Tensor, "part"]
    joint_heights: Float[Tensor, "part joint"]
    joint_widths: Float[Tensor, "part joint"]
    joint_directions: Float[Tensor, "part joint"]
    joint_angles: Float[Tensor, "part view joint"]
    joint_used: Bool[Tensor, "part joint"]

    def __getitem__(self, index) -> "Spines":
        """Spines chosen along the parts."""
        return Spines(*(getattr(self, f.name)[index] for f in fields(self)))

    def frames(
        self, heights: Float[Tensor, "part row"]
    ) -> tuple[Float[Tensor, "part view row 3 3"], Float[Tensor, "part view row 3"]]:
        """The matrix and position, in the part's frame, of the cross-sections at heights along the spines."""
        z = heights[:, None] * self.stretch[..., 2:]
        angle = self.twist[..., None] * z
        c, s, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        x_scale, y_scale, z_scale = (self.stretch[..., i, None] for i in range(3))
        matrix = torch.stack(
            [c * x_scale, -s * y_scale, zero, s * x_scale, c * y_scale, zero, zero, zero, zero + z_scale], dim=-1
        ).unflatten(-1, (3, 3))
        position = torch.stack([zero, zero, z], dim=-1)

        def turn_beyond(some: Tensor, at: Tensor, turn: Tensor) -> None:
            pivot = at[:, None, None] * self.stretch[some][..., 2:]
            pivot = torch.stack([torch.zeros_like(pivot), torch.zeros_like(pivot), pivot], dim=-1)
            turned = turn @ torch.cat([matrix[some], (position[some] - pivot)[..., None]], dim=-1)
            matrix[some], position[some] = turned[..., :3], turned[..., 3] + pivot

        # From the tip to the root: an inner joint turns what the outer ones have already bent, around a point at rest.
        # Only the parts that have a joint take part: most have none, and this is most of the work of placing.
        for k in reversed(range(self.joint_heights.shape[-1])):
            some = self.joint_used[:, k].nonzero()[:, 0]
            if len(some):
                at = self.joint_heights[some, k]
                weight = ease((heights[some] - at[:, None]) / self.joint_widths[some, k, None] + 0.5)
                angles = weight[:, None] * self.joint_angles[some][..., k, None]
                turn_beyond(some, at, rotate_about_plane_axis(self.joint_directions[some, k, None, None], angles))
        some = (self.blend > 0).nonzero()[:, 0]
        if len(some):
            weight = ease(heights[some] / self.blend[some, None])
            turn = rotate_about_axes(weight[:, None, :, None] * self.socket[some][:, :, None])
            turn_beyond(some, 0.5 * self.blend[some], turn)
        return matrix, position


def chain_frames(
    matrices: Float[Tensor, "part view 3 3"],
    positions: Float[Tensor, "part view 3"],
    parents: Int[Tensor, "part"],
    root: Bool[Tensor, "part"],
    depth: int,
) -> tuple[Float[Tensor, "part view 3 3"], Float[Tensor, "part view 3"]]:
    """Frames in the scene, from every part's frame in its parent's (of a root: already in the scene's)."""
    frames = world = torch.cat([matrices, positions[..., None]], dim=-1)
    for _ in range(depth):  # a part of level n is right after n rounds
        above = world[parents]
        moved = above[..., :3] @ frames
        moved[..., 3] += above[..., 3]
        world = torch.where(root[:, None, None, None], frames, moved)
    return world[..., :3], world[..., 3]
