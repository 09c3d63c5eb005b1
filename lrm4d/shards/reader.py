"""All scenes of some shards, read by number; what cannot be read is reported and counted, never left out silently."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch

from lrm4d.shards.archive import LOG, find_shards, read_files, read_index
from lrm4d.shards.schema import PackedScene

T = TypeVar("T")


class ShardReader:
    """The scenes of a folder of shards or of a pattern (archive.find_shards), in the order of the shards.

    most: how many scenes to take, 0 for all. It may be sent to worker processes: they share the record of what is
    broken.
    """

    def __init__(self, pattern: str | Path, most: int = 0):
        self.shards = find_shards(pattern)
        places = [(shard, entry) for shard, path in enumerate(self.shards) for entry in read_index(path)]
        self.places = places[:most] if most else places
        self._broken = torch.zeros(len(self.places), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        """The number of scenes."""
        return len(self.places)

    def name(self, scene: int) -> str:
        """The shard and the key of a scene."""
        shard, entry = self.places[scene]
        return f"{self.shards[shard]}: {entry.key}"

    def require(self, inputs: int, targets: int) -> None:
        """ValueError, naming one, if a scene has not so many input views and, beside them, target views."""
        short = [
            scene
            for scene, (_, entry) in enumerate(self.places)
            if entry.inputs < inputs or entry.targets - min(inputs, entry.both) < targets
        ]
        if short:
            entry = self.places[short[0]][1]
            total = entry.inputs + entry.targets - entry.both
            raise ValueError(
                f"{self.name(short[0])} has {total} views, {entry.inputs} for input and {entry.targets} as targets; "
                f"expected {inputs} inputs and {targets} others as targets ({len(short)} of {len(self)} scenes have "
                "fewer). Take less (few_views, many_views, target_views), or write the shards with more views."
            )

    def packed(self, scene: int) -> PackedScene:
        """A scene; ValueError names its shard and its key if it is broken."""
        shard, entry = self.places[scene]
        return read_files(self.shards[shard], entry)

    def first_whole(self, scenes: Iterable[int], use: Callable[[PackedScene], T]) -> T:
        """`use` of the first scene that is not broken; the broken ones before it are reported."""
        for scene in scenes:
            try:
                packed = self.packed(scene)
            except ValueError as error:
                self._report(scene, str(error))
                continue
            try:
                return use(packed)
            except ValueError as error:
                self._report(scene, f"{self.name(scene)}: {error}.")
        raise ValueError(
            f"{self.shards[0].parent}: every scene that was tried is broken, the last: {self.name(scene)}."
        )

    @property
    def broken(self) -> list[str]:
        """Shard and key of every scene that was found broken so far, in any process that this was sent to."""
        return [self.name(scene) for scene in self._broken.nonzero().flatten().tolist()]

    def _report(self, scene: int, problem: str) -> None:
        if not self._broken[scene]:
            self._broken[scene] = True
            LOG.warning(
                "broken scene, another is taken: %s (%d of %d are broken so far)",
                problem,
                int(self._broken.sum()),
                len(self),
            )
