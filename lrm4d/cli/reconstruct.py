"""lrm4d demo and lrm4d reconstruct: pictures in, a 4D scene out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrm4d.cli.app import app
from lrm4d.cli.arguments import AsJson, Device, ListCommand, Model, Output, expand_lists
from lrm4d.cli.printing import Bars, print_json
from lrm4d.pretrained import DEFAULT

if TYPE_CHECKING:
    from lrm4d.pipeline import Report

DEMO_SCENE = Path(__file__).resolve().parent.parent / "scenes" / "demo"


@app.command(
    epilog="""\b
Examples:
  lrm4d demo
  lrm4d demo -o /tmp/demo --seconds 0 --json"""
)
def demo(
    output: Output = Path("out/demo"),
    model: Model = DEFAULT,
    seconds: Annotated[float, typer.Option(min=0, help="Of refinement at most; 0: one pass, corrected.")] = 30.0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Reconstruct and refine the scene that comes with lrm4d: a page to look around in, a video, pictures, scores."""
    report = run_reconstruction(DEMO_SCENE, output, model, device, protocol="demo", correct=True, seconds=seconds)
    print_report(report, as_json)


@app.command(
    cls=ListCommand,
    epilog="""\b
Examples:
  lrm4d reconstruct SCENE -o out/scene --protocol random
  lrm4d reconstruct SCENE -o out/scene --protocol random --correct
  lrm4d reconstruct SCENE -o out/scene --inputs images/front_000.png images/left_000.png
  lrm4d reconstruct SCENE -o out/scene --inputs SCENE/images/rand0_*.png --targets @targets.txt
  lrm4d reconstruct SCENE -o out/scene --inputs @inputs.txt --size 256 --json

SCENE comes before --inputs and --targets, which take all that follows them. Without --protocol and --inputs the
protocol "random" is taken, or the scene's first, or all frames are inputs. Without --targets the protocol's are taken,
or all frames that are no inputs.""",
)
def reconstruct(
    scene: Annotated[Path, typer.Argument(help="Folder with transforms.json (nerfstudio or D-NeRF).")],
    output: Output,
    model: Model = DEFAULT,
    protocol: Annotated[str | None, typer.Option(help="Inputs and targets by a name of protocols.json.")] = None,
    inputs: Annotated[
        list[str] | None, typer.Option(help="file_paths of the input pictures, or @FILE with one a line.")
    ] = None,
    targets: Annotated[
        list[str] | None, typer.Option(help="file_paths to render (and judge), or @FILE with one a line.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Resize the inputs: pixels of the longer side.")] = None,
    correct: Annotated[bool, typer.Option(help="Ask the inputs and correct the scene: better, some seconds.")] = False,
    video: Annotated[bool, typer.Option(help="Write orbit.mp4 too.")] = True,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Turn posed pictures into a 4D scene; render and score the targets.

    Writes OUTPUT/scene.safetensors, OUTPUT/renders/<file_path> of every target (8-bit PNG on white),
    OUTPUT/contact_sheet.png, OUTPUT/orbit.mp4 and OUTPUT/scene.html, which any browser opens.
    """
    report = run_reconstruction(
        scene, output, model, device, protocol, expand_lists(inputs), expand_lists(targets), size, video, correct
    )
    print_report(report, as_json)


def run_reconstruction(
    scene: Path,
    output: Path,
    model: str,
    device: str,
    protocol: str | None = None,
    inputs: list[str] | None = None,
    targets: list[str] | None = None,
    size: int | None = None,
    video: bool = True,
    correct: bool = False,
    seconds: float = 0.0,
) -> "Report":
    """Reconstruct a scene folder and correct it or, if there are seconds for it, refine it, with bars.

    ValueError for what the user can mend.
    """
    from lrm4d.pipeline import Reconstructor, choose_frames, reconstruct_scene
    from lrm4d.refinement.config import RefinementConfig
    from lrm4d.refinement.corrector import corrector_of
    from lrm4d.refinement.job import Correction, Refinement
    from lrm4d.scenes import load_scene

    loaded = load_scene(scene, pictures_required=False)
    choice = choose_frames(loaded, protocol, inputs, targets)
    reconstructor = Reconstructor.from_pretrained(model, device)
    better: Correction | Refinement | None = None
    if seconds:
        better = Refinement(RefinementConfig(corrector=corrector_of(model)), seconds)
    elif correct:
        better = Correction(corrector_of(model))
    with Bars() as bars:
        return reconstruct_scene(reconstructor, loaded, choice, output, model, size, video, bars, refine=better)


def print_report(report: "Report", as_json: bool) -> None:
    """Print what was done, for a reader or for a program."""
    if as_json:
        print_json(report.to_json())
        return
    typer.echo(f"{report.choice} ({len(report.inputs)} in, {len(report.targets)} out)")
    typer.echo(f"{report.model} on {report.device}: {report.gaussians} Gaussians")
    if report.scores:
        psnr, inside, pictures = report.scores.values()
        typer.echo(f"PSNR {psnr:.2f} dB, on the object {inside:.2f} dB (mean of {pictures} pictures)")
    else:
        typer.echo("no scores: none of the targets has a picture")
    typer.echo("seconds: " + ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in report.seconds.items()))
    for name, path in report.files.items():
        typer.echo(f"{name:14}{path}")
    typer.echo(f"Open {report.files['html']} in a browser to look around.")
