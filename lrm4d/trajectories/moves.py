"""The moves. Each adds a change to the camera's stand (a closed form in the eased progress) and begins where it is.

Every move takes, by name: azimuth, elevation (degrees), distance (world units), fov (horizontal degrees), which place
the camera when the move begins; ease (linear, in, out, in-out); time ("0:1", 0.5, "0:1:0" or "hold": the moments
of the clip; without it the caller's times run); share (how long beside the others of a sequence, 1 unless said).
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, field, fields

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.trajectories.clock import HOLD, read_stops, show_number, show_stops
from lrm4d.trajectories.easing import EASINGS
from lrm4d.trajectories.path import Path, Stops
from lrm4d.trajectories.state import COMPONENTS, Number, Rig

PLACINGS = ("azimuth", "elevation", "distance", "fov")


@dataclass(frozen=True)
class Move(Path):
    """One move; what is common to all of them. Raises ValueError for options that cannot be."""

    azimuth: Number | None = field(default=None, kw_only=True)
    elevation: Number | None = field(default=None, kw_only=True)
    distance: Number | None = field(default=None, kw_only=True)
    fov: Number | None = field(default=None, kw_only=True)
    ease: str = field(default="linear", kw_only=True)
    time: str | Number | tuple | None = field(default=None, kw_only=True)
    share: Number | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float | int) and item.name != "time":
                if not math.isfinite(value):
                    raise ValueError(f"{self.name}: {item.name} is {value}; expected a finite number.")
                object.__setattr__(self, item.name, float(value))
        if self.ease not in EASINGS:
            raise ValueError(f"{self.name}: ease is '{self.ease}'; expected one of {', '.join(EASINGS)}.")
        if self.time is not None:
            object.__setattr__(self, "time", read_stops(self.time))
        if self.share is not None and self.share <= 0:
            raise ValueError(f"{self.name}: share is {show_number(self.share)}; expected a number above 0.")
        Rig(**self.placings())

    @property
    def name(self) -> str:
        """What it is called in text."""
        return next(name for name, kind in MOVES.items() if type(self) is kind)

    @property
    def length(self) -> float | None:
        """The share that it says."""
        return self.share

    @abstractmethod
    def change(self, start: Rig) -> dict[str, float]:
        """What it adds in all to the COMPONENTS of a stand."""

    def placings(self) -> dict[str, float]:
        """The fields of a Rig that it sets at its start."""
        return {name: getattr(self, name) for name in PLACINGS if getattr(self, name) is not None}

    def trace(self, start: Rig, progress: Float[Tensor, "count"]) -> Float[Tensor, "count 9"]:
        """Stands: start + ease(progress) * change."""
        change = self.change(start)
        vector = torch.tensor([change.get(name, 0.0) for name in COMPONENTS], dtype=torch.float64)
        return start.to_vector() + EASINGS[self.ease](progress)[:, None] * vector

    def clock(self) -> list[tuple[float, Stops]]:
        """Its time."""
        return [(1.0, self.time)]

    def __str__(self) -> str:
        """NAME or NAME:option=value,option=value, with the options that are not as they are by themselves."""
        own = [item for item in fields(self) if not item.kw_only] + [item for item in fields(self) if item.kw_only]
        said = [(item.name, getattr(self, item.name)) for item in own if getattr(self, item.name) != item.default]
        show = lambda value: show_number(value) if isinstance(value, float) else show_stops(value)  # noqa: E731
        return self.name + (":" if said else "") + ",".join(f"{name}={show(value)}" for name, value in said)


@dataclass(frozen=True)
class Orbit(Move):
    """Around the object: so many turns, to the camera's right where they are positive."""

    turns: Number = 1.0

    def change(self, start: Rig) -> dict[str, float]:
        """Azimuth."""
        return {"azimuth": 360 * self.turns}


@dataclass(frozen=True)
class Bullet(Orbit):
    """Bullet time: an orbit at the one moment that was reached (or at time=...)."""

    time: str | Number | tuple | None = field(default=HOLD, kw_only=True)


@dataclass(frozen=True)
class Arc(Move):
    """A part of an orbit: by so many degrees of azimuth, or to an azimuth; `rise` degrees of elevation with it."""

    by: Number = 90.0
    to: Number | None = None
    rise: Number = 0.0

    def change(self, start: Rig) -> dict[str, float]:
        """Azimuth and elevation."""
        return {"azimuth": self.by if self.to is None else self.to - start.azimuth, "elevation": self.rise}


