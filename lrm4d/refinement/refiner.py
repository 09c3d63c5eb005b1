"""The loop: pictures in, gradients down. The result can be had at any time before its end."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.checkpoint import read_safetensors, write_safetensors
from lrm4d.gaussians4d import Gaussians4D, to_model_time
from lrm4d.refinement.config import RefinementConfig, rates_at, reach_at, weights_at
from lrm4d.refinement.fit import Fit, Render, draw_slices
from lrm4d.refinement.objective import Pictures, expose, exposure_loss, join, picture_loss, plausibility_loss
from lrm4d.views import Views

FORMAT = "lrm4d.refinement"
PRIOR_POOL, RUN = 72, 12
"""Pictures of its scene that the prior has, one at least of each input's moment; drawn so many at once."""
DOUBT = 5e-4
"""Mean squared error of the inputs (33 dB) below which rigidity weighs less."""
Progress = Callable[[str, int, int], None]
Level = tuple[Cameras, Pictures]
"""Looks at each input's moment, at one size, [view, look]: first the input, then those of the prior."""
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
        colors = self.views.images * self.views.alphas
        self.pictures = Pictures(colors, self.views.alphas, confidences.to(start.means))
        self.fit = Fit(start, len(views), config, member)
        self.steps_done, self.elapsed = 0, 0.0
        self.footprint = self.views.footprint()
        if config.weights.prior:
            self.whole = self._with_prior(prior or start)
        else:
            self.whole = self.views.cameras.reshape(-1, 1), self.pictures[:, None]
        self.half = _halve(self.whole[0]), self.whole[1].halved()
        self.doubt = self._doubt(start) if config.nodes else 1.0

    @torch.no_grad()
    def _with_prior(self, scene: Gaussians4D) -> Level:
        """Beside each input what cameras of other inputs see of the scene at its time."""
        count, looks = len(self.views), max(1, PRIOR_POOL // len(self.views))
        generator = torch.Generator().manual_seed(self.seed)
        others = torch.randint(count, (count, looks), generator=generator)
        cameras = self.views.cameras[torch.cat([torch.arange(count)[:, None], others], dim=1)]
        moving, drawn = scene.to_moving(), []
        for part in torch.arange(count).split(max(1, RUN // looks)):
            slices = moving.slice_at(to_model_time(self.views.times[part]))
            drawn.append(draw_slices(slices, cameras[part, 1:], scene.low_pass, scene.compensate))
        return cameras, join([self.pictures[:, None], join(drawn, dim=0)], dim=1)

    @torch.no_grad()
    def _doubt(self, start: Gaussians4D) -> float:
        """What the start leaves unexplained of the inputs: their mean squared error over DOUBT, at most 1.

        The better the pictures can be explained, the more they say, and the less a motion must be guessed.
        """
        white = start.means.new_ones(3)
        drawn = start.render(self.views.cameras, self.views.times, white).image
        return min(1.0, (drawn - self.views.composite(white)).square().mean().item() / DOUBT)

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
        weights = replace(weights, rigidity=self.doubt * weights.rigidity)
        chosen = self._choose(progress, generator)
        cameras, pictures = self.half if progress < config.half_until else self.whole
        looks = [torch.zeros(len(chosen), dtype=torch.long)]
        if config.weights.prior:
            looks.append(torch.randint(1, cameras.shape[1], (len(chosen),), generator=generator))
        taken = chosen[:, None], torch.stack(looks, dim=1)
        truth = pictures[taken].weighed([1.0, weights.prior][: len(looks)])
        drawn, transforms = fit.draw(cameras[taken], self.views.times[chosen])
        loss = plausibility_loss(fit.deforming, transforms, weights)
        if config.exposure:
            gains = fit.adam.parameters["exposures"]
            drawn = expose(drawn, gains[chosen])
            loss = loss + weights.exposure * exposure_loss(gains)
        backgrounds = torch.rand(*taken[1].shape, 3, generator=generator).to(truth.colors)
        loss = loss + len(looks) * picture_loss(drawn, truth, backgrounds, weights)
        if self.extra_loss is not None:
            loss = loss + self.extra_loss(fit.render, self.steps_done)
        return loss

    def _choose(self, progress: float, generator: torch.Generator) -> Int[Tensor, "chosen"]:
        """Some of the inputs within reach of the fit's origin, each at most once."""
        times, origin = self.views.times, self.config.origins[self.member]
        distances = (times - origin).abs().cpu() / max(origin, 1 - origin)
        reach = max(reach_at(self.config.grow, progress), distances.min().item())
        allowed = (distances <= reach + 1e-6).nonzero()[:, 0]
        return allowed[torch.randperm(len(allowed), generator=generator)[: self.config.views]]

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
