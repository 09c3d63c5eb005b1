"""Procedural textures in a part's own coordinates, and the colours they are made of."""

import colorsys
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data_tools.dice import Dice

WEIGHTS = {
    "stripes": 2.0, "checks": 1.0, "spots": 1.2, "gradient": 1.5, "noise": 2.0, "cells": 2.0, "split": 5.0,
    "facets": 1.5, "glyphs": 2.0, "bars": 3.0, "rings": 1.2, "strokes": 1.5, "bricks": 0.8, "grain": 2.0,
}  # fmt: skip
"""Kinds of textures that are not flat and how often they are taken. All but the gradient have sharp edges."""

KINDS = ("flat", *WEIGHTS)

FINE = ("cells", "noise", "grain", "strokes")
"""Kinds that may repeat more often."""

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
    manner = dice.choose(("muted", "earth", "vivid", "grey", "light", "dark"), (3, 3, 1.8, 2.2, 2.6, 0.7))
    hue = dice.unit()
    if manner == "muted":
        return colorsys.hsv_to_rgb(hue, dice.uniform(0.1, 0.55), dice.uniform(0.3, 0.95))
    if manner == "earth":
        return colorsys.hsv_to_rgb(dice.uniform(0.03, 0.15), dice.uniform(0.3, 0.8), dice.uniform(0.3, 0.95))
    if manner == "vivid":
        return colorsys.hsv_to_rgb(hue, dice.uniform(0.6, 1.0), dice.uniform(0.5, 1.0))
    value = {"grey": (0.25, 0.8), "light": (0.75, 1.0), "dark": (0.04, 0.25)}[manner]
    return colorsys.hsv_to_rgb(hue, dice.uniform(0, 0.15), dice.uniform(*value))


def sample_palette(dice: Dice) -> list[Colour]:
    """Two to five colours; the first is the main one."""
    main = sample_colour(dice)
    others = [sample_colour(dice) for _ in range(dice.integer(1, 5))]
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
        kind = dice.choose(range(1, len(KINDS)), list(WEIGHTS.values()))
    axis = dice.choose(((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), dice.direction()), (3, 3, 1, 2))
    return Texture(
        kind=kind,
        colours=(first, second, third),
        frequency=dice.log_uniform(1.5, 12.0 if KINDS[kind] in FINE else 7.0),
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
    # All eight at once: on a GPU the many operations of each would take longer to launch than to do.
    corner = torch.arange(8, device=points.device)[:, None] >> torch.arange(3, device=points.device) & 1
    x, y, z = torch.where(corner[:, None] > 0, mix, 1 - mix).unbind(-1)
    shares = x * y * z * hash_cells(low.long() + corner[:, None], seeds)
    value = shares[0]
    for share in shares[1:]:
        value = value + share
    return value


def draw_glyphs(points: Float[Tensor, "n 2"], seeds: Int[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """Ink of letter-like marks, one in every unit cell of most rows of cells: some of nine strokes each."""
    cell = points.floor()
    x, y = (((points - cell) - 0.15) / 0.7).unbind(-1)
    column, row = cell.long().unbind(-1)
    code = (hash_cells(torch.stack([column, row, torch.zeros_like(row)], -1), seeds) * 65536).long()
    written = hash_cells(torch.stack([row, torch.full_like(row, 7), row], -1), seeds) < 0.7
    inside = (x > -0.08) & (x < 1.08) & (y > -0.08) & (y < 1.08) & written
    lower, wide, high = y < 0.5, 0.12, 0.1
    left, right, middle = x.abs() < wide, (x - 1).abs() < wide, (x - 0.5).abs() < wide
    strokes = [
        left & lower, left & ~lower, right & lower, right & ~lower, middle,
        y.abs() < high, (y - 0.5).abs() < high, (y - 1).abs() < high, (x - y).abs() < wide,
    ]  # fmt: skip
    ink = torch.zeros_like(inside)
    for bit, stroke in enumerate(strokes):
        ink |= stroke & (code >> bit & 1).bool()
    return ink & inside


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
    if kind == "glyphs":
        return draw_glyphs(points[:, :2], seeds).to(span.dtype), nothing
    if kind == "bars":
        along = (points[:, 0] + 0.3 * (2.1 * points[:, 0] + seeds % 7).sin()).floor().long()
        pick = hash_cells(torch.stack([along, along, along], -1), seeds)
        return (pick < thresholds * 0.6).to(span.dtype), (pick > 0.75).to(span.dtype)
    if kind == "rings":
        away = (points[:, :2] - points[:, :2].floor() - 0.5).norm(dim=-1)
        return (away < 0.25 + 0.25 * thresholds).to(span.dtype), (away < 0.4 * thresholds).to(span.dtype)
    if kind == "strokes":
        away = (value_noise(points, seeds) - thresholds).abs()
        return (away < 0.05).to(span.dtype), nothing
    if kind == "bricks":
        row = points[:, 1].floor()
        along = points[:, 0] + 0.5 * (row % 2)
        brick = torch.stack([along.floor(), row, row], -1).long()
        gap = (along - along.floor() < 0.1) | (points[:, 1] - row < 0.15)
        return gap.to(span.dtype), (~gap & (hash_cells(brick, seeds) < 0.3)).to(span.dtype)
    if kind == "grain":
        coarse, fine = value_noise(points, seeds), value_noise(3.1 * points, seeds + 1)
        speck = hash_cells((9 * points).floor().long(), seeds)
        mixed = ((0.6 * coarse + 0.4 * fine - 0.3) * 2.5).clamp(0, 1)
        return (0.75 * mixed + 0.25 * speck), (speck > 0.97 - 0.1 * thresholds).to(span.dtype)
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
    # Sorted by kind with one look at the device; an index a kind would wait for it each time.
    sought = kinds == torch.arange(1, len(KINDS), device=kinds.device)[:, None]
    order, counts = sought.nonzero()[:, 1], sought.sum(1).tolist()
    sorted_ = (value[order].split(counts) for value in (points, span, faces, thresholds, seeds))
    each = zip(KINDS[1:], *sorted_, strict=True)
    nothing = (span[:0], span[:0])
    mixed = [nothing, *(mix_weights(kind, *rest) for kind, *rest in each if len(rest[0]))]
    second, third = (torch.cat(shares)[:, None] for shares in zip(*mixed, strict=True))
    chosen = colours[order]
    colour = chosen[:, 0] + (second * (1 - third)) * (chosen[:, 1] - chosen[:, 0])
    result = colours[:, 0].clone()
    result[order] = colour + third * (chosen[:, 2] - colour)
    return result
