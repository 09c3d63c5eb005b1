"""Batches of the procedural world, each drawn from the run's seed, its number and the rank alone."""

import ctypes

import torch
from torch.utils.data import DataLoader, Dataset

from data_tools.world import WorldViews, sample_batch
from train.config import TrainConfig


class WorldBatches(Dataset):
    """Item `index` is (context, targets), the same whenever it is asked for: resuming is counting.

    A step takes config.accumulate of them, one after the other.
    """

    def __init__(self, config: TrainConfig, rank: int, world_size: int, device: torch.device):
        self.config, self.rank, self.world_size, self.device = config, rank, world_size, device

    def __len__(self) -> int:
        """The batches of the whole run."""
        return self.config.steps * self.config.accumulate

    def __getitem__(self, index: int) -> tuple[WorldViews, WorldViews]:
        """A batch: views [scene, view]."""
        config = self.config
        draw = index * self.world_size + self.rank
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + draw)
        few = torch.rand((), generator=generator) < config.few_chance
        least, most = config.few_views if few else config.many_views
        views = int(torch.randint(least, most + 1, (), generator=generator))
        scenes = max(1, min(config.max_scenes, config.views_per_step // views))
        seeds = torch.randint(2**31, (scenes,), generator=generator)
        if config.fixed_scenes:
            seeds = seeds % config.fixed_scenes
        size = config.size_at(index // config.accumulate)
        return sample_batch(seeds.tolist(), views, config.target_views, size, device=self.device)


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


def load_batches(config: TrainConfig, rank: int, world_size: int, device: torch.device, first_step: int) -> DataLoader:
    """The batches from `first_step` on; made in worker processes on the CPU, in place on CUDA."""
    on_cpu = device.type == "cpu"
    workers = config.workers if on_cpu else 0
    return DataLoader(
        WorldBatches(config, rank, world_size, device),
        batch_size=None,
        sampler=range(first_step * config.accumulate, config.steps * config.accumulate),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
        multiprocessing_context="spawn" if workers else None,
    )
