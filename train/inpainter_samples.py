"""One sample of the inpainter's batches: cameras, what lies behind the object, and warps with holes of all kinds.

The object stands on white. The white has no depth ("none": all that is not the object is a hole, as with depths that
come from a reconstruction) or is far away, on a sphere around camera and object ("white": as depth models see it); or
the sphere has a pattern ("pattern": disocclusions as in real videos).
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from data_tools.camera_sampling import FRAMES, Pose, random_pose
from data_tools.dice import Dice
from lrm4d.cameras import Cameras, sphere_spans
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.masks import draw_region, fray, hide, join_holes, keep_first_frame
from lrm4d.generation.plans import Cell, Step
from lrm4d.generation.warping import Warp, draw_jitter, reproject_twice, warp
from lrm4d.views import Views
from train.inpainter_config import BACKGROUNDS, MASKS, InpainterConfig
from train.inpainter_lessons import Lesson, choose


@dataclass(frozen=True)
class Rig:
    """Where the cameras of a sample stand: poses[station][time], field of view in radians, times in [0, 1]."""

    poses: list[list[Pose]]
    fov: float
    times: list[float]


def draw_rig(config: InpainterConfig, lesson: Lesson, dice: Dice) -> Rig:
    """Stands as banks have them: targets at rest around the pivot; a source at rest, or moving, alone or with them."""
    azimuth, elevation, distance = random_pose(dice, 0.0)
    spacing = dice.integer(1, max(1, (FRAMES - 1) // (2 * max(1, lesson.frames - 1))))
    start = dice.integer(0, FRAMES - 1 - spacing * (lesson.frames - 1))
    times = [(start + spacing * frame) / (FRAMES - 1) for frame in range(lesson.frames)]
    offsets = [(0.0, 0.0, 1.0)]
    for station in range(1, lesson.stations):
        low, high = config.angles if station <= lesson.views else (0.0, 180.0)
        angle = dice.uniform(low, high)
        lift = dice.uniform(-1, 1) * min(20.0, angle / 2)
        turn = math.sqrt(max(0.0, angle**2 - lift**2)) * dice.sign()
        offsets.append((math.radians(turn), math.radians(lift), 1 + config.closer * dice.uniform(-1, 1)))
    if lesson.hop:
        share = dice.uniform(0.5, 0.85)
        offsets[-1] = tuple(a + share * (b - a) for a, b in zip(offsets[0], offsets[1], strict=True))
    speed = dice.uniform(-1, 1) * math.radians(40) / max(1, lesson.frames - 1) if dice.coin(config.moving) else 0.0
    alone = dice.coin()
    poses = [
        [
            (azimuth + turn + speed * time * (station == 0 or not alone), _limit(elevation + lift), distance * farther)
            for time in range(lesson.frames)
        ]
        for station, (turn, lift, farther) in enumerate(offsets)
    ]
    return Rig(poses, math.radians(dice.uniform(40, 60)), times)


def _limit(elevation: float) -> float:
    """Short of the poles, where upright cameras do not know which way is up."""
    return max(math.radians(-80), min(math.radians(80), elevation))


@dataclass(frozen=True)
class Backdrop:
    """A sphere around the world's origin whose colour at a point p is base + amplitudes * sin(waves p + phases), or
    with a radius of 0 white without depth. Waves: [wave, colour, 3], in radians a unit."""

    radius: float
    base: Float[Tensor, "3"]
    amplitudes: Float[Tensor, "wave 3"]
    waves: Float[Tensor, "wave 3 3"]
    phases: Float[Tensor, "wave 3"]

    def put_behind(self, views: Views, depths: Tensor, hits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures [view, 3, height, width] with it, depths, and where depths are known."""
        if not self.radius:
            return views.composite(self.base), depths, hits
        origins, directions = views.cameras.rays()
        far = sphere_spans(origins, directions, self.radius)[1][..., None]
        points = origins + far * directions
        angles = (self.waves @ points[..., None, :, None])[..., 0] + self.phases
        colors = (self.base + (self.amplitudes * angles.sin()).sum(-2)).movedim(-1, -3)
        forward = views.cameras.camera_to_world[:, None, None, :3, 2]
        behind = (far[..., 0] * (directions * forward).sum(-1))[:, None]
        images = views.images * views.alphas + colors * (1 - views.alphas)
        return images.clamp(0, 1), torch.where(hits, depths, behind), torch.ones_like(hits)


