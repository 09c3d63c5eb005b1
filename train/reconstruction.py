"""Train the reconstruction network: python -m train.reconstruction CONFIG -o RUN [key=value ...].

    python -m train.reconstruction train/configs/debug.yaml -o runs/debug
    python -m train.reconstruction train/configs/small.yaml -o runs/small start_from=runs/grown
    torchrun --nproc_per_node 2 -m train.reconstruction train/configs/nano.yaml -o runs/nano

The same line again resumes the run from its last checkpoint.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.export.contact_sheet import reconstruction_sheet
from lrm4d.reconstruction import Reconstruction, ReconstructionModel
from lrm4d.reconstruction.pretrained import save_pretrained, start_from_pretrained
from train.command import run_command
from train.config import TrainConfig, geometry_weight_at
from train.data import Batch, load_batches
from train.objective import reconstruction_losses


class ReconstructionTask:
    """Pictures in, Gaussians out, judged by other pictures of the scene; see trainer.Task."""

    shown = ("color",)

    def __init__(self, config: TrainConfig):
        self.config = config

    def make_model(self) -> ReconstructionModel:
        """The network, untrained."""
        model = ReconstructionModel(self.config.model_config())
        model.bf16 = self.config.bf16
        model.transformer.checkpoint_activations = self.config.checkpoint_activations
        return model

    def start(self, model: ReconstructionModel) -> list[str]:
        """Weights of another network, as far as they fit."""
        return start_from_pretrained(model, self.config.start_from)

    def load_batches(self, rank: int, processes: int, device: torch.device, first_step: int) -> Iterable[Batch]:
        """Of the world or of shards."""
        return load_batches(self.config, rank, processes, device, first_step)

    def count_scenes(self, batch: Batch) -> int:
        """Its scenes."""
        return len(batch[0].views)

    def ask(self, forward: Callable[..., Reconstruction], batch: Batch) -> Reconstruction:
        """The scenes that the context shows."""
        return forward(batch[0].views)

    def losses(self, answer: Reconstruction, batch: Batch, step: int) -> dict[str, Tensor]:
        """The weighted terms and their sum."""
        weight = geometry_weight_at(self.config, step)
        losses = reconstruction_losses(answer, *batch, self.config.loss, weight)
        return {**losses, "loss": torch.stack(list(losses.values())).sum()}

    def outputs(self, answer: Reconstruction) -> list[Tensor]:
        """The Gaussians."""
        return [value for value in vars(answer.gaussians).values() if isinstance(value, Tensor)]

    def save(self, model: ReconstructionModel, folder: Path) -> None:
        """See pretrained.py."""
        save_pretrained(model, folder)

    @torch.no_grad()
    def draw(self, model: ReconstructionModel, batch: Batch) -> Float[Tensor, "3 height width"]:
        """The first scene's inputs, predictions, truth and error."""
        context, targets = (side[:1] for side in batch)
        rendering = model(context.views).gaussians.render(targets.views.cameras, targets.views.times)
        white = rendering.image.new_ones(3)
        given, truth = (views.composite(white)[0].cpu() for views in (context.views, targets.views))
        return reconstruction_sheet(given, rendering.image[0].cpu(), truth)


if __name__ == "__main__":
    run_command(__doc__, TrainConfig, ReconstructionTask)
