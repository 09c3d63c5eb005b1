"""What an inpainter is trained for: true pictures, from noisy ones and warps with holes, at every noise level."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.generation.flow import add_noise, draw_noise_levels, flow_loss
from lrm4d.generation.layout import TokenLayout
from lrm4d.generation.network import Conditions, InpaintingNetwork


@dataclass(frozen=True)
class Example:
    """A batch at the noise that was drawn for it: what the network is asked, and what it should answer.

    layout, noisy, level, conditions, dropped: the network's inputs, see InpaintingNetwork. clean: the true targets in
    [-1, 1]. seen: whether the warp shows them, [batch, target, 1, height, width].
    """

    layout: TokenLayout
    noisy: Float[Tensor, "batch target 3 height width"]
    level: Float[Tensor, "batch"]
    conditions: Conditions
    dropped: Bool[Tensor, "batch"]
    clean: Float[Tensor, "batch target 3 height width"]
    seen: Bool[Tensor, "batch target 1 height width"]

    @property
    def inputs(self) -> tuple[TokenLayout, Tensor, Tensor, Conditions, Tensor]:
        """What InpaintingNetwork.forward takes."""
        return self.layout, self.noisy, self.level, self.conditions, self.dropped


def draw_example(
    network: InpaintingNetwork,
    layout: TokenLayout,
    images: Float[Tensor, "batch picture 3 height width"],
    visibility: Bool[Tensor, "batch picture 1 height width"],
    cameras: Cameras,
    truth: Float[Tensor, "batch target 3 height width"],
    generator: torch.Generator,
    drop: float = 0.1,
    level_center: float | None = 0.8,
    level_spread: float = 0.8,
) -> Example:
    """Draw noise levels, noise and which samples go without their warps.

    images, visibility, cameras: as an Inpainter takes them, sides being multiples of the network's patch. truth: the
    targets, [0, 1]. drop: how often all warps are withheld (See3D: 0.1). level_center, level_spread: logits of the
    noise levels, see `draw_noise_levels`. The weights of the network are not looked at.
    """
    conditions = network.condition(layout, images, visibility, cameras, generator)
    clean = truth * 2 - 1
    level = draw_noise_levels(len(truth), generator, level_center, level_spread).to(truth)
    noise = torch.randn(clean.shape, generator=generator).to(truth)
    noisy = add_noise(clean, noise, level[:, None, None, None, None])
    dropped = (torch.rand(len(truth), generator=generator) < drop).to(truth.device)
    targets = [index for index, slot in enumerate(layout.shown) if slot.target]
    return Example(layout, noisy, level, conditions, dropped, clean, visibility[:, targets])


def example_losses(
    answer: Float[Tensor, "batch target 3 height width"], example: Example, hole_weight: float = 1.0
) -> dict[str, Float[Tensor, ""]]:
    """The flow's loss on the targets: "loss" with so much weight on pixels that are not seen, against 1; "holes" and
    "seen", the same of these pixels alone (0 where there are none)."""
    weights = {
        "loss": torch.where(example.seen, 1.0, hole_weight),
        "holes": (~example.seen).float(),
        "seen": example.seen.float(),
    }
    given = (example.clean, example.noisy, example.level)
    return {name: flow_loss(answer, *given, weight.to(answer)) for name, weight in weights.items()}
