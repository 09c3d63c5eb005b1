"""lrm4d export: a 4D scene as files that other programs show."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrm4d.cli.app import app
from lrm4d.cli.arguments import AsJson, SceneFile, find_scene
from lrm4d.cli.printing import Bars, print_json

if TYPE_CHECKING:
    from lrm4d.cameras import Cameras
    from lrm4d.gaussians4d import MovingGaussians

FRAMES, OVERVIEW_SIDE = 24, 720
"""Files in a folder unless told otherwise, and pixels of the camera that a .splatv has without --views."""


@app.command(
    epilog="""\b
Examples:
  lrm4d export out/scene --html out/scene.html --title "A fox"
  lrm4d export out/scene --html out/scene.html --views SCENE --protocol random
  lrm4d export out/scene.safetensors --ply moment.ply --gltf moment.glb --time 0.25
  lrm4d export out/scene --ply frames/ --frames 48 --splatv out/scene.splatv --json

Only .html and .splatv hold the motion; .ply, .glb and .gltf hold one moment. docs/formats.md tells what each format
keeps of a scene and every transform. For videos see `lrm4d render`."""
)
def export(
    scene: SceneFile,
    html: Annotated[Path | None, typer.Option(help="A page that shows the scene from disk, in motion.")] = None,
    ply: Annotated[Path | None, typer.Option(help="INRIA's .ply of one time, or a folder for one a time.")] = None,
    splatv: Annotated[Path | None, typer.Option(help="The .splatv of splaTV, in motion.")] = None,
    gltf: Annotated[Path | None, typer.Option(help=".glb or .gltf with KHR_gaussian_splatting, of one time.")] = None,
    time: Annotated[float, typer.Option(min=0, max=1, help="The clip's time of one moment.")] = 0.5,
    frames: Annotated[int | None, typer.Option(min=1, help=f"Files in the folder of --ply ({FRAMES}).")] = None,
    views: Annotated[
        Path | None, typer.Option(help="The scene folder: its inputs become cameras to look from.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="Which inputs of --views, by a name of protocols.json.")] = None,
    title: Annotated[str | None, typer.Option(help="Of the page (the scene's name).")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a 4D scene as files that other programs show."""
    outputs = [path for path in (html, ply, splatv, gltf) if path]
    check_options(outputs, html, ply, splatv, frames, views, protocol, title)
    from lrm4d.export.gltf import write_gltf
    from lrm4d.export.html import write_html
    from lrm4d.export.splatv import write_splatv
    from lrm4d.gaussians4d import Gaussians4D, load_extra
    from lrm4d.pipeline import load_inputs

    file = find_scene(scene)
    gaussians = Gaussians4D.load(file)
    moving = gaussians.to_moving().visible()
    if not len(moving.means):
        raise ValueError(f"{file}: none of its {len(gaussians)} Gaussians can be seen at any time. Was it trained?")
    inputs = load_inputs(views, protocol) if views else None
    name = title or str(load_extra(file).get("scene") or file.resolve().parent.name)
    results = []
    with Bars() as bars:

        def done(kind: str, path: Path, counts: dict[Path, int]) -> None:
            size = sum(written.stat().st_size for written in counts)
            result = {"format": kind, "path": str(path), "files": len(counts), "bytes": size}
            results.append(result | {"gaussians": sum(counts.values())})
            bars("formats", len(results), len(outputs))

        if html:
            done("html", html, {html: write_html(html, gaussians, inputs, name).gaussians})
        if splatv:
            write_splatv(splatv, moving, inputs.cameras if inputs else overview(moving))
            done("splatv", splatv, {splatv: len(moving.means)})
        if ply:
            done("ply", ply, write_ply_or_frames(ply, moving, time, frames, bars))
        if gltf:
            moment = moving.visible_at(time)
            write_gltf(gltf, moment)
            done("gltf", gltf, {gltf: len(moment.means)})
    print_results(file, len(gaussians), results, as_json)


def check_options(
    outputs: list[Path],
    html: Path | None,
    ply: Path | None,
    splatv: Path | None,
    frames: int | None,
    views: Path | None,
    protocol: str | None,
    title: str | None,
) -> None:
    """ValueError before any work where nothing is to be written or an option would do nothing."""
    if not outputs:
        raise ValueError("nothing to write: give at least one of --html, --ply, --splatv, --gltf.")
    if len(set(outputs)) < len(outputs):
        raise ValueError(f"two outputs have one name: {', '.join(map(str, outputs))}.")
    if ply and ply.suffix not in ("", ".ply") and not ply.is_dir():
        raise ValueError(f"--ply {ply}: expected a name that ends in .ply, or a folder.")
    if frames and (not ply or ply.suffix == ".ply"):
        raise ValueError("--frames goes with a folder for --ply: one file a time.")
    if views and not (html or splatv):
        raise ValueError("--views goes with --html or --splatv: the other formats hold no cameras.")
    if protocol and not views:
        raise ValueError("--protocol names inputs of --views; give the scene folder too.")
    if title and not html:
        raise ValueError("--title goes with --html.")


def overview(moving: "MovingGaussians") -> "Cameras":
    """One camera [1] that shows the whole scene."""
    from lrm4d.export.overview import find_extent, overview_camera

    return overview_camera(*find_extent(moving), OVERVIEW_SIDE)[None]


def write_ply_or_frames(
    path: Path, moving: "MovingGaussians", time: float, frames: int | None, bars: Bars
) -> dict[Path, int]:
    """One .ply, or a folder of them at even times from 0 to 1; returns how many Gaussians each file holds."""
    import torch

    from lrm4d.export.ply import write_ply, write_ply_frames

    if path.suffix == ".ply":
        moment = moving.visible_at(time)
        write_ply(path, moment)
        return {path: len(moment.means)}
    return write_ply_frames(path, moving, torch.linspace(0, 1, frames or FRAMES), bars)


def print_results(file: Path, count: int, results: list[dict], as_json: bool) -> None:
    """Print what was written, for a reader or for a program."""
    if as_json:
        print_json({"scene": str(file), "gaussians": count, "files": results})
        return
    typer.echo(f"{file}: {count:,} Gaussians")
    for result in results:
        size, files = f"{result['bytes'] / 1e6:.2f} MB", f" in {result['files']} files" * (result["files"] > 1)
        typer.echo(f"{result['format']:8}{size:>12}{result['gaussians']:>12,} Gaussians{files}  {result['path']}")
