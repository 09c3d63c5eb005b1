"""Write tar shards to train on (lrm4d.shards.schema says what is in them), from the world or from scene folders.

    python -m data_tools.write_shards world --scenes 64 --views 36 --size 64 -o OUT
    python -m data_tools.write_shards world --scenes 20000 --views 36 --size 128 --workers 16 -o OUT
    python -m data_tools.write_shards folders SCENE SCENE ... -o OUT

The world's shards hold its exact geometry too. A shard is written whole or not at all: the same line again goes on
with the shards that are missing, and gives the same bytes as a run that was not broken off.
"""

import argparse
import json
import multiprocessing
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data_tools.shard_views import concatenate_views, split_geometry
from data_tools.world import sample_batch
from lrm4d.checkpoint import read_json, write_text
from lrm4d.scenes import Scene, load_scene
from lrm4d.shards import index_shard, pack_scene, write_shard
from lrm4d.shards.archive import index_path, write_index
from lrm4d.shards.schema import SCHEMA
from lrm4d.views import Views

INPUT_SHARE = 2 / 3
"""Of the views of a world's scene: 24 inputs and 12 targets of 36, as many inputs as a clip has frames."""
DECODED_AT_ONCE = 16
"""Pictures of a scene folder in memory."""


@dataclass(frozen=True)
class WorldSource:
    """Scenes of the procedural world: scene i is that of seed + i, with its own cameras and times."""

    scenes: int
    views: int
    size: int
    seed: int

    def recipe(self) -> dict[str, Any]:
        """What the shards are made from, as plain data."""
        return {"world": vars(self)}

    def __len__(self) -> int:
        """The number of scenes."""
        return self.scenes

    def pack(self, number: int) -> tuple[str, dict[str, bytes]]:
        """Key and files of a scene."""
        seed, inputs = self.seed + number, max(1, round(INPUT_SHARE * self.views))
        context, targets = sample_batch([seed], inputs, self.views - inputs, self.size)
        views, geometry = split_geometry(concatenate_views([context[0], targets[0]]))
        sides = range(inputs), range(inputs, self.views)
        return f"{number:06}-seed-{seed}", pack_scene([views], geometry, *sides, source=f"world, seed {seed}")


@dataclass(frozen=True)
class FolderSource:
    """Scene folders that lrm4d.scenes.load_scene reads; longer sides are reduced to `size` pixels, 0 to keep them."""

    folders: tuple[Path, ...]
    size: int
    white_background: bool

    def recipe(self) -> dict[str, Any]:
        """What the shards are made from, as plain data."""
        names = [folder.resolve().name for folder in self.folders]
        return {"folders": names, "size": self.size, "white_background": self.white_background}

    def __len__(self) -> int:
        """The number of scenes."""
        return len(self.folders)

    def pack(self, number: int) -> tuple[str, dict[str, bytes]]:
        """Key and files of a scene."""
        scene = load_scene(self.folders[number])
        name = scene.folder.resolve().name
        return f"{number:06}-{re.sub('[^A-Za-z0-9_-]+', '-', name)[:40]}", pack_scene(self._parts(scene), source=name)

    def _parts(self, scene: Scene) -> Iterator[Views]:
        for first in range(0, len(scene.file_paths), DECODED_AT_ONCE):
            paths = scene.file_paths[first : first + DECODED_AT_ONCE]
            views = scene.views(paths, self.white_background)
            larger = self.size and max(views.cameras.width, views.cameras.height) > self.size
            yield views.resize_longer_side(self.size) if larger else views


Source = WorldSource | FolderSource


@dataclass(frozen=True)
class Job:
    """One shard to write: scenes `first` until `end` of the source."""

    source: Source
    path: Path
    first: int
    end: int


