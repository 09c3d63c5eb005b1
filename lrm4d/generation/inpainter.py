"""Inpainters: warps with holes and pictures beside them to whole pictures. The protocol, the small one, its loss."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from lrm4d.cameras import Cameras
from lrm4d.generation.flow import Progress, guide, sample_flow, velocity_of
from lrm4d.generation.layout import TokenLayout
from lrm4d.generation.network import Conditions, InpaintingNetwork, load_network
from lrm4d.generation.objective import draw_example, example_losses
from lrm4d.generation.transformer import load_lora


@dataclass(frozen=True)
class Sampling:
    """How an inpainter is asked; see `Inpainter`."""

    steps: int = 10
    guidance: float = 1.0
    seed: int = 0
    keep_known: bool = False
    text: str | None = None


@runtime_checkable
class Inpainter(Protocol):
    """Anything that completes the targets of a layout. usual: how it is asked where nothing else is said."""

    usual: ClassVar[Sampling]

    def __call__(
        self,
        layout: TokenLayout,
        images: Float[Tensor, "batch picture 3 height width"],
        visibility: Bool[Tensor, "batch picture 1 height width"],
        cameras: Cameras,
        *,
        text: str | None = None,
        seed: int = 0,
        steps: int = 10,
        guidance: float = 1.0,
        keep_known: bool = False,
        progress: Progress | None = None,
    ) -> Float[Tensor, "batch target 3 height width"]:
        """The layout's targets, whole, in [0, 1].

        images: in [0, 1], one for each of `layout.shown` in order: finished pictures for source and context slots,
        warps for targets. visibility: True = seen. cameras: [batch, picture], of the pictures' size.
        keep_known: give back what was seen as it was; without, the model may mend the warp's errors.
        """
        ...


class NanoInpainter:
    """The small inpainter on a device. Trained at high noise levels, so that few steps are enough."""

    usual = Sampling(steps=1, keep_known=True)

    def __init__(self, network: InpaintingNetwork, device: torch.device, sampler: str = "dpm"):
        self.network = network.eval().to(device)
        self.device = device
        self.sampler = sampler

    @staticmethod
    def from_pretrained(
        name_or_folder: str | Path = "nano",
        device: str = "cpu",
        lora: str | Path | None = None,
        lora_weight: float = 1.0,
    ) -> "NanoInpainter":
        """Shipped weights by name, a folder, or a hub id (see `load_network`), with low-rank layers, as `tune` makes
        them, at a weight (see `load_lora`)."""
        network = load_network(name_or_folder)
        if lora is not None:
            load_lora(network.transformer.wan, lora, lora_weight)
        return NanoInpainter(network, torch.device(device))

    @torch.no_grad()
    def __call__(
        self,
        layout: TokenLayout,
        images: Float[Tensor, "batch picture 3 height width"],
        visibility: Bool[Tensor, "batch picture 1 height width"],
        cameras: Cameras,
        *,
        text: str | None = None,
        seed: int = 0,
        steps: int = 2,
        guidance: float = 1.0,
        keep_known: bool = False,
        progress: Progress | None = None,
    ) -> Float[Tensor, "batch target 3 height width"]:
        """See `Inpainter`. Pictures of any size; ValueError on a text, which this network does not understand."""
        check_pictures(layout, images, visibility, cameras)
        if text:
            raise ValueError(f"the nano inpainter understands no text, got {text!r}; use a Wan checkpoint for that.")
        height, width = images.shape[-2:]
        padded = pad_pictures(images.to(self.device), self.network.config.patch)
        holes = ~visibility.to(self.device)
        seen = ~pad_pictures(holes, self.network.config.patch, fill=True)
        cameras = replace(cameras.to(self.device), width=padded.shape[-1], height=padded.shape[-2])
        generator = torch.Generator().manual_seed(seed)
        conditions = self.network.condition(layout, padded, seen, cameras, generator)
        targets = [index for index, slot in enumerate(layout.shown) if slot.target]
        known = (conditions.images[:, targets], conditions.visibility[:, targets]) if keep_known else None
        noise = torch.randn(conditions.images[:, targets].shape, generator=generator).to(padded)

        def velocity(state: Tensor, level: float) -> Tensor:
            return self.velocity(layout, state, level, conditions, guidance)

        made = sample_flow(velocity, noise, steps, self.sampler, known=known, progress=progress)
        return (made[..., :height, :width] / 2 + 0.5).clamp(0, 1).to(images)

    def velocity(
        self, layout: TokenLayout, noisy: Tensor, level: float, conditions: Conditions, guidance: float = 1.0
    ) -> Float[Tensor, "batch target 3 height width"]:
        """v(z_t, t), guided: what samplers follow, and what flow matching distillation asks."""
        levels = torch.full((len(noisy),), level, device=noisy.device)
        dropped = torch.zeros(len(noisy), dtype=torch.bool, device=noisy.device)
        clean = self.network(layout, noisy, levels, conditions, dropped)
        if guidance != 1:
            clean = guide(clean, self.network(layout, noisy, levels, conditions, ~dropped), guidance)
        return velocity_of(noisy, clean, torch.tensor(level))


def training_loss(
    network: InpaintingNetwork,
    layout: TokenLayout,
    truth: Float[Tensor, "batch picture 3 height width"],
    warps: Float[Tensor, "batch picture 3 height width"],
    visibility: Bool[Tensor, "batch picture 1 height width"],
    cameras: Cameras,
    generator: torch.Generator,
    hole_weight: float = 1.0,
    drop: float = 0.1,
    level_center: float | None = 0.8,
    level_spread: float = 0.8,
) -> Float[Tensor, ""]:
    """The flow's loss on the targets of one batch; differentiable in the network.

    truth: what the pictures are, [0, 1]. warps, visibility: of targets; other slots' are not looked at and count as
    seen. hole_weight: of pixels that are not seen, against 1. drop: how often all warps are withheld (See3D: 0.1).
    level_center, level_spread: logits of the noise levels, see `draw_noise_levels`.
    """
    is_target = torch.tensor([slot.target for slot in layout.shown], device=truth.device)[:, None, None, None]
    targets = [index for index, slot in enumerate(layout.shown) if slot.target]
    images, seen = torch.where(is_target, warps, truth), visibility | ~is_target
    example = draw_example(
        *(network, layout, images, seen, cameras, truth[:, targets], generator, drop, level_center, level_spread)
    )
    return example_losses(network(*example.inputs), example, hole_weight)["loss"]


def check_pictures(layout: TokenLayout, images: Tensor, visibility: Tensor, cameras: Cameras) -> None:
    """ValueError unless there is one picture, mask and camera for each slot that wants one, all of one size."""
    wanted = (len(images), len(layout.shown))
    if images.shape[:2] != wanted or visibility.shape[:2] != wanted or cameras.shape != wanted:
        raise ValueError(
            f"{images.shape[1]} pictures, {visibility.shape[1]} masks and cameras {tuple(cameras.shape)}: "
            f"this layout takes {wanted[1]} of each (one for each slot that is no warp slot)."
        )
    sizes = {tuple(images.shape[-2:]), tuple(visibility.shape[-2:]), (cameras.height, cameras.width)}
    if len(sizes) > 1:
        raise ValueError(f"pictures, masks and cameras have different sizes (height, width): {sorted(sizes)}.")
    if not layout.targets:
        raise ValueError("the layout has no target slot, so there is nothing to make.")


def pad_pictures(images: Tensor, multiple: int, fill: bool | None = None) -> Tensor:
    """Pictures [..., height, width] grown at the right and below to multiples of a number of pixels.

    The last row and column are repeated or, with fill, the new pixels are that. Cropping undoes it.
    """
    bottom, right = (-size % multiple for size in images.shape[-2:])
    if fill is not None:
        return pad(images, (0, right, 0, bottom), value=fill)
    flat = images.flatten(0, -4) if images.ndim > 4 else images
    grown = pad(flat, (0, right, 0, bottom), mode="replicate")
    return grown.reshape(*images.shape[:-2], *grown.shape[-2:])
