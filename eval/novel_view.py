"""Score a model, and the baselines that need none, on unseen views and times of posed scenes.

python -m eval.novel_view --scenes DIR --protocols all -o OUT writes OUT/report.md, OUT/report.json, a
contact sheet for every scene and protocol in OUT/sheets, and OUT/scenes/NAME.json as each scene is done: the same
command goes on where it was stopped; --restart begins again.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from eval.baselines import BASELINES
from eval.protocols import choose_protocols, find_scenes, load_views
from eval.report import SceneScores, format_pair, summarize, to_markdown
from eval.resuming import make_bar, read_done, save_done
from eval.scores import score_pictures
from lrm4d.cameras import Cameras
from lrm4d.checkpoint import write_text
from lrm4d.export.contact_sheet import reconstruction_sheet
from lrm4d.gaussians4d import Gaussians4D
from lrm4d.metrics import why_no_lpips
from lrm4d.pretrained import DEFAULT
from lrm4d.scenes import load_scene
from lrm4d.scenes.pictures import save_picture
from lrm4d.video import to_bytes
from lrm4d.views import Views

if TYPE_CHECKING:
    from lrm4d.pipeline import Reconstructor

Predictor = Callable[[Views, Cameras, Tensor], Tensor]
"""(inputs, target cameras, target times) -> pictures [target, 3, height, width] on white."""


@dataclass(frozen=True)
class Task:
    """What is scored and how; scores made for another task are not mixed in.

    protocols: "all" or "name,name". model: a name or folder, or "none". weights: a hash of the model's weights.
    corrector: that corrects the model's scenes, another row, "" for none. refine: seconds that they are refined for,
    another row, 0 for none.
    size: pixels of the longer side, None for the pictures' own. every: of the targets, every how manyth is scored.
    """

    protocols: str
    model: str
    weights: str
    size: int | None
    time_ignored_model: bool
    with_lpips: bool
    every: int = 1
    corrector: str = ""
    refine: float = 0.0


def make_predictor(
    reconstructor: "Reconstructor", better: Callable[[Gaussians4D, Views], Gaussians4D] | None = None
) -> Predictor:
    """The pictures of its scene, or of what `better` makes of that and the inputs; in 8 bits, as they would be
    written."""

    def predict(inputs: Views, cameras: Cameras, times: Tensor) -> Tensor:
        scene = reconstructor.reconstruct(inputs)
        scene = scene if better is None else better(scene, inputs)
        return to_bytes(reconstructor.render(scene, cameras, times)).float() / 255

    return predict


def load_predictors(task: Task, device: str) -> dict[str, Predictor]:
    """The methods to score: the baselines, and the model if there is one."""
    if task.model == "none":
        return dict(BASELINES)
    from lrm4d.pipeline import Reconstructor  # the baselines alone must run without the network's requirements

    reconstructor = Reconstructor.from_pretrained(task.model, device)
    name, predict = Path(task.model).name, make_predictor(reconstructor)

    def predict_without_time(inputs: Views, cameras: Cameras, times: Tensor) -> Tensor:
        still = Views(inputs.images, inputs.alphas, inputs.cameras, torch.full_like(inputs.times, 0.5))
        return predict(still, cameras, torch.full_like(times, 0.5))

    models: dict[str, Predictor] = {name: predict}
    if task.corrector:
        from lrm4d.refinement.job import Correction

        models[f"{name}, corrected"] = make_predictor(reconstructor, Correction(task.corrector))
    if task.refine:
        from lrm4d.refinement.config import RefinementConfig
        from lrm4d.refinement.corrector import corrector_of
        from lrm4d.refinement.job import Refinement

        refinement = Refinement(RefinementConfig(corrector=corrector_of(task.model)), task.refine)
        models[f"{name}, refined"] = make_predictor(reconstructor, refinement)
    if task.time_ignored_model:
        models[f"{name}, time ignored"] = predict_without_time
    return BASELINES | models


def score_scene(
    folder: Path, task: Task, predictors: dict[str, Predictor], sheets: Path, advance: Callable[[str], None]
) -> SceneScores:
    """{protocol: {method: scores}} of one scene, with a contact sheet a protocol; advance is called after each."""
    scene = load_scene(folder)
    result: SceneScores = {}
    for protocol in choose_protocols(task.protocols, scene):
        input_paths, target_paths = scene.protocol(protocol)
        target_paths = target_paths[:: task.every]
        inputs, truth = load_views(scene, input_paths, task.size), load_views(scene, target_paths, task.size)
        result[protocol] = {}
        for method, predict in predictors.items():
            start = time.perf_counter()
            prediction = predict(inputs, truth.cameras, truth.times)
            seconds = time.perf_counter() - start
            scores = score_pictures(prediction, truth, task.with_lpips)
            result[protocol][method] = scores | {"seconds": round(seconds, 3)}
            if method == _shown_method(task):
                title = f"{scene.name}, {protocol}, {method}: {scores['psnr']:.2f} dB"
                sheet = _make_sheet(inputs, prediction, truth, target_paths, title)
                save_picture(sheets / f"{scene.name}_{protocol}.png", sheet)
        advance(f"{scene.name} {protocol}")
    return result


def run(task: Task, folders: Sequence[Path], output: Path, restart: bool, device: str) -> dict[str, SceneScores]:
    """Score every scene that has no scores in the output folder yet; {scene: {protocol: {method: scores}}}."""
    if task.with_lpips and why_no_lpips():
        raise ValueError(f"--lpips: not available: {why_no_lpips()}.")
    done = {} if restart else read_done(task, folders, output)
    todo = [folder for folder in folders if folder.name not in done]
    predictors = load_predictors(task, device) if todo else {}
    steps = {folder: len(choose_protocols(task.protocols, load_scene(folder))) for folder in todo}
    with make_bar() as progress:
        bar = progress.add_task("scoring", total=sum(steps.values()))
        for folder in todo:
            done[folder.name] = score_scene(
                folder,
                task,
                predictors,
                output / "sheets",
                lambda text: progress.update(bar, advance=1, description=text),
            )
            save_done(task, folder.name, done[folder.name], output)
            progress.console.print(_line(folder.name, done[folder.name], _shown_method(task)))
    return {folder.name: done[folder.name] for folder in folders}


def write_report(scenes: dict[str, SceneScores], task: Task, source: str, output: Path) -> str:
    """Write report.json and report.md; returns the Markdown."""
    notes: dict[str, Any] = {
        "model": task.model + (f" (weights {task.weights})" if task.weights else ""),
        "scenes": f"{len(scenes)} of {source}",
        "size": task.size or "the pictures' own",
    }
    if task.every > 1:
        notes["targets"] = f"one in {task.every}"
    if not task.with_lpips:
        notes["LPIPS"] = f"not computed: {why_no_lpips() or 'asked for with --lpips'}"
    content = {"notes": notes, "mean": summarize(scenes), "scenes": scenes}
    markdown = to_markdown(scenes, notes)
    write_text(output / "report.json", json.dumps(content, indent=1) + "\n")
    write_text(output / "report.md", markdown)
    return markdown


def hash_weights(model: str) -> str:
    """The first 12 digits of the SHA-256 of a model's weights; "" for no model, and for one that is not on disk."""
    if model == "none":
        return ""
    from lrm4d.reconstruction.pretrained import SHIPPED, find_weight_files

    found = next((folder for folder in (SHIPPED / model, Path(model)) if (folder / "config.json").is_file()), None)
    content = b"".join(file.read_bytes() for file in find_weight_files(found)) if found else b""
    return hashlib.sha256(content).hexdigest()[:12] if found else ""


