"""Draw what a model makes of real scenes, one row a scene, prediction over truth.

python -m eval.gallery SCENE SCENE ... --protocol random -o docs/reconstructions.png; with --refine SECONDS the refined
scene's pictures come between the two.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from rich.progress import track

from eval.novel_view import Predictor, Task, load_predictors
from eval.protocols import load_views
from lrm4d.export.contact_sheet import contact_sheet, spread
from lrm4d.pretrained import DEFAULT
from lrm4d.scenes import load_scene
from lrm4d.scenes.pictures import save_picture


def draw_scene(folder: Path, protocol: str, predictors: Iterable[Predictor], columns: int) -> torch.Tensor:
    """Pictures [column, 3, rows * height, width]: each predictor's over the truth, of targets spread over the list."""
    scene = load_scene(folder)
    input_paths, target_paths = scene.protocol(protocol)
    chosen = [target_paths[i] for i in spread(len(target_paths), columns)]
    inputs, truth = load_views(scene, input_paths, None), load_views(scene, chosen, None)
    predictions = [predict(inputs, truth.cameras, truth.times) for predict in predictors]
    return torch.cat([*predictions, truth.composite(torch.ones(3))], dim=-2)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if all went well, 2 with a message if the input is wrong."""
    parser = argparse.ArgumentParser(prog="python -m eval.gallery", description=__doc__.split("\n")[0])
    parser.add_argument("scenes", nargs="+", type=Path, help="scene folders")
    parser.add_argument("--protocol", default="random", help="whose inputs and targets (default random)")
    parser.add_argument("--model", default=DEFAULT, help="weights by name or folder")
    parser.add_argument("--refine", type=float, default=0.0, metavar="SECONDS", help="also the refined scenes")
    parser.add_argument("--columns", type=int, default=8, help="targets a scene (default 8)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the picture to write")
    options = parser.parse_args(arguments)
    try:
        task = Task(
            options.protocol,
            options.model,
            "",
            None,
            time_ignored_model=False,
            with_lpips=False,
            refine=options.refine,
        )
        predictors, name = load_predictors(task, options.device), Path(options.model).name
        drawn = [predictors[method] for method in (name, f"{name}, refined") if method in predictors]
        rows = {
            folder.name: draw_scene(folder, options.protocol, drawn, options.columns)
            for folder in track(options.scenes, "drawing")
        }
        save_picture(options.output, contact_sheet(rows))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"written: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
