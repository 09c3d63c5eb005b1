"""lrm4d generate: one video in, synchronized videos from other cameras out."""

from pathlib import Path
from typing import Annotated

import typer

from lrm4d.cli.app import app
from lrm4d.cli.arguments import AsJson, Device, parse_size
from lrm4d.cli.printing import Bars, print_json


@app.command(
    epilog="""\b
Examples:
  lrm4d generate clip.mp4 --preset easycreator -o grid
  lrm4d generate clip.mp4 --preset see4d --bank ring:views=5,rise=10 --size 128 -o grid
  lrm4d generate frames/ --preset full4d --set plan.window=17 --set plan.overlap=5 -o grid
  lrm4d generate clip.mp4 --geometry clip.npz --cameras transforms.json --inpainter wan:CHECKPOINT -o grid
  lrm4d generate clip.mp4 --lora tuned:0.7 -o grid     after: lrm4d tune clip.mp4 -o tuned
  lrm4d reconstruct grid -o out
\b
Banks, and their options as they are if not said; degrees from the video's camera, distance as a factor of its own:
  fan:views=4,span=60,rise=0          beside it, from left to right
  ring:views=7,rise=0                 all around it
  rings:views=8,rings=3,lowest=-20,highest=40    rings above each other
  dome:views=16,lowest=0              over the half sphere
  kubric16                            the 16 cameras of Kubric-4D
All take distance=1. `lrm4d path BANK -o preview.png` draws one; `lrm4d warp` shows what is known from a camera.
\b
Presets are configurations (see4d, easycreator, full4d, or a YAML file); --set changes one. The pivot is the video's
foreground. --cameras: a transforms.json whose frames name their view has a camera that moves for each; in any other
file every camera is a view, at rest; both in the geometry's own world. A stopped run's command given again goes on."""
)
def generate(
    video: Annotated[Path, typer.Argument(help="A video, or a folder of pictures in the order of their names.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the grid.")],
    preset: Annotated[str, typer.Option(help="A preset's name, or a YAML file.")] = "easycreator",
    settings: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE of the preset.")] = None,
    bank: Annotated[str | None, typer.Option(help="The cameras to go to (the preset's).")] = None,
    cameras: Annotated[Path | None, typer.Option(help="A file of cameras instead, a view each.")] = None,
    geometry: Annotated[Path | None, typer.Option(help="Depth, and cameras if known: a file or folder.")] = None,
    depth: Annotated[str, typer.Option(help="What estimates depth: an lrm4d network, or hf:MODEL.")] = "nano",
    inpainter: Annotated[str, typer.Option(help="Weights: a name, a folder or hub id, or wan:CHECKPOINT.")] = "nano",
    lora: Annotated[str | None, typer.Option(help="Low-rank layers, as `lrm4d tune` makes: FOLDER[:WEIGHT].")] = None,
    prompt: Annotated[str | None, typer.Option(help="For inpainters that understand text.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps (the inpainter's usual number).")] = None,
    guidance: Annotated[float | None, typer.Option(help="1 is none (the inpainter's usual).")] = None,
    seed: int = 0,
    keep_known: Annotated[bool | None, typer.Option(help="Leave pixels as the warp has them (nano: yes).")] = None,
    drop_edges: Annotated[bool, typer.Option("--drop-edges", help="Leave out what depth edges make unsure.")] = False,
    frames: Annotated[int | None, typer.Option(min=2, help="How many, evenly over the clip (all).")] = None,
    size: Annotated[str | None, typer.Option(help="Pixels: N or WIDTHxHEIGHT.")] = None,
    fov: Annotated[float, typer.Option(help="Of the video, horizontal degrees, where nothing tells it.")] = 55.0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Make a video's views from other cameras: a grid of pictures, a scene folder too.

    Writes OUTPUT/view00.mp4 (the input), view01.mp4, ..., OUTPUT/images, OUTPUT/known (white: seen in the video),
    OUTPUT/transforms.json and OUTPUT/contact_sheet.png.
    """
    import torch

    from lrm4d.export.contact_sheet import grid_sheet
    from lrm4d.pipeline.clip import read_clip
    from lrm4d.pipeline.depth import by_network, choose_depth, find_geometry
    from lrm4d.pipeline.generate import generate as make_views
    from lrm4d.pipeline.generate import load_maker, view_from
    from lrm4d.scenes.pictures import save_picture

    overrides = (settings or []) + ([f"bank={bank}"] if bank else [])
    sampling = {"steps": steps, "guidance": guidance, "seed": seed, "keep_known": keep_known, "text": prompt}
    maker = load_maker(preset, overrides, inpainter, lora, device, drop_edges, **sampling)
    clip = read_clip(video, parse_size(size, None)).choose(frames)
    height, width = clip.frames.shape[-2:]
    # What tells the video's depth may be a file, which knows nothing of the stops on the way to far views.
    stops = choose_depth(depth, fov, device, width, height) if maker.preset.plan.max_hop else None
    with Bars() as bars:
        known = find_geometry(clip, geometry, depth, fov, device, bars)
        pivot = torch.zeros(3) if by_network(geometry, depth) else None
        done = make_views(
            *(clip.on_white, *view_from(known, pivot, maker.preset.bank, cameras), maker, output),
            depth=stops,
            frames_per_second=clip.rate,
            announce=lambda estimate: typer.echo(estimate.describe(), err=True),
            progress=bars,
        )
    save_picture(output / "contact_sheet.png", grid_sheet(done.images, done.known, f"{video.name}, {preset}"))
    seen = done.known.float().mean((0, 2, 3, 4)).tolist()
    result = {"output": str(output), "frames": done.shape[0], "views": done.shape[1], "width": width, "height": height}
    result |= {"seen": [round(share, 4) for share in seen]}
    shares = ", ".join(f"{100 * share:.0f}" for share in seen[1:])
    said = (
        f"{output}: {done.shape[1]} views of {done.shape[0]} frames, {width} x {height}; seen in the video: {shares} %"
    )
    print_json(result) if as_json else typer.echo(said)
