"""The loop: batches in, updates out, with a log, sample pictures and checkpoints to resume from."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from jaxtyping import Float
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from train.config import NORM_WINDOW, RunConfig, ema_decay_at, learning_rate_at, norm_limit
from train.data import keep_freed_memory
from train.engine import Engine, check_deepspeed, start_processes
from train.log import Log
from train.measuring import FlopCount, Stopwatch, measure_matmul_peak
from train.optimizer import make_optimizer

Batch = TypeVar("Batch")


class Task(Protocol[Batch]):
    """What is trained: a network, its batches and its objective. shown: losses beside "loss" that progress tells."""

    config: RunConfig
    shown: tuple[str, ...]

    def make_model(self) -> nn.Module:
        """The network, untrained, with the run's switches."""

    def start(self, model: nn.Module) -> list[str]:
        """Give it the weights of config.start_from; returns the names of those that it did not find there."""

    def load_batches(self, rank: int, processes: int, device: torch.device, first_step: int) -> Iterable[Batch]:
        """A rank's batches from a step on, each fixed by the run's seed, its number and the rank alone."""

    def count_scenes(self, batch: Batch) -> int:
        """How many scenes a batch has."""

    def ask(self, forward: Callable[..., Any], batch: Batch) -> Any:
        """What the network, called as `forward`, answers to a batch."""

    def losses(self, answer: Any, batch: Batch, step: int) -> dict[str, Tensor]:
        """Scalars to log; "loss" is the one that is made smaller."""

    def outputs(self, answer: Any) -> list[Tensor]:
        """The network's outputs, where its part of the backward pass begins."""

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write the weights to use."""

    def draw(self, model: nn.Module, batch: Batch) -> Float[Tensor, "3 height width"]:
        """A picture of what the network has learnt."""


class Trainer(Generic[Batch]):
    """One process's part of a run: the network, its engine, and what a step needs to know of those before."""

    def __init__(self, task: Task[Batch]):
        config = task.config
        check_deepspeed(config.deepspeed, config.optimizer)
        keep_freed_memory()
        self.task, self.config = task, config
        self.rank, self.processes, self.device = start_processes()
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        model = task.make_model()
        if config.start_from:
            missing = task.start(model)
            if self.rank == 0:
                print(f"not in {config.start_from}, so untrained: {', '.join(missing) or 'nothing'}")
        model.train().to(self.device)
        self.flops, self.watch = FlopCount(model), Stopwatch(self.device)
        optimizer = make_optimizer(config.optimizer, model, config.learning_rate, config.weight_decay)
        average = config.ema > 0
        self.engine = Engine(model, optimizer, config.clip, config.deepspeed, config.accumulate, average)
        self.norms: list[float] = []
        self.skipped = 0

    def resume(self, folder: Path) -> int:
        """Go on from the last checkpoint in a run's folder, if there is one; returns the first step to do."""
        step, state = self.engine.load(folder / "checkpoints")
        self.norms, self.skipped = state.get("norms", []), state.get("skipped", 0)
        return step

    def batches(self, first_step: int) -> Iterator[Batch]:
        """This process's batches from a step on."""
        return iter(self.task.load_batches(self.rank, self.processes, self.device, first_step))

    def take_step(self, step: int, batches: Iterator[Batch], exact: bool = True) -> tuple[dict[str, float], Batch]:
        """One update from config.accumulate batches; returns what to log (losses: means) and the last batch.

        exact: tell also where the time went, for which CUDA has to be waited for at each part.
        """
        config, watch = self.config, self.watch
        sums: dict[str, Tensor] = {}
        scenes = 0
        watch.start(exact)
        for micro in range(config.accumulate):
            batch = next(batches)
            watch.lap("wait_s")
            losses = self._backward(batch, step, last=micro + 1 == config.accumulate)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.detach() / config.accumulate
            scenes += self.task.count_scenes(batch) * self.processes
        limit = norm_limit(config, self.norms)
        norm, applied = self.engine.step(learning_rate_at(config, step), ema_decay_at(config, step), limit)
        values = dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))
        watch.lap("optimizer_s")
        self.skipped += not applied
        self.norms = [*self.norms, norm][-NORM_WINDOW:] if norm < float("inf") else self.norms
        tflop, laps = 3 * self.flops.take() / 1e12, watch.laps
        times = {"step_s": sum(laps.values()) - laps["wait_s"], "wait_s": laps["wait_s"]}
        times |= {**laps, "network_tflop": tflop} if exact else {}
        return {"scenes": scenes, **values, "norm": norm, **times}, batch

    def _backward(self, batch: Batch, step: int, last: bool) -> dict[str, Tensor]:
        """A batch's share of the gradient; returns its losses."""
        answer = self.task.ask(self.engine.forward, batch)
        self.watch.lap("network_s")
        losses = self.task.losses(answer, batch, step)
        self.watch.lap("render_s")
        self.watch.lap_when_backward_reaches(self.task.outputs(answer))
        self.engine.backward(losses["loss"], last)
        self.watch.lap("network_backward_s")
        return losses

    def save(self, folder: Path, step: int) -> None:
        """Write a checkpoint, and the weights to use; all processes at once."""
        self.engine.save(folder / "checkpoints", step, {"norms": self.norms, "skipped": self.skipped})
        model = self.trained()
        if self.rank == 0:
            self.task.save(model, folder)

    def trained(self) -> nn.Module:
        """The network with the weights to use, apart from the one that learns; all processes at once."""
        model = self.task.make_model().to(self.device).eval()
        model.load_state_dict(self.engine.weights())
        return model


