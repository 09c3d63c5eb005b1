"""What every format asks of a file: numbers where it says numbers, or an error that names file and place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras


def read_numbers(path: Path, where: str, value: Any, *shape: int) -> Float[Tensor, "*shape"]:
    """A tensor (float64) of that shape from lists out of a file; -1 stands for any size."""
    try:
        numbers = torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path}: {where} is {str(value)[:60]}; expected numbers.") from error
    fits = numbers.dim() == len(shape) and all(
        want in (-1, got) for want, got in zip(shape, numbers.shape, strict=True)
    )
    if not fits or not bool(numbers.isfinite().all()):
        expected = " x ".join("n" if want < 0 else str(want) for want in shape) or "one"
        raise ValueError(f"{path}: {where} is {str(value)[:60]}; expected {expected} finite number(s).")
    return numbers


def get(path: Path, where: str, content: Any, key: str) -> Any:
    """content[key]; ValueError if there is no such key."""
    if not isinstance(content, Mapping) or content.get(key) is None:
        raise ValueError(f"{path}: {where} has no '{key}'. Was it cut off, or is it of another format?")
    return content[key]


def get_list(path: Path, where: str, content: Any, key: str) -> list:
    """content[key], a list with something in it."""
    value = get(path, where, content, key)
    if not isinstance(value, list) or not value:
        raise ValueError(f"{path}: '{key}' is {str(value)[:60]}; expected a list with at least one camera.")
    return value


def read_times(path: Path, values: list[Any]) -> Float[Tensor, "camera"] | None:
    """Times in [0, 1], or None if no camera has one (all are None)."""
    if all(value is None for value in values):
        return None
    times = read_numbers(path, "the cameras' times", values, len(values))
    if float(times.min()) < 0 or float(times.max()) > 1:
        raise ValueError(f"{path}: times run from {times.min():g} to {times.max():g}; expected them in [0, 1].")
    return times


def to_rigid(upper: Float[Tensor, "camera 3 4"]) -> Float[Tensor, "camera 4 4"]:
    """With the last row that rigid matrices have."""
    return torch.cat([upper, upper.new_tensor([0, 0, 0, 1]).expand(len(upper), 1, 4)], dim=1)


def check_plain_lens(path: Path, cameras: Cameras, name: str) -> None:
    """ValueError for lenses that a format of square pixels around the middle cannot hold."""
    k = cameras.intrinsics.double()
    middle = k.new_tensor([cameras.width / 2, cameras.height / 2])
    if float((k[:, :2, 2] - middle).abs().max()) > 0.01 or not torch.allclose(k[:, 0, 0], k[:, 1, 1], rtol=1e-4):
        raise ValueError(
            f"{path}: {name} holds a field of view only, and these cameras have an off-centre or anamorphic lens; "
            "write colmap, vista4d or transforms instead."
        )
