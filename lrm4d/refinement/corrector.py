"""A small network that corrects a scene by what its pictures ask for: gradients in, changes out, a few rounds of it.

A descent follows the gradients of the pictures it has, and fits those; the corrector has learnt, on scenes whose other
pictures were known, which of such demands to follow, how far, and which to mistrust (after G3R, Chen et al., ECCV
2024, and ReSplat, Xu et al., 2025; here for Gaussians that move, with the demands of each picture apart).
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu
from torch.utils.checkpoint import checkpoint

from lrm4d.checkpoint import find_network, read_json, read_safetensors, write_safetensors, write_text
from lrm4d.config import make_config
from lrm4d.gaussians3d import Gaussians3D
from lrm4d.gaussians4d import Gaussians4D, to_model_time
from lrm4d.pretrained import DEFAULT
from lrm4d.refinement.deforming import Deforming, start_free
from lrm4d.refinement.fit import draw_slices
from lrm4d.refinement.moving import from_moving
from lrm4d.views import Views

SHIPPED = Path(__file__).resolve().parent.parent / "pretrained" / "correctors"
"""Where the weights that come with the package lie."""
COARSER = (4,)
"""The pictures are asked also at their size divided by these."""
DEMANDS = 8 * (1 + len(COARSER))
"""Of a picture on a Gaussian, at each size: place 3, size 1, opacity 1, colour 3."""
CHANGES = (3, 3, 1, 3, 1, 1, 3)
"""Of a Gaussian: place, log sizes, logit of opacity, colour, time, log duration, velocity."""
STEPS = (0.5, 0.2, 0.5, 0.2, 0.1, 0.2, 0.3)
"""What 1 from the network means in each: of places and velocities in the Gaussian's own size, of times in its own
duration."""
MOMENTS = 5 * (1 + len(COARSER))
"""What the same demands come to on a Gaussian's course in time: velocity 3, time 1, duration 1."""
KNOWN = 12
FOOTPRINT = 0.04
"""A pixel's width that demands are scaled to, world units: finer pictures of an object have more pixels and more
Gaussians, so that each Gaussian is asked for as much; but they move it by more pixels."""
FAINTEST = 0.02
"""Opacity at a picture's time below which a Gaussian is not asked."""
CHUNK_BYTES, SLICED_BYTES = 2**29, 4 * 13 * 4
"""Memory that asking takes, about: of a Gaussian in a picture 13 numbers, sliced, their copies and gradients."""
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


class Demands(NamedTuple):
    """What pictures ask of the Gaussians that they show, pair by pair.

    gaussians: whose. gradients: of the squared errors' sum. gaps: from the Gaussian's time to the picture's in its
    durations.
    """

    gaussians: Int[Tensor, "pair"]
    gradients: Float[Tensor, "pair demand"]
    gaps: Float[Tensor, "pair"]


def ask_pictures(scene: Deforming, views: Views, low_pass: float, compensate: bool) -> Demands:
    """The gradients, picture by picture, of the squared errors of colours (on white) and alphas.

    Of the pictures as they are and of each of COARSER: there a Gaussian feels what is missing some pixels away. In
    units that change with the Gaussian: of its place in its own size, of size and opacity in their logarithms.
    """
    run = max(1, CHUNK_BYTES // (SLICED_BYTES * max(1, len(scene))))
    runs = [views[start : start + run] for start in range(0, len(views), run)]
    parts = [_ask_run(scene, pictures, low_pass, compensate) for pictures in runs]
    return Demands(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _ask_run(scene: Deforming, views: Views, low_pass: float, compensate: bool) -> Demands:
    moments = to_model_time(views.times)
    with torch.no_grad():
        sliced = scene.slice_at(moments)
    leaves = Gaussians3D(*(value.detach().clone().requires_grad_() for value in vars(sliced).values()))
    pairs = (leaves.opacities.flatten() > FAINTEST).nonzero()[:, 0]
    owners = pairs % len(scene)
    sizes = scene.gaussians["log_scales"].detach().mean(-1).exp()[owners, None]
    asked = []
    for factor in (1, *COARSER):
        width, height = (max(1, round(side / factor)) for side in (views.cameras.width, views.cameras.height))
        level = views if factor == 1 else views.resize(width, height)
        gradients = _error_gradients(leaves, level, low_pass, compensate)
        means, covariances, opacities, colors = (value.flatten(0, 1)[pairs] for value in vars(gradients).values())
        shape, alpha = leaves.covariances.detach().flatten(0, 1)[pairs], leaves.opacities.detach().flatten()[pairs]
        of_sizes = 2 * (covariances * shape).sum(-1, keepdim=True)
        scale = level.footprint() ** 2 / (views.footprint() * FOOTPRINT)
        asked += [scale * part for part in (means * sizes, of_sizes, (opacities * alpha)[:, None], colors)]
    times, durations = scene.gaussians["time_means"].detach(), scene.gaussians["log_time_deviations"].detach().exp()
    gaps = (moments[pairs // len(scene)] - times[owners]) / durations[owners]
    return Demands(owners, torch.cat(asked, dim=-1), gaps)


def _error_gradients(leaves: Gaussians3D, views: Views, low_pass: float, compensate: bool) -> Gaussians3D:
    with torch.enable_grad():
        drawn = draw_slices(leaves, views.cameras.reshape(-1, 1), low_pass, compensate)[:, 0]
        white = drawn.colors.new_ones(len(views), 3)
        error = (drawn.on(white) - views.composite(white[0])).square().sum()
        error = error + (drawn.alphas - views.alphas).square().sum()
        return Gaussians3D(*torch.autograd.grad(error, list(vars(leaves).values())))


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


def moments_of(gradients: Float[Tensor, "pair demand"], gaps: Float[Tensor, "pair"]) -> Float[Tensor, "pair moment"]:
    """The part of each demand in the gradients of a Gaussian's velocity, time and log duration, in its own units.

    Its place at a picture's time goes with velocity times gap, the logarithm of its opacity then with -gap^2 / 2.
    """
    levels = gradients.unflatten(-1, (-1, 8))
    place, opacity, gap = levels[..., :3], levels[..., 4:5], gaps[:, None, None]
    return torch.cat([place * gap, opacity * gap, opacity * gap.square()], dim=-1).flatten(1)


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
