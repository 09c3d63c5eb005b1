"""Plans: which pictures of a grid are made next, and beside which ones. Data only; completion.py carries them out.

The published systems differ in their plans, and the parts of these combine freely:

- **spline** (`max_hop`): far views are reached by hops (route.py), each warped from the one before: SEE4D.
- **windows** (`window`, `overlap`): long videos are made in parts, each sees the end of the one before: SEE4D.
- **packed** (`packed`): the pictures of finished views of which the most was made up are seen too: EasyCreator.
- **joint** (`joint`): all views are made together, so that they agree: Full-4D. Without, one after another.
"""

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from lrm4d.generation.layout import RULES, Slot, TokenLayout
from lrm4d.generation.route import Route


class Cell(NamedTuple):
    """A picture's place: its station (a view of the grid, or a stop on the way; 0 is the video) and its moment."""

    station: int
    time: int


@dataclass(frozen=True)
class Step:
    """What is made at once. targets: the new pictures. context: finished ones to look at, the video's among them."""

    targets: tuple[Cell, ...]
    context: tuple[Cell, ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All of them, in the order of the layout's pictures."""
        return self.context + self.targets

    def layout(self, rule: str = "full", warp_slots: bool = False) -> TokenLayout:
        """As an inpainter takes it; moments count from the first one of the step."""
        first = min(cell.time for cell in self.cells)
        slots = [Slot(s, t - first, "context" if s else "source") for s, t in self.context]
        slots += [Slot(s, t - first, "target") for s, t in self.targets]
        layout = TokenLayout(tuple(slots), rule=rule)
        return layout.with_warp_slots() if warp_slots else layout


@dataclass(frozen=True)
class Plan:
    """How a grid is completed.

    max_hop: degrees around the pivot that a warp may span; None: each view straight from the video. window: pictures
    of one view made at once, the overlap counted; None: all. overlap: finished pictures at a window's start. Causal
    autoencoders take 1 + 4k frames: give such numbers. packed: pictures of finished views seen by each step, at most.
    joint: make views of the same number of hops together. rule, warp_slots: of the layout (layout.py).
    Raises ValueError for numbers that cannot be.
    """

    max_hop: float | None = None
    window: int | None = None
    overlap: int = 0
    packed: int = 0
    joint: bool = False
    rule: str = "full"
    warp_slots: bool = False

    def __post_init__(self) -> None:
        if self.max_hop is not None and not self.max_hop > 0:
            raise ValueError(f"plan: max_hop is {self.max_hop:g}; expected degrees above 0, or none.")
        if self.window is not None and self.window < 1:
            raise ValueError(f"plan: window is {self.window}; expected frames from 1, or none.")
        if self.overlap < 0 or (self.window is not None and self.overlap >= self.window):
            raise ValueError(f"plan: overlap is {self.overlap}; expected from 0 to below the window, {self.window}.")
        if self.packed < 0:
            raise ValueError(f"plan: packed is {self.packed}; expected a number of pictures from 0.")
        if self.rule not in RULES:
            raise ValueError(f"plan: rule is '{self.rule}'; expected one of {', '.join(RULES)}.")

    def steps(self, route: Route, repaired: Float[Tensor, "time station"]) -> tuple[Step, ...]:
        """All steps along a route; every cell but the video's is a target once, and what a step sees was made before.

        repaired: the share of each picture that is to be made up, by which packing chooses.
        """
        steps: list[Step] = []
        finished: list[int] = []
        for generation in route.generations():
            for together in [generation] if self.joint else [[station] for station in generation]:
                for start, fresh, stop in split_windows(len(repaired), self.window, self.overlap):
                    source = [Cell(0, time) for time in range(start, stop)]
                    before = [Cell(station, time) for station in together for time in range(start, fresh)]
                    packed = _most_repaired(finished, range(start, stop), repaired, self.packed)
                    targets = [Cell(station, time) for station in together for time in range(fresh, stop)]
                    steps.append(Step(tuple(targets), (*source, *before, *packed)))
                finished += together
        return tuple(steps)


def split_windows(count: int, length: int | None, overlap: int) -> list[tuple[int, int, int]]:
    """(start, first new frame, stop) of windows over a video; the last begins earlier, so that all are as long."""
    if length is None or length >= count:
        return [(0, 0, count)]
    windows, fresh = [], 0
    while fresh < count:
        start = min(max(0, fresh - overlap), count - length)
        windows.append((start, fresh, start + length))
        fresh = start + length
    return windows


def _most_repaired(
    stations: list[int], times: range, repaired: Float[Tensor, "time station"], count: int
) -> list[Cell]:
    """The cells of which the most was made up, at most so many; what the video shows whole would tell nothing new."""
    cells = [Cell(station, time) for station in stations for time in times if float(repaired[time, station]) > 0]
    return sorted(cells, key=lambda cell: -float(repaired[cell.time, cell.station]))[:count]
