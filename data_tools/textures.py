"""Procedural textures in a part's own coordinates, and the colours they are made of."""

import colorsys
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_tools.dice import Dice

KINDS = ("flat", "stripes", "checks", "spots", "gradient", "noise", "cells", "split", "facets")

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Texture:
    """kind: one of KINDS. colours: three. frequency: repeats a unit of length, along the texture's axes.
    axes: rows turn local coordinates into the texture's. threshold in [0, 1] balances the colours."""

    kind: int
    colours: tuple[Colour, Colour, Colour]
    frequency: float
    axis: tuple[float, float, float]
    phase: float
    threshold: float
    seed: int


def sample_colour(dice: Dice) -> Colour:
    """A colour as assets have them: mostly muted or dark, some vivid, some grey, black or white."""
    manner = dice.choose(("muted", "earth", "vivid", "grey", "light", "dark"), (3, 3, 2.2, 1.6, 2.0, 1.2))
    hue = dice.unit()
    if manner == "muted":
        return colorsys.hsv_to_rgb(hue, dice.uniform(0.15, 0.6), dice.uniform(0.25, 0.9))
    if manner == "earth":
        return colorsys.hsv_to_rgb(dice.uniform(0.03, 0.15), dice.uniform(0.3, 0.85), dice.uniform(0.2, 0.9))
    if manner == "vivid":
        return colorsys.hsv_to_rgb(hue, dice.uniform(0.6, 1.0), dice.uniform(0.5, 1.0))
    value = {"grey": (0.2, 0.8), "light": (0.75, 1.0), "dark": (0.04, 0.25)}[manner]
    return colorsys.hsv_to_rgb(hue, dice.uniform(0, 0.15), dice.uniform(*value))


def sample_palette(dice: Dice) -> list[Colour]:
    """Two to five colours; the first is the main one."""
    main = sample_colour(dice)
    others = [sample_colour(dice) for _ in range(dice.integer(1, 4))]
    shade = dice.choose((dice.uniform(0.3, 0.7), dice.uniform(1.4, 2.5)))
    return [main, *others, tuple(min(c * shade, 1.0) for c in main)]


def sample_texture(dice: Dice, palette: list[Colour], main: Colour | None = None, plain: float = 0.6) -> Texture:
    """A texture of a part; with the probability `plain` one flat colour, `main` first where it is given."""
    first = main or dice.choose(palette, [2.0, *[1.0] * (len(palette) - 1)])
    second, third = dice.choose(palette), dice.choose(palette)
    if second == first or dice.coin(0.3):
        factor = dice.choose((dice.uniform(0.3, 0.7), dice.uniform(1.4, 2.5)))
        second = tuple(min(c * factor + 0.02, 1.0) for c in first)
    kind = 0
    if not dice.coin(plain):
        weights = (2.0, 1.2, 1.2, 1.5, 2.0, 2.5, 5.0, 1.5)
        kind = dice.choose(range(1, len(KINDS)), weights)
    axis = dice.choose(((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), dice.direction()), (3, 3, 1, 2))
    return Texture(
        kind=kind,
        colours=(first, second, third),
        frequency=dice.log_uniform(1.5, 12.0 if KINDS[kind] in ("cells", "noise") else 7.0),
        axis=axis,
        phase=dice.unit(),
        threshold=dice.uniform(0.3, 0.7),
        seed=int(dice.unit() * 2**20),
    )


