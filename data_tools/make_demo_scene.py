"""Make the scene that `lrm4d demo` reconstructs: python -m data_tools.make_demo_scene [--seed N] [FOLDER].

A scene of the procedural world in 24 moments: at each one picture from a random pose, which is an input, and one from
another, which is a target. The folder that ships is lrm4d/scenes/demo.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from data_tools.camera_sampling import FIELD_OF_VIEW, FRAMES, generator_of, make_cameras, random_pose
from data_tools.dice import Dice
from data_tools.world import render, sample_scenes
from lrm4d.scenes import save_scene

SEED, SIZE = 103, 128
FOLDER = Path(__file__).resolve().parent.parent / "lrm4d" / "scenes" / "demo"


def make_demo_scene(folder: Path, seed: int) -> None:
    """Write the scene folder, with the protocol "demo"."""
    dice = Dice(generator_of(seed))
    poses = [random_pose(dice, wild=0) for _ in range(2 * FRAMES)]
    times = torch.linspace(0, 1, FRAMES).repeat(2)[None]
    cameras = make_cameras([poses], [FIELD_OF_VIEW], SIZE, SIZE)
    views = render(sample_scenes([seed]), cameras, times).views[0]
    # Nothing is seen of a colour without alpha; one value there makes the files smaller.
    views = replace(views, images=torch.where(views.alphas > 0, views.images, 0.0))
    sides = [tuple(f"images/{side}_{moment:03}.png" for moment in range(FRAMES)) for side in ("input", "target")]
    save_scene(folder, views, [*sides[0], *sides[1]], {"demo": (sides[0], sides[1])})


def main() -> None:
    """Read the command line and make the scene."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where to write (lrm4d/scenes/demo)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the world's scene and the cameras ({SEED})")
    arguments = parser.parse_args()
    make_demo_scene(arguments.folder, arguments.seed)


if __name__ == "__main__":
    main()
