"""The loop: batches in, updates out, with a log, sample pictures and checkpoints to resume from."""

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data_tools.world import WorldViews
from lrm4d.export.contact_sheet import reconstruction_sheet
from lrm4d.reconstruction import ReconstructionModel
from lrm4d.reconstruction.pretrained import save_pretrained, start_from_pretrained
from train.config import NORM_WINDOW, TrainConfig, ema_decay_at, geometry_weight_at, learning_rate_at, norm_limit
from train.data import Batch, keep_freed_memory, load_batches
from train.engine import Engine, check_deepspeed, start_processes
from train.log import Log
from train.measuring import FlopCount, Stopwatch, measure_matmul_peak
from train.objective import reconstruction_losses
from train.optimizer import make_optimizer


class Trainer:
    """One process's part of a run: the network, its engine, and what a step needs to know of those before."""

    def __init__(self, config: TrainConfig):
        check_deepspeed(config.deepspeed, config.optimizer)
        keep_freed_memory()
        self.config = config
        self.rank, self.processes, self.device = start_processes()
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        model = ReconstructionModel(config.model_config())
        if config.start_from:
            missing = start_from_pretrained(model, config.start_from)
            if self.rank == 0:
                print(f"not in {config.start_from}, so untrained: {', '.join(missing) or 'nothing'}")
        model.train().to(self.device).bf16 = config.bf16
        model.transformer.checkpoint_activations = config.checkpoint_activations
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
        return iter(load_batches(self.config, self.rank, self.processes, self.device, first_step))

    def take_step(self, step: int, batches: Iterator[Batch]) -> tuple[dict[str, float], Batch]:
        """One update from config.accumulate batches; returns what to log (losses: means) and the last batch."""
        config, watch = self.config, self.watch
        values: dict[str, float] = {"scenes": 0.0}
        watch.start()
        for micro in range(config.accumulate):
            batch = next(batches)
            watch.lap("wait_s")
            losses = self._backward(*batch, step, last=micro + 1 == config.accumulate)
            for name, value in losses.items():
                values[name] = values.get(name, 0.0) + value / config.accumulate
            values["scenes"] += len(batch[0].views) * self.processes
        limit = norm_limit(config, self.norms)
        norm, applied = self.engine.step(learning_rate_at(config, step), ema_decay_at(config, step), limit)
        watch.lap("optimizer_s")
        self.skipped += not applied
        self.norms = [*self.norms, norm][-NORM_WINDOW:] if norm < float("inf") else self.norms
        seconds = sum(watch.laps.values()) - watch.laps["wait_s"]
        tflop = 3 * self.flops.take() / 1e12
        return {**values, "norm": norm, "network_tflop": tflop, "step_s": seconds, **watch.laps}, batch

    def _backward(self, context: WorldViews, targets: WorldViews, step: int, last: bool) -> dict[str, float]:
        """A batch's share of the gradient; returns its losses."""
        answer = self.engine.forward(context.views)
        self.watch.lap("network_s")
        losses = reconstruction_losses(
            answer, context, targets, self.config.loss, geometry_weight_at(self.config, step)
        )
        losses["loss"] = torch.stack(list(losses.values())).sum()
        values = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
        self.watch.lap("render_s")
        self.watch.lap_when_backward_reaches(answer)
        self.engine.backward(losses["loss"], last)
        self.watch.lap("network_backward_s")
        return values

    def save(self, folder: Path, step: int) -> None:
        """Write a checkpoint, and the weights to use; all processes at once."""
        self.engine.save(folder / "checkpoints", step, {"norms": self.norms, "skipped": self.skipped})
        model = self.trained()
        if self.rank == 0:
            save_pretrained(model, folder)

    def trained(self) -> ReconstructionModel:
        """The network with the weights to use, apart from the one that learns; all processes at once."""
        model = ReconstructionModel(self.engine.module.config).to(self.device).eval()
        model.load_state_dict(self.engine.weights())
        model.bf16 = self.config.bf16
        return model


def train(config: TrainConfig, folder: Path) -> ReconstructionModel:
    """Train a network on the world, from the folder's last checkpoint if it has one; returns it.

    Writes log.jsonl, samples/, checkpoints/ and, at every checkpoint and at the end, model.safetensors + config.json.
    """
    trainer = Trainer(config)
    first_step = trainer.resume(folder)
    log = Log(config, folder, first_step) if trainer.rank == 0 else None
    peak = measure_matmul_peak(trainer.device, config.bf16) / 1e12
    batches = trainer.batches(first_step)
    saved_at = time.monotonic()
    with _progress(trainer.rank) as progress:
        task = progress.add_task("training", total=config.steps, completed=first_step, status="")
        for step in range(first_step, config.steps):
            values, batch = trainer.take_step(step, batches)
            if (step + 1) % config.sample_every == 0:
                model = trainer.trained()
                if log:
                    log.add_picture(step, sample_sheet(model, *batch))
            if log:
                means = log.add(step, values, {"skipped": trainer.skipped})
                progress.update(task, advance=1, **({"status": _describe(means, peak)} if means else {}))
            due = step + 1 == config.steps or time.monotonic() - saved_at > 60 * config.checkpoint_minutes
            if trainer.engine.agree(due):
                trainer.save(folder, step + 1)
                saved_at = time.monotonic()
    model = trainer.trained()
    if log:
        log.close()
    trainer.engine.close()
    return model


@torch.no_grad()
def sample_sheet(model: ReconstructionModel, context: WorldViews, targets: WorldViews) -> torch.Tensor:
    """The first scene's inputs, predictions, truth and error as a picture [3, height, width]."""
    context, targets = context[:1], targets[:1]
    rendering = model(context.views).gaussians.render(targets.views.cameras, targets.views.times)
    white = rendering.image.new_ones(3)
    given, truth = (views.composite(white)[0].cpu() for views in (context.views, targets.views))
    return reconstruction_sheet(given, rendering.image[0].cpu(), truth)


def _describe(means: dict[str, float], peak: float) -> str:
    rate = means["network_tflop_per_s"]
    skipped = f" {means['skipped']:.0f} skipped" if means["skipped"] else ""
    return (
        f"loss {means['loss']:.4f} color {means['color']:.4f} {means['step_s']:.2f}+{means['wait_s']:.2f} s "
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
