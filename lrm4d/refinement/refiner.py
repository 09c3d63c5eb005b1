"""The loop: pictures in, gradients down, and never a worse scene than the one it started from.

Some input pictures are held back at first. At the verdict the fit, as it was when it showed them best, is compared on
them with the start; where the start is better it is kept and nothing more is done. Else the pictures that were held
back join the others and the fit goes on to its end. The result can be had at any time before.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.checkpoint import read_safetensors, write_safetensors
from lrm4d.gaussians4d import Gaussians4D
from lrm4d.metrics import psnr
from lrm4d.refinement.config import RefinementConfig, prior_at, rates_at, reach_at
from lrm4d.refinement.fit import Fit, Render
from lrm4d.refinement.objective import Pictures, expose, exposure_loss, picture_loss, plausibility_loss
from lrm4d.views import Views

FORMAT = "lrm4d.refinement"
CHECKS = (0.4, 0.6, 0.8, 1.0)
"""When the held-back pictures are looked at, in parts of the way to the verdict."""
PRIOR_POOL, RUN = 96, 12
"""Pictures of the start that the prior chooses from; drawn so many at once."""
Progress = Callable[[str, int, int], None]
Level = tuple[Cameras, Pictures, Pictures | None]
"""The inputs' cameras at one size, the inputs, and the prior's pictures."""
ExtraLoss = Callable[[Render, int], Tensor]
"""(render, step) -> a term of the loss: a teacher, for example."""


@dataclass
class Verdict:
    """dB on the held-back pictures (None: not judged yet, or nothing held back) of the start and of the best fit."""

    start: float | None = None
    best: float | None = None
    checks: int = 0
    passed: bool = False

    @property
    def kept_start(self) -> bool:
        """Whether the start was better."""
        return self.passed and self.start is not None and self.best is not None and self.best <= self.start


class Refiner:
    """A refinement in the making."""

    def __init__(
        self,
        start: Gaussians4D,
        views: Views,
        config: RefinementConfig,
        blind_start: Gaussians4D | None = None,
        confidences: Float[Tensor, "view 1 height width"] | None = None,
        extra_loss: ExtraLoss | None = None,
    ):
        """start: one scene. views: [view], the inputs, generated ones too, each pixel counting by its confidence.

        blind_start: the scene that its maker makes without the pictures that held_back names, if it made the start of
        them all: only that one can be judged by them fairly, and the fit sets out from it. Everything is done on the
        start's device.
        """
        self.start, self.config, self.extra_loss = start, config, extra_loss
        self.views = views.to(start.means)
        if confidences is None:
            confidences = torch.ones_like(self.views.alphas)
        self.pictures = Pictures(self.views.images * self.views.alphas, self.views.alphas, confidences.to(start.means))
        self.held_back = held_back(len(views), config.held_back)
        self.judged_start = start if blind_start is None else blind_start
        self.fit = Fit(self.judged_start, len(views), config)
        self.best: dict[str, Tensor] | None = None
        self.verdict = Verdict(passed=not self.held_back)
        self.steps_done, self.elapsed = 0, 0.0
        self.footprint = self.views.footprint()
        self.cameras = self.views.cameras
        self.prior = self._draw_prior() if config.weights.prior and config.prior_views else None
        self.half = _halve(self.cameras), self.pictures.halved(), self.prior[2].halved() if self.prior else None

    @torch.no_grad()
    def _draw_prior(self) -> tuple[Tensor, Tensor, Pictures]:
        """The start seen by the inputs' cameras at the inputs' times, other ones: (views, views, pictures)."""
        generator = torch.Generator().manual_seed(self.config.seed)
        seen_from, seen_at = (torch.randint(len(self.views), (PRIOR_POOL,), generator=generator) for _ in range(2))
        black = self.start.means.new_zeros(3)
        drawn = []
        for i in range(0, PRIOR_POOL, RUN):
            cameras, times = self.views.cameras[seen_from[i : i + RUN]], self.views.times[seen_at[i : i + RUN]]
            drawn.append(self.judged_start.render(cameras, times, black))
        colors, alphas = (torch.cat([getattr(one, name) for one in drawn]) for name in ("image", "alpha"))
        return seen_from, seen_at, Pictures(colors, alphas, torch.ones_like(alphas))

    def progress(self, elapsed: float, seconds: float | None) -> float:
        """How much of the way is done, 1 at its end: the part of the steps, or of the seconds if that is larger."""
        return max(self.steps_done / self.config.steps, 0.0 if seconds is None else elapsed / seconds)

    def step(self, progress: float) -> None:
        """One step of the way, `progress` of which is done."""
        config = self.config
        if not self.verdict.passed:
            self._look_at_held_back(progress)
            if self.verdict.kept_start:
                return
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.steps_done)
        self._loss(progress, generator).backward()
        self.fit.step(rates_at(config.rates, progress))
        self.steps_done += 1
        if progress < config.density.until and self.steps_done % config.density.every == 0:
            self.fit.densify()

    def _loss(self, progress: float, generator: torch.Generator) -> Float[Tensor, ""]:
        config, fit = self.config, self.fit
        chosen = self._choose(self.views.times, config.views, progress, generator)
        all_cameras, truths, priors = self.half if progress < config.half_until else self._whole()
        cameras, times, truth = all_cameras[chosen], self.views.times[chosen], truths[chosen]
        if self.prior is not None:
            seen_from, seen_at, _ = self.prior
            others = self._choose(self.views.times[seen_at], config.prior_views, progress, generator, everyone=True)
            cameras = all_cameras[torch.cat([chosen, seen_from[others]])]
            times = torch.cat([times, self.views.times[seen_at[others]]])
        backgrounds = torch.rand(len(times), 3, generator=generator).to(times)
        drawn, shifts = fit.draw(cameras, times)
        inputs = drawn[: len(chosen)]
        loss = plausibility_loss(fit.deforming, shifts, config.weights)
        if config.exposure:
            gains = fit.adam.parameters["exposures"]
            inputs = expose(inputs, gains[chosen])
            loss = loss + config.weights.exposure * exposure_loss(gains)
        loss = loss + picture_loss(inputs, truth, backgrounds[: len(chosen)], config.weights)
        if self.prior is not None:
            weight = prior_at(config.weights.prior, progress)
            rest = drawn[len(chosen) :], priors[others], backgrounds[len(chosen) :]
            loss = loss + weight * picture_loss(*rest, config.weights)
        if self.extra_loss is not None:
            loss = loss + self.extra_loss(fit.render, self.steps_done)
        return loss

    def _whole(self) -> Level:
        return self.cameras, self.pictures, self.prior[2] if self.prior else None

    def _choose(
        self, times: Tensor, count: int, progress: float, generator: torch.Generator, everyone: bool = False
    ) -> Tensor:
        """Indices, drawn with replacement among those within reach of the clip's middle and not held back."""
        distances = (2 * times - 1).abs().cpu()
        if not everyone and not self.verdict.passed:
            distances[self.held_back] = torch.inf
        reach = max(reach_at(self.config.grow, progress), distances.min().item())
        allowed = (distances <= reach + 1e-6).nonzero()[:, 0]
        return allowed[torch.randint(len(allowed), (count,), generator=generator)].to(times.device)

    @torch.no_grad()
    def _look_at_held_back(self, progress: float) -> None:
        verdict, config = self.verdict, self.config
        if verdict.checks == len(CHECKS) or progress < config.verdict * CHECKS[verdict.checks]:
            return
        views = self.views[self.held_back]
        white = views.images.new_ones(3)
        truth = views.composite(white)
        if verdict.start is None:
            rendering = self.judged_start.render(views.cameras, views.times, white)
            verdict.start = psnr(rendering.image, truth).mean().item()
        score = psnr(self.fit.render(views.cameras, views.times), truth).mean().item()
        if verdict.best is None or score > verdict.best:
            verdict.best, self.best = score, self.fit.tensors()
        verdict.checks += 1
        if verdict.checks == len(CHECKS):
            self.fit.restore(self.best)
            self.best, verdict.passed = None, True

    def result(self) -> Gaussians4D:
        """The scene as far as it is."""
        return self.start if self.verdict.kept_start else self.fit.scene(self.config.tolerance * self.footprint)

    def save(self, path: str | Path) -> None:
        """Write all that is needed to go on, atomically."""
        tensors = {f"fit/{name}": value for name, value in self.fit.tensors().items()}
        tensors |= {f"best/{name}": value for name, value in (self.best or {}).items()}
        header = {
            "format": FORMAT,
            "task": self._task(),
            "steps_done": self.steps_done,
            "elapsed": self.elapsed,
            "verdict": asdict(self.verdict),
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
        parts = {kind: {} for kind in ("fit", "best")}
        for name, value in tensors.items():
            kind, rest = name.split("/", 1)
            parts[kind][rest] = value
        self.fit.restore(parts["fit"])
        self.best = parts["best"] or None
        self.steps_done, self.elapsed = header["steps_done"], header["elapsed"]
        self.verdict = Verdict(**header["verdict"])

    def _task(self) -> dict:
        """What is refined and how, in JSON: a state of another task does not fit."""
        sums = [self.pictures.colors.double().sum().item(), self.judged_start.means.double().abs().sum().item()]
        return {"config": json.loads(json.dumps(asdict(self.config))), "views": len(self.views), "sums": sums}


def refine(
    refiner: Refiner,
    seconds: float | None = None,
    state: str | Path | None = None,
    save_every: float = 10.0,
    progress: Progress | None = None,
) -> Gaussians4D:
    """Take a refiner to its end: after its config's steps, or after `seconds` of wall time if that is sooner.

    state: a file that it is saved to every `save_every` seconds, and goes on from if it is there; the time that was
    spent before counts.
    """
    if state is not None and Path(state).is_file():
        refiner.load(state)
    began = time.perf_counter() - refiner.elapsed
    saved = began + refiner.elapsed
    while not refiner.verdict.kept_start:
        refiner.elapsed = time.perf_counter() - began
        done = refiner.progress(refiner.elapsed, seconds)
        if done >= 1:
            break
        refiner.step(done)
        if progress is not None:
            progress("refine", round(1000 * done), 1000)
        if state is not None and time.perf_counter() - saved > save_every:
            refiner.save(state)
            saved = time.perf_counter()
    if progress is not None:
        progress("refine", 1000, 1000)
    return refiner.result()


def held_back(views: int, count: int) -> list[int]:
    """Which pictures are held back: `count` evenly among them, at most one in four, neither the first nor the last."""
    count = min(count, views // 4)
    return [round((i + 0.5) * views / count - 0.5) for i in range(count)]


def _halve(cameras: Cameras) -> Cameras:
    """The cameras of Pictures.halved."""
    even = replace(cameras, width=cameras.width // 2 * 2, height=cameras.height // 2 * 2)
    return even.resize(even.width // 2, even.height // 2)
