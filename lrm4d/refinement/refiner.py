"""The loop: pictures in, gradients down. The result can be had at any time before its end."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.checkpoint import read_safetensors, write_safetensors
from lrm4d.gaussians4d import Gaussians4D
from lrm4d.refinement.config import RefinementConfig, rates_at, reach_at, weights_at
from lrm4d.refinement.fit import Fit, Render
from lrm4d.refinement.objective import Pictures, expose, exposure_loss, picture_loss, plausibility_loss
from lrm4d.views import Views

FORMAT = "lrm4d.refinement"
PRIOR_POOL, RUN = 72, 12
"""Pictures of its scene that the prior chooses from; drawn so many at once."""
Progress = Callable[[str, int, int], None]
Level = tuple[Cameras, Pictures, Pictures | None]
"""The inputs' cameras at one size, the inputs, and the prior's pictures."""
ExtraLoss = Callable[[Render, int], Tensor]
"""(render, step) -> a term of the loss: a teacher, for example."""


class Refiner:
    """A fit in the making."""

    def __init__(
        self,
        start: Gaussians4D,
        views: Views,
        config: RefinementConfig,
        confidences: Float[Tensor, "view 1 height width"] | None = None,
        extra_loss: ExtraLoss | None = None,
        member: int = 0,
        prior: Gaussians4D | None = None,
    ):
        """start: one scene. views: [view], the inputs, generated ones too, each pixel counting by its confidence.

        member: which of the config's fits, each with an origin and chances of its own. prior: the scene whose renders
        join the inputs, the start by default. Everything is done on the start's device.
        """
        self.start, self.config, self.extra_loss = start, config, extra_loss
        self.seed, self.member = config.seed + member, member
        self.views = views.to(start.means)
        if confidences is None:
            confidences = torch.ones_like(self.views.alphas)
        self.pictures = Pictures(self.views.images * self.views.alphas, self.views.alphas, confidences.to(start.means))
        self.fit = Fit(start, len(views), config, member)
        self.steps_done, self.elapsed = 0, 0.0
        self.footprint = self.views.footprint()
        self.cameras = self.views.cameras
        self.prior = self._draw_prior(prior or start) if config.weights.prior and config.prior_views else None
        self.half = _halve(self.cameras), self.pictures.halved(), self.prior[2].halved() if self.prior else None

    @torch.no_grad()
    def _draw_prior(self, scene: Gaussians4D) -> tuple[Tensor, Tensor, Pictures]:
        """The scene seen by the inputs' cameras at the inputs' times, other ones: (views, views, pictures)."""
        generator = torch.Generator().manual_seed(self.seed)
        seen_from, seen_at = (torch.randint(len(self.views), (PRIOR_POOL,), generator=generator) for _ in range(2))
        black = scene.means.new_zeros(3)
        drawn = []
        for i in range(0, PRIOR_POOL, RUN):
            cameras, times = self.views.cameras[seen_from[i : i + RUN]], self.views.times[seen_at[i : i + RUN]]
            drawn.append(scene.render(cameras, times, black))
        colors, alphas = (torch.cat([getattr(one, name) for one in drawn]) for name in ("image", "alpha"))
        return seen_from, seen_at, Pictures(colors, alphas, torch.ones_like(alphas))

    def progress(self, elapsed: float, seconds: float | None) -> float:
        """How much of the way is done, 1 at its end: the part of the steps, or of the seconds if that is larger."""
        of_time = 0.0 if seconds is None else 1.0 if elapsed >= seconds else elapsed / seconds
        return max(self.steps_done / self.config.steps, of_time)

    def step(self, progress: float) -> None:
        """One step of the way, `progress` of which is done."""
        config = self.config
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.steps_done)
        self._loss(progress, generator).backward()
        self.fit.step(rates_at(config.rates, progress))
        self.steps_done += 1
        if progress < config.density.until and self.steps_done % config.density.every == 0:
            self.fit.densify()

    def _loss(self, progress: float, generator: torch.Generator) -> Float[Tensor, ""]:
        config, fit = self.config, self.fit
        weights = weights_at(config.weights, progress)
        chosen = self._choose(self.views.times, config.views, progress, generator)
        all_cameras, truths, priors = self.half if progress < config.half_until else self._whole()
        cameras, times, truth = all_cameras[chosen], self.views.times[chosen], truths[chosen]
        if self.prior is not None:
            seen_from, seen_at, _ = self.prior
            others = self._choose(self.views.times[seen_at], config.prior_views, progress, generator)
            cameras = all_cameras[torch.cat([chosen, seen_from[others]])]
            times = torch.cat([times, self.views.times[seen_at[others]]])
        backgrounds = torch.rand(len(times), 3, generator=generator).to(times)
        drawn, shifts = fit.draw(cameras, times)
        inputs, rest = drawn.split(len(chosen))
        loss = plausibility_loss(fit.deforming, shifts, weights)
        if config.exposure:
            gains = fit.adam.parameters["exposures"]
            inputs = expose(inputs, gains[chosen])
            loss = loss + weights.exposure * exposure_loss(gains)
        loss = loss + picture_loss(inputs, truth, backgrounds[: len(chosen)], weights)
        if self.prior is not None:
            loss = loss + weights.prior * picture_loss(rest, priors[others], backgrounds[len(chosen) :], weights)
        if self.extra_loss is not None:
            loss = loss + self.extra_loss(fit.render, self.steps_done)
        return loss

    def _whole(self) -> Level:
        return self.cameras, self.pictures, self.prior[2] if self.prior else None

    def _choose(self, times: Tensor, count: int, progress: float, generator: torch.Generator) -> Tensor:
        """Indices, drawn with replacement among those within reach of the fit's origin."""
        origin = self.config.origins[self.member]
        distances = (times - origin).abs().cpu() / max(origin, 1 - origin)
        reach = max(reach_at(self.config.grow, progress), distances.min().item())
        allowed = (distances <= reach + 1e-6).nonzero()[:, 0]
        return allowed[torch.randint(len(allowed), (count,), generator=generator)].to(times.device)

    def result(self) -> Gaussians4D:
        """The scene as far as it is."""
        return self.fit.scene(self.config.tolerance * self.footprint)

    def save(self, path: str | Path) -> None:
        """Write all that is needed to go on, atomically."""
        tensors = {f"fit/{name}": value for name, value in self.fit.tensors().items()}
        header = {
            "format": FORMAT,
            "task": self._task(),
            "steps_done": self.steps_done,
            "elapsed": self.elapsed,
        }
        write_safetensors(path, tensors, {"lrm4d": json.dumps(header)})

    def load(self, path: str | Path) -> None:
        """Go on where a saved refinement of the same task was; ValueError if it is of another, or broken."""
        tensors, metadata = read_safetensors(path)
        header = json.loads(metadata.get("lrm4d", "{}"))
        if header.get("format") != FORMAT or header.get("task") != self._task():
            raise ValueError(
                f"{path}: the state of {header.get('task') or 'no refinement'}; this one is {self._task()}. "
                "Write into another folder, or delete the file to begin again."
            )
        self.fit.restore({name.removeprefix("fit/"): value for name, value in tensors.items()})
        self.steps_done, self.elapsed = header["steps_done"], header["elapsed"]

    def _task(self) -> dict:
        """What is refined and how, in JSON: a state of another task does not fit."""
        sums = [self.pictures.colors.double().sum().item(), self.start.means.double().abs().sum().item()]
        config = json.loads(json.dumps(asdict(self.config)))
        return {"config": config, "member": self.member, "views": len(self.views), "sums": sums}


def refine(
    refiner: Refiner,
    seconds: float | None = None,
    state: str | Path | None = None,
    save_every: float = 10.0,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Gaussians4D:
    """Take a refiner to its end: after its config's steps, or after `seconds` of the clock if that is sooner.

    state: a file that it is saved to every `save_every` seconds and at the end, and goes on from if it is there; the
    time that was spent before counts.
    """
    if state is not None and Path(state).is_file():
        refiner.load(state)
    began = clock() - refiner.elapsed
    saved = began + refiner.elapsed
    while True:
        refiner.elapsed = clock() - began
        done = refiner.progress(refiner.elapsed, seconds)
        if done >= 1:
            break
        refiner.step(done)
        if progress is not None:
            progress("refine", round(1000 * done), 1000)
        if state is not None and clock() - saved > save_every:
            refiner.save(state)
            saved = clock()
    if state is not None:
        refiner.save(state)
    if progress is not None:
        progress("refine", 1000, 1000)
    return refiner.result()


def _halve(cameras: Cameras) -> Cameras:
    """The cameras of Pictures.halved."""
    even = replace(cameras, width=cameras.width // 2 * 2, height=cameras.height // 2 * 2)
    return even.resize(even.width // 2, even.height // 2)