def _line(name: str, scores: SceneScores, method: str) -> str:
    """A scene's PSNR / PSNR object of one method, for the log."""
    cells = [f"{protocol} {format_pair(one[method])}" for protocol, one in scores.items()]
    return f"{name}: {method}: " + ", ".join(cells)


def _shown_method(task: Task) -> str:
    return "nearest view" if task.model == "none" else Path(task.model).name


def _make_sheet(
    inputs: Views, prediction: Float[Tensor, "target 3 h w"], truth: Views, paths: Sequence[str], title: str
) -> Float[Tensor, "3 sheet_height sheet_width"]:
    white = torch.ones(3)
    labels = [Path(path).stem for path in paths]
    return reconstruction_sheet(inputs.composite(white), prediction, truth.composite(white), labels, title)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.novel_view", description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", required=True, help="a scene folder, or a folder of them")
    parser.add_argument("--protocols", default="all", help='"all" (default) or names with commas between')
    parser.add_argument(
        "--model", default=DEFAULT, help='weights by name or folder; "none" scores the baselines alone'
    )
    parser.add_argument("--size", type=int, help="resize to this many pixels (the longer side)")
    parser.add_argument("--limit", type=int, help="only the first N scenes")
    parser.add_argument("--every", type=int, default=1, help="score every Nth target only: a quick look (default 1)")
    parser.add_argument("--time-ignored-model", action="store_true", help="also the model told that all times are one")
    parser.add_argument("--corrector", default="", help="also the model's scenes corrected, by name or folder")
    parser.add_argument("--refine", type=float, default=0.0, metavar="SECONDS", help="also the model's scenes refined")
    parser.add_argument("--lpips", action="store_true", help="also LPIPS (needs the package lpips)")
    parser.add_argument("--device", default="auto", help="where the model runs: auto (default), cpu, cuda")
    parser.add_argument("--restart", action="store_true", help="score again what is scored already")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder of the report")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if all went well, 2 with a message if the input is wrong."""
    options = parse_arguments(arguments)
    try:
        task = Task(
            protocols=options.protocols,
            model=options.model,
            weights=hash_weights(options.model),
            size=options.size,
            time_ignored_model=options.time_ignored_model,
            with_lpips=options.lpips,
            every=options.every,
            corrector=options.corrector,
            refine=options.refine,
        )
        folders = find_scenes(options.scenes, options.limit)
        scenes = run(task, folders, options.output, options.restart, options.device)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    markdown = write_report(scenes, task, options.scenes, options.output)
    print(markdown.split("\n## ")[0])
    print(f"written: {options.output / 'report.md'}, report.json, scenes/, sheets/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
