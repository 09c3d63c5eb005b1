"""Train the inpainter: python -m train.inpainter CONFIG -o RUN [key=value ...].

    python -m train.inpainter train/configs/inpainter_debug.yaml -o runs/inpainter_debug
    torchrun --nproc_per_node 2 -m train.inpainter train/configs/inpainter.yaml -o runs/inpainter

The same line again resumes the run from its last checkpoint. RUN is a folder for `lrm4d.generation`'s load_network.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.config import make_config
from lrm4d.export.contact_sheet import contact_sheet, error_pictures, spread
from lrm4d.generation.inpainter import NanoInpainter
from lrm4d.generation.network import InpaintingNetwork, NanoConfig, load_network, save_network
from lrm4d.generation.objective import Example, draw_example, example_losses
from train.command import run_command
from train.inpainter_config import InpainterConfig
from train.inpainter_data import InpaintingBatch, load_pairs

Answer = tuple[Example, Tensor]
COLUMNS = 8
"""Pictures of a sample's targets that are drawn."""


class InpainterTask:
    """Warps with holes in, whole pictures out; see trainer.Task."""

    shown = ("holes", "seen")

    def __init__(self, config: InpainterConfig):
        self.config = config
        self.network_config = make_config(NanoConfig, config.model)

    def make_model(self) -> InpaintingNetwork:
        """The network, untrained."""
        model = InpaintingNetwork(self.network_config)
        model.bf16 = self.config.bf16
        if self.config.checkpoint_activations:
            model.transformer.wan.enable_gradient_checkpointing()
        self.network = model
        return model

    def start(self, model: InpaintingNetwork) -> list[str]:
        """Another inpainter's weights, all of them: ValueError if they are of another shape."""
        other = load_network(self.config.start_from)
        if other.config != self.network_config:
            raise ValueError(f"start_from={self.config.start_from}: {other.config}; expected {self.network_config}.")
        model.load_state_dict(other.state_dict())
        return []

    def load_batches(
        self, rank: int, processes: int, device: torch.device, first_step: int
    ) -> Iterable[InpaintingBatch]:
        """Of the world."""
        return load_pairs(self.config, rank, processes, device, first_step)

    def count_scenes(self, batch: InpaintingBatch) -> int:
        """Its samples."""
        return len(batch)

    def ask(self, forward: Callable[..., Tensor], batch: InpaintingBatch) -> Answer:
        """The clean targets at noise that the batch's seed fixes."""
        config, generator = self.config, torch.Generator().manual_seed(batch.seed)
        given = (batch.layout, batch.images, batch.visibility, batch.cameras, batch.truth)
        levels = (config.drop, config.level_center, config.level_spread)
        example = draw_example(self.network, *given, generator, *levels)
        return example, forward(*example.inputs)

    def losses(self, answer: Answer, batch: InpaintingBatch, step: int) -> dict[str, Tensor]:
        """The flow's loss, and its parts in holes and outside."""
        example, made = answer
        return example_losses(made, example, self.config.hole_weight)

    def outputs(self, answer: Answer) -> list[Tensor]:
        """The predicted pictures."""
        return [answer[1]]

    def save(self, model: InpaintingNetwork, folder: Path) -> None:
        """See network.py."""
        save_network(model, folder)

    def draw(self, model: InpaintingNetwork, batch: InpaintingBatch) -> Float[Tensor, "3 height width"]:
        """The first sample's given pictures, warps, completed pictures, truth and error; holes are grey."""
        batch = batch[:1]
        inpaint = NanoInpainter(model, batch.images.device)
        made = inpaint(batch.layout, batch.images, batch.visibility, batch.cameras, steps=self.config.sample_steps)
        warps = torch.where(batch.visibility, batch.images, 0.5)[0].cpu()
        targets = [index for index, slot in enumerate(batch.layout.shown) if slot.target]
        given = [index for index, slot in enumerate(batch.layout.shown) if slot.clean]
        chosen = spread(len(targets), COLUMNS)
        made, truth = made[0].cpu()[chosen], batch.truth[0].cpu()[chosen]
        rows = {f"given {len(given)}": warps[given][spread(len(given), COLUMNS)]} if given else {}
        rows |= {"warp": warps[targets][chosen], "completed": made, "truth": truth}
        return contact_sheet({**rows, "error": error_pictures(made, truth)})


if __name__ == "__main__":
    run_command(__doc__, InpainterConfig, InpainterTask)
