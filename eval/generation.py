"""Score views that are made from one video against the true ones, beside fills that need no network.

python -m eval.generation --scenes DIR --inpainter nano -o OUT writes OUT/report.md, OUT/report.json, OUT/sheet.png,
a contact sheet of every scene in OUT/sheets, and OUT/scenes/NAME.json as each scene is done: the same command goes on
where it was stopped; --restart begins again. DIR: see data_tools/render_assets.py.

The presets are carried out as `lrm4d generate` does, but that their banks are the scenes' own cameras, whose pictures
are known. Fills, too, are told what is white because it lies beside the video's silhouettes (carving.py). A preset
that packs is run without packing too, and with --tune N one is run after tuning to each of N scenes' videos.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from eval.fans import Fan, load_fan
from eval.filling import FILLS, Grids, score_agreement, score_regions, why_no_telea
from eval.generation_report import draw_overview, to_markdown
from eval.protocols import find_scenes
from eval.report import SceneScores, summarize
from eval.resuming import make_bar, read_done, save_done
from lrm4d.checkpoint import write_text
from lrm4d.export.contact_sheet import contact_sheet, spread
from lrm4d.generation.backends import choose_sampling, load_inpainter
from lrm4d.generation.carving import carve_grid
from lrm4d.generation.completion import complete
from lrm4d.generation.depth import DepthProvider, NetworkDepth
from lrm4d.generation.foreground import cut_out_of_white
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.grid import ViewGrid, start_grid
from lrm4d.generation.inpainter import Inpainter, NanoInpainter
from lrm4d.generation.network import SHIPPED, load_network
from lrm4d.generation.plans import Plan
from lrm4d.generation.presets import load_preset, preset_names
from lrm4d.generation.tuning import Tuning, tune
from lrm4d.pipeline.generate import object_radius
from lrm4d.reconstruction.reconstructor import Reconstructor, choose_device
from lrm4d.scenes.pictures import load_pictures, save_picture

VIEWS = "turn+15,turn+30,turn+45,turn+60"
UNPACKED, TUNED = ", K = 0", ", tuned"


@dataclass(frozen=True)
class Task:
    """What is scored and how; scores made for another task are not mixed in.

    inpainter: a name or folder. weights: a hash of them. presets, views: names with commas between. moments: of each
    scene, None for all. depth: "given", the video's true depth, or a reconstruction network's name. steps: of
    sampling, None for the inpainter's usual number. tuned: how many scenes are tuned to. tuning_steps: of a round.
    """

    inpainter: str
    weights: str
    presets: str
    views: str
    moments: int | None = None
    depth: str = "given"
    steps: int | None = None
    tuned: int = 0
    tuning_steps: int = Tuning.steps


@dataclass(frozen=True)
class Machine:
    """What makes pictures: the inpainter, and the depth of what was made (for plans that go in hops)."""

    inpainter: Inpainter
    depth: str
    device: str

    def provider(self, fan: Fan) -> DepthProvider:
        """The reconstruction network that sees from where the fan's video is taken."""
        network = Reconstructor.from_pretrained("nano" if self.depth == "given" else self.depth, self.device)
        return NetworkDepth(network.reconstruct, fan.cameras[:1, 0], cut_out_of_white)

    def geometry(self, fan: Fan) -> Geometry:
        """The video's: the true one, or what the network sees."""
        return fan.geometries[0] if self.depth == "given" else self.provider(fan)(fan.images[:, 0])

    def make(self, fan: Fan, grid: ViewGrid, geometry: Geometry, plan: Plan, steps: int | None) -> Grids:
        """All views by a plan."""
        sampling = choose_sampling(self.inpainter, steps=steps)
        depth = self.provider(fan) if plan.max_hop else None
        return complete(grid, geometry, plan, self.inpainter, sampling, depth=depth).images


def plans_of(task: Task) -> dict[str, Plan]:
    """The presets' plans, and what packs without packing."""
    plans = {name: load_preset(name).plan for name in task.presets.split(",") if name}
    bare = {name + UNPACKED: replace(plan, packed=0) for name, plan in plans.items() if plan.packed}
    return plans | bare


