"""Which moment of the clip each picture shows: maps from a path's progress to times in [0, 1]."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

HOLD = "hold"
"""The time of a part that stands still at the moment that was reached: bullet time."""


def read_stops(time: str | float | int | tuple) -> tuple[float, ...] | str:
    """The times of "0:1" (from, to), "0.5" or 0.5 (one moment), "0:1:0" or (0, 1, 0) (there and back); "hold" stays.

    Between the stops time runs evenly. ValueError for what is no time.
    """
    if time == HOLD:
        return HOLD
    parts = time.split(":") if isinstance(time, str) else time if isinstance(time, tuple) else (time,)
    try:
        stops = tuple(float(part) for part in parts)
    except ValueError:
        stops = ()
    if not stops or not all(math.isfinite(stop) and 0 <= stop <= 1 for stop in stops):
        raise ValueError(
            f"times '{show_stops(time)}': expected numbers from 0 to 1 with colons between, as 0:1, 0.5 or 0:1:0."
        )
    return stops


def show_stops(stops: str | float | int | tuple) -> str:
    """The text form of times."""
    if isinstance(stops, tuple):
        return ":".join(show_number(stop) if isinstance(stop, float | int) else str(stop) for stop in stops)
    return str(stops)


def show_number(value: float | int) -> str:
    """The shortest text that is read as the same number, without a plus sign."""
    short = f"{value:g}"
    return (short if float(short) == value else repr(float(value))).replace("e+", "e")


def times_at(stops: tuple[float, ...], progress: Float[Tensor, "count"]) -> Float[Tensor, "count"]:
    """Times at a progress in [0, 1] through evenly spaced stops."""
    points = torch.tensor(stops)
    if len(stops) == 1:
        return points.expand(len(progress)).clone()
    places = (progress * (len(stops) - 1)).to(points)
    before = places.floor().long().clamp(0, len(stops) - 2)
    return torch.lerp(points[before], points[before + 1], places - before)


def parse_times(text: str, count: int) -> Float[Tensor, "count"]:
    """Times [count] in [0, 1] of "0:1" (from, to), "0.5" (one moment) or "0:1:0" (there and back), evenly spaced."""
    stops = read_stops(text)
    if isinstance(stops, str):
        raise ValueError(f"times '{text}': there is nothing before that could be held; expected as 0:1, 0.5 or 0:1:0.")
    return times_at(stops, torch.linspace(0, 1, count))
