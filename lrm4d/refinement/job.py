"""A refinement as one step of a longer job: (scene, its inputs) -> scene."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.gaussians4d import Gaussians4D
from lrm4d.metrics import psnr
from lrm4d.pretrained import DEFAULT
from lrm4d.reconstruction.reconstructor import Reconstructor
from lrm4d.refinement.blending import blend
from lrm4d.refinement.config import RefinementConfig
from lrm4d.refinement.corrector import load_corrector
from lrm4d.refinement.refiner import ExtraLoss, Progress, Refiner, refine
from lrm4d.views import Views

LEAST_STEPS = 0.2
"""Of a fit's steps: with fewer it has not yet seen the whole clip."""
ENOUGH = 0.5
"""Of a fit's time: with less left another one is not begun."""
Watch = Callable[[str, Gaussians4D], None]


class GivenScene(Reconstructor):
    """A scene that is there already, in the place of a network that would make it."""

    def __init__(self, scene: Gaussians4D):
        self.scene, self.device = scene, scene.means.device

    def reconstruct(self, views: Views, progress: Progress | None = None) -> Gaussians4D:
        """The scene, whatever the views."""
        return self.scene


class Correction:
    """The corrector alone, without a fit; called with a scene and the views that it was made of."""

    def __init__(self, corrector: str = DEFAULT):
        self.corrector = load_corrector(corrector)

    def __call__(self, start: Gaussians4D, views: Views, progress: Progress | None = None) -> Gaussians4D:
        """The corrected scene, or the start if it shows its own inputs better: not what the corrector knows."""
        views = views.to(start.means)
        corrected = self.corrector.to(start.means.device).correct(start, views)
        return corrected if _score(corrected, views) > _score(start, views) else start


@dataclass
class Refinement:
    """Called with a scene and the views that it was made of, gives a better one.

    First the corrector changes it, then it is fitted, from each of the config's origins as far as time goes, and all
    are blended: what errs in one way only counts less.
    seconds: of wall time at most, None for the config's steps however long. confidences, extra_loss: see Refiner.
    state: what the files are named after that it goes on from if it was stopped, one a fit; deleted when it has ended.
    watch: told each scene that comes, by name: "corrected", then "fit" and what there is with it, "blend", in turn.
    clock: what seconds are counted by. report: what it did, afterwards.

    Its text form names its settings alone, so that a chain knows by it whether a scene was refined like this.
    """

    config: RefinementConfig = field(default_factory=RefinementConfig)
    seconds: float | None = 30.0
    confidences: Float[Tensor, "view 1 height width"] | None = field(default=None, repr=False)
    extra_loss: ExtraLoss | None = field(default=None, repr=False)
    state: Path | None = field(default=None, repr=False)
    watch: Watch = field(default=lambda name, scene: None, repr=False)
    clock: Callable[[], float] = field(default=time.perf_counter, repr=False)
    report: dict = field(default_factory=dict, repr=False)

    def __call__(self, start: Gaussians4D, views: Views, progress: Progress | None = None) -> Gaussians4D:
        """Refine."""
        began = self.clock()
        scene = corrected = correct(start, views, self.config)
        self.watch("corrected", corrected)
        spent, closing, steps, fits = self.clock() - began, 0.0, [], []
        while len(fits) < len(self.config.origins) and self._has_time(spent, len(fits)):
            now = self.clock()
            refiner = Refiner(
                *(corrected, views, self.config, self.confidences, self.extra_loss), member=len(fits), prior=scene
            )
            loop = self.clock()
            fitted = self._fit(refiner, spent + loop - now + closing, progress)
            steps.append(refiner.steps_done)
            if self.config.shares[0] > 0 and steps[-1] < LEAST_STEPS * self.config.steps:
                break
            self.watch("fit", fitted)
            fits.append(fitted)
            scene = join(corrected, fits, self.config.shares)
            self.watch("blend", scene)
            # What comes after the loop, which the next fit leaves time for; nothing is known of it after a stop.
            closing = max(0.0, self.clock() - loop - refiner.elapsed)
            spent += max(refiner.elapsed, self.clock() - now)  # the former if it was stopped and went on
        self.report = {
            "steps": steps,
            "seconds": round(self.clock() - began, 2),
            "corrected": corrected is not start,
            "gaussians_before": len(start),
            "gaussians": len(scene),
            "config": asdict(self.config),
        }
        for member in range(len(self.config.origins) if self.state is not None else 0):
            self._state_of(member).unlink(missing_ok=True)
        if progress is not None:
            progress("refine", 1, 1)
        return scene

    def _has_time(self, spent: float, fits: int) -> bool:
        """For one more fit, whose seconds are about those of the ones before: at least for half of it."""
        return fits == 0 or self.seconds is None or self.seconds - spent > ENOUGH * spent / fits

    def _fit(self, refiner: Refiner, spent: float, progress: Progress | None) -> Gaussians4D:
        began, total = self.clock(), len(self.config.origins)
        left = None if self.seconds is None else max(0.0, self.seconds - spent)

        def advance(name: str, done: int, of: int) -> None:
            of_time = 0.0 if self.seconds is None else min(1.0, (spent + self.clock() - began) / self.seconds)
            progress(name, round(of * max(of_time, (refiner.member + done / of) / total)), of)

        told = None if progress is None else advance
        return refine(refiner, left, self._state_of(refiner.member), progress=told, clock=self.clock)

    def _state_of(self, member: int) -> Path | None:
        return None if self.state is None else Path(self.state).with_stem(f"{Path(self.state).stem}-{member}")


def correct(start: Gaussians4D, views: Views, config: RefinementConfig) -> Gaussians4D:
    """What a fit sets out from: see Correction; the start itself if the config names no corrector."""
    return Correction(config.corrector)(start, views) if config.corrector else start


def join(start: Gaussians4D, fits: Sequence[Gaussians4D], shares: tuple[float, float]) -> Gaussians4D:
    """The blend of what fits set out from and the fits, dividing their share as 1 : 2 : 3: later ones are better."""
    parts = range(1, len(fits) + 1)
    return blend((start, *fits), (shares[0], *(shares[1] * part / sum(parts) for part in parts)))


@torch.no_grad()
def _score(scene: Gaussians4D, views: Views) -> float:
    """Mean PSNR on white."""
    white = views.images.new_ones(3)
    return psnr(scene.render(views.cameras, views.times, white).image, views.composite(white)).mean().item()
