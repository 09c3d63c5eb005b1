"""What an inpainter teaches a scene that was made of a video: about cameras where there are no pictures.

A lesson is one camera at a few moments: the teacher is told the video then and its warp to that camera, and is asked
about renders from there (distillation.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.grid import ViewGrid, start_grid
from lrm4d.generation.inpainter import NanoInpainter
from lrm4d.generation.layout import Slot, TokenLayout
from lrm4d.generation.tuning import turn_cameras
from lrm4d.refinement.distillation import Distillation, DistillationConfig, NanoTeacher
from lrm4d.refinement.refiner import ExtraLoss, Render

MOMENTS, EVERY = 4, 4
"""Moments shown to a teacher at once; of the steps, every how manyth asks one."""


@dataclass(frozen=True)
class Lesson:
    """A taught camera: the teacher of some moments there, and the cameras and times [time] to render."""

    teacher: NanoTeacher
    cameras: Cameras
    times: Float[Tensor, "time"]


def prepare_lessons(
    video: Float[Tensor, "time 3 height width"],
    geometry: Geometry,
    times: Float[Tensor, "time"],
    turns: Sequence[float],
    inpainter: NanoInpainter,
    moments: int = MOMENTS,
) -> list[Lesson]:
    """For each turn (degrees about the world's z axis from the video's cameras), and each way to choose every so
    manyth moment, a lesson. video: on white. geometry: the video's, with its cameras. times: of the clip, [0, 1]."""
    stride = max(1, len(times) // moments)
    lessons = []
    for degrees in turns:
        stand = turn_cameras(geometry.cameras, degrees)
        grid = start_grid(video, geometry, stand.reshape(-1, 1), times)
        for first in range(stride):
            chosen = torch.arange(first, len(times), stride)
            lessons.append(_prepare(grid[chosen], chosen, inpainter))
    return lessons


def _prepare(grid: ViewGrid, chosen: Tensor, inpainter: NanoInpainter) -> Lesson:
    slots = [Slot(view, int(t), role) for view, role in enumerate(("source", "target")) for t in chosen]
    layout = TokenLayout(tuple(slots), rule="fused").with_warp_slots()
    images, seen = (values.transpose(0, 1).flatten(0, 1)[None] for values in (grid.images, grid.known))
    moments = torch.arange(grid.shape[0]).repeat(2)
    cameras = grid.cameras[moments, torch.arange(2).repeat_interleave(grid.shape[0])]
    teacher = NanoTeacher(inpainter, layout, images, seen, cameras.reshape(1, -1))
    return Lesson(teacher, grid.cameras[:, 1], grid.times)


def turns_between(cameras: Cameras) -> list[float]:
    """Degrees about the world's z axis from the first of cameras [view] to halfway between those that are neighbours.

    A gap of a quarter of a turn or more, as at the back, where a fan is open, is no neighbourhood.
    """
    azimuths = torch.atan2(cameras.origins[:, 1], cameras.origins[:, 0]) * 180 / math.pi
    around = sorted((float(turn) + 180) % 360 - 180 for turn in azimuths - azimuths[0])
    gaps = [*pairwise(around), (around[-1], around[0] + 360)]
    middles = [(a + b) / 2 for a, b in gaps if 1 < b - a < 90]
    return sorted((turn + 180) % 360 - 180 for turn in middles)


def teach(lessons: Sequence[Lesson], config: DistillationConfig, every: int = EVERY) -> ExtraLoss:
    """The term of a refinement's loss; a lesson a time, drawn by the step."""

    def term(render: Render, step: int) -> Tensor:
        if step % every:
            return torch.zeros((), device=lessons[0].times.device)
        generator = torch.Generator().manual_seed(step)
        lesson = lessons[int(torch.randint(len(lessons), (), generator=generator))]
        renders = render(lesson.cameras, lesson.times)[None]
        return Distillation(config, lesson.teacher).loss(renders, generator)

    return term
