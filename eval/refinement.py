"""PSNR on unseen views against seconds: the network alone, refined, and 4D Gaussian splatting from scratch.

python -m eval.refinement --scenes DIR -o OUT writes OUT/report.md, OUT/report.json, OUT/curves.png, and
OUT/scenes/NAME.json as each scene is done: the same command goes on where it was stopped; --restart begins again.

The clock stands still while a scene is scored. With --clock processor it counts the process's processor time over
--cores, which is the wall time of that many idle cores at best, and tells something on a machine that others use too.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from eval.protocols import find_scenes, load_views
from eval.refinement_report import draw_curves, to_markdown
from eval.resuming import make_bar, read_done, save_done
from eval.scores import Scores, score_pictures
from lrm4d.checkpoint import write_text
from lrm4d.config import make_config
from lrm4d.gaussians4d import Gaussians4D
from lrm4d.pretrained import DEFAULT
from lrm4d.reconstruction.reconstructor import Reconstructor, render_frames
from lrm4d.refinement.config import SCRATCH_STEPS, RefinementConfig, plain
from lrm4d.refinement.corrector import corrector_of
from lrm4d.refinement.job import Refinement
from lrm4d.refinement.refiner import Refiner
from lrm4d.refinement.starts import HULL_GAUSSIANS, start_in_hull
from lrm4d.scenes import load_scene
from lrm4d.video import to_bytes
from lrm4d.views import Views

MARKS = (1 / 30, 1 / 15, 1 / 6, 1 / 3, 2 / 3)
"""When the scene in the making is scored, in parts of its time."""


@dataclass(frozen=True)
class Task:
    """What is measured; a report of another task is not mixed in."""

    protocol: str = "random"
    model: str = DEFAULT
    seconds: float = 30.0
    scratch_seconds: float = 30.0
    size: int | None = None
    every: int = 1
    clock: str = "wall"
    cores: int = 2
    settings: list[str] = field(default_factory=list)


class Clock:
    """The seconds since it was made or set back, without those in which it was stopped."""

    def __init__(self, task: Task):
        self.read = time.perf_counter if task.clock == "wall" else lambda: time.process_time() / task.cores
        self.reset()

    def reset(self) -> None:
        """Begin at zero."""
        self.began = self.read()

    def __call__(self) -> float:
        """Seconds."""
        return self.read() - self.began

    @contextmanager
    def stopped(self) -> Iterator[float]:
        """Time that does not count; the seconds before it."""
        now = self()
        yield now
        self.began = self.read() - now


def measure_scene(folder: Path, task: Task, reconstructor: Reconstructor, advance: Callable[[str], None]) -> dict:
    """{curve: [scores with seconds, ...]} of one scene.

    network: of its answer. refined: of each scene that there is on the way, from the network's on. fits: of each fit
    alone. scratch: of plain splatting.
    """
    scene = load_scene(folder)
    inputs, targets = scene.protocol(task.protocol)
    views, truth = load_views(scene, inputs, task.size), load_views(scene, targets[:: task.every], task.size)
    clock = Clock(task)
    refined: list[Scores] = []
    fits: list[Scores] = []

    def watch(name: str, gaussians: Gaussians4D) -> None:
        with clock.stopped() as seconds:
            point = score(gaussians, truth) | {"seconds": seconds, "gaussians": len(gaussians)}
            (fits if name == "fit" else refined).append(point)

    start = reconstructor.reconstruct(views)
    watch("network", start)
    advance(f"{folder.name} network")
    config = make_config(RefinementConfig, [f"corrector={corrector_of(task.model)}", *task.settings])
    Refinement(config, task.seconds - clock(), watch=watch, clock=clock)(start, views)
    advance(f"{folder.name} refined")
    clock.reset()
    hull = start_in_hull(views, HULL_GAUSSIANS, torch.Generator().manual_seed(config.seed))
    splatting = plain(RefinementConfig(steps=SCRATCH_STEPS))
    refiner = Refiner(hull, views, make_config(RefinementConfig, asdict(splatting)))
    scratch = follow(refiner, truth, clock, task.scratch_seconds)
    advance(f"{folder.name} scratch")
    return {"network": refined[:1], "refined": refined, "fits": fits, "scratch": scratch}


def follow(refiner: Refiner, truth: Views, clock: Clock, seconds: float) -> list[Scores]:
    """Take a refiner to the end of the time and score it on the way; the last is its scene as a file has it."""
    points: list[Scores] = []
    began = clock()
    marks = [began + mark * (seconds - began) for mark in MARKS]

    def progress() -> float:
        return refiner.progress(clock() - began, seconds - began)

    while progress() < 1:
        refiner.step(progress())
        if marks and clock() >= marks[0]:
            marks = marks[1:]
            with clock.stopped() as now, torch.no_grad():
                pictures = [refiner.fit.render(v.cameras, v.times) for v in _runs(truth)]
                points.append(_score(torch.cat(pictures), truth) | {"seconds": now})
    scene = refiner.result()
    with clock.stopped() as now:
        points.append(score(scene, truth) | {"seconds": now, "gaussians": len(scene)})
    return points


def score(scene: Gaussians4D, truth: Views) -> Scores:
    """Of a scene as it would be written."""
    scene = Gaussians4D(**{n: v.half().float() for n, v in scene.tensors().items()}, low_pass=scene.low_pass)
    frames = render_frames(scene, truth.cameras, truth.times)
    return _score(torch.cat([frame.image for frame in frames]), truth)


def _score(pictures: torch.Tensor, truth: Views) -> Scores:
    return score_pictures(to_bytes(pictures).cpu().float() / 255, truth)


def _runs(views: Views, size: int = 12) -> list[Views]:
    return [views[i : i + size] for i in range(0, len(views), size)]


def run(task: Task, folders: Sequence[Path], output: Path, restart: bool, device: str) -> dict[str, dict]:
    """Measure every scene that has no file in the output folder yet; {scene: curves}."""
    done = {} if restart else read_done(task, folders, output, "curves")
    todo = [folder for folder in folders if folder.name not in done]
    reconstructor = Reconstructor.from_pretrained(task.model, device) if todo else None
    with make_bar() as progress:
        bar = progress.add_task("measuring", total=3 * len(todo))
        for folder in todo:
            curves = measure_scene(
                folder, task, reconstructor, lambda text: progress.update(bar, advance=1, description=text)
            )
            done[folder.name] = curves
            save_done(task, folder.name, curves, output, "curves")
            ends = ", ".join(f"{name} {curves[name][-1]['psnr']:.2f}" for name in ("network", "refined", "scratch"))
            progress.console.print(f"{folder.name}: {ends}")
    return {folder.name: done[folder.name] for folder in folders if folder.name in done}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.refinement", description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", required=True, help="a scene folder, or a folder of them")
    parser.add_argument("--protocol", default="random", help="inputs and targets (default random)")
    parser.add_argument("--model", default=DEFAULT, help="weights by name or folder")
    parser.add_argument("--seconds", type=float, default=30.0, help="of network and refinement (default 30)")
    parser.add_argument("--scratch-seconds", type=float, help="of splatting from scratch (as long)")
    parser.add_argument("--size", type=int, help="resize to this many pixels (the longer side)")
    parser.add_argument("--limit", type=int, help="only the first N scenes")
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        help="score every Nth target only (default 1); 4 skips cameras where a moment has four targets",
    )
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall", help="see above (default wall)")
    parser.add_argument("--cores", type=int, default=2, help="of the processor clock (default 2)")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="KEY=VALUE of the refinement")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda")
    parser.add_argument("--restart", action="store_true", help="measure again what is measured already")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder of the report")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if all went well, 2 with a message if the input is wrong."""
    options = parse_arguments(arguments)
    task = Task(
        protocol=options.protocol,
        model=options.model,
        seconds=options.seconds,
        scratch_seconds=options.scratch_seconds or options.seconds,
        size=options.size,
        every=options.every,
        clock=options.clock,
        cores=options.cores,
        settings=options.settings,
    )
    try:
        scenes = run(task, find_scenes(options.scenes, options.limit), options.output, options.restart, options.device)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    markdown = to_markdown(scenes, vars(task))
    write_text(options.output / "report.md", markdown)
    write_text(options.output / "report.json", json.dumps({"task": vars(task), "scenes": scenes}, indent=1) + "\n")
    draw_curves(scenes, options.output / "curves.png")
    print(markdown.split("\n## ")[0])
    print(f"written: {options.output / 'report.md'}, report.json, curves.png, scenes/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
