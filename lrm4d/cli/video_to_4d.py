"""lrm4d video-to-4d: a video in, a 4D scene to look at from anywhere out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrm4d.cli.app import app
from lrm4d.cli.arguments import AsJson, Device, Model, Output
from lrm4d.cli.printing import Bars, print_json
from lrm4d.pretrained import FOR_MADE_VIEWS

if TYPE_CHECKING:
    from lrm4d.pipeline.video_to_4d import Made


@app.command(
    epilog="""\b
Examples:
  lrm4d video-to-4d frog.mp4 -o out/frog
  lrm4d video-to-4d juggle.mp4 -o out/juggle --start 2 --seconds 4 --frames 16
  lrm4d video-to-4d dog.mp4 --mask dog_masks/ -o out/dog
  lrm4d video-to-4d frog.mp4 -o out/frog --refine 60
  lrm4d video-to-4d frog.mp4 -o out/frog --refine 120 --teach
  lrm4d video-to-4d frames/ --preset full4d --bank fan:views=6,span=90 --steps 2 -o out/x
\b
The object is told by --mask (a video, a folder of pictures, or one picture; white inside), else by the transparency of
a folder's PNG files, else by a white background, else by what moves before a camera that rests. A square around it is
kept; networks see it as if taken from the front, 2.7 units away, with a lens of 49.1 degrees. Rooms and landscapes are
not reconstructed. `lrm4d generate --help` tells of presets and banks.
\b
A run that was stopped goes on if the same command is given again; --model, --inputs, --refine, --teach may differ."""
)
def video_to_4d(
    video: Annotated[Path, typer.Argument(help="A video, or a folder of pictures in the order of their names.")],
    output: Output,
    start: Annotated[float, typer.Option(min=0, help="Seconds that are left out at the beginning.")] = 0.0,
    seconds: Annotated[float, typer.Option(help="Of the video, at most.")] = 3.0,
    frames: Annotated[int, typer.Option(min=2, help="How many, evenly over these seconds.")] = 12,
    size: Annotated[int, typer.Option(help="Pixels of the square pictures.")] = 128,
    mask: Annotated[Path | None, typer.Option(help="Masks of the object, white inside.")] = None,
    geometry: Annotated[Path | None, typer.Option(help="Depth of the whole video: a file or folder.")] = None,
    depth: Annotated[str, typer.Option(help="What estimates depth: an lrm4d network, or hf:MODEL.")] = "nano",
    fov: Annotated[float, typer.Option(help="Of the video, horizontal degrees, with --geometry or hf:.")] = 55.0,
    preset: Annotated[str, typer.Option(help="A preset's name, or a YAML file.")] = "easycreator",
    settings: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE of the preset.")] = None,
    bank: Annotated[str | None, typer.Option(help="The cameras to go to (the preset's).")] = None,
    inpainter: Annotated[str, typer.Option(help="Weights: a name, a folder or hub id, or wan:CHECKPOINT.")] = "nano",
    lora: Annotated[str | None, typer.Option(help="Low-rank layers, as `lrm4d tune` makes: FOLDER[:WEIGHT].")] = None,
    prompt: Annotated[str | None, typer.Option(help="For inpainters that understand text.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps (the inpainter's usual number).")] = None,
    guidance: Annotated[float | None, typer.Option(help="1 is none (the inpainter's usual).")] = None,
    seed: int = 0,
    keep_known: Annotated[bool | None, typer.Option(help="Leave pixels as the warp has them (nano: yes).")] = None,
    inputs: Annotated[int, typer.Option(min=1, help="Pictures to reconstruct from, at most.")] = 36,
    refine: Annotated[float | None, typer.Option(min=1, help="Seconds to fit the scene to the views.")] = None,
    teach: Annotated[bool, typer.Option(help="Ask the inpainter about cameras between them, too.")] = False,
    model: Model = FOR_MADE_VIEWS,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Turn a video of an object into a 4D scene: cut out, depth, views from other cameras, reconstruction.

    Writes OUTPUT/scene.html (open it in a browser), scene.safetensors, orbit.mp4, contact_sheet.png, views.png, grid/
    (the made videos), frames/ and report.json.
    """
    from lrm4d.pipeline import Reconstructor
    from lrm4d.pipeline.generate import load_maker
    from lrm4d.pipeline.video_to_4d import Order
    from lrm4d.pipeline.video_to_4d import video_to_4d as run_chain
    from lrm4d.refinement.config import RefinementConfig
    from lrm4d.refinement.corrector import corrector_of
    from lrm4d.refinement.distillation import DistillationConfig
    from lrm4d.refinement.job import Refinement

    order = Order(start, seconds, frames, size, mask, geometry, depth, fov, inputs)
    overrides = (settings or []) + ([f"bank={bank}"] if bank else [])
    sampling = {"steps": steps, "guidance": guidance, "seed": seed, "keep_known": keep_known, "text": prompt}
    maker = load_maker(preset, overrides, inpainter, lora, device, **sampling)
    reconstructor = Reconstructor.from_pretrained(model, device)
    state = output / "refinement.safetensors"
    config = RefinementConfig(corrector=corrector_of(model))
    refinement = Refinement(config, refine, state=state) if refine else None
    teaching = DistillationConfig() if teach else None
    with Bars() as bars:
        made = run_chain(
            *(video, output, maker, reconstructor, order, model, device, refinement, teaching),
            announce=lambda text: typer.echo(text, err=True),
            progress=bars,
        )
    print_made(made, as_json)


def print_made(made: "Made", as_json: bool) -> None:
    """Print what was done, for a reader or for a program."""
    from dataclasses import asdict

    if as_json:
        print_json(asdict(made))
        return
    shares = ", ".join(f"{100 * share:.0f}" for share in made.seen[1:])
    typer.echo(f"{made.frames} frames, object by {made.cut_out}: {100 * made.share:.1f} % of the pictures")
    typer.echo(f"{len(made.seen) - 1} views, of which the video tells {shares} %")
    typer.echo(f"{made.scene['gaussians']} Gaussians from {len(made.scene['inputs'])} pictures")
    typer.echo("seconds: " + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in made.seconds.items()))
    for name, path in made.files.items():
        typer.echo(f"{name:14}{path}")
    typer.echo(f"Open {made.files['html']} in a browser to look around.")
