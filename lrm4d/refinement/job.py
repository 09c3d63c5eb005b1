"""A refinement as one step of a longer job: (scene, its inputs) -> scene."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.gaussians4d import Gaussians4D
from lrm4d.reconstruction.reconstructor import Reconstructor
from lrm4d.refinement.config import RefinementConfig
from lrm4d.refinement.refiner import ExtraLoss, Progress, Refiner, held_back, refine
from lrm4d.views import Views

MakeStart = Callable[[Views], Gaussians4D]


class GivenScene(Reconstructor):
    """A scene that is there already, in the place of a network that would make it."""

    def __init__(self, scene: Gaussians4D):
        self.scene, self.device = scene, scene.means.device

    def reconstruct(self, views: Views, progress: Progress | None = None) -> Gaussians4D:
        """The scene, whatever the views."""
        return self.scene


@dataclass
class Refinement:
    """Called with a scene and the views that it was made of, gives a better one, or the same.

    seconds: of wall time at most, None for the config's steps however long. make_start: what made the scene, to make
    it again without the pictures that are held back; without it nothing is held back if the scene was made of all the
    views, as `fresh` says it was not. confidences, extra_loss: see Refiner. state: the file that it goes on from if it
    was stopped; deleted when it has ended. report: what it did, afterwards. Its text form names its settings alone, so
    that a chain knows by it whether a scene was refined like this.
    """

    config: RefinementConfig = field(default_factory=RefinementConfig)
    seconds: float | None = 30.0
    make_start: MakeStart | None = field(default=None, repr=False)
    fresh: bool = False
    confidences: Float[Tensor, "view 1 height width"] | None = field(default=None, repr=False)
    extra_loss: ExtraLoss | None = field(default=None, repr=False)
    state: Path | None = field(default=None, repr=False)
    report: dict = field(default_factory=dict, repr=False)

    def __call__(self, start: Gaussians4D, views: Views, progress: Progress | None = None) -> Gaussians4D:
        """Refine."""
        began = time.perf_counter()
        config, blind = self.config, None
        out = held_back(len(views), config.held_back)
        if out and not self.fresh:
            if self.make_start is None:
                config = RefinementConfig(**{**vars(config), "held_back": 0})
            else:
                rest = torch.ones(len(views), dtype=torch.bool)
                rest[out] = False
                blind = self.make_start(views[rest])
        refiner = Refiner(start, views, config, blind, self.confidences, self.extra_loss)
        refiner.elapsed = time.perf_counter() - began
        scene = refine(refiner, self.seconds, self.state, progress=progress)
        self.report = {
            "steps": refiner.steps_done,
            "seconds": round(time.perf_counter() - began, 2),
            "held_back": {"views": out, **asdict(refiner.verdict), "kept_start": refiner.verdict.kept_start},
            "gaussians_before": len(start),
            "gaussians": len(scene),
            "config": asdict(config),
        }
        if self.state is not None:
            Path(self.state).unlink(missing_ok=True)
        return scene
