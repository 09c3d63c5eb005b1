"""Who is input and who is target: protocols.json, and the four set-ups of 4D-LRM made from the views' names.

The views' names are those of the project's renders: front, left, back, right (canonical), rotl and rotr (two cameras
that sweep around), rand0 (a random pose each moment, the inputs) and rand1 (another one, the targets). The targets are
the four canonical views and rand1 at every moment, **the inputs taken out** (stricter than the paper: arXiv
2506.18890).
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lrm4d.scenes.scene import Frame, tidy_path, without_suffix
from lrm4d.scenes.validation import SceneError, read_json

CANONICAL = ("front", "left", "back", "right")
HELD_OUT = "rand1"
Protocol = tuple[tuple[str, ...], tuple[str, ...]]


def alternating_canonical(moment: int) -> list[str]:
    """Front, left, back, right in turn."""
    return [CANONICAL[moment % 4]]


def frame_interpolation(moment: int) -> list[str]:
    """Two opposite canonical views at each even moment, nothing at the odd ones."""
    turn = moment // 2
    return [CANONICAL[turn % 4], CANONICAL[(turn + 2) % 4]] if moment % 2 == 0 else []


def two_rotating(moment: int) -> list[str]:
    """Two sweeping cameras, one at even, the other at odd moments."""
    return ["rotr" if moment % 2 == 0 else "rotl"]


def random(moment: int) -> list[str]:
    """A random pose each moment."""
    return ["rand0"]


PAPER_PROTOCOLS: dict[str, Callable[[int], list[str]]] = {
    "alternating_canonical": alternating_canonical,
    "frame_interpolation": frame_interpolation,
    "two_rotating": two_rotating,
    "random": random,
}
"""The name of each set-up of 4D-LRM and the views that are its inputs at a moment (0, 1, 2, ...)."""


def make_protocols(frames: Sequence[Frame]) -> dict[str, Protocol]:
    """Those of the four set-ups whose views the frames have at every moment they are needed."""
    by_name = {(frame.view, frame.index): frame.file_path for frame in frames}
    moments = sorted({frame.index for frame in frames})
    judged = [(view, moment) for moment in moments for view in (*CANONICAL, HELD_OUT)]
    protocols: dict[str, Protocol] = {}
    for name, input_views in PAPER_PROTOCOLS.items():
        inputs = [(view, moment) for moment in moments for view in input_views(moment)]
        targets = [pair for pair in judged if pair not in set(inputs)]
        if by_name.keys() >= {*inputs, *judged}:
            protocols[name] = (tuple(by_name[pair] for pair in inputs), tuple(by_name[pair] for pair in targets))
    return protocols


def split_protocol(frames: Sequence[Frame]) -> dict[str, Protocol]:
    """D-NeRF's own: train pictures are inputs, test pictures (else val) are targets; empty without such splits."""
    paths = {split: tuple(f.file_path for f in frames if f.split == split) for split in ("train", "test", "val")}
    targets = paths["test"] or paths["val"]
    return {"split": (paths["train"], targets)} if paths["train"] and targets else {}


def read_protocols(path: Path, file_paths: Iterable[str]) -> dict[str, Protocol]:
    """The protocols of a protocols.json, {name: {"inputs": [file_path, ...], "targets": [...]}}.

    Every path must be one of the scene's file_paths. Entries that are not objects (notes) are refused too.
    """
    known = {without_suffix(file_path): file_path for file_path in file_paths}
    content = read_json(path)
    problems: list[str] = []
    protocols = {name: _read_one(name, entry, known, problems) for name, entry in content.items()}
    if problems:
        raise SceneError(path, problems)
    return protocols


def _read_one(name: str, entry: Any, known: dict[str, str], problems: list[str]) -> Protocol:
    sides: list[tuple[str, ...]] = []
    for side in ("inputs", "targets"):
        paths = entry.get(side) if isinstance(entry, dict) else None
        if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
            problems.append(
                f"protocol '{name}': '{side}' is {str(paths)[:60]}; expected a list of at least one file_path."
            )
            continue
        unknown = [path for path in paths if without_suffix(tidy_path(path)) not in known]
        problems.extend(
            f"protocol '{name}': '{path}' of its {side} is not a frame of the scene; "
            "name it as transforms.json does, or take it out."
            for path in unknown
        )
        sides.append(tuple(known.get(without_suffix(tidy_path(path)), path) for path in paths))
    return (sides[0], sides[1]) if len(sides) == 2 else ((), ())
