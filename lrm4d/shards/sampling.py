"""Which scene and which views come next: pure functions of a seed and of counting, so that resuming is counting on."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lrm4d.shards.schema import SceneHeader

VIEWS_STREAM = 1
"""Keeps the random numbers for choosing views apart from those for shuffling."""


@dataclass(frozen=True)
class EpochOrder:
    """An endless sequence of scenes: each epoch has every scene once, in an order that its seed and number give.

    A run of W processes shares it out by counting: sample i of process r is number i * W + r. So each process sees
    other scenes, none is left out or repeated within an epoch, and who has counted i samples knows where it stands.
    """

    scenes: int
    seed: int

    def epoch(self, number: int) -> int:
        """The epoch that a sample belongs to."""
        return number // self.scenes

    def scene(self, number: int) -> int:
        """The scene of a sample."""
        return int(_shuffled(self.scenes, self.seed, self.epoch(number))[number % self.scenes])


@lru_cache(maxsize=4)
def _shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, epoch]).permutation(count)


def choose_views(
    header: SceneHeader, inputs: int, targets: int, seed: int, number: int
) -> tuple[list[int], list[int]]:
    """Indices of the views for sample `number`: inputs in order of time, and targets that are none of them."""
    random = np.random.default_rng([seed, VIEWS_STREAM, number])
    given = random.permutation(header.inputs)[:inputs].tolist()
    left = [view for view in header.targets if view not in given]
    if len(given) < inputs or len(left) < targets:
        raise ValueError(f"{inputs} input and {targets} target views are wanted; it has {len(given)} and {len(left)}")
    given.sort(key=lambda view: (header.times[view].item(), view))
    return given, random.permutation(left)[:targets].tolist()
