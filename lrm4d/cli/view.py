"""lrm4d view: a live session in the browser."""

from pathlib import Path
from typing import Annotated

import typer

from lrm4d.cli.app import app
from lrm4d.cli.arguments import Device, SceneFile, find_scene, parse_color

LOCAL = ("127.0.0.1", "localhost", "::1")


@app.command(
    epilog="""\b
Examples:
  lrm4d view out/scene.safetensors
  lrm4d view out/scene.safetensors --views SCENE --port 8090
  ssh -L 8080:localhost:8080 MACHINE     (then, on MACHINE: lrm4d view out/scene.safetensors)

Every picture is drawn on this machine and sent to the browser. Needs viser: pip install "lrm4d[view]". Ctrl-C ends."""
)
def view(
    scene: SceneFile,
    views: Annotated[
        Path | None, typer.Option(help="A scene folder whose inputs are shown as cameras with their pictures.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="Which of the folder's frames are inputs.")] = None,
    host: Annotated[
        str, typer.Option(help="127.0.0.1: this machine alone. 0.0.0.0: all who can reach it, without a password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The next free one is taken if it is in use.")] = 8080,
    background: Annotated[str, typer.Option(help="white, black, gray or #RRGGBB.")] = "white",
    device: Device = "auto",
) -> None:
    """Look at a 4D scene in the browser: time, render modes, input cameras, camera paths."""
    from lrm4d.export.live import serve
    from lrm4d.gaussians4d import Gaussians4D
    from lrm4d.pipeline import load_inputs
    from lrm4d.reconstruction.reconstructor import choose_device

    color, file = tuple(parse_color(background)), find_scene(scene)
    inputs = load_inputs(views, protocol) if views else None
    gaussians = Gaussians4D.load(file).to(choose_device(device))
    session = serve(gaussians, host, port, inputs, color)
    try:
        if port and session.port != port:
            typer.echo(f"port {port} is in use; took {session.port}", err=True)
        if host not in LOCAL:
            typer.echo(f"{host}: whoever can reach this machine can watch and use its processor.", err=True)
        typer.echo(f"{file}: {len(gaussians)} Gaussians at {session.url} (Ctrl-C ends)")
        session.wait()
    except KeyboardInterrupt:
        typer.echo("ended", err=True)
    finally:
        session.stop()
