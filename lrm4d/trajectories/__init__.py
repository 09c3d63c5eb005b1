"""Camera paths: moves in sequence and together, their text form, their files, and a picture of them.

path = (orbit(turns=1) + dolly(to=2.2)) >> bullet(time=0.5, ease="in-out")
path == parse_path("orbit + dolly:to=2.2; bullet:time=0.5,ease=in-out")
cameras, times = path.cameras(96, 640, 360), path.times(96, "0:1")
"""

from lrm4d.trajectories.banks import BANKS, Bank, parse_bank
from lrm4d.trajectories.clock import parse_times
from lrm4d.trajectories.files import load_path, read_path, save_path
from lrm4d.trajectories.moves import (
    MOVES,
    Arc,
    Bullet,
    Dolly,
    DollyZoom,
    Orbit,
    Pan,
    Pedestal,
    Roll,
    Spiral,
    Static,
    Tilt,
    Truck,
    Zoom,
)
from lrm4d.trajectories.path import CameraPath, Path
from lrm4d.trajectories.preview import draw_cameras, draw_path, overlook
from lrm4d.trajectories.state import Rig, cameras_around
from lrm4d.trajectories.text import parse_path

orbit, arc, spiral, bullet, dolly, dolly_zoom, zoom = Orbit, Arc, Spiral, Bullet, Dolly, DollyZoom, Zoom
truck, pedestal, pan, tilt, roll, static = Truck, Pedestal, Pan, Tilt, Roll, Static
"""The moves, so called that Python reads as the text does."""

__all__ = [
    "BANKS",
    "MOVES",
    "Bank",
    "CameraPath",
    "Path",
    "Rig",
    "arc",
    "bullet",
    "cameras_around",
    "dolly",
    "dolly_zoom",
    "draw_cameras",
    "draw_path",
    "load_path",
    "orbit",
    "overlook",
    "pan",
    "parse_bank",
    "parse_path",
    "parse_times",
    "pedestal",
    "read_path",
    "roll",
    "save_path",
    "spiral",
    "static",
    "tilt",
    "truck",
    "zoom",
]
