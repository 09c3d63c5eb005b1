"""What exact geometry would be worth: python -m train.oracles --model small --scenes 12 [--size 64] [key=value ...].

    python -m train.oracles --scenes 48 static=1      # things that do not move
    python -m train.oracles --scenes 48 static=0 speed=2

Scores a network on scenes of the world (set-up random, 24 views), and Gaussians made from the world's own distances:
opaque, in the pixels' colours, each for about its own frame. Says how far the network's distances are off, too.
key=value changes the world (WorldConfig).
"""

import argparse
from dataclasses import replace

import torch
from rich.progress import track
from torch import Tensor

from data_tools.world import WorldConfig, WorldViews, sample_batch
from lrm4d.config import make_config
from lrm4d.gaussians4d import Gaussians4D
from lrm4d.metrics import psnr
from lrm4d.pretrained import DEFAULT
from lrm4d.reconstruction import Reconstruction
from lrm4d.reconstruction.pretrained import load_pretrained
from train.objective import true_distances

FIRST_SEED = 7000


def make_opaque(
    answer: Reconstruction, distances: Tensor, duration: float, scale: float, exits: bool = True
) -> Gaussians4D:
    """The answer's pixels at other distances [pixel, surface] (0: none) as opaque Gaussians at rest.

    duration: standard deviation in model time. scale: in pixel footprints. exits: also where the rays leave.
    """
    tokens, pixels, patches, slots = answer.tokens, answer.pixels, answer.patches, answer.slots
    rays = patches.directions[tokens, pixels][:, None]
    shown = (distances > 0) & torch.tensor([True, exits])[: distances.shape[1]]
    values = {
        "means": patches.origins[tokens][:, None] + distances[..., None] * rays,
        "time_means": patches.times[tokens][:, None].expand_as(distances),
        "colors": patches.colors[tokens, pixels][:, None].expand(*distances.shape, 3),
        "scales": (scale * patches.footprints[tokens][:, None] * distances)
        .clamp(min=1e-4)[..., None]
        .expand(-1, -1, 3),
        "time_scales": torch.full_like(distances, duration),
        "left_quaternions": torch.eye(4)[0].expand(*distances.shape, 4),
        "right_quaternions": torch.eye(4)[0].expand(*distances.shape, 4),
        "opacities": 0.95 * patches.alphas[tokens, pixels][:, None] * shown,
    }
    old = answer.gaussians.tensors()
    return replace(answer.gaussians, **{name: old[name].index_put(slots, values[name]) for name in values})


def score(gaussians: Gaussians4D, targets: WorldViews) -> float:
    """Mean PSNR on white."""
    white = torch.ones(3)
    pictures = gaussians.render(targets.views.cameras, targets.views.times, white).image
    return psnr(pictures, targets.views.composite(white)).mean().item()


@torch.no_grad()
def score_batch(answer: Reconstruction, context: WorldViews, targets: WorldViews) -> dict[str, float]:
    """What to print of a batch: PSNR (dB) by what was rendered; errors of the network's distances (world units)."""
    truth = true_distances(answer, context)[:, : answer.distances.shape[1]]
    hits = truth[:, 0] > 0
    noisy = truth + 0.04 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0)) * (truth > 0)
    error = (answer.distances - truth)[hits].abs().median(dim=0).values.tolist()
    opaque = {
        f"{name}, scale {scale}, duration {duration}": make_opaque(answer, distances, duration, scale, exits)
        for name, distances, exits in (
            ("true entries", truth, False),
            ("true entries and exits", truth, True),
            ("the same, 0.04 off", noisy, True),
            ("the network's distances, opaque", answer.distances, True),
        )
        for scale, duration in ((0.6, 0.03), (0.3, 0.03), (0.3, 0.1))
    }
    scores = {"the network": score(answer.gaussians, targets)}
    scores |= {name: score(gaussians, targets) for name, gaussians in opaque.items()}
    return scores | dict(zip(("median error of entries", "median error of exits"), error, strict=False))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT, help="weights by name or folder")
    parser.add_argument("--scenes", type=int, default=12, help="how many scenes (default 12)")
    parser.add_argument("--size", type=int, default=64, help="pixels a side (default 64)")
    parser.add_argument("changes", nargs="*", help="key=value, for example static=1")
    arguments = parser.parse_intermixed_args()
    world = make_config(WorldConfig, arguments.changes)
    model = load_pretrained(arguments.model)
    found: dict[str, list[float]] = {}
    for seed in track(range(FIRST_SEED, FIRST_SEED + arguments.scenes), "scoring"):
        context, targets = sample_batch([seed], 24, 6, arguments.size, config=world, setup="random")
        with torch.no_grad():
            answer = model(context.views)
        for name, value in score_batch(answer, context, targets).items():
            found.setdefault(name, []).append(value)
    for name, values in found.items():
        print(f"{sum(values) / len(values):7.3f}  {name}")


if __name__ == "__main__":
    main()