def tuned_preset(task: Task) -> str:
    """The preset that is run after tuning: the first that packs, as EasyCreator does, or the first of all."""
    plans = plans_of(task)
    return next((name for name, plan in plans.items() if plan.packed), next(iter(plans)))


def tune_machine(machine: Machine, task: Task, fan: Fan, geometry: Geometry, folder: Path) -> Machine:
    """The same with an inpainter that is tuned to the fan's video."""
    network = load_network(task.inpainter).to(machine.device)
    tune(network, fan.images[:, 0], geometry, folder, Tuning(steps=task.tuning_steps))
    return replace(machine, inpainter=NanoInpainter(network, torch.device(machine.device)))


def score_scene(
    folder: Path, task: Task, machine: Machine, output: Path, with_tuning: bool, advance: Callable[[str], None]
) -> SceneScores:
    """{"all" or an angle: {method: scores}} of one scene, and its contact sheet; advance is called after each."""
    fan = load_fan(folder, tuple(task.views.split(",")), task.moments)
    geometry = machine.geometry(fan)
    warped = start_grid(fan.images[:, 0], geometry, fan.cameras[:, 1:], fan.times)
    grid, _ = carve_grid(warped, fan.alphas[:, 0], object_radius(geometry))
    methods = {name: partial(fill, grid) for name, fill in FILLS.items() if name != "Telea" or not why_no_telea()}
    for name, plan in plans_of(task).items():
        methods[name] = partial(machine.make, fan, grid, geometry, plan, task.steps)
    if with_tuning:
        tuned = partial(tune_machine, machine, task, fan, geometry, output / "tuned" / folder.name)
        name = tuned_preset(task)
        plan = plans_of(task)[name]
        methods[name + TUNED] = lambda: tuned().make(fan, grid, geometry, plan, task.steps)
    result: SceneScores = {}
    made: dict[str, Grids] = {}
    for method, make in methods.items():
        start = time.perf_counter()
        made[method] = make()
        seconds = round(time.perf_counter() - start, 3)
        for group, scores in score_regions(made[method], warped.known, fan).items():
            result.setdefault(group, {})[method] = scores
        result["all"][method] |= score_agreement(made[method], warped.known, fan) | {"seconds": seconds}
        advance(f"{folder.name} {method}")
    result["all"]["truth"] = score_agreement(fan.images, warped.known, fan)
    draw_scene(fan, made, output / "sheets", folder.name)
    return result


def draw_scene(fan: Fan, made: dict[str, Grids], folder: Path, name: str) -> None:
    """The views at the middle moment, a row a method; and, for the overview, the farthest view as a strip."""
    moment, farthest = len(fan.times) // 2, fan.angles.index(max(fan.angles))
    rows = {"video": fan.images[:, 0][spread(len(fan.times), len(fan.names) - 1)]}
    rows |= {method: pictures[moment, 1:] for method, pictures in made.items()} | {"truth": fan.images[moment, 1:]}
    save_picture(folder / f"{name}.png", contact_sheet(rows, fan.names[1:], name))
    strip = [fan.images[moment, 0], *(x[moment, farthest] for x in made.values()), fan.images[moment, farthest]]
    save_picture(folder / f"{name}_strip.png", torch.cat(strip, dim=-2))


def run(task: Task, folders: Sequence[Path], output: Path, restart: bool, device: str) -> dict[str, SceneScores]:
    """Score every scene that has no scores in the output folder yet; {scene: {group: {method: scores}}}."""
    done = {} if restart else read_done(task, folders, output)
    todo = [folder for folder in folders if folder.name not in done]
    machine = Machine(load_inpainter(task.inpainter, device), task.depth, device) if todo else None
    tuned = {folders[index] for index in spread(len(folders), task.tuned)} if task.tuned else set()
    each = len(FILLS) - bool(why_no_telea()) + len(plans_of(task))
    with make_bar() as progress:
        bar = progress.add_task("scoring", total=sum(each + (folder in tuned) for folder in todo))
        step = lambda text: progress.update(bar, advance=1, description=text)  # noqa: E731
        for folder in todo:
            assert machine is not None
            done[folder.name] = score_scene(folder, task, machine, output, folder in tuned, step)
            save_done(task, folder.name, done[folder.name], output)
    return {folder.name: done[folder.name] for folder in folders}


