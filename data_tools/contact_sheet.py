"""Writes a PNG of random scenes, a row each: pictures over the clip, then depth and scene flow of one of them.

python -m data_tools.contact_sheet --seed 0 --scenes 12 --size 128 -o world.png
"""

import argparse
import os
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from data_tools.camera_sampling import SETUPS
from data_tools.render import WorldViews
from data_tools.world import sample_batch
from lrm4d.export.contact_sheet import contact_sheet


def depth_picture(seen: WorldViews) -> Float[Tensor, "*view 3 height width"]:
    """Near is bright; 1.7 to 3.7 units from the camera."""
    shade = ((3.7 - seen.depths) / 2.0).clamp(0, 1)
    return torch.where(seen.hits, shade, 1.0).expand(*seen.depths.shape[:-3], 3, -1, -1)


def flow_picture(seen: WorldViews, fastest: float = 2.0) -> Float[Tensor, "*view 3 height width"]:
    """Velocities as colours: grey stands still, x, y, z of +-fastest (units a clip) are the ends of R, G, B."""
    return torch.where(seen.hits, (0.5 + seen.flows / (2 * fastest)).clamp(0, 1), 1.0)


def world_sheet(seeds: list[int], views: int, size: int, setup: str | None) -> Float[Tensor, "3 height width"]:
    """The sheet of the scenes of seeds."""
    rows = {}
    for seed in seeds:
        seen = sample_batch([seed], views, 0, size, setup=setup)[0][0]
        pictures = seen.views.composite(torch.ones(3))
        rows[str(seed)] = torch.cat([pictures, depth_picture(seen)[-1:], flow_picture(seen)[-1:]])
    return contact_sheet(rows, [f"view {i}" for i in range(views)] + ["depth", "flow"], "scene seeds")


def save_png(path: Path, picture: Float[Tensor, "3 height width"]) -> None:
    """Writes the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(partial, format="PNG")
    os.replace(partial, path)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m data_tools.contact_sheet", description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--out", type=Path, default=Path("world.png"), help="the PNG to write (world.png)")
    parser.add_argument("--seed", type=int, default=0, help="of the first scene; the others follow (0)")
    parser.add_argument("--scenes", type=int, default=12, help="rows (12)")
    parser.add_argument("--views", type=int, default=8, help="pictures of a scene, in order of time (8)")
    parser.add_argument("--size", type=int, default=128, help="pixels of a picture's side (128)")
    parser.add_argument("--setup", choices=SETUPS, help="how cameras are placed (a random one for each scene)")
    arguments = parser.parse_args()
    seeds = list(range(arguments.seed, arguments.seed + arguments.scenes))
    save_png(arguments.out, world_sheet(seeds, arguments.views, arguments.size, arguments.setup))
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
