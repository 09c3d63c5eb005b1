"""Cameras and times of views: the four evaluation set-ups and freer ones."""

import math

import torch
from torch import Tensor

from data_tools.dice import Dice
from lrm4d.cameras import Cameras, intrinsics_from_fov, look_at

FRAMES = 24
"""Frames of a clip, as in the evaluation; frame i is at time i / (FRAMES - 1)."""

FIELD_OF_VIEW = 0.8569566627292158
"""Of the evaluation's cameras, radians (49.1 degrees)."""

Pose = tuple[float, float, float]
"""Azimuth and elevation (radians) and distance. Azimuth 0 looks at the front, from -y; pi / 2 is +x."""

SETUPS = ("alternating_canonical", "frame_interpolation", "two_rotating", "random", "orbits", "fixed")
SETUP_WEIGHTS = (2.0, 2.0, 2.0, 4.0, 2.0, 1.0)


def random_pose(dice: Dice, wild: float = 0.1) -> Pose:
    """Any azimuth, distance 2.2 to 3.2; elevation -10 to 60 degrees, with the probability `wild` anything."""
    degrees = dice.uniform(-10, 60)
    if dice.coin(wild):
        degrees = math.degrees(math.asin(dice.uniform(-0.985, 0.985)))
    return dice.uniform(0, 2 * math.pi), math.radians(degrees), dice.uniform(2.2, 3.2)


def context_views(dice: Dice, count: int, setup: str) -> tuple[list[Pose], list[float], float]:
    """Poses, times and field of view (radians) of the input views of a set-up (one of SETUPS), in order of time."""
    frames = sorted(_pick(dice, FRAMES, count))
    times = [frame / (FRAMES - 1) for frame in frames]
    fov, distance = FIELD_OF_VIEW, 2.7
    if setup == "alternating_canonical":
        poses = [(frame % 4 * math.pi / 2, 0.0, distance) for frame in frames]
    elif setup == "frame_interpolation":
        # Two opposite views at every even frame: frame 2 k + i shows side i of frame 2 k.
        times = [2 * (frame // 2) / (FRAMES - 1) for frame in frames]
        poses = [(((frame // 2) % 2 + 2 * (frame % 2)) * math.pi / 2, 0.0, distance) for frame in frames]
    elif setup == "two_rotating":
        # Sweeps from the front to the back, odd and even frames to the right and left.
        poses = [
            ((1 if frame % 2 else -1) * math.pi * frame / (FRAMES - 1), math.radians(20), distance) for frame in frames
        ]
    elif setup == "random":
        poses = [random_pose(dice, 0.05) for _ in frames]
        fov = fov if dice.coin(0.7) else math.radians(dice.uniform(40, 60))
    elif setup == "orbits":
        start, elevation, distance = random_pose(dice)
        speed = dice.uniform(-2, 2) * math.pi
        poses = [(start + speed * time, elevation, distance) for time in times]
        fov = math.radians(dice.uniform(40, 60))
    elif setup == "fixed":
        rig = [random_pose(dice) for _ in range(dice.integer(1, 6))]
        poses = [rig[i % len(rig)] for i in range(count)]
        times = [dice.unit() for _ in poses] if dice.coin(0.3) else times
        fov = math.radians(dice.uniform(40, 60))
    else:
        raise ValueError(f"context_views: set-up {setup!r}; expected one of {SETUPS}.")
    return poses, times, fov


def target_views(dice: Dice, count: int) -> tuple[list[Pose], list[float]]:
    """Poses and times to render for the loss: canonical or random views at random frames."""
    poses = []
    for _ in range(count):
        canonical = (dice.integer(0, 3) * math.pi / 2, 0.0, 2.7)
        poses.append(canonical if dice.coin(0.5) else random_pose(dice, 0.08))
    return poses, [dice.integer(0, FRAMES - 1) / (FRAMES - 1) for _ in poses]


def make_cameras(poses: list[list[Pose]], fovs: list[float], width: int, height: int) -> Cameras:
    """Cameras [scene, view] that look at the world's origin from poses, one field of view a scene."""
    azimuth, elevation, distance = torch.tensor(poses, dtype=torch.float64).unbind(-1)
    across = elevation.cos()
    origins = distance[..., None] * torch.stack(
        [azimuth.sin() * across, -azimuth.cos() * across, elevation.sin()], dim=-1
    )
    camera_to_world = look_at(origins, torch.zeros_like(origins)).float()
    intrinsics = intrinsics_from_fov(torch.tensor(fovs), width, height)[:, None].expand(-1, azimuth.shape[1], -1, -1)
    return Cameras(camera_to_world, intrinsics, width, height)


def _pick(dice: Dice, total: int, count: int) -> list[int]:
    """`count` of `total` frames, no frame twice before all have come once; evenly spread or at random."""
    chosen = []
    while count - len(chosen) >= total:
        chosen += range(total)
    left = count - len(chosen)
    if left and dice.coin(0.5):
        start = dice.uniform(0, total / left)
        return chosen + [min(int(start + i * total / left), total - 1) for i in range(left)]
    pool = list(range(total))
    return chosen + [pool.pop(dice.integer(0, len(pool) - 1)) for _ in range(left)]


def generator_of(seed: int) -> torch.Generator:
    """The generator that a seed stands for."""
    return torch.Generator().manual_seed(seed)


def views_tensor(times: list[list[float]]) -> Tensor:
    """Times [scene, view]."""
    return torch.tensor(times, dtype=torch.float32)
