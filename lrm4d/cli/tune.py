"""lrm4d tune: an inpainter gets used to one video, before it makes that video's views."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lrm4d.cli.app import app
from lrm4d.cli.arguments import AsJson, Device, parse_size
from lrm4d.cli.printing import Bars, print_json

MEAN_OF = 10
"""Steps over which losses are averaged for the result."""


@app.command(
    epilog="""\b
Examples:
  lrm4d tune clip.mp4 -o tuned
  lrm4d generate clip.mp4 --lora tuned --bank fan:views=4,span=120 -o grid
  lrm4d tune clip.mp4 --geometry clip.npz --size 128 --frames 8 --last 45 --steps 20 -o tuned
  lrm4d tune clip.mp4 --set rank=32 --set learning_rate=0.0005 --set cycle=0 -o tuned
\b
The first round goes to cameras 30 degrees aside, each further one 10 degrees farther, up to --last. A round begins
with making the video's views from there; it learns from these, warped back, and from the video, warped there and back.
--set changes first, further, frames (of a step), rank, learning_rate, weight_decay, own (share of steps on made
pictures), hidden (that hide a side too), cycle (weight of that loss), hole_weight, level_center, level_spread,
jitter_degrees, jitter_distance, fray, sampling, save_every. The same command again goes on where it was stopped.
Give video, size, frames, geometry and inpainter as to `lrm4d generate`; `--lora tuned:0.7` there takes less of it."""
)
def tune(
    video: Annotated[Path, typer.Argument(help="A video, or a folder of pictures in the order of their names.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the low-rank layers and the run.")],
    geometry: Annotated[Path | None, typer.Option(help="Depth, and cameras if known: a file or folder.")] = None,
    depth: Annotated[str, typer.Option(help="What estimates depth: an lrm4d network, or hf:MODEL.")] = "nano",
    inpainter: Annotated[str, typer.Option(help="Weights: a name, a folder or a hub id.")] = "nano",
    last: Annotated[float | None, typer.Option(help="Degrees that the last round reaches.")] = None,
    steps: Annotated[int | None, typer.Option(help="Of each round.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE of the tuning.")] = None,
    seed: int = 0,
    frames: Annotated[int | None, typer.Option(min=1, help="How many, evenly over the clip (all).")] = None,
    size: Annotated[str | None, typer.Option(help="Pixels: N or WIDTHxHEIGHT.")] = None,
    fov: Annotated[float, typer.Option(help="Of the video, horizontal degrees, where nothing tells it.")] = 55.0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Tune the small inpainter to a video, round by round, with low-rank layers (LoRA).

    Writes OUTPUT/lora.safetensors, which `lrm4d generate --lora OUTPUT` takes, and OUTPUT/log.jsonl.
    """
    import torch

    from lrm4d.config import make_config
    from lrm4d.generation.backends import WAN
    from lrm4d.generation.network import load_network
    from lrm4d.generation.placing import place
    from lrm4d.generation.tuning import Tuning
    from lrm4d.generation.tuning import tune as tune_network
    from lrm4d.pipeline.clip import read_clip
    from lrm4d.pipeline.depth import by_network, find_geometry
    from lrm4d.reconstruction.reconstructor import choose_device

    said = {"last": last, "steps": steps, "seed": seed}
    tuning = make_config(Tuning, {name: value for name, value in said.items() if value is not None}, settings or [])
    if inpainter.startswith(WAN):
        raise ValueError(
            f"--inpainter {inpainter}: tuning is for the small inpainter; give its weights, such as nano."
        )
    network = load_network(inpainter).to(choose_device(device))
    clip = read_clip(video, parse_size(size, None)).choose(frames)
    pictures = clip.on_white
    with Bars() as bars:
        known = find_geometry(clip, geometry, depth, fov, device, bars)
        placed = place(known, torch.zeros(3) if by_network(geometry, depth) else None)
        path = tune_network(network, pictures, placed, output, tuning, progress=bars)
    losses = [json.loads(line)["loss"] for line in (output / "log.jsonl").read_text().splitlines()]
    first, end = (sum(part) / len(part) for part in (losses[:MEAN_OF], losses[-MEAN_OF:]))
    result = {"output": str(path), "reaches": tuning.reaches, "steps": len(losses), "frames": len(clip)}
    result |= {"width": pictures.shape[3], "height": pictures.shape[2], "loss_first": first, "loss_last": end}
    text = (
        f"{path}: {len(losses)} steps on {len(clip)} frames, to {tuning.reaches[-1]:g} degrees; loss {first:.4f}, at "
        f"the end {end:.4f}. Use it: lrm4d generate {video} --inpainter {inpainter} --lora {output} ..."
    )
    print_json(result) if as_json else typer.echo(text)
