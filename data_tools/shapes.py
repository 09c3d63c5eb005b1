"""Shapes of parts: profiles of a tube (heights and radii of its rows) and cross-sections, on one grid for all.

Every part is a closed tube of ROWS rings with COLUMNS points each; shapes with fewer corners repeat points, and the
empty triangles between them cost nothing. One grid for all makes a batch of scenes one tensor.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_tools.dice import Dice

ROWS = 11
COLUMNS = 16
SHEET = 2
"""The number of sides that stands for a sheet: half of its points lie on its face, half on its back."""

Profile = tuple[list[float], list[float]]
"""Heights and radii of the ROWS rings; heights from 0 to 1, radii about 1."""


def ellipsoid() -> Profile:
    """A ball."""
    angles = [math.pi * (i / (ROWS - 1) - 0.5) for i in range(ROWS)]
    return [0.5 + 0.5 * math.sin(a) for a in angles], [max(math.cos(a), 0.0) for a in angles]


def prism(bevel: float = 0.0, taper: float = 1.0) -> Profile:
    """A cylinder or box (by its cross-section) of radius 1 below and `taper` above, edges cut by bevel < 0.5."""
    inner = ROWS - 4 if bevel > 0 else ROWS - 2
    middle = [bevel + (1 - 2 * bevel) * i / (inner - 1) for i in range(inner)]
    if bevel > 0:
        heights = [0.0, 0.0, *middle, 1.0, 1.0]
        shrink = [0.0, 1 - bevel, *[1.0] * inner, 1 - bevel, 0.0]
    else:
        heights = [0.0, *middle, 1.0]
        shrink = [0.0, *[1.0] * inner, 0.0]
    return heights, [s * (1 + (taper - 1) * h) for s, h in zip(shrink, heights, strict=True)]


def cone() -> Profile:
    """A cone or pyramid, its tip above."""
    return prism(0.0, 0.0)


def limb(cap: float, end: float, bulge: float = 0.0, flare: float = 0.0) -> Profile:
    """A capsule that narrows to radius `end`, round caps of height `cap` (of its length), thicker by bulge inside and
    by flare at its root, as flesh is where a limb comes out of a body."""
    inner = ROWS - 4
    middle = [cap + (1 - 2 * cap) * i / (inner - 1) for i in range(inner)]
    heights = [0.0, cap * 0.3, *middle, 1 - cap * 0.3, 1.0]
    round_off = [0.0, 0.7, *[1.0] * inner, 0.7, 0.0]
    swell = [1 + bulge * math.sin(math.pi * h) + flare * max(1 - h / 0.35, 0) ** 2 for h in heights]
    return heights, [r * s * (1 + (end - 1) * h) for r, s, h in zip(round_off, swell, heights, strict=True)]


def ring(thickness: float) -> Profile:
    """A torus whose tube has the radius `thickness` (ring radius 1); its rows go around the tube."""
    angles = [2 * math.pi * i / (ROWS - 1) for i in range(ROWS)]
    # Heights must rise from 0 to 1 only for spines; a ring's rows come back, which is fine: it is closed all the same.
    return [0.5 - 0.5 * math.cos(a) for a in angles], [1 + thickness * math.sin(a) for a in angles]


def pipe(wall: float) -> Profile:
    """A pipe, or a frame where its cross-section has corners: open at both ends, its wall of a thickness below 1."""
    heights = [0.0, 0.25, 0.5, 0.75, 1.0]
    return [*heights, *heights[::-1], 0.0], [*[1.0] * 5, *[1 - wall] * 5, 1.0]


def bowl(thickness: float) -> Profile:
    """An open bowl or cup: up outside, over the rim, down inside."""
    outside = [(0.0, 0.0), (0.0, 0.7), (0.25, 0.9), (0.6, 1.0), (1.0, 1.05)]
    inside = [(h * (1 - thickness) + thickness, r * (1 - thickness)) for h, r in reversed(outside)]
    middle = [(1.0, 1.05 * (1 - thickness / 2))]
    heights, radii = zip(*(outside + middle + inside), strict=True)
    return [min(h, 1.0) for h in heights], list(radii)


def turned(dice: Dice) -> Profile:
    """A random turned shape: radii that wander, closed at both ends."""
    heights = [0.0, *[i / (ROWS - 3) for i in range(ROWS - 2)], 1.0]
    knots = [dice.uniform(0.35, 1.1) for _ in range(dice.integer(3, 5))]
    radii = []
    for h in heights[1:-1]:
        at = h * (len(knots) - 1)
        low = min(int(at), len(knots) - 2)
        mix = at - low
        mix = mix * mix * (3 - 2 * mix)
        radii.append(knots[low] * (1 - mix) + knots[low + 1] * mix)
    return heights, [0.0, *radii, 0.0]


def grid_faces(device: torch.device | None = None) -> Int[Tensor, "face 3"]:
    """Triangles of the grid (vertex index = row * COLUMNS + column), counter-clockwise seen from outside."""
    row, column = torch.meshgrid(
        torch.arange(ROWS - 1, device=device), torch.arange(COLUMNS, device=device), indexing="ij"
    )
    right = (column + 1) % COLUMNS
    a, b = row * COLUMNS + column, row * COLUMNS + right
    c, d = a + COLUMNS, b + COLUMNS
    return torch.stack([torch.stack([a, b, d], -1), torch.stack([a, d, c], -1)], dim=2).reshape(-1, 3)


def grid_corners(values: Float[Tensor, "*batch vertex k"]) -> Float[Tensor, "*batch face 3 k"]:
    """Values at vertices, at the corners of grid_faces' triangles; slices, much faster than an index."""
    grid = values.unflatten(-2, (ROWS, COLUMNS))
    right = grid.roll(-1, -2)
    a, b, c, d = grid[..., :-1, :, :], right[..., :-1, :, :], grid[..., 1:, :, :], right[..., 1:, :, :]
    return torch.stack([a, b, d, a, d, c], dim=-2).unflatten(-2, (2, 3)).flatten(-5, -3)


def cross_sections(
    sides: Int[Tensor, "*batch"], power: Float[Tensor, "*batch"], turn: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch column 2"]:
    """Points (x, y) of cross-sections: regular polygons of `sides` corners from the angle `turn`, or rounded squares.

    power 1 is a circle (of COLUMNS sides where sides is as many); below 1 its points move to the corners of a square.
    A polygon of four sides is scaled to have half-width 1. A SHEET's points are evenly spread from x = 1 to -1 along
    its face, at y = 1, and back.
    """
    column = torch.arange(COLUMNS, device=sides.device)
    corner = torch.div(column * sides[..., None], COLUMNS, rounding_mode="floor")
    angle = 2 * torch.pi * corner / sides[..., None] + turn[..., None]
    c, s = angle.cos(), angle.sin()
    points = torch.stack([c.sign() * c.abs() ** power[..., None], s.sign() * s.abs() ** power[..., None]], dim=-1)
    points = points * torch.where(sides == 4, 2**0.5, 1.0)[..., None, None]
    face = torch.linspace(1, -1, COLUMNS // 2, device=sides.device)
    sheet = torch.stack([torch.cat([face, face.flip(0)]), torch.ones_like(face).repeat(2)], dim=-1)
    sheet[COLUMNS // 2 :, 1] = -1
    return torch.where((sides == SHEET)[..., None, None], sheet, points)
