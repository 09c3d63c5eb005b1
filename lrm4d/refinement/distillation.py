"""Flow matching distillation (Full-4D, arXiv 2605.25500): an inpainter tells how renders of a scene should change.

A render is noised to a level tau and the teacher says, in one call, which clean picture it takes that for. The render
is drawn towards it: with z the encoded render and e noise, z_tau = (1 - tau) z + tau e, f = z_tau - tau v(z_tau, tau),
and the loss is w(tau) |f - z|^2. Nothing flows into the teacher: the gradient by z is 2 w(tau) (z - f), no more.

Any renderer will do that gives pictures with a gradient, and any teacher that has the three methods of `Teacher`.
"""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lrm4d.cameras import Cameras
from lrm4d.generation.flow import add_noise, clean_of
from lrm4d.generation.inpainter import NanoInpainter, check_pictures, pad_pictures
from lrm4d.generation.layout import TokenLayout

SPACES = ("latent", "picture")


@dataclass(frozen=True)
class DistillationConfig:
    """How a teacher is asked and how much is heard of it.

    weight: lambda, of the whole loss. levels: the range of tau, drawn evenly; high levels ask for the whole picture,
    low ones for its detail. level_power: w(tau) = weight * tau ** level_power; 0 compares clean pictures, -2
    velocities. guidance: 1 asks the conditional teacher alone, above goes beyond it at twice the cost.
    space: "latent" draws z to f and pulls that back through the encoder, which is run once more for it, so that the
    encoder's activations and the denoiser's are never held together. "picture" decodes f without a gradient and draws
    the render to that: nothing flows through the autoencoder (the Jacobian that SDS too leaves out), the least memory.
    In pixel-space teachers, which encode by a scale, the two differ by a constant factor.
    Raises ValueError for what cannot be.
    """

    weight: float = 1.0
    levels: tuple[float, float] = (0.5, 0.95)
    level_power: float = 0.0
    guidance: float = 1.0
    space: str = "latent"

    def __post_init__(self) -> None:
        low, high = self.levels
        if not 0 < low <= high <= 1:
            raise ValueError(f"distillation: levels {low:g} to {high:g}; expected 0 < low <= high <= 1.")
        if not self.weight >= 0:
            raise ValueError(f"distillation: weight {self.weight:g}; expected a number from 0.")
        if self.space not in SPACES:
            raise ValueError(f"distillation: space {self.space!r}; expected one of {', '.join(SPACES)}.")


@runtime_checkable
class Teacher(Protocol):
    """A flow-matching denoiser with its conditions: what it knows of the pictures that it is asked about."""

    def encode(
        self, images: Float[Tensor, "batch target 3 height width"]
    ) -> Float[Tensor, "batch frame c rows columns"]:
        """Pictures in [0, 1] as the states that it denoises; differentiable."""
        ...

    def decode(
        self, states: Float[Tensor, "batch frame c rows columns"]
    ) -> Float[Tensor, "batch target 3 height width"]:
        """The pictures in [0, 1] of clean states, as many and as large as encode took."""
        ...

    def velocity(
        self, noisy: Float[Tensor, "batch frame c rows columns"], level: float, guidance: float
    ) -> Float[Tensor, "batch frame c rows columns"]:
        """v(z_t, t) = e - z0, guided; asked without a gradient."""
        ...


class NanoTeacher:
    """The small inpainter on the targets of a layout. Its states are pixels in [-1, 1], padded to its patches."""

    def __init__(
        self,
        inpainter: NanoInpainter,
        layout: TokenLayout,
        images: Float[Tensor, "batch picture 3 height width"],
        visibility: Bool[Tensor, "batch picture 1 height width"],
        cameras: Cameras,
        seed: int = 0,
    ):
        """What an Inpainter takes; the targets' pictures are their warps, and black where not `visibility`."""
        check_pictures(layout, images, visibility, cameras)
        network, patch = inpainter.network, inpainter.network.config.patch
        self.inpainter, self.layout = inpainter, layout
        self.height, self.width = images.shape[-2:]
        padded = pad_pictures(images.to(inpainter.device), patch)
        seen = ~pad_pictures(~visibility.to(inpainter.device), patch, fill=True)
        cameras = replace(cameras.to(inpainter.device), width=padded.shape[-1], height=padded.shape[-2])
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.conditions = network.condition(layout, padded, seen, cameras, generator)

    def encode(
        self, images: Float[Tensor, "batch target 3 height width"]
    ) -> Float[Tensor, "batch target 3 rows columns"]:
        """See `Teacher`."""
        return pad_pictures(images.to(self.inpainter.device), self.inpainter.network.config.patch) * 2 - 1

    def decode(
        self, states: Float[Tensor, "batch target 3 rows columns"]
    ) -> Float[Tensor, "batch target 3 height width"]:
        """See `Teacher`."""
        return (states[..., : self.height, : self.width] / 2 + 0.5).clamp(0, 1)

    def velocity(
        self, noisy: Float[Tensor, "batch target 3 rows columns"], level: float, guidance: float
    ) -> Float[Tensor, "batch target 3 rows columns"]:
        """See `Teacher`."""
        return self.inpainter.velocity(self.layout, noisy, level, self.conditions, guidance)


@dataclass(frozen=True)
class Distillation:
    """A teacher and how it is asked; call `loss` with fresh renders at each step."""

    config: DistillationConfig
    teacher: Teacher

    def loss(
        self, renders: Float[Tensor, "batch target 3 height width"], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """w(tau) times the mean squared distance of the renders, in [0, 1], from what the teacher takes them for.

        One call of the denoiser (two with guidance). generator: of tau and the noise, on the CPU.
        """
        level = draw_level(self.config.levels, generator)
        weight = self.config.weight * level**self.config.level_power
        clean = self.estimate(renders, level, generator)
        if self.config.space == "picture":
            return weight * (renders - self.teacher.decode(clean).to(renders)).square().mean()
        # Under checkpoint only the renders are kept until the backward pass, which runs the encoder again.
        states: Tensor = checkpoint(self.teacher.encode, renders, use_reentrant=False)
        return weight * (states - clean).square().mean()

    @torch.no_grad()
    def estimate(
        self, renders: Float[Tensor, "batch target 3 height width"], level: float, generator: torch.Generator
    ) -> Float[Tensor, "batch frame c rows columns"]:
        """f: the clean states that the teacher takes the renders for, once noised to a level. No gradient."""
        states = self.teacher.encode(renders)
        noise = torch.randn(states.shape, generator=generator, dtype=states.dtype).to(states.device)
        tau = states.new_tensor(level)
        noisy = add_noise(states, noise, tau)
        return clean_of(noisy, self.teacher.velocity(noisy, level, self.config.guidance), tau)


def draw_level(levels: tuple[float, float], generator: torch.Generator) -> float:
    """A noise level, evenly from a range."""
    low, high = levels
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))
