"""What each part is worth: python -m train.ablations TABLE -o OUT [--only NAME ...] [--workers N] [key=value ...].

    python -m train.ablations train/configs/ablations.yaml -o runs/ablations --workers 2
    python -m train.ablations train/configs/ablations.yaml "seeds=[0,1,2]" -o runs/ablations --only "without exits"

Trains a base and variants of it on the same scenes from the same seed, and scores all on the same held-out scenes of
the world. Writes OUT/ablations.json and OUT/ablations.md after every run. The same line again goes on with the runs
that OUT does not have; whether the code has changed since, it does not know.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lrm4d.checkpoint import write_text
from lrm4d.config import make_config
from train.ablation_table import BASE, write_table
from train.config import TrainConfig
from train.data import Batch, WorldBatches
from train.held_out import HeldOut, batch_path, keep_batch, read_batch, score_model
from train.reconstruction import ReconstructionTask
from train.trainer import Trainer

SCENE_KEYS = (
    *("seed", "few_views", "few_chance", "many_views", "views_per_step", "max_scenes", "target_views"),
    *("fixed_scenes", "accumulate"),
)
"""What of a TrainConfig decides a batch, besides its number and its stage."""
BATCHES_A_TASK = 10
SCORING_STEPS = 20
"""How many steps the scoring of a network counts as, in the progress."""


@dataclass
class Ablations:
    """A table: base: TrainConfig's keys. variants: by name, the changes as train.reconstruction takes them.

    seeds: every row is trained once from each, and has the mean; a variant that changes the seed itself shows what
    chance does.
    """

    base: TrainConfig = field(default_factory=TrainConfig)
    variants: dict[str, list[str]] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0])
    held_out: HeldOut = field(default_factory=HeldOut)

    def changes(self, only: list[str] | None = None) -> dict[str, list[str]]:
        """The changes by row, the base first; ValueError lists the names if `only` has others."""
        rows = {BASE: [], **self.variants}
        unknown = sorted(set(only or rows) - set(rows))
        if unknown:
            raise ValueError(f"no variant is called {' or '.join(unknown)}; there are: {'; '.join(rows)}.")
        return {name: rows[name] for name in rows if only is None or name in (BASE, *only)}

    def config(self, changes: list[str], seed: int) -> TrainConfig:
        """What a run trains, or a ValueError."""
        config = make_config(TrainConfig, asdict(self.base), {"seed": seed}, changes)
        config.model_config()
        if config.shards:
            raise ValueError(f"shards={config.shards}: ablations train on the world, drop it.")
        return config


@dataclass(frozen=True)
class Run:
    """One training of the table; `folder` is the table's."""

    config: TrainConfig
    held_out: HeldOut
    folder: Path

    @property
    def path(self) -> Path:
        """Where its result is: named by all that it depends on but the code, so that no two runs are the same."""
        said = json.dumps([asdict(self.config), asdict(self.held_out)], sort_keys=True)
        return self.folder / "runs" / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.json"


class KeptBatches(WorldBatches):
    """The world's batches, read where the table keeps them and else made."""

    def __init__(self, config: TrainConfig, folder: Path):
        super().__init__(config, 0, 1)
        self.folder = folder / "batches"

    def __getitem__(self, index: int) -> Batch:
        """A batch: views [scene, view]."""
        path = batch_path(self.folder, self.describe(index))
        return read_batch(path) if path.exists() else super().__getitem__(index)

    def keep(self, index: int) -> None:
        """Make a batch for the runs that share it, if nobody has."""
        if not batch_path(self.folder, self.describe(index)).exists():
            keep_batch(self.folder, self.describe(index), lambda: super(KeptBatches, self).__getitem__(index))

    def describe(self, index: int) -> dict[str, Any]:
        """All that a batch depends on."""
        step = index // self.config.accumulate
        stage = {"size": self.config.size_at(step), "world": asdict(self.config.world_at(step))}
        stage["views_per_step"] = self.config.views_at(step)
        return {**{name: getattr(self.config, name) for name in SCENE_KEYS}, **stage, "index": index}


done_steps: Synchronized
"""How many steps all workers have done; each worker has it."""


def _start_worker(counter: Synchronized) -> None:
    global done_steps
    done_steps = counter
    torch.set_num_threads(1)
    # Of a killed table no worker stays behind.
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _count(steps: int) -> None:
    with done_steps.get_lock():
        done_steps.value += steps


def keep_scenes(config: TrainConfig, folder: Path, first: int) -> None:
    """Make BATCHES_A_TASK of the base's batches."""
    batches = KeptBatches(config, folder)
    for index in range(first, min(first + BATCHES_A_TASK, len(batches))):
        batches.keep(index)
        _count(1)