def write_shards(source: Source, folder: Path, shard_scenes: int, workers: int) -> int:
    """Write the shards that are not there yet; returns how many.

    ValueError if the folder holds shards of another recipe.
    """
    starts = range(0, len(source), shard_scenes)
    recipe = {"schema": SCHEMA, "shards": len(starts), "shard_scenes": shard_scenes, **source.recipe()}
    _agree_on_recipe(folder, json.loads(json.dumps(recipe)))
    for half_written in folder.glob(".shard-*"):
        half_written.unlink()
    jobs = [
        Job(source, folder / f"shard-{number:06}.tar", first, min(first + shard_scenes, len(source)))
        for number, first in enumerate(starts)
    ]
    todo = []
    for job in jobs:
        if not job.path.exists():
            todo.append(job)
        elif not index_path(job.path).exists():  # killed between the two
            write_index(job.path, index_shard(job.path))
    with _progress() as progress:
        done = len(source) - sum(job.end - job.first for job in todo)
        task = progress.add_task("scenes", total=len(source), completed=done)
        _write_all(todo, workers, lambda count: progress.advance(task, count))
    return len(todo)


def _write_all(jobs: list[Job], workers: int, advance: Callable[[int], None]) -> None:
    if workers <= 1:
        for job in jobs:
            _write_one(job, advance)
        return
    with multiprocessing.get_context("spawn").Pool(min(workers, max(1, len(jobs)))) as pool:
        for count in pool.imap_unordered(_write_one, jobs):
            advance(count)


def _write_one(job: Job, advance: Callable[[int], None] = lambda _: None) -> int:
    torch.set_num_threads(1)  # several processes of several threads each would get into each other's way

    def scenes() -> Iterable[tuple[str, dict[str, bytes]]]:
        for number in range(job.first, job.end):
            yield job.source.pack(number)
            advance(1)

    return len(write_shard(job.path, scenes()))


def _agree_on_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    path = folder / "recipe.json"
    if path.exists():
        found = read_json(path)
        different = sorted(name for name in {*found, *recipe} if found.get(name) != recipe.get(name))
        if different:
            name = different[0]
            raise ValueError(
                f"{folder} holds shards of another recipe: {name} is {found.get(name)}, and {recipe.get(name)} is "
                "asked for. Write to another folder, or give the line that began this one."
            )
    elif any(path.name[0] != "." for path in folder.glob("*.tar")):
        raise ValueError(f"{folder} holds .tar files and no recipe.json: write to another folder.")
    else:
        write_text(path, json.dumps(recipe, indent=1) + "\n")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.write_shards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    world = kinds.add_parser("world", help="scenes of the procedural world, with its exact geometry")
    world.add_argument("--scenes", type=_positive, required=True, help="how many scenes")
    world.add_argument("--views", type=_positive, default=36, help="of a scene, two thirds of them inputs (36)")
    world.add_argument("--size", type=_positive, default=128, help="pixels of a picture's side (128)")
    world.add_argument("--seed", type=int, default=0, help="of the first scene; the others follow (0)")
    folders = kinds.add_parser("folders", help="scene folders with a transforms.json; any view may be an input")
    folders.add_argument("scenes", nargs="+", type=Path, metavar="SCENE", help="a scene folder")
    folders.add_argument("--size", type=int, default=0, help="reduce the longer side to so many pixels (as they are)")
    folders.add_argument("--white-background", action="store_true", help="pictures were taken on white: cut them out")
    for kind in (world, folders):
        kind.add_argument("-o", "--out", type=Path, required=True, help="the folder of the shards")
        kind.add_argument("--shard-scenes", type=_positive, default=64, help="scenes of a shard (64)")
        kind.add_argument("--workers", type=_positive, default=1, help="processes that write a shard each (1)")
    given = parser.parse_args(arguments)
    if given.kind == "world":
        if given.views < 2:
            parser.error("--views: expected at least 2, inputs and targets.")
        source: Source = WorldSource(given.scenes, given.views, given.size, given.seed)
    else:
        source = FolderSource(tuple(given.scenes), given.size, given.white_background)
    try:
        count = write_shards(source, given.out, given.shard_scenes, given.workers)
    except ValueError as error:
        parser.exit(1, f"{error}\n")
    print(f"wrote {count} shards to {given.out}; see them with python -m data_tools.inspect_shards {given.out}")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}; expected a whole number above 0.")
    return value


if __name__ == "__main__":
    main()
