"""Camera paths: moves one after another (`>>`) and at the same time (`+`)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.trajectories.clock import read_stops, times_at
from lrm4d.trajectories.state import START, Rig, cameras_of

Stops = tuple[float, ...] | str | None
"""Of a part of a path: times, "hold", or nothing (then the caller's times run)."""
SAME = 1e-9
"""How far a loop's end may be from its start, in the components of a stand."""


class CameraPath(ABC):
    """What pictures can be taken along: a Path of moves, or one that was read from a file."""

    @property
    def natural_count(self) -> int | None:
        """How many cameras it was recorded with; None where any number is as good."""
        return None

    @abstractmethod
    def cameras(self, count: int, width: int, height: int, start: Rig = START) -> Cameras:
        """Cameras [count] evenly along it; start: where it begins, as far as it does not say so itself."""

    @abstractmethod
    def times(self, count: int, times: str = "0:1") -> Float[Tensor, "count"]:
        """Times [count] of the pictures; times: those of the parts that say none."""


class Path(CameraPath):
    """A path of moves. Its text form is str(path); parse_path reads it."""

    @property
    @abstractmethod
    def length(self) -> float | None:
        """Its share of a sequence, if it says one."""

    @abstractmethod
    def placings(self) -> dict[str, float]:
        """The fields of a Rig that it sets at its start."""

    @abstractmethod
    def trace(self, start: Rig, progress: Float[Tensor, "count"]) -> Float[Tensor, "count 9"]:
        """Stands at a progress in [0, 1] from a start that its placings were applied to."""

    @abstractmethod
    def clock(self) -> list[tuple[float, Stops]]:
        """Shares and times of its parts, one after another."""

    def __rshift__(self, other: "Path") -> "Sequence":
        """This one, then the other."""
        return Sequence((*_parts(self, Sequence), *_parts(other, Sequence)))

    def __add__(self, other: "Path") -> "Together":
        """Both at the same time."""
        return Together((*_parts(self, Together), *_parts(other, Together)))

    def end(self, start: Rig) -> Rig:
        """Where it arrives from a start."""
        placed = replace(start, **self.placings())
        return Rig.from_vector(self.trace(placed, torch.ones(1, dtype=torch.float64))[0])

    def loops(self, start: Rig) -> bool:
        """Whether it is one part that ends, after whole turns, where it began: its last camera would be its first."""
        placed = replace(start, **self.placings())
        first, last = self.trace(placed, torch.tensor([0.0, 1.0], dtype=torch.float64))
        change = last - first
        turns = change[[0, 5, 7]] / 360
        rest = change[[1, 2, 3, 4, 6, 8]]
        whole = bool(((turns - turns.round()).abs() < SAME).all()) and bool((rest.abs() < SAME).all())
        return whole and bool((turns.round() != 0).any())

    def cameras(self, count: int, width: int, height: int, start: Rig = START) -> Cameras:
        """Cameras [count]: both ends are reached, but in one part that loops the last is one step before the first."""
        steps = count if self.loops(start) else max(1, count - 1)
        progress = torch.arange(count, dtype=torch.float64) / steps
        return cameras_of(self.trace(replace(start, **self.placings()), progress), width, height)

    def times(self, count: int, times: str = "0:1") -> Float[Tensor, "count"]:
        """Times [count]. Parts that say no time share the caller's, which stand still while the others are on."""
        caller = read_stops(times)
        if isinstance(caller, str):
            raise ValueError(f"times '{times}': there is nothing before that could be held.")
        pieces = self.clock()
        playing = sum(share for share, stops in pieces if stops is None)
        result, played, reached = torch.empty(count), 0.0, caller[0]
        for local, share, stops, members in _pieces_of(pieces, torch.linspace(0, 1, count, dtype=torch.float64)):
            if stops is None:
                result[members] = times_at(caller, (played + local * share) / playing)
                played += share
                reached = times_at(caller, torch.tensor([played / playing])).item()
            else:
                held = (reached,) if isinstance(stops, str) else stops
                result[members] = times_at(held, local)
                reached = held[-1]
        return result


@dataclass(frozen=True)
class Sequence(Path):
    """Parts one after another: each begins where the one before ended."""

    parts: tuple[Path, ...]

    @property
    def length(self) -> float:
        """The sum of its parts' shares, 1 each unless they say."""
        return sum(part.length or 1.0 for part in self.parts)

    def placings(self) -> dict[str, float]:
        """Those of its first part; the others place themselves when they begin."""
        return self.parts[0].placings()

    def trace(self, start: Rig, progress: Float[Tensor, "count"]) -> Float[Tensor, "count 9"]:
        """Stands; at a joint the next part has begun."""
        states, rig = torch.empty(len(progress), 9, dtype=torch.float64), start
        for local, _, part, members in _pieces_of([(part.length or 1.0, part) for part in self.parts], progress):
            states[members] = part.trace(replace(rig, **part.placings()), local)
            rig = part.end(rig)
        return states

    def clock(self) -> list[tuple[float, Stops]]:
        """Its parts' times, each part's shares summing to its own."""
        pieces = []
        for part in self.parts:
            inner = part.clock()
            scale = (part.length or 1.0) / sum(share for share, _ in inner)
            pieces += [(share * scale, stops) for share, stops in inner]
        return pieces

    def loops(self, start: Rig) -> bool:
        """Never: a sequence reaches its end."""
        return False

    def __str__(self) -> str:
        return "; ".join(str(part) for part in self.parts)


@dataclass(frozen=True)
class Together(Path):
    """Parts at the same time: what each adds is added up, so their order does not matter.

    Two parts that place the same thing, or that both say a time, are a ValueError.
    """

    parts: tuple[Path, ...]

    def __post_init__(self) -> None:
        self.placings()
        said = [part for part in self.parts if _says_time(part)]
        if len(said) > 1:
            raise ValueError(f"'{self}': both '{said[0]}' and '{said[1]}' say a time; one part can.")

    @property
    def length(self) -> float | None:
        """The longest share that a part says."""
        return max((part.length for part in self.parts if part.length), default=None)

    def placings(self) -> dict[str, float]:
        """Those of all its parts."""
        placed: dict[str, float] = {}
        for part in self.parts:
            both = placed.keys() & part.placings().keys()
            if both:
                raise ValueError(
                    f"'{self}': {' and '.join(sorted(both))} is set twice; moves made together share one."
                )
            placed |= part.placings()
        return placed

    def trace(self, start: Rig, progress: Float[Tensor, "count"]) -> Float[Tensor, "count 9"]:
        """Stands: the start and what every part adds to it."""
        first = start.to_vector()
        return first + sum(part.trace(start, progress) - first for part in self.parts)

    def clock(self) -> list[tuple[float, Stops]]:
        """The times of the part that says some."""
        return next((part.clock() for part in self.parts if _says_time(part)), [(1.0, None)])

    def __str__(self) -> str:
        return " + ".join(f"({part})" if isinstance(part, Sequence) else str(part) for part in self.parts)


def sequence(*parts: Path) -> Path:
    """Any number of parts one after another."""
    return reduce(lambda before, after: before >> after, parts)


def together(*parts: Path) -> Path:
    """Any number of parts at the same time."""
    return reduce(lambda one, other: one + other, parts)


def _parts(path: Path, kind: type) -> tuple[Path, ...]:
    return path.parts if isinstance(path, kind) else (path,)


def _says_time(path: Path) -> bool:
    return any(stops is not None for _, stops in path.clock())


def _pieces_of(pieces: list, progress: Float[Tensor, "count"]):
    """(progress within it, share, what it is, mask of its members) of each piece (share, what it is) in turn."""
    total, before = sum(share for share, _ in pieces), 0.0
    for index, (share, content) in enumerate(pieces):
        first, last = before / total, (before + share) / total
        members = progress >= first if index else torch.ones_like(progress, dtype=torch.bool)
        if index + 1 < len(pieces):
            members = members & (progress < last)
        local = (progress[members] - first) / (last - first)
        yield local.clamp(0, 1), share, content, members
        before += share
