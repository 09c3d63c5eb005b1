"""Batches for the inpainter: videos of the procedural world, warped, with what truly belongs into the holes.

The warps are of two kinds. Another true view: the source is warped by its depth to a camera of which the world has the
true pictures. Twice reprojected: a video is warped to another camera and, from a pose that is a little wrong, back to
its own; the truth is the video itself, as on real videos, where nothing else is known. Those have no source slots,
which would give the truth away.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Dataset

from data_tools.camera_sampling import make_cameras, views_tensor
from data_tools.dice import Dice
from data_tools.render import render
from data_tools.world import WorldConfig, sample_scenes
from lrm4d.cameras import Cameras
from lrm4d.generation.layout import TokenLayout
from train.data import load_in_order
from train.inpainter_config import InpainterConfig
from train.inpainter_lessons import Lesson, draw_lesson
from train.inpainter_samples import Sample, draw_backdrop, draw_rig

LESSONS_STREAM = 7_919
"""Keeps the random numbers for the shapes of batches, which all ranks share, apart from those for their scenes."""


@dataclass(frozen=True)
class InpaintingBatch:
    """Samples of one layout, as an Inpainter takes them, and the truth.

    images, visibility, cameras: one for each of layout.shown. truth: of the targets, in [0, 1]. seed: of the noise.
    """

    layout: TokenLayout
    images: Float[Tensor, "batch picture 3 height width"]
    visibility: Bool[Tensor, "batch picture 1 height width"]
    cameras: Cameras
    truth: Float[Tensor, "batch target 3 height width"]
    seed: int

    def __len__(self) -> int:
        """How many samples."""
        return len(self.images)

    def __getitem__(self, index: slice) -> "InpaintingBatch":
        """Some of the samples."""
        chosen = {name: getattr(self, name)[index] for name in ("images", "visibility", "cameras", "truth")}
        return replace(self, **chosen)

    def to(self, device: torch.device | str) -> "InpaintingBatch":
        """Moved to a device."""
        moved = {name: getattr(self, name).to(device) for name in ("images", "visibility", "cameras", "truth")}
        return replace(self, **moved)


class WorldPairs(Dataset):
    """Item `index` is a batch, the same whenever it is asked for; all ranks have one layout at a time."""

    def __init__(self, config: InpainterConfig, rank: int, world_size: int):
        self.config, self.rank, self.world_size = config, rank, world_size

    def __len__(self) -> int:
        """The batches of the whole run."""
        return self.config.steps * self.config.accumulate

    def __getitem__(self, index: int) -> InpaintingBatch:
        """A batch."""
        config = self.config
        place = index % config.fixed_batches if config.fixed_batches else index
        lesson = draw_lesson(config, Dice(_generator(config.seed + LESSONS_STREAM, place)))
        generator = _generator(config.seed, place * self.world_size + self.rank)
        step = index // config.accumulate
        count = max(1, config.views_at(step) // len(lesson.layout().slots))
        batch = make_batch(config, lesson, count, config.size_at(step), config.world_at(step), generator)
        return replace(batch, seed=(config.seed * 1_000_003 + index * self.world_size + self.rank) % 2**63)


def load_pairs(
    config: InpainterConfig, rank: int, world_size: int, device: torch.device, first_step: int
) -> Iterable[InpaintingBatch]:
    """The batches from `first_step` on, made on the CPU."""
    loader = load_in_order(WorldPairs(config, rank, world_size), config, first_step, config.workers)
    return loader if device.type == "cpu" else (batch.to(device) for batch in loader)


def make_batch(
    config: InpainterConfig, lesson: Lesson, count: int, size: int, world: WorldConfig, generator: torch.Generator
) -> InpaintingBatch:
    """So many samples of a lesson."""
    scenes = sample_scenes(torch.randint(2**31, (count,), generator=generator).tolist(), world)
    rigs = [draw_rig(config, lesson, Dice(generator)) for _ in range(count)]
    step, cells = lesson.step(), lesson.rendered()
    stands = [[rig.poses[station][time] for station, time in cells] for rig in rigs]
    fovs = [rig.fov for rig in rigs]
    times = views_tensor([[rig.times[cell.time] for cell in cells] for rig in rigs])
    seen = render(scenes, make_cameras(stands, fovs, size, size), times)
    samples = []
    for index, rig in enumerate(rigs):
        cameras = make_cameras(rig.poses, [rig.fov] * lesson.stations, size, size)
        backdrop = draw_backdrop(config, Dice(generator))
        views = seen.views[index]
        images, depths, valid = backdrop.put_behind(views, seen.depths[index], seen.hits[index])
        sample = Sample(
            config, lesson, cameras, dict(zip(cells, zip(images, depths, valid, strict=True), strict=True))
        )
        samples.append(sample.make(step, generator))
    images, visibility, truth = (torch.stack(values) for values in zip(*samples, strict=True))
    shown = make_cameras([poses[: len(step.cells)] for poses in stands], fovs, size, size)
    return InpaintingBatch(lesson.layout(), images, visibility, shown, truth, 0)


def _generator(seed: int, place: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + place) % 2**63)
