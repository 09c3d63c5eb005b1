"""Batches of the procedural world or of shards, each fixed by the run's seed, its number and the rank alone."""

import ctypes
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data_tools.shard_views import join_geometry, stack_scenes
from data_tools.world import WorldBatch, WorldViews, describe_batch, sample_batch
from lrm4d.shards import EpochOrder, PackedScene, ShardReader, choose_views, fit_square
from lrm4d.shards.reader import LOG
from train.config import RunConfig, ScenesConfig
from train.render_ahead import render_ahead

Batch = tuple[WorldViews, WorldViews]
"""Context and targets, views [scene, view]."""
COUNTS_STREAM = 2
"""Keeps the random numbers for batch shapes apart from those of lrm4d.shards.sampling."""


class WorldBatches(Dataset):
    """Item `index` is (context, targets), the same whenever it is asked for: resuming is counting.

    A step takes config.accumulate of them, one after the other.
    """

    def __init__(self, config: ScenesConfig, rank: int, world_size: int):
        self.config, self.rank, self.world_size = config, rank, world_size

    def __len__(self) -> int:
        """The batches of the whole run."""
        return self.config.steps * self.config.accumulate

    def __getitem__(self, index: int) -> Batch:
        """A batch: views [scene, view]."""
        return sample_batch(**self.arguments(index))

    def arguments(self, index: int) -> dict[str, Any]:
        """What a batch is made from: the arguments of sample_batch and describe_batch."""
        config = self.config
        draw = index * self.world_size + self.rank
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + draw)
        least, most = _view_range(config, float(torch.rand((), generator=generator)))
        views = int(torch.randint(least, most + 1, (), generator=generator))
        step = index // config.accumulate
        scenes = _scene_count(config, step, views)
        seeds = torch.randint(2**31, (scenes,), generator=generator)
        if config.fixed_scenes:
            seeds = seeds % config.fixed_scenes
        shape = {"input_views": views, "target_views_count": config.target_views, "size": config.size_at(step)}
        return {"seeds": seeds.tolist(), **shape, "config": config.world_at(step)}


class WorldDescriptions(WorldBatches):
    """Item `index` is what the same item of WorldBatches is rendered from, made on the CPU."""

    def __getitem__(self, index: int) -> WorldBatch:
        """A batch before it is rendered."""
        return describe_batch(**self.arguments(index))


class ShardBatches(Dataset):
    """Item `index` is (context, targets) out of config.shards, the same whenever it is asked for.

    Batches are as large on every rank. A run's place is (seed, epoch, samples taken by each rank), and the batches
    before `index` alone say what it is: see `place`.
    """

    def __init__(self, config: ScenesConfig, rank: int, world_size: int):
        self.config, self.rank, self.world_size = config, rank, world_size
        if any(stage.world for stage in config.stages):
            raise ValueError(
                "a stage's `world` changes the procedural world, and this run trains on shards: drop one."
            )
        self.reader = ShardReader(config.shards, config.fixed_scenes)
        self.reader.require(max(config.few_views[1], config.many_views[1]), config.target_views)
        self.order = EpochOrder(len(self.reader), config.seed)
        coins = np.random.default_rng([config.seed, COUNTS_STREAM]).random((len(self), 2)).tolist()
        ranges = [(_view_range(config, first), second) for first, second in coins]
        self.views = [least + int(second * (most + 1 - least)) for (least, most), second in ranges]
        counts = (_scene_count(config, i // config.accumulate, views) for i, views in enumerate(self.views))
        self.taken = np.cumsum([0, *counts])
        largest = max(stage.size for stage in config.stages)
        smallest = min(min(entry.width, entry.height) for _, entry in self.reader.places)
        if rank == 0 and largest > smallest:
            LOG.warning("%s: pictures of %d pixels are enlarged to %d.", config.shards, smallest, largest)

    def __len__(self) -> int:
        """The batches of the whole run."""
        return self.config.steps * self.config.accumulate

    def place(self, index: int) -> tuple[int, int]:
        """The epoch that a batch begins in, and how many samples this rank has taken before it."""
        taken = int(self.taken[index])
        return self.order.epoch(taken * self.world_size + self.rank), taken

    def __getitem__(self, index: int) -> Batch:
        """A batch: views [scene, view]."""
        size = self.config.size_at(index // self.config.accumulate)
        samples = range(int(self.taken[index]), int(self.taken[index + 1]))
        numbers = [sample * self.world_size + self.rank for sample in samples]
        pairs = [self._sample(number, self.views[index], size) for number in numbers]
        context, targets = (stack_scenes(list(side)) for side in zip(*pairs, strict=True))
        return context, targets

    def _sample(self, number: int, views: int, size: int) -> Batch:
        """Context and targets [view] of one scene; of the next in order where it is broken."""

        def use(packed: PackedScene) -> Batch:
            sides = choose_views(packed.header, views, self.config.target_views, self.config.seed, number)
            context, targets = (join_geometry(*fit_square(*packed.decode(chosen), size)) for chosen in sides)
            return context, targets

        candidates = (self.order.scene(number + skipped) for skipped in range(len(self.reader)))
        return self.reader.first_whole(candidates, use)


def _view_range(config: ScenesConfig, coin: float) -> tuple[int, int]:
    """Least and most context views of a batch, by a number drawn from [0, 1)."""
    return config.few_views if coin < config.few_chance else config.many_views


def _scene_count(config: ScenesConfig, step: int, views: int) -> int:
    """The scenes of a step's batch of so many context views."""
    return max(1, min(config.max_scenes, config.views_at(step) // views))


def keep_freed_memory() -> None:
    """Let glibc keep what is freed: a step's large tensors otherwise cost a page fault each 4 kB, every step.

    Measured on two cores: half of the processor's time was the kernel's without this.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        libc.mallopt(mmap_threshold, 2**30)
        libc.mallopt(trim_threshold, 2**31 - 1)


def _start_worker(_: int) -> None:
    keep_freed_memory()
    torch.set_num_threads(1)


def load_batches(
    config: ScenesConfig, rank: int, world_size: int, device: torch.device, first_step: int
) -> Iterable[Batch]:
    """The batches from `first_step` on, made in worker processes; the world's are described there and rendered here
    where `device` is a GPU."""
    on_cpu = device.type == "cpu"
    if config.shards is None and not on_cpu:
        descriptions = WorldDescriptions(config, rank, world_size)
        loader = load_in_order(descriptions, config, first_step, config.workers, pin=True)
        return render_ahead(loader, device)
    batches: Dataset = (
        WorldBatches(config, rank, world_size) if config.shards is None else ShardBatches(config, rank, world_size)
    )
    loader = load_in_order(batches, config, first_step, config.workers)
    return loader if on_cpu else ((context.to(device), targets.to(device)) for context, targets in loader)


def load_in_order(batches: Dataset, config: RunConfig, first_step: int, workers: int, pin: bool = False) -> DataLoader:
    """A run's batches from `first_step` on, made ahead in so many processes, or in place with none.

    pin: hand them out in memory that a GPU can fetch from by itself.
    """
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(first_step * config.accumulate, config.steps * config.accumulate),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
        multiprocessing_context="spawn" if workers else None,
        pin_memory=pin,
    )
