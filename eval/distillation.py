"""Judge flow matching distillation: a scene of generated views refined with and without the inpainter as a teacher.

python -m eval.distillation --scenes FANS --inpainter nano -o OUT. FANS: folders of data_tools/render_assets.py.
From a scene's video (with its true depth) the views MADE are generated, a network makes a scene of them all, and that
is refined on them twice with the same seeds and steps: plainly, and with the teacher looking at renders from TAUGHT
cameras, where there are no pictures. The judge is JUDGED: true pictures of other cameras. Written: report.json,
report.md, a contact sheet a scene; scenes that are scored already are not done again.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from rich.progress import Progress
from torch import Tensor
from torch.nn.functional import interpolate

from eval.fans import Fan, load_fan
from eval.filling import score_agreement
from eval.generation import hash_weights
from eval.protocols import find_scenes
from eval.scores import Scores, mean_scores, score_pictures
from lrm4d.cameras import Cameras
from lrm4d.checkpoint import read_json, write_text
from lrm4d.export.contact_sheet import contact_sheet
from lrm4d.gaussians4d import Gaussians4D
from lrm4d.generation.backends import choose_sampling
from lrm4d.generation.completion import complete
from lrm4d.generation.foreground import cut_out_of_white, take_from_white
from lrm4d.generation.grid import start_grid
from lrm4d.generation.inpainter import NanoInpainter
from lrm4d.generation.metrics import temporal_flicker
from lrm4d.generation.presets import load_preset
from lrm4d.pretrained import FOR_MADE_VIEWS
from lrm4d.reconstruction.reconstructor import Reconstructor
from lrm4d.refinement.config import RefinementConfig
from lrm4d.refinement.distillation import DistillationConfig
from lrm4d.refinement.lessons import EVERY, MOMENTS, prepare_lessons, teach
from lrm4d.refinement.refiner import Refiner, refine
from lrm4d.scenes.pictures import save_picture
from lrm4d.views import Views

MADE = ("turn-60", "turn-30", "turn+30", "turn+60")
JUDGED = ("turn-45", "turn-15", "turn+15", "turn+45")
TAUGHT = (-50.0, -20.0, 20.0, 50.0)
"""Degrees about the world's axis from the video's camera; none of them is made or judged."""


@dataclass(frozen=True)
class Task:
    """What is done.

    model: the network that makes the scene. size: pixels, of all pictures. steps: of refinement. every: of the steps,
    every how manyth asks the teacher. moments: shown to it at once. preset: whose plan makes the views.
    made_confidence: of pixels that the video does not tell.
    """

    inpainter: str
    weights: str
    model: str = FOR_MADE_VIEWS
    size: int = 64
    steps: int = 300
    every: int = EVERY
    moments: int = MOMENTS
    preset: str = "full4d"
    made_confidence: float = 0.5
    distillation: DistillationConfig = field(default_factory=DistillationConfig)


def resize_fan(fan: Fan, size: int) -> Fan:
    """The same with pictures of size x size pixels."""
    images, alphas = (
        interpolate(values.flatten(0, 1), (size, size), mode="area").unflatten(0, values.shape[:2])
        for values in (fan.images, fan.alphas)
    )
    geometries = {view: geometry.resize(size, size) for view, geometry in fan.geometries.items()}
    return replace(fan, images=images, alphas=alphas, cameras=fan.cameras.resize(size, size), geometries=geometries)


def make_views(fan: Fan, inpainter: NanoInpainter, task: Task) -> tuple[Views, Float[Tensor, "view 1 height width"]]:
    """The video and the generated views, cut out, and how far each pixel is to be believed."""
    count = 1 + len(MADE)
    grid = start_grid(fan.images[:, 0], fan.geometries[0], fan.cameras[:, 1:count], fan.times)
    plan = load_preset(task.preset).plan
    done = complete(grid, fan.geometries[0], plan, inpainter, choose_sampling(inpainter))
    views = done.to_views()
    confidences = torch.where(grid.known.flatten(0, 1), 1.0, task.made_confidence)
    images, alphas = take_from_white(views.images, cut_out_of_white(views.images))
    return replace(views, images=images, alphas=alphas), confidences


def judge(scene: Gaussians4D, fan: Fan) -> tuple[Scores, Float[Tensor, "time view 3 height width"]]:
    """Scores of the judged views, and renders of all of them.

    agreement: of views with each other by true depth (filling.py). flicker: how far 1 minus the mean difference of
    neighbouring views is from the true pictures'.
    """
    cells = (len(fan.times), len(fan.names))
    times = fan.times[:, None].expand(cells).flatten()
    with torch.no_grad():
        images = scene.render(fan.cameras.reshape(-1), times).image.unflatten(0, cells).clamp(0, 1)
    first = 1 + len(MADE)
    truth = Views(
        fan.images[:, first:].flatten(0, 1),
        torch.ones_like(fan.alphas[:, first:].flatten(0, 1)),
        fan.cameras[:, first:].reshape(-1),
        fan.times[:, None].expand(cells)[:, first:].flatten(),
    )
    # The object's mask is of the true alpha; the pictures are on white already.
    scores = score_pictures(
        images[:, first:].flatten(0, 1), replace(truth, alphas=fan.alphas[:, first:].flatten(0, 1))
    )
    known = torch.zeros_like(fan.alphas, dtype=torch.bool)
    order = sorted(range(1, len(fan.names)), key=lambda view: _azimuth(fan.cameras[0, view]))
    flickers = [float(temporal_flicker(pictures[:, order]).mean()) for pictures in (images, fan.images)]
    agreement = score_agreement(images, known, fan).get("agreement")
    return scores | {"agreement": agreement, "flicker": abs(flickers[0] - flickers[1])}, images


def _azimuth(camera: Cameras) -> float:
    place = camera.origins
    return math.atan2(float(place[1]), float(place[0]))


def score_scene(folder: Path, task: Task, sheets: Path, report: Progress) -> dict[str, Scores]:
    """{method: scores} of one scene, and its contact sheet."""
    fan = resize_fan(load_fan(folder, MADE + JUDGED), task.size)
    inpainter = NanoInpainter.from_pretrained(task.inpainter)
    bar = report.add_task(f"{folder.name}: views", total=None)
    views, confidences = make_views(fan, inpainter, task)
    start = Reconstructor.from_pretrained(task.model, "cpu").reconstruct(views)
    scores, shown = {}, {}
    scores["network"], shown["network"] = judge(start, fan)
    video = fan.images[:, 0], fan.geometries[0], fan.times
    lessons = prepare_lessons(*video, TAUGHT, inpainter, task.moments)
    terms = {"refined": None, "refined, taught": teach(lessons, task.distillation, task.every)}
    for method, term in terms.items():
        config = RefinementConfig(steps=task.steps)
        refiner = Refiner(start, views, config, confidences, term)
        report.update(bar, description=f"{folder.name}: {method}", total=1000, completed=0)
        scene = refine(refiner, progress=lambda _, done, total: report.update(bar, completed=done, total=total))
        scores[method], shown[method] = judge(scene, fan)
    middle = len(fan.times) // 2
    rows = {name: images[middle, 1:] for name, images in {**shown, "truth": fan.images}.items()}
    save_picture(sheets / f"{folder.name}.png", contact_sheet(rows, fan.names[1:], folder.name))
    report.remove_task(bar)
    return scores


def write_report(scenes: dict[str, dict[str, Scores]], task: Task, output: Path) -> str:
    """report.json and report.md; returns the Markdown."""
    methods = list(next(iter(scenes.values())))
    mean = {method: mean_scores(one[method] for one in scenes.values()) for method in methods}
    content = {"task": asdict(task), "mean": mean, "scenes": scenes}
    write_text(output / "report.json", json.dumps(content, indent=1) + "\n")
    names = ("psnr", "psnr_object", "ssim", "agreement", "flicker")
    lines = [f"| scene | method | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for scene, one in {**scenes, "mean": mean}.items():
        for method in methods:
            cells = ["" if (value := one[method].get(name)) is None else f"{value:.4g}" for name in names]
            lines.append(f"| {scene} | {method} | {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    write_text(output / "report.md", text)
    return text


def run(folders: Sequence[Path], task: Task, output: Path) -> str:
    """Score every scene that has no scores in the output folder yet; returns the Markdown."""
    scenes, written = {}, json.loads(json.dumps(asdict(task)))
    with Progress() as report:
        for folder in report.track(folders, description="scenes"):
            file = output / "scenes" / f"{folder.name}.json"
            known = read_json(file) if file.is_file() else {"task": written}
            if known["task"] != written:
                raise ValueError(f"{file}: is of another task, {known['task']}; give another folder with -o.")
            if "scores" not in known:
                known["scores"] = score_scene(folder, task, output / "sheets", report)
                write_text(file, json.dumps(known, indent=1) + "\n")
            scenes[folder.name] = known["scores"]
    return write_report(scenes, task, output)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if all went well, 2 with a message if the input is wrong."""
    parser = argparse.ArgumentParser(prog="python -m eval.distillation", description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", required=True, help="a scene folder with depth/front.npz, or a folder of them")
    parser.add_argument("--inpainter", default="nano", help="weights by name or folder (default nano)")
    parser.add_argument("--model", default=FOR_MADE_VIEWS, help="the network, weights by name or folder")
    parser.add_argument("--limit", type=int, help="only the first N scenes")
    parser.add_argument("--size", type=int, default=64, help="pixels of all pictures (default 64)")
    parser.add_argument("--steps", type=int, default=300, help="of refinement (default 300)")
    parser.add_argument("--weight", type=float, default=1.0, help="of the teacher's term (default 1)")
    parser.add_argument("--levels", type=float, nargs=2, default=DistillationConfig.levels, help="range of tau")
    parser.add_argument("--guidance", type=float, default=1.0, help="of the teacher (default 1)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder of the report")
    options = parser.parse_args(arguments)
    try:
        config = DistillationConfig(options.weight, tuple(options.levels), guidance=options.guidance)
        weights = hash_weights(options.inpainter)
        task = Task(options.inpainter, weights, options.model, options.size, options.steps, distillation=config)
        text = run(find_scenes(options.scenes, options.limit), task, options.output)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
