"""Scenes as tensors: what a part and a scene are made of, and how many scenes become one batch."""

import math
from dataclasses import dataclass, field, fields
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d

from data_tools.motion import JOINTS, STILL, wave
from data_tools.shapes import COLUMNS, SHEET, Profile, cross_sections
from data_tools.textures import Texture, texture_axes

Vector = tuple[float, float, float]
Wave = tuple[float, ...]
ONE = wave(base=1.0)


@dataclass
class Joint:
    """Turns all beyond a height (0 to 1 of the part's length) about the axis at `direction` in the part's xy plane."""

    height: float
    width: float
    angle: Wave
    direction: float = 0.0


@dataclass
class Part:
    """One tube. Its local z axis runs along it, from its socket at 0; lengths and half-widths are in scene units.

    attach: where its socket is, in the parent's coordinates (x, y off the spine, z along it).
    aim, side: directions of its z axis and (nearly) its x axis in the parent's frame at that place.
    origin: the height (0 to 1) of the profile that lies in the socket.
    blend: the share of the length over which the socket's turn comes in: the root stays in the parent, as flesh does.
    """

    profile: Profile
    length: float
    widths: tuple[float, float]
    texture: Texture
    parent: int = -1
    attach: Vector = (0.0, 0.0, 0.0)
    aim: Vector = (0.0, 0.0, 1.0)
    side: Vector = (1.0, 0.0, 0.0)
    origin: float = 0.0
    sides: int = COLUMNS
    power: float = 1.0
    turn: float = 0.0
    socket: tuple[Wave, Wave, Wave] = (STILL, STILL, STILL)
    blend: float = 0.0
    slide: tuple[Wave, Wave, Wave] = (STILL, STILL, STILL)
    stretch: tuple[Wave, Wave, Wave] = (ONE, ONE, ONE)
    joints: list[Joint] = field(default_factory=list)
    twist: Wave = STILL
    lumps: float = 0.0
    morph: Wave = STILL
    morph_profile: Profile | None = None
    morph_lumps: float = 0.0
    smooth: bool = False


