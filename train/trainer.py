"""The loop: batches in, updates out, with a log, sample pictures and checkpoints to resume from."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data_tools.world import WorldViews
from lrm4d.export.contact_sheet import reconstruction_sheet
from lrm4d.reconstruction import ReconstructionModel
from lrm4d.reconstruction.pretrained import save_pretrained, start_from_pretrained
from lrm4d.scenes.pictures import save_picture
from train.config import TrainConfig, ema_decay_at, geometry_weight_at, learning_rate_at
from train.data import keep_freed_memory, load_batches
from train.engine import Engine, start_processes
from train.objective import reconstruction_losses
from train.optimizer import make_optimizer

Batch = tuple[WorldViews, WorldViews]


class Log:
    """log.jsonl in the run's folder: one line each `every` steps, with the means since the last."""

    def __init__(self, path: Path, every: int):
        self.path, self.every = path, every
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, step: int, values: dict[str, float]) -> dict[str, float] | None:
        """Add a step's values; returns the means when a line was written."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        if (step + 1) % self.every:
            return None
        means = {name: round(value / self.count, 5) for name, value in self.sums.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step + 1, **means}) + "\n")
        self.sums, self.count = {}, 0
        return means


def train(config: TrainConfig, folder: Path) -> ReconstructionModel:
    """Train a network on the world, from the folder's last checkpoint if it has one; returns it.

    Writes log.jsonl, samples/, checkpoints/ and, at every checkpoint and at the end, model.safetensors + config.json.
    """
    keep_freed_memory()
    rank, world_size, device = start_processes()
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    model = ReconstructionModel(config.model_config())
    if config.start_from:
        missing = start_from_pretrained(model, config.start_from)
        print(f"not in {config.start_from}, so untrained: {', '.join(missing) or 'nothing'}")
    model.train().to(device).bf16 = config.bf16
    optimizer = make_optimizer(config.optimizer, model, config.learning_rate, config.weight_decay)
    engine = Engine(model, optimizer, config.clip, config.deepspeed, config.accumulate, average=config.ema > 0)
    first_step = engine.load(folder / "checkpoints")
    log = Log(folder / "log.jsonl", config.log_every)
    folder.mkdir(parents=True, exist_ok=True)
    saved_at = time.monotonic()
    with _progress(rank) as progress:
        task = progress.add_task("training", total=config.steps, completed=first_step, status="")
        batches = iter(load_batches(config, rank, world_size, device, first_step))
        for step in range(first_step, config.steps):
            values, batch = _step(engine, config, step, batches)
            means = log.add(step, values) if rank == 0 else None
            progress.update(task, advance=1, **({"status": _describe(means)} if means else {}))
            if rank == 0 and (step + 1) % config.sample_every == 0:
                _save_sample(_shipped(engine), *batch, folder / "samples" / f"step_{step + 1}.png")
            due = step + 1 == config.steps or time.monotonic() - saved_at > 60 * config.checkpoint_minutes
            if engine.agree(due):
                _save(engine, folder, step + 1, rank)
                saved_at = time.monotonic()
    return _shipped(engine)


def _step(engine: Engine, config: TrainConfig, step: int, batches: Iterator[Batch]) -> tuple[dict[str, float], Batch]:
    """One update from config.accumulate batches; returns what to log (losses: means over them) and the last batch."""
    values: dict[str, float] = {}
    waited, started = 0.0, time.monotonic()
    for micro in range(config.accumulate):
        asked = time.monotonic()
        context, targets = next(batches)
        waited += time.monotonic() - asked
        answer = engine.forward(context.views)
        losses = reconstruction_losses(answer, context, targets, config.loss, geometry_weight_at(config, step))
        losses["loss"] = torch.stack(list(losses.values())).sum()
        for name, value in losses.items():
            values[name] = values.get(name, 0.0) + value.item() / config.accumulate
        values["scenes"] = values.get("scenes", 0) + len(context.views)
        engine.backward(losses["loss"], last=micro + 1 == config.accumulate)
    norm = engine.step(learning_rate_at(config, step), ema_decay_at(config, step))
    values |= {"norm": norm, "skipped": float(not math.isfinite(norm))}
    values |= {"wait_s": waited, "step_s": time.monotonic() - started - waited}
    return values, (context, targets)


def _save(engine: Engine, folder: Path, step: int, rank: int) -> None:
    engine.save(folder / "checkpoints", step)
    if rank == 0:
        save_pretrained(_shipped(engine), folder)


def _shipped(engine: Engine) -> ReconstructionModel:
    """The network with the weights that are saved, apart from the one that learns."""
    model = ReconstructionModel(engine.module.config).to(engine.engine.device).eval()
    model.load_state_dict(engine.weights())
    model.bf16 = engine.module.bf16
    return model


@torch.no_grad()
def _save_sample(model: ReconstructionModel, context: WorldViews, targets: WorldViews, path: Path) -> None:
    """The first scene's inputs, predictions, truth and error as a picture."""
    context, targets = context[:1], targets[:1]
    answer = model(context.views)
    rendering = answer.gaussians.render(targets.views.cameras, targets.views.times)
    white = rendering.image.new_ones(3)
    given, truth = (views.composite(white)[0].cpu() for views in (context.views, targets.views))
    save_picture(path, reconstruction_sheet(given, rendering.image[0].cpu(), truth))


def _describe(means: dict[str, float]) -> str:
    color = means["color"]
    return f"loss {means['loss']:.4f} color {color:.4f} {means['step_s']:.2f}+{means['wait_s']:.2f} s"


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
