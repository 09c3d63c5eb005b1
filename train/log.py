"""What a run tells: log.jsonl and pictures in its folder, and the same to TensorBoard and Weights & Biases."""

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.scenes.pictures import save_picture
from train.config import RunConfig


class Board(Protocol):
    """Somewhere numbers and pictures go besides the run's folder."""

    def add_numbers(self, step: int, numbers: dict[str, float]) -> None:
        """Numbers of a step."""

    def add_picture(self, step: int, picture: Float[Tensor, "3 height width"]) -> None:
        """A picture in [0, 1]."""

    def close(self) -> None:
        """Write what is not yet written."""


class TensorBoard:
    """Event files in the run's folder: tensorboard --logdir RUN."""

    def __init__(self, config: RunConfig, folder: Path, first_step: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboard") from error
        # What a killed run had written of the steps that come again is hidden.
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def add_numbers(self, step: int, numbers: dict[str, float]) -> None:
        """Numbers of a step."""
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def add_picture(self, step: int, picture: Float[Tensor, "3 height width"]) -> None:
        """A picture in [0, 1]."""
        self.writer.add_image("sample", picture, step)

    def close(self) -> None:
        """Write what is not yet written."""
        self.writer.close()


class WeightsAndBiases:
    """A run of the project lrm4d; its id comes from the folder, so that the same line again goes on with it."""

    def __init__(self, config: RunConfig, folder: Path, first_step: int):
        try:
            import wandb
        except ImportError as error:
            raise _missing("wandb") from error
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
        self.wandb = wandb
        self.run = wandb.init(
            project="lrm4d", id=name, name=folder.name, dir=folder, resume="allow", config=asdict(config)
        )

    def add_numbers(self, step: int, numbers: dict[str, float]) -> None:
        """Numbers of a step."""
        self.run.log(numbers, step=step)

    def add_picture(self, step: int, picture: Float[Tensor, "3 height width"]) -> None:
        """A picture in [0, 1]."""
        pixels = (picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        self.run.log({"sample": self.wandb.Image(pixels)}, step=step)

    def close(self) -> None:
        """Write what is not yet written."""
        self.run.finish()


BOARDS: dict[str, type[Board]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def _missing(package: str) -> ValueError:
    return ValueError(f"log_to={package} needs a package that is not installed: pip install {package}")


class Log:
    """log.jsonl in the run's folder, and the boards: one line each config.log_every steps, means since the last.

    Of several processes, the one of rank 0 has it.
    """

    def __init__(self, config: RunConfig, folder: Path, first_step: int):
        for name in config.log_to:
            if name not in BOARDS:
                raise ValueError(f"log_to: {name!r} is not one of {', '.join(BOARDS)}.")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.every = folder, config.log_every
        self.boards = [BOARDS[name](config, folder, first_step) for name in config.log_to]
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def add(self, step: int, values: dict[str, float], totals: dict[str, float]) -> dict[str, float] | None:
        """Add a step's values; returns the means (over the steps that have them) and the totals when a line was
        written."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        if (step + 1) % self.every:
            return None
        means = {name: value / self.counts[name] for name, value in self.sums.items()}
        self.sums, self.counts = {}, {}
        line = {name: _round(value) for name, value in {**with_rates(means), **totals}.items()}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": step + 1, **line}) + "\n")
        for board in self.boards:
            board.add_numbers(step + 1, line)
        return line

    def add_picture(self, step: int, picture: Float[Tensor, "3 height width"]) -> None:
        """A sample picture, to the folder's samples/ and to the boards."""
        save_picture(self.folder / "samples" / f"step_{step + 1}.png", picture)
        for board in self.boards:
            board.add_picture(step + 1, picture)

    def close(self) -> None:
        """Write what is not yet written."""
        for board in self.boards:
            board.close()


def with_rates(means: dict[str, Any]) -> dict[str, float]:
    """Means of steps, and from them scenes a second and the network's TFLOP/s, forward and backward."""
    rates = {"scenes_per_s": means["scenes"] / max(means["step_s"] + means["wait_s"], 1e-9)}
    network = means["network_s"] + means["network_backward_s"]
    return {**means, **rates, "network_tflop_per_s": means["network_tflop"] / max(network, 1e-9)}


def _round(value: float) -> float:
    """Five digits after the point, or five that say something."""
    return float(f"{value:.5g}") if math.isfinite(value) and abs(value) < 1 else round(value, 5)
