"""A small network that corrects a scene by what its pictures ask for: gradients in, changes out, a few rounds of it.

A descent follows the gradients of the pictures it has, and fits those; the corrector has learnt, on scenes whose other
pictures were known, which of such demands to follow, how far, and which to mistrust (after G3R, Chen et al., ECCV
2024, and ReSplat, Xu et al., 2025; here for Gaussians that move, with the demands of each picture apart).
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu
from torch.utils.checkpoint import checkpoint

from lrm4d.checkpoint import find_network, read_json, read_safetensors, write_safetensors, write_text
from lrm4d.config import make_config
from lrm4d.gaussians4d import Gaussians4D
from lrm4d.pretrained import DEFAULT
from lrm4d.refinement.deforming import Deforming, start_free
from lrm4d.refinement.demands import DEMANDS, MOMENTS, Demands, ask_pictures, moments_of
from lrm4d.refinement.moving import from_moving
from lrm4d.views import Views

SHIPPED = Path(__file__).resolve().parent.parent / "pretrained" / "correctors"
"""Where the weights that come with the package lie."""
CHANGES = (3, 3, 1, 3, 1, 1, 3)
"""Of a Gaussian: place, log sizes, logit of opacity, colour, time, log duration, velocity."""
STEPS = (0.5, 0.2, 0.5, 0.2, 0.1, 0.2, 0.3)
"""What 1 from the network means in each: of places and velocities in the Gaussian's own size, of times in its own
duration."""
KNOWN = 12
CELLS = ((0.08, 0.2), (0.25, 0.5))
"""Sides of the cells, world units and model time, whose Gaussians learn what is asked of them together."""
FARTHEST = 2**14
"""Cells are numbered so far from the middle; what is farther joins the last."""
PLACE_VALUES = [(2 * FARTHEST) ** axis for axis in range(4)]
SMALLEST, LARGEST, LONGEST = -10.0, 0.0, 1.5
"""Logarithms of sizes and durations stay between."""


@dataclass(frozen=True)
class CorrectorConfig:
    """width: of the network. pooled: numbers that the pictures' demands on a Gaussian come to. latent: numbers that a
    Gaussian carries from round to round. rounds: how often the pictures are asked."""

    width: int = 64
    pooled: int = 32
    latent: int = 16
    rounds: int = 3


class Corrector(nn.Module):
    """Begins as the identity: untrained, it changes nothing."""

    def __init__(self, config: CorrectorConfig):
        super().__init__()
        self.config = config
        self.hear = nn.Linear(2 * DEMANDS + 3, config.pooled)
        gathered = config.pooled + DEMANDS + MOMENTS + 1
        self.read = nn.Linear(gathered * (1 + len(CELLS)) + KNOWN + config.latent + 1, config.width)
        self.mix = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(2))
        self.to_changes = nn.Linear(config.width, sum(CHANGES) + config.latent)
        nn.init.zeros_(self.to_changes.weight)
        nn.init.zeros_(self.to_changes.bias)

    def forward(self, scene: Gaussians4D, views: Views) -> list[Deforming]:
        """One scene as it is after each round. views: [view], its inputs. Gradients flow into the network only."""
        state = start_free(scene)
        latents = scene.means.new_zeros(len(scene), self.config.latent)
        states = []
        for turn in range(self.config.rounds):
            demands = ask_pictures(state, views, scene.low_pass, scene.compensate)
            state, latents = self._change(state, latents, demands, views.footprint(), turn)
            states.append(state)
        return states

    @torch.no_grad()
    def correct(self, scene: Gaussians4D, views: Views) -> Gaussians4D:
        """One scene, corrected by its inputs [view]."""
        views = views.to(scene.means)
        moving = self(scene, views)[-1].moving()
        return from_moving(moving, scene.low_pass, scene.compensate)

    def _change(
        self, state: Deforming, latents: Tensor, demands: Demands, footprint: float, turn: int
    ) -> tuple[Deforming, Tensor]:
        # What is heard of a million pairs takes gigabytes in training, and little time to hear again.
        heard = checkpoint(self._hear, demands, len(state), use_reentrant=False, preserve_rng_state=False)
        around = [mean_over_cells(heard, state.gaussians, *cell) for cell in CELLS]
        place = torch.full_like(latents[:, :1], turn / self.config.rounds)
        hidden = gelu(self.read(torch.cat([heard, *around, _describe(state, footprint), latents, place], dim=-1)))
        for layer in self.mix:
            hidden = hidden + gelu(layer(hidden))
        changes, news = self.to_changes(hidden).split((sum(CHANGES), self.config.latent), dim=-1)
        return apply_changes(state, changes), latents + news

    def _hear(self, demands: Demands, count: int) -> Float[Tensor, "n gathered"]:
        """All that is asked of each Gaussian: what the network makes of each demand, summed; the gradients of all its
        numbers; from how many pictures they come."""
        owners, gradients, gaps = demands
        nearness = torch.stack([gaps, torch.exp(-0.5 * gaps.square()), (gaps.abs() < 1e-2).to(gaps)], dim=-1)
        each = torch.cat([torch.asinh(gradients), torch.asinh(30 * gradients), nearness], dim=-1)
        heard = gelu(self.hear(each))
        pooled = heard.new_zeros(count, heard.shape[1]).index_add(0, owners, heard) / 4
        both = torch.cat([gradients, moments_of(gradients, gaps)], dim=-1)
        total = torch.asinh(3 * both.new_zeros(count, both.shape[1]).index_add(0, owners, both))
        pictures = torch.bincount(owners, minlength=count).to(total)
        return torch.cat([pooled, total, torch.log1p(pictures)[:, None]], dim=-1)


def _describe(state: Deforming, footprint: float) -> Float[Tensor, "n 12"]:
    g = state.gaussians
    sizes = g["log_scales"] - math.log(footprint)
    parts = (
        sizes.mean(-1, keepdim=True),
        sizes.amax(-1, keepdim=True) - sizes.amin(-1, keepdim=True),
        g["opacity_logits"][:, None],
        g["colors"],
        g["time_means"][:, None],
        g["log_time_deviations"][:, None] + 2,
        g["velocities"],
        g["means"].norm(dim=-1, keepdim=True),
    )
    return torch.cat(parts, dim=-1)


def mean_over_cells(
    values: Float[Tensor, "n channel"], gaussians: dict[str, Tensor], side: float, duration: float
) -> Float[Tensor, "n channel"]:
    """Of each Gaussian the mean over those in its cell of space and time, each by its opacity."""
    with torch.no_grad():
        places = torch.cat([gaussians["means"] / side, gaussians["time_means"][:, None] / duration], dim=1)
        numbers = places.floor().long().clamp(-FARTHEST, FARTHEST - 1) + FARTHEST
        _, cells = torch.unique(numbers @ numbers.new_tensor(PLACE_VALUES), return_inverse=True)
        weights = torch.sigmoid(gaussians["opacity_logits"])[:, None]
        count = int(cells.max()) + 1 if len(cells) else 0
        sums = weights.new_zeros(count, 1).index_add(0, cells, weights)
    means = values.new_zeros(count, values.shape[1]).index_add(0, cells, weights * values) / sums.clamp(min=1e-9)
    return means[cells]


def apply_changes(state: Deforming, changes: Float[Tensor, "n 15"]) -> Deforming:
    """The Gaussians with changes in the units of STEPS."""
    place, sizes, opacity, color, time, duration, velocity = (
        step * part for step, part in zip(STEPS, changes.split(CHANGES, dim=-1), strict=True)
    )
    g = state.gaussians
    own_size, own_duration = g["log_scales"].mean(-1, keepdim=True).exp(), g["log_time_deviations"].exp()
    return replace(
        state,
        gaussians={
            **g,
            "means": g["means"] + own_size * place,
            "log_scales": (g["log_scales"] + sizes).clamp(SMALLEST, LARGEST),
            "opacity_logits": g["opacity_logits"] + opacity[:, 0],
            "colors": (g["colors"] + color).clamp(min=0),
            "time_means": g["time_means"] + own_duration * time[:, 0],
            "log_time_deviations": (g["log_time_deviations"] + duration[:, 0]).clamp(max=LONGEST),
            "velocities": g["velocities"] + own_size / own_duration[:, None] * velocity,
        },
    )


def save_corrector(corrector: Corrector, folder: str | Path) -> None:
    """Write config.json and model.safetensors (float32), each atomically."""
    write_safetensors(Path(folder) / "model.safetensors", corrector.state_dict(), {"format": "pt"})
    write_text(Path(folder) / "config.json", json.dumps(asdict(corrector.config), indent=2) + "\n")


def corrector_of(network: str) -> str:
    """The name of the corrector that was trained on a network's scenes, the default network's if none was."""
    name = Path(network).name
    return name if (SHIPPED / name / "config.json").is_file() else DEFAULT


def load_corrector(name_or_folder: str | Path) -> Corrector:
    """A corrector by the name of shipped weights, from a folder or a hub id; on the CPU, in evaluation mode.

    ValueError says what was found where, and what there is.
    """
    folder = find_network(str(name_or_folder), SHIPPED, "corrector")
    corrector = Corrector(make_config(CorrectorConfig, read_json(folder / "config.json")))
    try:
        corrector.load_state_dict(read_safetensors(folder / "model.safetensors")[0])
    except RuntimeError as error:
        raise ValueError(f"{folder}: the weights do not fit config.json; are they another corrector's?") from error
    return corrector.eval()