def train_run(run: Run) -> None:
    """Train, score, and write the result."""
    start = time.perf_counter()
    trainer, batches = Trainer(ReconstructionTask(run.config)), KeptBatches(run.config, run.folder)
    given = ((context.to(trainer.device), targets.to(trainer.device)) for context, targets in _in_order(batches))
    logged = []
    for step in range(run.config.steps):
        logged.append(trainer.take_step(step, given)[0])
        _count(1)
    scores = score_model(trainer.trained(), run.held_out.load(run.folder / "batches"), trainer.device)
    last = logged[-max(1, len(logged) // 10) :]
    result = {
        "scores": scores,
        "step_s": round(median(values["step_s"] for values in logged), 4),
        "loss": round(sum(values["loss"] for values in last) / len(last), 5),
        "skipped": trainer.skipped,
        "seconds": round(time.perf_counter() - start, 1),
        "config": asdict(run.config),
    }
    write_text(run.path, json.dumps(result, indent=2) + "\n")
    _count(SCORING_STEPS)


def _in_order(batches: KeptBatches) -> Iterator[Batch]:
    return (batches[index] for index in range(len(batches)))


def run_table(table: Ablations, folder: Path, only: list[str] | None = None, workers: int = 1) -> dict[str, Any]:
    """Do those of a table's runs that the folder does not have, and write the table; returns ablations.json.

    RuntimeError at the end names the runs that failed.
    """
    changes = table.changes(only)
    rows = {
        name: [Run(table.config(changed, seed), table.held_out, folder) for seed in table.seeds]
        for name, changed in changes.items()
    }
    results = {name: [run.path for run in runs] for name, runs in rows.items()}
    names = {run.path: name for name, runs in reversed(rows.items()) for run in runs}
    waiting = {run.path: run for runs in rows.values() for run in runs if not run.path.exists()}
    failed: list[str] = []
    with _progress() as progress, _Workers(workers, progress) as pool:
        if waiting:
            pool.make_scenes([run.config for run in rows[BASE]], folder)
        for path, error in pool.train(waiting):
            failed += [f"{names[path]}: {error}"] if error else []
            progress.print(f"{'FAILED' if error else 'done'}: {names[path]}")
            write_table(folder, asdict(table), changes, results)
    content = write_table(folder, asdict(table), changes, results)
    if failed:
        raise RuntimeError("; ".join(failed))
    return content


class _Workers:
    """Processes that make scenes and train, and how far they are."""

    def __init__(self, workers: int, progress: Progress):
        context = multiprocessing.get_context("spawn")
        self.counter, self.progress = context.Value("q", 0), progress
        self.pool = ProcessPoolExecutor(workers, context, _start_worker, (self.counter,))

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *_) -> None:
        self.pool.shutdown(cancel_futures=True)

    def make_scenes(self, configs: list[TrainConfig], folder: Path) -> None:
        """Make the batches of configurations."""
        starts = [(c, first) for c in configs for first in range(0, c.steps * c.accumulate, BATCHES_A_TASK)]
        futures = [self.pool.submit(keep_scenes, config, folder, first) for config, first in starts]
        for future in self._as_they_end(futures, "scenes", sum(c.steps * c.accumulate for c in configs)):
            future.result()

    def train(self, runs: dict[Path, Run]) -> Iterator[tuple[Path, BaseException | None]]:
        """Do runs; yields which has ended, and its error if it failed."""
        futures = {self.pool.submit(train_run, run): path for path, run in runs.items()}
        total = sum(run.config.steps + SCORING_STEPS for run in runs.values())
        for future in self._as_they_end(list(futures), "training", total):
            yield futures[future], future.exception()

    def _as_they_end(self, futures: list[Future], what: str, total: int) -> Iterator[Future]:
        task = self.progress.add_task(what, total=total)
        self.counter.value, left = 0, set(futures)
        while left:
            ended, left = wait(left, timeout=0.5, return_when=FIRST_COMPLETED)
            self.progress.update(task, completed=self.counter.value)
            yield from ended


def _progress() -> Progress:
    # The estimate looks ten minutes back: a variant may be several times faster than the next.
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        speed_estimate_period=600,
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="a YAML file with the keys of Ablations")
    parser.add_argument("-o", "--output", required=True, type=Path, help="the table's folder")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these variants, and the base")
    parser.add_argument("--workers", type=int, default=1, help="how many runs at once")
    parser.add_argument("changes", nargs="*", help="key=value, for example base.steps=1000")
    arguments = parser.parse_intermixed_args()
    table = make_config(Ablations, arguments.table, arguments.changes)
    run_table(table, arguments.output, arguments.only, arguments.workers)


if __name__ == "__main__":
    main()
