"""Train the corrector: python -m train.corrector CONFIG -o RUN [key=value ...].

    python -m train.corrector train/configs/corrector.yaml -o runs/corrector
    python -m train.corrector train/configs/corrector_debug.yaml -o runs/corrector_debug

The same line again resumes the run from its last checkpoint. RUN is a folder for `--corrector`.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.export.contact_sheet import contact_sheet, error_pictures, spread
from lrm4d.gaussians4d import Gaussians4D, to_model_time
from lrm4d.losses import psnr_loss, silhouette_loss
from lrm4d.reconstruction.reconstructor import Reconstructor
from lrm4d.refinement.corrector import Corrector, load_corrector, save_corrector
from lrm4d.refinement.deforming import Deforming
from lrm4d.refinement.fit import draw_slices
from lrm4d.refinement.objective import Pictures
from lrm4d.views import Views
from train.command import run_command
from train.config import CorrectorRun
from train.data import Batch, load_batches

Answer = list[tuple[Gaussians4D, list[Deforming]]]
"""Of each scene: the network's, and as it is after each round of corrections."""
COLUMNS = 8
"""Pictures of a sample that are drawn."""


class CorrectorTask:
    """A network's scenes and their inputs in, better scenes out, judged by other pictures; see trainer.Task."""

    shown = ("gain",)

    def __init__(self, config: CorrectorRun):
        self.config = config

    def make_model(self) -> Corrector:
        """The corrector, untrained."""
        return Corrector(self.config.corrector_config())

    def start(self, model: Corrector) -> list[str]:
        """Another corrector's weights, all of them: ValueError if they are of another shape."""
        other = load_corrector(self.config.start_from)
        if other.config != model.config:
            raise ValueError(f"start_from={self.config.start_from}: {other.config}; expected {model.config}.")
        model.load_state_dict(other.state_dict())
        return []

    def load_batches(self, rank: int, processes: int, device: torch.device, first_step: int) -> Iterable[Batch]:
        """Of the world or of shards."""
        self.reconstructor = Reconstructor.from_pretrained(self.config.network, str(device))
        return load_batches(self.config, rank, processes, device, first_step)

    def count_scenes(self, batch: Batch) -> int:
        """Its scenes."""
        return len(batch[0].views)

    def ask(self, forward: Callable[..., list[Deforming]], batch: Batch) -> Answer:
        """The network's scenes, corrected."""
        views = batch[0].views
        starts = [self.reconstructor.reconstruct(views[scene]) for scene in range(len(views))]
        return [(start, forward(start, views[scene])) for scene, start in enumerate(starts)]

    def losses(self, answer: Answer, batch: Batch, step: int) -> dict[str, Tensor]:
        """PSNR in bels and errors of alphas, later rounds weighing more; "gain": dB of the last round."""
        targets = batch[1].views
        white = targets.images.new_ones(3)
        psnrs, alphas, gains = [], [], []
        for scene, (start, states) in enumerate(answer):
            views = targets[scene]
            truth = views.composite(white)
            with torch.no_grad():
                alone = psnr_loss(start.render(views.cameras, views.times, white).image, truth)
            drawn = [draw(state, views, start) for state in states]
            scores = [psnr_loss(pictures.on(white.expand(len(views), 3)), truth) for pictures in drawn]
            psnrs.append(_weigh(scores))
            alphas.append(_weigh([silhouette_loss(pictures.alphas, views.alphas) for pictures in drawn]))
            gains.append(10 * (alone - scores[-1].detach()))
        psnr, alpha, gain = (torch.stack(values).mean() for values in (psnrs, alphas, gains))
        return {"psnr": psnr, "alpha": alpha, "gain": gain, "loss": psnr + self.config.alpha * alpha}

    def outputs(self, answer: Answer) -> list[Tensor]:
        """The Gaussians after each round."""
        return [value for _, states in answer for state in states for value in state.gaussians.values()]

    def save(self, model: Corrector, folder: Path) -> None:
        """See corrector.py."""
        save_corrector(model, folder)

    @torch.no_grad()
    def draw(self, model: Corrector, batch: Batch) -> Float[Tensor, "3 height width"]:
        """The first scene's targets by the network, corrected, and in truth."""
        views, targets = (side.views[0] for side in batch)
        start = self.reconstructor.reconstruct(views)
        scenes = {"network": start, "corrected": model.correct(start, views)}
        targets = targets[spread(len(targets), COLUMNS)]
        white = targets.images.new_ones(3)
        rows = {name: s.render(targets.cameras, targets.times, white).image.cpu() for name, s in scenes.items()}
        truth = targets.composite(white).cpu()
        return contact_sheet({**rows, "truth": truth, "error": error_pictures(rows["corrected"], truth)})


def draw(state: Deforming, views: Views, start: Gaussians4D) -> Pictures:
    """Pictures of a corrected scene from cameras [view] at their times, with a gradient."""
    slices = state.slice_at(to_model_time(views.times))
    return draw_slices(slices, views.cameras.reshape(-1, 1), start.low_pass, start.compensate)[:, 0]


def _weigh(rounds: list[Tensor]) -> Tensor:
    """Their mean, the k-th k times."""
    weights = range(1, len(rounds) + 1)
    return sum(weight * value for weight, value in zip(weights, rounds, strict=True)) / sum(weights)


if __name__ == "__main__":
    run_command(__doc__, CorrectorRun, CorrectorTask)