@dataclass(frozen=True)
class Dolly(Move):
    """Straight towards the object: by world units (away where negative), or to a distance.

    Evenly in the logarithm of the distance: the object grows by the same factor from picture to picture.
    """

    by: Number = 0.8
    to: Number | None = None

    def change(self, start: Rig) -> dict[str, float]:
        """Log distance."""
        return {"log_distance": _log_factor(self, start)}


@dataclass(frozen=True)
class DollyZoom(Dolly):
    """A dolly that zooms against it: the object's size in the picture stays, the depth behind it stretches.

    distance * tan(fov / 2) is constant.
    """

    def change(self, start: Rig) -> dict[str, float]:
        """Log distance, and as much of log focal length."""
        change = _log_factor(self, start)
        return {"log_distance": change, "log_focal": change}


@dataclass(frozen=True)
class Zoom(Move):
    """The lens alone: everything grows by a factor, or the horizontal field of view becomes `to` degrees."""

    by: Number = 1.5
    to: Number | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.by <= 0 or (self.to is not None and not 0 < self.to < 180):
            raise ValueError(f"'{self}': expected a factor above 0, or a field of view between 0 and 180 degrees.")

    def change(self, start: Rig) -> dict[str, float]:
        """Log focal length."""
        factor = self.by if self.to is None else Rig(fov=self.to).focal / start.focal
        return {"log_focal": math.log(factor)}


@dataclass(frozen=True)
class Truck(Move):
    """Sideways, camera and target together: world units along the picture's x axis, to the right."""

    by: Number = 0.5

    def change(self, start: Rig) -> dict[str, float]:
        """Truck."""
        return {"truck": self.by}


@dataclass(frozen=True)
class Pedestal(Move):
    """Straight up, camera and target together: world units."""

    by: Number = 0.5

    def change(self, start: Rig) -> dict[str, float]:
        """Pedestal."""
        return {"pedestal": self.by}


@dataclass(frozen=True)
class Pan(Move):
    """The camera turns to the right where it stands, the horizon level: degrees."""

    by: Number = 15.0

    def change(self, start: Rig) -> dict[str, float]:
        """Pan."""
        return {"pan": self.by}


@dataclass(frozen=True)
class Tilt(Move):
    """The camera turns up where it stands: degrees."""

    by: Number = 10.0

    def change(self, start: Rig) -> dict[str, float]:
        """Tilt."""
        return {"tilt": self.by}


@dataclass(frozen=True)
class Roll(Move):
    """The camera turns clockwise around its own axis: degrees."""

    by: Number = 20.0

    def change(self, start: Rig) -> dict[str, float]:
        """Roll."""
        return {"roll": self.by}


@dataclass(frozen=True)
class Static(Move):
    """The camera stays: only the object moves."""

    def change(self, start: Rig) -> dict[str, float]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class Spiral(Move):
    """An orbit that climbs: `rise` degrees of elevation in all, and `to` a distance if one is given."""

    turns: Number = 1.0
    rise: Number = 40.0
    to: Number | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_distance(self)

    def change(self, start: Rig) -> dict[str, float]:
        """Azimuth, elevation, log distance."""
        distance = 0.0 if self.to is None else math.log(self.to / start.distance)
        return {"azimuth": 360 * self.turns, "elevation": self.rise, "log_distance": distance}


MOVES: dict[str, type[Move]] = {
    "orbit": Orbit,
    "arc": Arc,
    "spiral": Spiral,
    "bullet": Bullet,
    "dolly": Dolly,
    "dolly_zoom": DollyZoom,
    "zoom": Zoom,
    "truck": Truck,
    "pedestal": Pedestal,
    "pan": Pan,
    "tilt": Tilt,
    "roll": Roll,
    "static": Static,
}
"""By the names that they have in text."""


def _log_factor(move: Dolly, start: Rig) -> float:
    """The logarithm of what a dolly multiplies the distance with."""
    _check_distance(move)
    end = start.distance - move.by if move.to is None else move.to
    if end <= 0:
        raise ValueError(
            f"'{move}': from distance {show_number(start.distance)} it would go through the object; by less, or to=."
        )
    return math.log(end / start.distance)


def _check_distance(move: Dolly | Spiral) -> None:
    if move.to is not None and move.to <= 0:
        raise ValueError(f"'{move}': to is {show_number(move.to)}; expected a distance above 0.")
