"""A refinement as one step of a longer job: (scene, its inputs) -> scene."""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from lrm4d.gaussians4d import Gaussians4D
from lrm4d.reconstruction.reconstructor import Reconstructor
from lrm4d.refinement.config import RefinementConfig
from lrm4d.refinement.corrector import load_corrector
from lrm4d.refinement.refiner import ExtraLoss, Progress, Refiner, read_judged, refine
from lrm4d.refinement.trial import MakeStart, Verdict, judge, score
from lrm4d.views import Views

TRIAL_SHARE = 0.3
"""Of the time, at most, for the trial."""


class GivenScene(Reconstructor):
    """A scene that is there already, in the place of a network that would make it."""

    def __init__(self, scene: Gaussians4D):
        self.scene, self.device = scene, scene.means.device

    def reconstruct(self, views: Views, progress: Progress | None = None) -> Gaussians4D:
        """The scene, whatever the views."""
        return self.scene


class Correction:
    """The corrector alone, without a fit; called with a scene and the views that it was made of."""

    def __init__(self, corrector: str = "nano"):
        self.corrector = load_corrector(corrector)

    def __call__(self, start: Gaussians4D, views: Views, progress: Progress | None = None) -> Gaussians4D:
        """The corrected scene, or the start if it shows its own inputs better: not what the corrector knows."""
        views = views.to(start.means)
        corrected = self.corrector.to(start.means.device).correct(start, views)
        return corrected if score(corrected, views) > score(start, views) else start


@dataclass
class Refinement:
    """Called with a scene and the views that it was made of, gives a better one, or the same.

    First the corrector changes it, then a trial says whether a fit is worth while, then it is fitted. seconds: of wall
    time at most, None for the config's steps however long. make_start: what made the scene, to make it again without
    the pictures that are held back; without it nothing is judged. confidences, extra_loss: see Refiner. state: the
    file that a fit goes on from if it was stopped; deleted when it has ended. report: what it did, afterwards.

    Its text form names its settings alone, so that a chain knows by it whether a scene was refined like this.
    """

    config: RefinementConfig = field(default_factory=RefinementConfig)
    seconds: float | None = 30.0
    make_start: MakeStart | None = field(default=None, repr=False)
    confidences: Float[Tensor, "view 1 height width"] | None = field(default=None, repr=False)
    extra_loss: ExtraLoss | None = field(default=None, repr=False)
    state: Path | None = field(default=None, repr=False)
    report: dict = field(default_factory=dict, repr=False)

    def __call__(self, start: Gaussians4D, views: Views, progress: Progress | None = None) -> Gaussians4D:
        """Refine."""
        began, config = time.perf_counter(), self.config
        correction = Correction(config.corrector) if config.corrector else None
        verdict = self._judge(views, correction)
        choice = verdict.choose(config.margin)
        scene = start if correction is None or choice == "start" else correction(start, views)
        steps = 0
        if choice == "fitted":
            left = None if self.seconds is None else max(0.0, self.seconds - (time.perf_counter() - began))
            refiner = Refiner(scene, views, config, self.confidences, self.extra_loss)
            refiner.judged = asdict(verdict)
            scene = refine(refiner, left, self.state, progress=progress)
            steps = refiner.steps_done
        self.report = {
            "steps": steps,
            "seconds": round(time.perf_counter() - began, 2),
            "held_back": {**asdict(verdict), "choice": choice},
            "gaussians_before": len(start),
            "gaussians": len(scene),
            "config": asdict(config),
        }
        if self.state is not None:
            Path(self.state).unlink(missing_ok=True)
        return scene

    def _judge(self, views: Views, correction: Correction | None) -> Verdict:
        """The verdict of the run that was stopped, if there is one."""
        found = None if self.state is None else read_judged(self.state)
        if found is not None:
            return Verdict(**found)
        if self.make_start is None:
            return Verdict()
        seconds = None if self.seconds is None else TRIAL_SHARE * self.seconds
        return judge(views, self.config, self.make_start, correction, seconds)
