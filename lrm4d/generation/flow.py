"""Rectified flow: z_t = (1 - t) z0 + t e, v = e - z0, with noise level t from 0 (the picture) to 1 (noise)."""

from collections.abc import Callable

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from jaxtyping import Float
from torch import Tensor

Progress = Callable[[str, int, int], None]
"""Told (stage, done, total) while something takes long."""

MIN_LEVEL = 0.05
"""Below, a predicted clean picture says no more about the velocity (Li and He, arXiv 2511.13720)."""
SAMPLERS = ("euler", "dpm", "unipc")


def add_noise(
    clean: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"], level: Float[Tensor, "*level"]
) -> Float[Tensor, "*shape"]:
    """(1 - t) z0 + t e; levels in [0, 1] that broadcast."""
    return (1 - level) * clean + level * noise


def velocity_of(
    noisy: Float[Tensor, "*shape"], clean: Float[Tensor, "*shape"], level: Float[Tensor, "*level"]
) -> Float[Tensor, "*shape"]:
    """The velocity e - z0 = (z_t - z0) / t that leads from a noisy picture to a clean one."""
    return (noisy - clean) / level


def clean_of(
    noisy: Float[Tensor, "*shape"], velocity: Float[Tensor, "*shape"], level: Float[Tensor, "*level"]
) -> Float[Tensor, "*shape"]:
    """The clean picture z0 = z_t - t v that a velocity leads to."""
    return noisy - level * velocity


def draw_noise_levels(
    count: int, generator: torch.Generator, center: float | None = None, spread: float = 1.0
) -> Float[Tensor, "count"]:
    """Noise levels to train at: uniform in [0, 1] or, with a center, logit-normal, sigmoid(center + spread n), which
    spends training where it is hardest (Esser et al., arXiv 2403.03206); a center above 0 means more noise."""
    if center is None:
        return torch.rand(count, generator=generator)
    return torch.sigmoid(center + spread * torch.randn(count, generator=generator))


def flow_loss(
    predicted: Float[Tensor, "batch target channel height width"],
    clean: Float[Tensor, "batch target channel height width"],
    noisy: Float[Tensor, "batch target channel height width"],
    level: Float[Tensor, "batch"],
    weights: Float[Tensor, "batch target 1 height width"],
) -> Float[Tensor, ""]:
    """The mean squared error of the velocity, as a predicted clean picture implies it, weighted by pixel.

    |z0' - z0|^2 / t^2 is the velocity's error; t is kept above MIN_LEVEL (arXiv 2511.13720). Weights are normalized.
    """
    scale = level.clamp(min=MIN_LEVEL)[:, None, None, None, None]
    error = (velocity_of(noisy, predicted, scale) - velocity_of(noisy, clean, scale)).square()
    weights = weights.expand_as(error)
    return (error * weights).sum() / weights.sum().clamp(min=1e-6)


def warp_noise_level(level: Float[Tensor, "*batch"], coverage: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """How strongly a warp is noised at the target's noise level: t / 5 where the warp is whole (See3D), up to t where
    nothing is seen (SEE4D: more noise where the mask is sparse), in between linear in the coverage in [0, 1]."""
    return level * (1 - 0.8 * coverage)


def warp_weight(warp_level: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """See3D's weight w of the noised warp against the noisy target, w * warp + (1 - w) * z_t.

    Of t' = 1000 * the warp's noise level: 0.8 exp(-0.075 (60 - t')) below 60, from 0.8 to 1 over [60, 200], then 1.
    So the warp gives the structure, and the last steps are left to the picture that has been made from it.
    """
    steps = 1000 * warp_level
    rising = 0.8 + 0.2 * ((steps - 60) / 140).clamp(0, 1)
    return torch.where(steps < 60, 0.8 * torch.exp(-0.075 * (60 - steps)), rising)


def condition_warp(
    warp: Float[Tensor, "batch slot channel height width"],
    noisy: Float[Tensor, "batch slot channel height width"],
    noise: Float[Tensor, "batch slot channel height width"],
    level: Float[Tensor, "batch slot"],
    coverage: Float[Tensor, "batch slot"],
) -> Float[Tensor, "batch slot channel height width"]:
    """Noise-adaptive conditioning: the warp, noised by its coverage and mixed with the noisy target."""
    warp_level = warp_noise_level(level, coverage)
    weight = warp_weight(warp_level)[:, :, None, None, None]
    return weight * add_noise(warp, noise, warp_level[:, :, None, None, None]) + (1 - weight) * noisy


def make_scheduler(sampler: str, shift: float = 1.0) -> SchedulerMixin:
    """A diffusers scheduler for flow matching; sampler: euler, dpm (2nd order, multistep) or unipc.

    shift: above 1 spends more of the steps at high noise, t -> shift t / (1 + (shift - 1) t); Wan uses 3 to 5.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"no sampler called {sampler!r}: there are {', '.join(SAMPLERS)}.")
    if sampler == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=shift)
    multistep = DPMSolverMultistepScheduler if sampler == "dpm" else UniPCMultistepScheduler
    return multistep(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


def _set_steps(scheduler: SchedulerMixin, steps: int) -> None:
    """Euler's own steps end with one from t = 0.001, which would be wasted; these are even down to 1 / steps."""
    if steps < 1:
        raise ValueError(f"{steps} steps: at least one is needed.")
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        scheduler.set_timesteps(sigmas=[1 - step / steps for step in range(steps)])
    else:
        scheduler.set_timesteps(steps)


def sample_flow(
    velocity: Callable[[Tensor, float], Tensor],
    noise: Float[Tensor, "batch channel *shape"],
    steps: int,
    sampler: str = "dpm",
    shift: float = 1.0,
    known: tuple[Tensor, Tensor] | None = None,
    progress: Progress | None = None,
) -> Float[Tensor, "batch channel *shape"]:
    """Follow a velocity field v(z_t, t) from noise to a picture.

    known: (pictures, where they are known as 0 or 1, broadcasting); what is known is kept: on its straight way from
    the same noise during sampling, so that the rest fits to it, and exactly at the end. None makes everything anew.
    """
    scheduler = make_scheduler(sampler, shift)
    _set_steps(scheduler, steps)
    state = noise
    for step, timestep in enumerate(scheduler.timesteps):
        level = float(scheduler.sigmas[step])
        if known is not None:
            state = torch.where(known[1] > 0.5, add_noise(known[0], noise, torch.tensor(level)), state)
        state = scheduler.step(velocity(state, level), timestep, state, return_dict=False)[0]
        if progress is not None:
            progress("generate", step + 1, len(scheduler.timesteps))
    return state if known is None else torch.where(known[1] > 0.5, known[0], state)


def guide(
    conditional: Float[Tensor, "*shape"], free: Float[Tensor, "*shape"], scale: float
) -> Float[Tensor, "*shape"]:
    """Classifier-free guidance: scale 1 is the conditional velocity, above 1 goes beyond it."""
    return free + scale * (conditional - free)
