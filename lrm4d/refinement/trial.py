"""Whether to fit a scene at all: a short trial without some pictures, which judge what it brings."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from lrm4d.gaussians4d import Gaussians4D
from lrm4d.metrics import psnr
from lrm4d.refinement.config import RefinementConfig
from lrm4d.refinement.refiner import Refiner, refine
from lrm4d.views import Views

MakeStart = Callable[[Views], Gaussians4D]
Correct = Callable[[Gaussians4D, Views], Gaussians4D]


@dataclass
class Verdict:
    """dB on the pictures held back (views) of the start, of it corrected and of the trial's fit; None: not made."""

    views: list[int] = field(default_factory=list)
    start: float | None = None
    corrected: float | None = None
    fitted: float | None = None

    def choose(self, margin: float) -> str:
        """ "fitted", "corrected" or "start": the last of them that none before it beats by more than the margin.

        Few pictures judge roughly, and what has all of them is better than what the trial made of some.
        """
        best, choice = self.start, "start" if self.start is not None else "fitted"
        for name in ("corrected", "fitted"):
            score = getattr(self, name)
            if score is not None and best is not None:
                choice = name if score + margin >= best else choice
                best = max(best, score)
        return choice


def held_back(views: int, count: int) -> list[int]:
    """Which pictures are held back: `count` evenly among them, at most one in four, neither the first nor the last."""
    count = min(count, views // 4)
    return [round((i + 0.5) * views / count - 0.5) for i in range(count)]


def judge(
    views: Views, config: RefinementConfig, make_start: MakeStart, correct: Correct | None, seconds: float | None
) -> Verdict:
    """Make a scene without the pictures held back, correct it and fit it, for `seconds` at most; see config.

    Everything is done and judged at half the size but the scene's making.
    """
    out = held_back(len(views), config.held_back)
    if not out:
        return Verdict()
    chosen = torch.zeros(len(views), dtype=torch.bool)
    chosen[out] = True
    rest = views[~chosen]
    start = make_start(rest)
    rest, judges = (_halve(part.to(start.means)) for part in (rest, views[chosen]))
    verdict = Verdict(out, start=score(start, judges))
    if correct is not None:
        corrected = correct(start, rest)
        verdict.corrected = score(corrected, judges)
        start = corrected if verdict.choose(config.margin) == "corrected" else start
    if config.trial_steps:
        fitted = refine(Refiner(start, rest, trial_config(config)), seconds)
        verdict.fitted = score(fitted, judges)
    return verdict


def trial_config(config: RefinementConfig) -> RefinementConfig:
    """Of the trial: quicker, and as it is to be with pictures that are of half the size already."""
    pictures = {"views": max(1, config.views // 2), "prior_views": config.prior_views // 2}
    density = replace(config.density, every=max(1, config.density.every * config.trial_steps // config.steps))
    return replace(config, steps=config.trial_steps, half_until=0.0, density=density, **pictures)


@torch.no_grad()
def score(scene: Gaussians4D, views: Views) -> float:
    """Mean PSNR on white."""
    white = views.images.new_ones(3)
    return psnr(scene.render(views.cameras, views.times, white).image, views.composite(white)).mean().item()


def _halve(views: Views) -> Views:
    return views.resize(max(1, views.cameras.width // 2), max(1, views.cameras.height // 2))
