"""Compares the procedural world with real assets: a table of statistics, and a sheet of both side by side.

python -m data_tools.compare_worlds SCENE_FOLDER... -o sheet.png

Every clip is seen by a still camera; real clips are the views "front" and "left" of scene folders. Only statistics of
the real assets are meant to be matched: nothing of them is kept.
"""

import argparse
from pathlib import Path

import torch
from jaxtyping import Float
from rich.progress import track
from torch import Tensor
from torch.nn.functional import max_pool2d

from data_tools.camera_sampling import FIELD_OF_VIEW, FRAMES, make_cameras
from data_tools.contact_sheet import save_png
from data_tools.world import render, sample_scenes
from lrm4d.export.contact_sheet import contact_sheet, spread
from lrm4d.scenes import load_scene

CAMERAS = {"front": 0.0, "left": 1.5707963}
"""The views of real scene folders that are compared, and where they look from (azimuth)."""

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def clip_statistics(
    images: Float[Tensor, "frame 3 height width"], alphas: Float[Tensor, "frame 1 height width"]
) -> dict[str, float]:
    """What one clip of a still camera looks like.

    psnr K: dB between frames K apart, inside the object grown by 4 pixels, on white. area: of the picture. swept: of
    the picture, ever covered. outline: perimeter^2 / (4 pi area), 1 for a disk. thin: share of the object that a
    square of 5/128 of the picture does not fit into. light, spread, vivid: mean brightness, its deviation, mean
    saturation. contrast: mean difference of neighbours. plain: share of neighbours that hardly differ. dark: share of
    the object darker than 0.15. colours: how many of 5 x 5 x 5 bins fill at least 1 % of the object.
    """
    pictures, inside = images * alphas + 1 - alphas, alphas > 0.5
    area = inside.float().mean((1, 2, 3)).clamp(min=1e-4)
    found = {f"psnr {k}": _psnr_between(pictures, alphas, k) for k in (1, 2, 4, 8)}
    found["area"], found["swept"] = alphas.mean().item(), inside.any(0).float().mean().item()
    edges = (inside[:, :, 1:] != inside[:, :, :-1]).sum((1, 2, 3)) + (inside[..., 1:] != inside[..., :-1]).sum(
        (1, 2, 3)
    )
    perimeter = edges * torch.pi / 4  # steps along rows and columns are this much longer than a curve, on average
    found["outline"] = (perimeter**2 / (4 * torch.pi * area * inside[0].numel())).mean().item()
    side = 2 * round(5 / 128 * inside.shape[-1] / 2) + 1
    solid = 1 - max_pool2d(1 - inside.float(), side, 1, side // 2)
    opened = max_pool2d(solid, side, 1, side // 2)
    found["thin"] = (1 - opened.mean((1, 2, 3)) / area).mean().item()
    colours = images.movedim(1, -1)[inside[:, 0]]
    light = colours.mean(-1)
    found |= {"light": light.mean().item(), "spread": light.std().item()}
    found["vivid"] = (colours.amax(-1) - colours.amin(-1)).mean().item()
    steps = (images[..., 1:] - images[..., :-1]).abs().mean(1)[(alphas[..., 1:].minimum(alphas[..., :-1]) == 1)[:, 0]]
    found |= {"contrast": steps.mean().item(), "plain": (steps < 0.008).float().mean().item()}
    found["dark"] = (light < 0.15).float().mean().item()
    bins = (colours * 4.999).long() @ torch.tensor([25, 5, 1])
    found["colours"] = (bins.bincount(minlength=125) > 0.01 * len(bins)).sum().item()
    return found


def _psnr_between(pictures: Tensor, alphas: Tensor, apart: int) -> float:
    """Mean dB between frames `apart`, in the first one's object grown by 4 pixels; 40 dB at most."""
    mask = max_pool2d((alphas > 0).float(), 9, 1, 4)[:-apart]
    error = ((pictures[apart:] - pictures[:-apart]).square() * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3))).clamp(
        1
    )
    return (-10 * error.clamp(min=1e-4).log10()).mean().item()


def real_clips(folders: list[Path]) -> list[tuple[Tensor, Tensor]]:
    """Images and alphas of the clips of scene folders."""
    clips = []
    for folder in track(folders, "real clips"):
        scene = load_scene(folder)
        for camera in CAMERAS:
            frames = sorted((f for f in scene.frames if f.view == camera), key=lambda f: f.time)
            if frames:
                views = scene.views([f.file_path for f in frames])
                clips.append((views.images, views.alphas))
    if not clips:
        raise ValueError(f"real_clips: {len(folders)} folders without a view named {' or '.join(CAMERAS)}.")
    return clips


def world_clips(seeds: list[int], size: int) -> list[tuple[Tensor, Tensor]]:
    """Images and alphas of clips of the world's scenes, as real_clips gives them."""
    clips = []
    times = torch.linspace(0, 1, FRAMES)[None]
    for seed in track(seeds, "world clips"):
        for azimuth in CAMERAS.values():
            cameras = make_cameras([[(azimuth, 0.0, 2.7)] * FRAMES], [FIELD_OF_VIEW], size, size)
            views = render(sample_scenes([seed]), cameras, times).views[0]
            clips.append((views.images, views.alphas))
    return clips


def quantile_table(real: list[dict[str, float]], world: list[dict[str, float]]) -> str:
    """Quantiles over the clips of every statistic, real above world."""
    lines = [f"{'':16}" + "".join(f"{'q' + str(round(100 * q)):>9}" for q in QUANTILES) + f"{'mean':>9}"]
    for name in real[0]:
        for label, clips in (("real", real), ("world", world)):
            values = torch.tensor([clip[name] for clip in clips], dtype=torch.float64)
            row = [*values.quantile(torch.tensor(QUANTILES, dtype=torch.float64)).tolist(), values.mean().item()]
            lines.append(f"{name if label == 'real' else '':10}{label:6}" + "".join(f"{v:9.3f}" for v in row))
    return "\n".join(lines)


def sheet_of_both(real: list[tuple[Tensor, Tensor]], world: list[tuple[Tensor, Tensor]], rows: int, frames: int = 5):
    """Frames of real clips on the left, of the world's on the right."""
    result = {}
    for row, (one, other) in enumerate(zip(spread(len(real), rows), spread(len(world), rows), strict=False)):
        cells = []
        for images, alphas in (real[one], world[other]):
            cells.append((images * alphas + 1 - alphas)[spread(len(images), frames)])
        result[str(row)] = torch.cat(cells)
    return contact_sheet(result, ["real"] * frames + ["world"] * frames)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.compare_worlds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, help="real scene folders (transforms.json, views with names)")
    parser.add_argument("-o", "--out", type=Path, help="a PNG of both to write")
    parser.add_argument("--seed", type=int, default=0, help="of the world's first scene (0)")
    parser.add_argument("--scenes", type=int, default=100, help="of the world (100)")
    parser.add_argument("--rows", type=int, default=16, help="of the PNG (16)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    real = real_clips(arguments.folders)
    world = world_clips(list(range(arguments.seed, arguments.seed + arguments.scenes)), real[0][0].shape[-1])
    print(quantile_table([clip_statistics(*c) for c in real], [clip_statistics(*c) for c in world]))
    if arguments.out:
        save_png(arguments.out, sheet_of_both(real, world, arguments.rows))
        print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