def draw_backdrop(config: InpainterConfig, dice: Dice) -> Backdrop:
    """One of config.backgrounds; ValueError for one that does not exist."""
    kind = choose(dice, config.backgrounds, BACKGROUNDS, "backgrounds")
    white, waves = kind != "pattern", 3
    number = lambda low, high, *shape: low + (high - low) * torch.rand(*shape, generator=dice.generator)  # noqa: E731
    amplitudes = number(0.0, 0.12, waves, 3) * (not white)
    base = torch.ones(3) if white else number(0.36, 0.64, 3)
    frequencies = torch.randn(waves, 1, 3, generator=dice.generator) * number(0.3, 1.6, waves, 1, 1)
    radius = 0.0 if kind == "none" else dice.uniform(4.0, 8.0)
    return Backdrop(radius, base, amplitudes, frequencies.expand(waves, 3, 3), number(0.0, 2 * math.pi, waves, 3))


@dataclass(frozen=True)
class Sample:
    """One sample's cameras [station, time] and, of rendered cells, pictures, depths and where these are known."""

    config: InpainterConfig
    lesson: Lesson
    cameras: Cameras
    pictures: dict[Cell, tuple[Tensor, Tensor, Tensor]]

    def make(self, step: Step, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Images and visibility of all shown slots, and the targets' truth."""
        dice = Dice(generator)
        warps = {station: self.warp_to(station, dice) for station in range(1, 1 + self.lesson.views)}
        given = torch.stack([self.pictures[cell][0] for cell in step.context]) if step.context else None
        images = torch.stack([warps[station].images[time] for station, time in step.targets]).clamp(0, 1)
        seen = torch.stack([warps[station].visibility[time] for station, time in step.targets])
        truth = torch.stack([self.pictures[cell][0] for cell in step.targets])
        if given is None:
            return images, seen, truth
        return torch.cat([given, images]), torch.cat([torch.ones_like(given[:, :1], dtype=torch.bool), seen]), truth

    def warp_to(self, station: int, dice: Dice) -> Warp:
        """What a target sees, with holes of a kind drawn at random."""
        config, kind = self.config, choose(dice, self.config.masks, MASKS, "masks")
        origin = station if self.lesson.twice else self.lesson.origin
        video, geometry = self.video(origin), self.geometry(origin, dice)
        if self.lesson.twice:
            jitter = self.jitter(geometry, dice)
            warped = reproject_twice(video, geometry, self.cameras[0], jitter)
        else:
            warped = warp(video, geometry, self.cameras[station])
        size = warped.visibility.shape
        region = hide(draw_region(size[0], *size[-2:], dice.generator))
        if kind == "editing" and self.lesson.twice:
            return replace(warped, images=video, visibility=keep_first_frame(region))
        if kind in ("union", "editing"):
            return replace(warped, visibility=join_holes(warped.visibility, region))
        if kind == "frayed":
            return replace(warped, visibility=fray(warped.visibility, config.fray, dice.generator))
        return warped

    def video(self, station: int) -> Tensor:
        """A station's true pictures [time, 3, height, width]."""
        return torch.stack([self.pictures[Cell(station, time)][0] for time in range(self.lesson.frames)])

    def geometry(self, station: int, dice: Dice) -> Geometry:
        """A station's geometry, as well as it is known."""
        depths, valid = (
            torch.stack([self.pictures[Cell(station, time)][part] for time in range(self.lesson.frames)])
            for part in (1, 2)
        )
        if dice.coin():
            depths = depths * draw_wobble(depths.shape, dice.uniform(0, self.config.depth_noise), dice.generator)
        geometry = Geometry(depths, self.cameras[station], valid)
        return geometry.without_edges() if dice.coin(self.config.edges) else geometry

    def jitter(self, geometry: Geometry, dice: Dice) -> Tensor:
        """A wrong pose: the same wrong one at all times."""
        depth = geometry.median_depths().nanmean().nan_to_num(1.0)
        shift = self.config.jitter_distance * float(depth)
        return draw_jitter(1, self.config.jitter_degrees, shift, dice.generator).expand(self.lesson.frames, 4, 4)


def draw_wobble(
    shape: tuple[int, ...], size: float, generator: torch.Generator
) -> Float[Tensor, "time 1 height width"]:
    """Smooth factors around 1, wrong by about `size`: half of the variance is steady, half changes over time."""
    time, _, height, width = shape
    steady, moving = (
        torch.randn(1, 1, count, 5, 5, generator=generator).expand(-1, -1, max(2, count), -1, -1)
        for count in (1, max(2, time // 3 + 1))
    )
    fields = [
        interpolate(noise, (time, height, width), mode="trilinear", align_corners=True)[0, 0, :, None]
        for noise in (steady, moving)
    ]
    return torch.exp(size * math.sqrt(0.5) * (fields[0] + fields[1]))
