"""lrm4d refine: a 4D scene fitted to its pictures."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lrm4d.cli.app import app
from lrm4d.cli.arguments import AsJson, Device, ListCommand, Output, expand_lists, find_scene
from lrm4d.cli.printing import Bars, print_json
from lrm4d.cli.reconstruct import print_report


@app.command(
    cls=ListCommand,
    epilog="""\b
Examples:
  lrm4d reconstruct SCENE -o out/scene --protocol random
  lrm4d refine out/scene --views SCENE --protocol random --seconds 30 -o out/refined
  lrm4d refine --views SCENE --protocol random --seconds 60 -o out/scratch
  lrm4d refine out/scene --views SCENE -o out/refined --set nodes=0 --set density.budget=60000
\b
Without a scene it starts from random Gaussians in the silhouettes' hull: plain 4D Gaussian splatting. A command that
was stopped goes on when it is given again.""",
)
def refine(
    output: Output,
    views: Annotated[Path, typer.Option(help="The scene folder that the pictures are in.")],
    scene: Annotated[
        Path | None, typer.Argument(help="What `lrm4d reconstruct` wrote: a scene.safetensors or its folder.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="Inputs and targets by a name of protocols.json.")] = None,
    inputs: Annotated[
        list[str] | None, typer.Option(help="file_paths of the input pictures, or @FILE with one a line.")
    ] = None,
    targets: Annotated[
        list[str] | None, typer.Option(help="file_paths to render (and judge), or @FILE with one a line.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="How long at most.")] = 30.0,
    size: Annotated[int | None, typer.Option(help="Resize the inputs: pixels of the longer side.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE of the refinement.")] = None,
    video: Annotated[bool, typer.Option(help="Write orbit.mp4 too.")] = True,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Fit a 4D scene to the pictures that it was made of; render and score the targets.

    Writes what `lrm4d reconstruct` writes, and OUTPUT/refinement.json. The result is a blend of fits and of what they
    set out from; --set "shares=[0, 1]" leaves the latter out, --set "origins=[0.5]" makes one fit.
    """
    from dataclasses import asdict

    from lrm4d.checkpoint import write_text
    from lrm4d.config import make_config
    from lrm4d.pipeline import choose_frames, read_inputs, reconstruct_scene
    from lrm4d.refinement.config import SCRATCH_STEPS, RefinementConfig, plain
    from lrm4d.refinement.corrector import corrector_of
    from lrm4d.refinement.job import GivenScene, Refinement
    from lrm4d.scenes import load_scene

    loaded = load_scene(views, pictures_required=False)
    choice = choose_frames(loaded, protocol, expand_lists(inputs), expand_lists(targets))
    state = output / "refinement.safetensors"
    if scene is None:
        base = plain(RefinementConfig(steps=SCRATCH_STEPS))
        start, name = _start_in_hull(read_inputs(loaded, choice.inputs, size), device), "scratch"
    else:
        start, name, refined = _load_start(scene, device)
        base = RefinementConfig(corrector="" if refined else corrector_of(name))
    config = make_config(RefinementConfig, asdict(base), settings or [])
    refinement = Refinement(config, seconds, state=state)
    with Bars() as bars:
        given = GivenScene(start)
        report = reconstruct_scene(given, loaded, choice, output, name, size, video, bars, refine=refinement)
    write_text(output / "refinement.json", json.dumps(refinement.report, indent=1) + "\n")
    if as_json:
        print_json({**report.to_json(), "refinement": refinement.report})
        return
    typer.echo(describe(refinement.report))
    print_report(report, as_json)


def describe(report: dict) -> str:
    """What a refinement did, in a line."""
    corrected = "corrected, " if report["corrected"] else ""
    steps = " + ".join(map(str, report["steps"]))
    return f"{corrected}{steps} steps in {report['seconds']:.1f} s; {report['gaussians']} Gaussians"


def _start_in_hull(views, device: str):
    import torch

    from lrm4d.reconstruction.reconstructor import choose_device
    from lrm4d.refinement.starts import HULL_GAUSSIANS, start_in_hull

    return start_in_hull(views, HULL_GAUSSIANS, torch.Generator().manual_seed(0)).to(choose_device(device))


def _load_start(scene: Path, device: str):
    """The scene, the name of what made it, and whether it is refined already: not what the corrector knows."""
    from lrm4d.gaussians4d import Gaussians4D, load_extra
    from lrm4d.reconstruction.reconstructor import choose_device

    file = find_scene(scene)
    extra = load_extra(file)
    return Gaussians4D.load(file).to(choose_device(device)), extra.get("model") or file.parent.name, "refined" in extra
