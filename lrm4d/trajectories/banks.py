"""Banks: sets of cameras at rest around the world's origin, which a video is to be seen from.

Their text form is "ring:views=8,rise=10", their options are numbers. Azimuths and `rise` are degrees from where the
start stands (the camera of the video), other elevations from the horizon; `distance` is a factor of the start's
distance from the pivot. Every camera looks at the pivot with the start's lens. Read as a path, a bank is flown through
in its order.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.trajectories.clock import parse_times, show_number
from lrm4d.trajectories.path import CameraPath
from lrm4d.trajectories.state import START, Number, Rig, cameras_of

GOLDEN = 180 * (3 - math.sqrt(5))
"""The golden angle in degrees: turned by it, no two of a sunflower's seeds are in line."""


@dataclass(frozen=True)
class Bank(CameraPath):
    """What is common to all banks. ValueError for a distance or a count that cannot be."""

    distance: Number = 1.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not math.isfinite(value):
                raise ValueError(f"{self.name}: {item.name} is {value}; expected a finite number.")
            if isinstance(item.default, int) and value < 1:
                raise ValueError(f"{self.name}: {item.name} is {value}; expected a whole number from 1.")
            if not isinstance(item.default, int):
                object.__setattr__(self, item.name, float(value))
        if self.distance <= 0:
            raise ValueError(f"{self.name}: distance is {self.distance:g}; expected a factor above 0.")

    @property
    def name(self) -> str:
        """What it is called in text."""
        return next(name for name, kind in BANKS.items() if type(self) is kind)

    @property
    def natural_count(self) -> int:
        """How many cameras it has."""
        return len(self.angles(START))

    @abstractmethod
    def angles(self, start: Rig) -> Float[Tensor, "view 2"]:
        """Azimuth and elevation of each camera in degrees; float64."""

    def cameras(self, count: int, width: int, height: int, start: Rig = START) -> Cameras:
        """Its cameras [count]; another count than its own flies evenly through them."""
        states = start.to_vector().repeat(self.natural_count, 1)
        states[:, :2] = self.angles(start)
        states[:, 2] += math.log(self.distance)
        if count != len(states):
            places = torch.linspace(0, len(states) - 1, count, dtype=torch.float64)
            before = places.floor().long().clamp(max=max(0, len(states) - 2))
            after = (before + 1).clamp(max=len(states) - 1)
            states = torch.lerp(states[before], states[after], (places - before)[:, None])
        return cameras_of(states, width, height)

    def times(self, count: int, times: str = "0:1") -> Float[Tensor, "count"]:
        """Times [count] of the pictures: the caller's, evenly."""
        return parse_times(times, count)

    def __str__(self) -> str:
        """NAME or NAME:option=value,option=value, with the options that are not as they are by themselves."""
        said = [item.name for item in fields(self) if getattr(self, item.name) != item.default]
        options = ",".join(f"{name}={show_number(getattr(self, name))}" for name in said)
        return self.name + (f":{options}" if options else "")


@dataclass(frozen=True)
class Fan(Bank):
    """Beside the start, evenly from the left to the right within `span` degrees; never where the start is."""

    views: int = 4
    span: Number = 60.0
    rise: Number = 0.0

    def angles(self, start: Rig) -> Float[Tensor, "view 2"]:
        """An odd number has one more on the right."""
        left, right = self.views // 2, self.views - self.views // 2
        steps = [-(index + 1) / max(1, left) for index in reversed(range(left))]
        steps += [(index + 1) / right for index in range(right)]
        offsets = torch.tensor(steps, dtype=torch.float64) * self.span / 2
        return _stack(start.azimuth + offsets, start.elevation + self.rise)


@dataclass(frozen=True)
class Ring(Bank):
    """All around, evenly, the start's own place being one that is left out."""

    views: int = 7
    rise: Number = 0.0

    def angles(self, start: Rig) -> Float[Tensor, "view 2"]:
        """To the right first."""
        turns = torch.arange(1, self.views + 1, dtype=torch.float64) / (self.views + 1)
        return _stack(start.azimuth + 360 * turns, start.elevation + self.rise)


@dataclass(frozen=True)
class Rings(Bank):
    """Rings above each other, evenly from `lowest` to `highest`; every other is turned by half a step."""

    views: int = 8
    rings: int = 3
    lowest: Number = -20.0
    highest: Number = 40.0

    def angles(self, start: Rig) -> Float[Tensor, "view 2"]:
        """Ring by ring, from the lowest; `views` is of one ring."""
        elevations = torch.linspace(self.lowest, self.highest, self.rings, dtype=torch.float64)
        step = 360 / self.views
        around = start.azimuth + step * torch.arange(self.views, dtype=torch.float64)
        rings = enumerate(elevations.tolist())
        return torch.cat([_stack(around + index % 2 * step / 2, elevation) for index, elevation in rings])


@dataclass(frozen=True)
class Kubric16(Bank):
    """The 16 cameras of Kubric-4D (Van Hoorick et al., arXiv 2405.14868): 4 at elevation 45, 12 at 5."""

    def angles(self, start: Rig) -> Float[Tensor, "view 2"]:
        """The high ones first; the low ones begin half a step to the side."""
        high, low = torch.arange(4, dtype=torch.float64) * 90, (torch.arange(12, dtype=torch.float64) + 0.5) * 30
        return torch.cat([_stack(start.azimuth + high, 45.0), _stack(start.azimuth + low, 5.0)])


@dataclass(frozen=True)
class Dome(Bank):
    """Over the sphere above `lowest`, up to 90, evenly by area: a sunflower's seeds from the rim to the top."""

    views: int = 16
    lowest: Number = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -90 <= self.lowest < 90:
            raise ValueError(f"{self.name}: lowest is {self.lowest:g}; expected degrees from -90 to below 90.")

    def angles(self, start: Rig) -> Float[Tensor, "view 2"]:
        """From the rim upwards, each turned by the golden angle."""
        index = torch.arange(self.views, dtype=torch.float64)
        rim = math.sin(math.radians(self.lowest))
        heights = rim + (1 - rim) * (index + 0.5) / self.views
        return torch.stack([start.azimuth + GOLDEN * index, torch.rad2deg(heights.asin())], dim=-1)


BANKS: dict[str, type[Bank]] = {"fan": Fan, "ring": Ring, "rings": Rings, "kubric16": Kubric16, "dome": Dome}
"""By the names that they have in text."""


def parse_bank(text: str) -> Bank:
    """The bank of a text; parse_bank(str(bank)) == bank. ValueError names what is wrong and what is known."""
    name, _, rest = text.strip().partition(":")
    if name not in BANKS:
        raise ValueError(f"bank '{text}': no bank '{name}'; there are {', '.join(BANKS)}.")
    known: dict[str, float | int] = {item.name: item.default for item in fields(BANKS[name])}  # type: ignore[misc]
    options: dict[str, float | int] = {}
    for part in rest.split(",") if rest else []:
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in known or key in options:
            shown = ", ".join(f"{key}={show_number(value)}" for key, value in known.items())
            raise ValueError(f"bank '{text}': cannot take '{part}'; {name} knows, each once: {shown}.")
        try:
            options[key] = type(known[key])(value)
        except ValueError as error:
            kind = "whole number from 1" if isinstance(known[key], int) else "number"
            raise ValueError(f"bank '{text}': {key} is '{value}'; expected a {kind}.") from error
    return BANKS[name](**options)


def _stack(azimuths: Float[Tensor, "view"], elevation: float) -> Float[Tensor, "view 2"]:
    return torch.stack([azimuths, torch.full_like(azimuths, elevation)], dim=-1)