def train(task: Task, folder: Path) -> nn.Module:
    """Train a network, from the folder's last checkpoint if it has one; returns it.

    Writes log.jsonl, samples/, checkpoints/ and, at every checkpoint and at the end, model.safetensors + config.json.
    """
    config, trainer = task.config, Trainer(task)
    first_step = trainer.resume(folder)
    log = Log(config, folder, first_step) if trainer.rank == 0 else None
    peak = measure_matmul_peak(trainer.device, config.bf16) / 1e12
    batches = trainer.batches(first_step)
    saved_at = time.monotonic()
    with _progress(trainer.rank) as progress:
        bar = progress.add_task("training", total=config.steps, completed=first_step, status="")
        for step in range(first_step, config.steps):
            on_cpu, told = trainer.device.type == "cpu", (step + 1) % config.log_every == 0
            values, batch = trainer.take_step(step, batches, exact=on_cpu or told)
            if (step + 1) % config.sample_every == 0:
                model = trainer.trained()
                if log:
                    log.add_picture(step, task.draw(model, batch))
            if log:
                means = log.add(step, values, {"skipped": trainer.skipped})
                progress.update(bar, advance=1, **({"status": _describe(means, task.shown, peak)} if means else {}))
            due = step + 1 == config.steps or time.monotonic() - saved_at > 60 * config.checkpoint_minutes
            if trainer.engine.agree(due):
                trainer.save(folder, step + 1)
                saved_at = time.monotonic()
    model = trainer.trained()
    if log:
        log.close()
    trainer.engine.close()
    return model


def _describe(means: dict[str, float], shown: tuple[str, ...], peak: float) -> str:
    rate = means["network_tflop_per_s"]
    skipped = f" {means['skipped']:.0f} skipped" if means["skipped"] else ""
    losses = " ".join(f"{name} {means[name]:.4f}" for name in ("loss", *shown))
    return (
        f"{losses} {means['step_s']:.2f}+{means['wait_s']:.2f} s "
        f"{means['scenes_per_s']:.1f} scenes/s {rate:.3g} TFLOP/s ({rate / peak:.0%} of matmul){skipped}"
    )


def _progress(rank: int) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
        disable=rank != 0,
    )
