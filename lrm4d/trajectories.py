"""Camera paths around the world's origin, and their text form ("orbit:elevation=20,turns=2").

Angles in degrees. Azimuth 0 looks at the front (from -y), 90 at the left (from +x), 180 at the back; elevation 90
looks straight down. Distances in world units: the object lies in the unit sphere.
"""

import inspect
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras, intrinsics_from_fov, look_at

DISTANCE, FOV, ELEVATION = 2.7, 49.1, 20.0
"""How the paths stand around the object unless told otherwise: world units, degrees, degrees."""


def cameras_around(
    azimuths: Float[Tensor, "*batch"],
    elevations: Float[Tensor, "*batch"],
    distances: Float[Tensor, "*batch"],
    fov: float,
    width: int,
    height: int,
) -> Cameras:
    """Upright cameras that look at the world's origin; angles in degrees, fov horizontal."""
    if bool((elevations.abs() > 89.9).any()):
        raise ValueError(f"elevation {elevations.abs().max():g}: straight above, 'up' is undefined; stay below 89.9.")
    azimuth, elevation = torch.deg2rad(azimuths), torch.deg2rad(elevations)
    outward = torch.stack([elevation.cos() * azimuth.sin(), -elevation.cos() * azimuth.cos(), elevation.sin()], dim=-1)
    origins = outward * distances[..., None]
    intrinsics = intrinsics_from_fov(math.radians(fov), width, height).expand(*azimuths.shape, 3, 3)
    return Cameras(look_at(origins, torch.zeros_like(origins)), intrinsics, width, height)


def orbit(
    count: int,
    width: int,
    height: int,
    *,
    turns: float = 1.0,
    azimuth: float = 0.0,
    elevation: float = ELEVATION,
    distance: float = DISTANCE,
    fov: float = FOV,
) -> Cameras:
    """Whole turns around the object from an azimuth on; the last camera is one step before the first (it loops)."""
    azimuths = azimuth + 360 * turns * torch.arange(count) / count
    return cameras_around(azimuths, *_constant(count, elevation, distance), fov, width, height)


def arc(
    count: int,
    width: int,
    height: int,
    *,
    start: float = -45.0,
    stop: float = 45.0,
    elevation: float = ELEVATION,
    distance: float = DISTANCE,
    fov: float = FOV,
) -> Cameras:
    """From one azimuth to another, both reached."""
    azimuths = torch.linspace(start, stop, count)
    return cameras_around(azimuths, *_constant(count, elevation, distance), fov, width, height)


def dolly(
    count: int,
    width: int,
    height: int,
    *,
    start: float = 3.5,
    stop: float = 2.2,
    azimuth: float = 0.0,
    elevation: float = ELEVATION,
    fov: float = FOV,
) -> Cameras:
    """Straight to or from the object: from one distance to another, both reached."""
    distances = torch.linspace(start, stop, count)
    azimuths, elevations = _constant(count, azimuth, elevation)
    return cameras_around(azimuths, elevations, distances, fov, width, height)


def static(
    count: int,
    width: int,
    height: int,
    *,
    azimuth: float = 0.0,
    elevation: float = ELEVATION,
    distance: float = DISTANCE,
    fov: float = FOV,
) -> Cameras:
    """The same camera all the time: only the object moves."""
    return cameras_around(*_constant(count, azimuth, elevation, distance), fov, width, height)


TRAJECTORIES: dict[str, Callable[..., Cameras]] = {"orbit": orbit, "arc": arc, "dolly": dolly, "static": static}


def parse_trajectory(text: str, count: int, width: int, height: int) -> Cameras:
    """Cameras [count] of a path's text form: NAME or NAME:option=number,option=number.

    Options are the keyword arguments of the function of that name in this file.
    """
    name, _, rest = text.strip().partition(":")
    if name not in TRAJECTORIES:
        raise ValueError(f"trajectory '{text}': no path '{name}'; there are {', '.join(TRAJECTORIES)}.")
    path = TRAJECTORIES[name]
    known = {
        key: parameter.default
        for key, parameter in inspect.signature(path).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    options = {}
    for item in filter(None, rest.split(",")):
        key, _, value = item.partition("=")
        number = _parse_number(value)
        if key.strip() not in known or number is None:
            options_text = ", ".join(f"{option}={default:g}" for option, default in known.items())
            raise ValueError(f"trajectory '{text}': cannot read '{item}'; {name} knows {options_text}.")
        options[key.strip()] = number
    return path(count, width, height, **options)


def parse_times(text: str, count: int) -> Float[Tensor, "count"]:
    """Times [count] in [0, 1] of "0:1" (from, to), "0.5" (one moment) or "0:1:0" (there and back), evenly spaced."""
    stops = [_parse_number(part) for part in text.split(":")]
    values = [stop for stop in stops if stop is not None and 0 <= stop <= 1]
    if len(values) != len(stops):
        raise ValueError(f"times '{text}': expected numbers from 0 to 1 with colons between, as 0:1, 0.5 or 0:1:0.")
    points = torch.tensor(values)
    if len(values) == 1:
        return points.expand(count).clone()
    places = torch.linspace(0, len(values) - 1, count)
    before = places.floor().long().clamp(max=len(values) - 2)
    return torch.lerp(points[before], points[before + 1], places - before)


def _constant(count: int, *values: float) -> tuple[Tensor, ...]:
    return tuple(torch.full((count,), float(value)) for value in values)


def _parse_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