@dataclass
class Description:
    """A whole scene before it becomes tensors. Lights shine from their directions; gain scales all light."""

    parts: list[Part]
    path: tuple[Wave, Wave, Wave]
    turning: tuple[Wave, Wave, Wave]
    ambient: float
    gain: float
    lights: tuple[Vector, Vector]
    light_shares: tuple[float, float]


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes; parts are padded to the largest scene's number. See Part and Description for the meanings."""

    present: Bool[Tensor, "scene part"]
    parents: Int[Tensor, "scene part"]
    levels: Int[Tensor, "scene part"]
    attach: Float[Tensor, "scene part 3"]
    orientations: Float[Tensor, "scene part 3 3"]
    socket: Float[Tensor, "scene part 3 11"]
    blend: Float[Tensor, "scene part"]
    slide: Float[Tensor, "scene part 3 11"]
    stretch: Float[Tensor, "scene part 3 11"]
    twist: Float[Tensor, "scene part 11"]
    joint_heights: Float[Tensor, "scene part joint"]
    joint_widths: Float[Tensor, "scene part joint"]
    joint_directions: Float[Tensor, "scene part joint"]
    joint_angles: Float[Tensor, "scene part joint 11"]
    row_heights: Float[Tensor, "scene part row"]
    offsets: Float[Tensor, "scene part row column 3"]
    morph: Float[Tensor, "scene part 11"]
    morph_offsets: Float[Tensor, "scene part row column 3"]
    smooth: Bool[Tensor, "scene part"]
    texture_kinds: Int[Tensor, "scene part"]
    texture_colours: Float[Tensor, "scene part 3 3"]
    texture_axes: Float[Tensor, "scene part 3 3"]
    texture_offsets: Float[Tensor, "scene part 3"]
    texture_thresholds: Float[Tensor, "scene part"]
    texture_seeds: Int[Tensor, "scene part"]
    texture_spans: Float[Tensor, "scene part 2"]
    path: Float[Tensor, "scene 3 11"]
    turning: Float[Tensor, "scene 3 11"]
    light_directions: Float[Tensor, "scene light 3"]
    light_shares: Float[Tensor, "scene light"]
    ambient: Float[Tensor, "scene"]
    gain: Float[Tensor, "scene"]
    centres: Float[Tensor, "scene 3"]
    scales: Float[Tensor, "scene"]

    @cached_property
    def here(self) -> tuple[Int[Tensor, "present"], Int[Tensor, "present"]]:
        """Scene and part of every present part: as an index, it leaves out the padding.

        Found once, since a GPU is waited for: the mask `present` as an index would be searched each time.
        """
        return self.present.nonzero(as_tuple=True)

    def __len__(self) -> int:
        """How many scenes."""
        return len(self.scales)

    def __getitem__(self, index) -> "Scenes":
        """Scenes chosen along the batch (a slice or an index tensor)."""
        return Scenes(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device | str) -> "Scenes":
        """Moved to a device."""
        return Scenes(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def pad_parts(value: Tensor, parts: int) -> Tensor:
    """A tensor [part, ...] with empty parts added."""
    return torch.cat([value, value.new_zeros(parts - len(value), *value.shape[1:])]) if parts > len(value) else value


PER_SCENE = ("path", "turning", "light_directions", "light_shares", "ambient", "gain", "centres", "scales")
"""Fields of Scenes without a part dimension."""


def stack_scenes(scenes: list[Scenes]) -> Scenes:
    """One batch out of several."""
    parts = max(s.present.shape[1] for s in scenes)
    columns = {}
    for f in fields(Scenes):
        values = [getattr(s, f.name) for s in scenes]
        if f.name not in PER_SCENE:
            values = [torch.stack([pad_parts(row, parts) for row in value]) for value in values]
        columns[f.name] = torch.cat(values)
    return Scenes(**columns)


def aim_matrix(aim: Vector, side: Vector) -> list[list[float]]:
    """The rotation whose third column is `aim` and whose first lies as near as can be to `side`."""
    z = _unit(aim)
    for hint in (side, (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)):
        along = sum(a * b for a, b in zip(hint, z, strict=True))
        x = [h - along * a for h, a in zip(hint, z, strict=True)]
        if sum(v * v for v in x) > 1e-4:
            break
    x = _unit(x)
    y = (z[1] * x[2] - z[2] * x[1], z[2] * x[0] - z[0] * x[2], z[0] * x[1] - z[1] * x[0])
    return [list(row) for row in zip(x, y, z, strict=True)]


def _unit(vector) -> Vector:
    length = math.sqrt(sum(v * v for v in vector))
    return tuple(v / length for v in vector)


def pack_description(description: Description, noise: Float[Tensor, "2 part row column"]) -> Scenes:
    """A batch of one scene out of its description. noise: about normal, shapes the lumps (rest, morph)."""
    parts = description.parts
    levels = []
    for part in parts:
        levels.append(0 if part.parent < 0 else levels[part.parent] + 1)
    tensor = torch.tensor
    joints = [
        sorted(part.joints, key=lambda j: j.height) + [Joint(2.0, 1.0, STILL)] * (JOINTS - len(part.joints))
        for part in parts
    ]
    length, origin = tensor([p.length for p in parts]), tensor([p.origin for p in parts])
    heights = tensor([p.profile[0] for p in parts])
    rest, morphed = _surfaces(parts, noise)
    textures = [p.texture for p in parts]
    axes = tensor([texture_axes(t.axis) for t in textures])
    size = torch.maximum(length, 2 * tensor([max(p.widths) for p in parts]))
    along = torch.einsum("pi,prci->prc", axes[:, 0], rest + _on_spine(heights, length, origin)[:, :, None])
    spans = torch.stack([along.amin((1, 2)), along.amax((1, 2))], dim=-1)
    frequency = tensor([t.frequency for t in textures])
    described = dict(
        present=torch.ones(len(parts), dtype=torch.bool),
        parents=tensor([p.parent for p in parts]),
        levels=tensor(levels),
        attach=tensor([p.attach for p in parts]),
        orientations=tensor([aim_matrix(p.aim, p.side) for p in parts]),
        socket=tensor([p.socket for p in parts]),
        blend=tensor([p.blend for p in parts]) * length,
        slide=tensor([p.slide for p in parts]),
        stretch=tensor([p.stretch for p in parts]),
        twist=tensor([p.twist for p in parts]) / length[:, None],
        joint_heights=(tensor([[j.height for j in row] for row in joints]) - origin[:, None]) * length[:, None],
        joint_widths=tensor([[j.width for j in row] for row in joints]) * length[:, None],
        joint_directions=tensor([[j.direction for j in row] for row in joints]),
        joint_angles=tensor([[j.angle for j in row] for row in joints]),
        row_heights=(heights - origin[:, None]) * length[:, None],
        offsets=rest,
        morph=tensor([p.morph for p in parts]),
        morph_offsets=morphed - rest,
        smooth=tensor([p.smooth for p in parts]),
        texture_kinds=tensor([t.kind for t in textures]),
        texture_colours=tensor([t.colours for t in textures]),
        texture_axes=axes * (frequency / size)[:, None, None],
        texture_offsets=tensor([(t.phase, t.phase * 7 % 1, t.phase * 31 % 1) for t in textures]),
        texture_thresholds=tensor([t.threshold for t in textures]),
        texture_seeds=tensor([t.seed for t in textures]),
        texture_spans=spans,
        path=tensor(description.path),
        turning=tensor(description.turning),
        light_directions=tensor([_unit(d) for d in description.lights]),
        light_shares=tensor(description.light_shares),
        ambient=tensor(description.ambient),
        gain=tensor(description.gain),
        centres=torch.zeros(3),
        scales=tensor(1.0),
    )
    return Scenes(**{name: value[None] for name, value in described.items()})


def _on_spine(heights: Tensor, length: Tensor, origin: Tensor) -> Tensor:
    z = (heights - origin[:, None]) * length[:, None]
    return torch.stack([torch.zeros_like(z), torch.zeros_like(z), z], dim=-1)


def _surfaces(parts: list[Part], noise: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets of the grid's points from the spine [part, row, column, 3], at rest and morphed."""
    tensor = torch.tensor
    sides = tensor([p.sides for p in parts])
    section = cross_sections(sides, tensor([p.power for p in parts]), tensor([p.turn for p in parts]))
    section = section * tensor([p.widths for p in parts])[:, None]
    sheet = (sides == SHEET)[:, None, None]
    corner = torch.div(torch.arange(COLUMNS) * sides[:, None], COLUMNS, rounding_mode="floor")
    relief = _relief(noise)
    noise = torch.gather(noise, 3, corner[None, :, None].expand_as(noise))
    noise = torch.cat([noise[:, :, :-1], noise[:, :, :1]], dim=2)  # a ring's last row is its first
    lumps = tensor([p.lumps for p in parts])[:, None, None]
    morph_lumps = tensor([p.morph_lumps for p in parts])[:, None, None]
    bump = (1 + lumps * noise[0]).clamp(0.3, 2.0)
    morph_bump = (bump + morph_lumps * noise[1]).clamp(0.2, 2.5)
    shapes = []
    face = torch.tensor([p.widths[0] for p in parts])[:, None, None]
    hills = lumps * relief[0]
    for radial, height, profiles in (
        (bump, hills, [p.profile for p in parts]),
        (morph_bump, hills + morph_lumps * relief[1], [p.morph_profile or p.profile for p in parts]),
    ):
        radii, heights = tensor([p[1] for p in profiles]), tensor([p[0] for p in profiles])
        lift = (heights - tensor([p.profile[0] for p in parts])) * tensor([p.length for p in parts])[:, None]
        flat = section[:, None] * (radii[..., None] * torch.where(sheet, 1.0, radial))[..., None]
        flat[..., 1] += torch.where(sheet, face * radii[..., None] * height, 0.0)
        shapes.append(torch.cat([flat, lift[:, :, None, None].expand(*flat.shape[:-1], 1)], dim=-1))
    return shapes[0], shapes[1]


def _relief(noise: Tensor) -> Tensor:
    """Hills and flat land [.., row, column] on the face of a SHEET, 0 on its back."""
    face = noise[..., : COLUMNS // 2]
    hills = (1.5 * avg_pool2d(face, 3, 1, 1, count_include_pad=False) + 0.3).clamp(min=0)
    return torch.cat([hills, torch.zeros_like(face)], dim=-1)