def write_report(scenes: dict[str, SceneScores], task: Task, source: str, output: Path) -> str:
    """Write report.json, report.md and sheet.png; returns the Markdown."""
    notes = {
        "inpainter": f"{task.inpainter} (weights {task.weights})",
        "scenes": f"{len(scenes)} of {source}",
        "views": f"{task.views}; {task.moments or 'all'} moments",
        "depth of the video": "true" if task.depth == "given" else f"of the network {task.depth}",
        "sampling steps": task.steps or "the inpainter's usual",
        "presets' banks": "replaced by the scenes' own cameras",
    }
    if why_no_telea():
        notes["Telea"] = f"not computed: {why_no_telea()}"
    if task.tuned:
        notes["tuning"] = f"{task.tuned} scenes, {task.tuning_steps} steps a round"
    markdown = to_markdown(scenes, notes, TUNED)
    content = {"notes": notes, "mean": summarize(scenes), "scenes": scenes}
    write_text(output / "report.json", json.dumps(content, indent=1) + "\n")
    write_text(output / "report.md", markdown)
    strips = {name: output / "sheets" / f"{name}_strip.png" for name in scenes}
    read = {name: load_pictures([file])[0, :3] for name, file in strips.items() if file.is_file()}
    if read:
        methods = {name: list(scene["all"]) for name, scene in scenes.items()}
        save_picture(output / "sheet.png", draw_overview(read, methods))
    return markdown


def hash_weights(inpainter: str) -> str:
    """The first 12 digits of the SHA-256 of an inpainter's weights; "" for those that are not on disk."""
    files = [folder / "model.safetensors" for folder in (SHIPPED / inpainter, Path(inpainter))]
    found = next((file for file in files if file.is_file()), None)
    return hashlib.sha256(found.read_bytes()).hexdigest()[:12] if found else ""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.generation", description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", required=True, help="a scene folder with depth/front.npz, or a folder of them")
    parser.add_argument("--inpainter", default="nano", help="weights by name or folder, or wan:CHECKPOINT")
    parser.add_argument("--presets", default=",".join(preset_names()), help="names with commas between (default: all)")
    parser.add_argument("--views", default=VIEWS, help=f"names with commas between (default {VIEWS})")
    parser.add_argument("--moments", type=int, default=3, help="of each scene, evenly chosen (default 3)")
    parser.add_argument("--depth", default="given", help='"given" (default) or a reconstruction network, such as nano')
    parser.add_argument("--steps", type=int, help="of sampling (default: the inpainter's usual)")
    parser.add_argument("--limit", type=int, help="only the first N scenes")
    parser.add_argument("--tune", type=int, default=0, help="tune to N of the scenes (default 0), evenly chosen")
    parser.add_argument("--tuning-steps", type=int, default=Tuning.steps, help=f"of a round (default {Tuning.steps})")
    parser.add_argument("--device", default="auto", help="where the networks run: auto (default), cpu, cuda")
    parser.add_argument("--restart", action="store_true", help="score again what is scored already")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder of the report")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if all went well, 2 with a message if the input is wrong."""
    options = parse_arguments(arguments)
    try:
        task = Task(
            inpainter=options.inpainter,
            weights=hash_weights(options.inpainter),
            presets=options.presets,
            views=options.views,
            moments=options.moments,
            depth=options.depth,
            steps=options.steps,
            tuned=options.tune,
            tuning_steps=options.tuning_steps,
        )
        folders = find_scenes(options.scenes, options.limit)
        device = str(choose_device(options.device))
        scenes = run(task, folders, options.output, options.restart, device)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(write_report(scenes, task, options.scenes, options.output).split("\n## Each scene")[0])
    print(f"written: {options.output / 'report.md'}, report.json, sheet.png, scenes/, sheets/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
