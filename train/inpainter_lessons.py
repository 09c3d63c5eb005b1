"""The shapes of the inpainter's batches: which pictures of which views and times are given, and which are made."""

from dataclasses import dataclass, replace

from data_tools.dice import Dice
from lrm4d.generation.layout import TokenLayout
from lrm4d.generation.plans import Cell, Step
from train.inpainter_config import LAYOUTS, InpainterConfig


@dataclass(frozen=True)
class Lesson:
    """The shape of a batch. Station 0 is the source (of twice reprojected videos: the other camera), then come `views`
    targets, a station for each packed picture and, with `hop`, the one that the targets are warped from.

    overlap: frames of the targets that are finished. packed: times of the packed pictures.
    """

    frames: int
    views: int = 1
    overlap: int = 0
    packed: tuple[int, ...] = ()
    twice: bool = False
    hop: bool = False
    fused: bool = False

    @property
    def origin(self) -> int:
        """The station that targets are warped from."""
        return self.stations - 1 if self.hop else 0

    @property
    def stations(self) -> int:
        """How many there are."""
        return 1 + self.views + len(self.packed) + self.hop

    def step(self) -> Step:
        """What is made, beside what, as plans have it."""
        times, targets = range(self.frames), range(1, 1 + self.views)
        source = [] if self.twice else [Cell(0, time) for time in times]
        finished = [Cell(view, time) for view in targets for time in times[: self.overlap]]
        packed = [Cell(1 + self.views + index, time) for index, time in enumerate(self.packed)]
        made = [Cell(view, time) for view in targets for time in times[self.overlap :]]
        return Step(tuple(made), (*source, *finished, *packed))

    def layout(self) -> TokenLayout:
        """Its slots."""
        return self.step().layout("fused" if self.fused else "full", self.fused)

    def rendered(self) -> list[Cell]:
        """The cells whose true pictures are needed."""
        beside = [Cell(self.origin, time) for time in range(self.frames)] if self.hop else []
        return [*self.step().cells, *beside]


def draw_lesson(config: InpainterConfig, dice: Dice) -> Lesson:
    """The shape of a batch; ValueError for a layout that does not exist."""
    kind, twice = choose(dice, config.layouts, LAYOUTS, "layouts"), dice.coin(config.twice)
    frames = dice.integer(*config.frames)
    if kind == "joint" and not twice:
        views, fused = dice.integer(min(2, config.views), config.views), dice.coin(config.fused)
        frames = max(1, min(frames, config.most_slots // (1 + views * (1 + fused))))
        return Lesson(frames, views, fused=fused)
    packed = dice.integer(1, config.packed) if kind == "packed" else 0
    frames = max(1, min(frames, (config.most_slots - packed) // (1 if twice else 2)))
    lesson = Lesson(frames, twice=twice, hop=not twice and dice.coin(config.hops))
    if kind == "window":
        return replace(lesson, overlap=min(dice.integer(1, config.overlap), frames - 1))
    if kind == "packed":
        return replace(lesson, packed=tuple(dice.integer(0, frames - 1) for _ in range(packed)))
    return lesson


def choose(dice: Dice, kinds: dict[str, float], known: tuple[str, ...], what: str) -> str:
    """One of the kinds, by weight; ValueError for one that is not known."""
    for kind in kinds:
        if kind not in known:
            raise ValueError(f"{what}: no {kind!r}; there are {', '.join(known)}.")
    return dice.choose(list(kinds), list(kinds.values()))
