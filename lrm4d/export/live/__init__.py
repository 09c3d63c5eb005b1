"""A live session: a 4D scene in the browser, drawn here by the rasterizer for whoever watches."""

import contextlib
import io
import socket
import threading
import warnings
from typing import TYPE_CHECKING

import torch

from lrm4d.export.live.client import Watcher, keyframe_of
from lrm4d.export.modes import ModeRenderer
from lrm4d.gaussians4d import Gaussians4D
from lrm4d.trajectories import cameras_around
from lrm4d.views import Views

if TYPE_CHECKING:
    from viser import ClientHandle, ViserServer

DISTANCE, AZIMUTH, ELEVATION, FOV = 2.7, 30.0, 20.0, 45.0
"""Where a watcher stands first: world units, degrees."""
LIMIT = 768
"""Pixels of the longer side of a picture, until the watcher chooses."""


class LiveSession:
    """A running session. host, port: where it listens; the port is the next free one if the wanted one was taken."""

    def __init__(self, server: "ViserServer", renderer: ModeRenderer, views: Views | None, background, limit: int):
        self.server = server
        self.watchers: dict[int, Watcher] = {}
        self.host, self.port = server.get_host(), server.get_port()

        @server.on_client_connect
        def _(client: "ClientHandle") -> None:
            self.watchers[client.client_id] = Watcher(client, renderer, views, background, limit)
            if client.client_id not in server.get_clients():  # it left while its panel was built
                self._forget(client)

        server.on_client_disconnect(self._forget)

    def _forget(self, client: "ClientHandle") -> None:
        watcher = self.watchers.pop(client.client_id, None)
        if watcher:
            watcher.leave()

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        host = "localhost" if self.host in ("0.0.0.0", "::", "127.0.0.1") else self.host
        return f"http://{host}:{self.port}"

    def wait(self) -> None:
        """Block until interrupted."""
        threading.Event().wait()

    def stop(self) -> None:
        """End the session."""
        for watcher in list(self.watchers.values()):
            watcher.leave()
        with contextlib.redirect_stdout(io.StringIO()):
            self.server.stop()


def serve(
    gaussians: Gaussians4D,
    host: str = "127.0.0.1",
    port: int = 8080,
    views: Views | None = None,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    limit: int = LIMIT,
) -> LiveSession:
    """Start a live session of one scene and return at once.

    host: 127.0.0.1 is this machine alone; 0.0.0.0 lets everyone in the network watch, there is no password. port: 0
    takes any. views: the inputs, shown as frusta with their pictures. background: RGB. limit: pixels of the longer
    side. Raises ValueError for a host that cannot be listened on, and where viser is not installed.
    """
    check_host(host)
    server = open_server(host, port)
    azimuth, elevation, distance = torch.tensor([AZIMUTH, ELEVATION, DISTANCE])
    start = keyframe_of(cameras_around(azimuth, elevation, distance, FOV, 64, 64), 0.0)
    server.initial_camera.position = start.camera_to_world[:3, 3].numpy()
    server.initial_camera.look_at = (0.0, 0.0, 0.0)
    server.initial_camera.fov = start.fov
    return LiveSession(server, ModeRenderer(gaussians), views, background, limit)


def open_server(host: str, port: int) -> "ViserServer":
    """A viser server that says nothing by itself and offers no public link."""
    try:
        import viser
    except ImportError as error:
        raise ValueError(
            'the live viewer needs viser: pip install "lrm4d[view]" (in a checkout: pip install -e ".[view]").'
        ) from error
    # Whoever leaves while a picture is on its way is no reason for a warning.
    warnings.filterwarnings("ignore", message="Queued a .* on a closed connection")
    with contextlib.redirect_stdout(io.StringIO()):
        server = viser.ViserServer(host, port, label="lrm4d", verbose=False)
    # A client may ask for a tunnel to a public address; what is bound to this machine must stay on it.
    server.request_share_url = lambda verbose=True: None
    server.gui.configure_theme(show_logo=False, show_share_button=False, control_width="medium")
    return server


def check_host(host: str) -> None:
    """Raises ValueError for a host that this machine cannot listen on; viser would try for ever."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError as error:
        raise ValueError(
            f"host '{host}': cannot listen there ({error.strerror or error}); expected an address of this machine, "
            "as 127.0.0.1 (only it) or 0.0.0.0 (everyone in the network)."
        ) from error