def hash_cells(cells: Int[Tensor, "*batch 3"], seeds: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """A number in [0, 1) for each whole-number cell and seed."""
    x, y, z = cells.unbind(-1)
    mixed = (x * 73856093) ^ (y * 19349663) ^ (z * 83492791) ^ (seeds * 2654435761)
    mixed = (mixed & 0x7FFFFFFF) * 1103515245 + 12345
    mixed = ((mixed >> 8) ^ mixed) & 0x7FFFFFFF
    mixed = mixed * 69069 + 1
    return ((mixed >> 9) & 0xFFFF).to(torch.float32) / 65536


def value_noise(points: Float[Tensor, "n 3"], seeds: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Smooth noise in [0, 1]: hashed corners of the unit cells, blended."""
    low = points.floor()
    mix = points - low
    mix = mix * mix * (3 - 2 * mix)
    low = low.long()
    value = 0
    for corner in range(8):
        offset = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2 & 1], device=points.device)
        weight = torch.where(offset.bool(), mix, 1 - mix).prod(dim=-1)
        value = value + weight * hash_cells(low + offset, seeds)
    return value


def texture_axes(axis: tuple[float, float, float]) -> list[list[float]]:
    """A rotation whose first row is the axis."""
    x, y, z = axis
    hint = (1.0, 0.0, 0.0) if abs(x) < 0.7 else (0.0, 1.0, 0.0)
    dot = x * hint[0] + y * hint[1] + z * hint[2]
    second = [h - dot * a for h, a in zip(hint, axis, strict=True)]
    length = math.sqrt(sum(v * v for v in second))
    a, b, c = (v / length for v in second)
    return [[x, y, z], [a, b, c], [y * c - z * b, z * a - x * c, x * b - y * a]]


def mix_weights(
    kind: str,
    points: Float[Tensor, "n 3"],
    span: Float[Tensor, "n"],
    faces: Int[Tensor, "n"],
    thresholds: Float[Tensor, "n"],
    seeds: Int[Tensor, "n"],
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """How much of the second and of the third colour a texture of a kind shows at points (in repeats, along its axes).

    span: the position along the first axis, 0 to 1 over the part. faces: which triangle.
    """
    nothing = torch.zeros_like(span)
    if kind == "stripes":
        return ((points[:, 0] - points[:, 0].floor()) < thresholds).to(span.dtype), nothing
    if kind == "checks":
        return (points.floor().sum(-1) % 2).abs(), nothing
    if kind == "spots":
        cell = points.floor()
        jitter = hash_cells(cell.long(), seeds)
        away = (points - cell - 0.5).norm(dim=-1)
        return (away < 0.25 + 0.3 * jitter * thresholds).to(span.dtype), nothing
    if kind == "gradient":
        return span, nothing
    if kind == "noise":
        value = value_noise(points, seeds)
        hard = seeds % 2 == 0
        return torch.where(hard, (value < thresholds).to(span.dtype), ((value - 0.25) * 2).clamp(0, 1)), nothing
    if kind == "cells":
        pick = hash_cells(points.floor().long(), seeds)
        return (pick < thresholds * 0.7).to(span.dtype), (pick > 0.75).to(span.dtype)
    if kind == "split":
        return (span < thresholds * 0.8).to(span.dtype), nothing
    if kind == "facets":
        pick = hash_cells(torch.stack([faces, faces // 7, faces // 3], -1), seeds)
        return (pick < thresholds * 0.5).to(span.dtype), nothing
    raise ValueError(f"texture kind {kind!r}; expected one of {KINDS[1:]}")


def shade_textures(
    kinds: Int[Tensor, "n"],
    colours: Float[Tensor, "n 3 3"],
    points: Float[Tensor, "n 3"],
    span: Float[Tensor, "n"],
    faces: Int[Tensor, "n"],
    thresholds: Float[Tensor, "n"],
    seeds: Int[Tensor, "n"],
) -> Float[Tensor, "n 3"]:
    """The colour that each sample's texture has there."""
    result = colours[:, 0].clone()
    for kind in range(1, len(KINDS)):
        index = (kinds == kind).nonzero()[:, 0]
        if len(index) == 0:
            continue
        second, third = mix_weights(
            KINDS[kind], points[index], span[index], faces[index], thresholds[index], seeds[index]
        )
        chosen = colours[index]
        colour = chosen[:, 0] + (second * (1 - third))[:, None] * (chosen[:, 1] - chosen[:, 0])
        result[index] = colour + third[:, None] * (chosen[:, 2] - colour)
    return result
