"""A refinement as one step of a longer job: (scene, its inputs) -> scene."""

import time
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

    First the corrector changes it, then it is fitted, then both are blended: what errs in one way only counts less.
    seconds: of wall time at most, None for the config's steps however long. confidences, extra_loss: see Refiner.
    state: the file that a fit goes on from if it was stopped; deleted when it has ended. report: what it did,
    afterwards.

    Its text form names its settings alone, so that a chain knows by it whether a scene was refined like this.
    """

    config: RefinementConfig = field(default_factory=RefinementConfig)
    seconds: float | None = 30.0
    confidences: Float[Tensor, "view 1 height width"] | None = field(default=None, repr=False)
    extra_loss: ExtraLoss | None = field(default=None, repr=False)
    state: Path | None = field(default=None, repr=False)
    report: dict = field(default_factory=dict, repr=False)

    def __call__(self, start: Gaussians4D, views: Views, progress: Progress | None = None) -> Gaussians4D:
        """Refine."""
        began = time.perf_counter()
        corrected = correct(start, views, self.config)
        left = None if self.seconds is None else max(0.0, self.seconds - (time.perf_counter() - began))
        refiner = Refiner(corrected, views, self.config, self.confidences, self.extra_loss)
        scene = join(refiner, refine(refiner, left, self.state, progress=progress))
        self.report = {
            "steps": refiner.steps_done,
            "seconds": round(time.perf_counter() - began, 2),
            "corrected": corrected is not start,
            "gaussians_before": len(start),
            "gaussians": len(scene),
            "config": asdict(self.config),
        }
        if self.state is not None:
            Path(self.state).unlink(missing_ok=True)
        return scene


def correct(start: Gaussians4D, views: Views, config: RefinementConfig) -> Gaussians4D:
    """What a fit sets out from: see Correction; the start itself if the config names no corrector."""
    return Correction(config.corrector)(start, views) if config.corrector else start


def join(refiner: Refiner, fitted: Gaussians4D) -> Gaussians4D:
    """The blend of a fit and what it set out from; the latter alone if time ended the fit when it had hardly begun."""
    shares = refiner.config.shares
    if shares[0] > 0 and refiner.steps_done < LEAST_STEPS * refiner.config.steps:
        return refiner.start
    return blend((refiner.start, fitted), shares)


@torch.no_grad()
def _score(scene: Gaussians4D, views: Views) -> float:
    """Mean PSNR on white."""
    white = views.images.new_ones(3)
    return psnr(scene.render(views.cameras, views.times, white).image, views.composite(white)).mean().item()
