"""What creatures are put together from: a style, limbs, balls, fins, legs, heads and tails that move.

Directions: a creature stands in the world with z up and faces -y. Lying bodies run along their local z (forward) with
y up, standing ones along z (up) with y backward; legs that hang from either have y forward.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from data_tools import shapes
from data_tools.dice import Dice
from data_tools.motion import STILL, wave
from data_tools.scenes import Joint, Part, Vector, Wave
from data_tools.textures import Colour, Texture, sample_palette, sample_texture

FORWARD: Vector = (0.0, -1.0, 0.0)


@dataclass
class Style:
    """What the parts of one thing share: colours, shading, how round, how lively, how fast."""

    palette: list[Colour]
    plain: float
    smooth: bool
    supple: bool
    boxy: float
    energy: float
    frequency: float
    phase: float

    @staticmethod
    def sample(dice: Dice, energy: float) -> "Style":
        """A random style with a given liveliness (1 is a walk, 0 is still)."""
        return Style(
            palette=sample_palette(dice),
            plain=dice.choose((0.8, 0.45, 0.15), (3, 3, 3)),
            smooth=dice.coin(0.55),
            supple=dice.coin(0.7),
            boxy=dice.choose((0.0, 0.15, 1.0), (5, 3, 1.5)),
            energy=energy,
            frequency=dice.choose((1.0, 2.0, 0.5, 1.5), (5.5, 0.9, 4.0, 0.7)),
            phase=dice.unit(),
        )


@dataclass
class Body:
    """A creature under construction: its parts, its style and the path of the whole."""

    dice: Dice
    style: Style
    parts: list[Part]
    twins: dict = field(default_factory=dict)

    def like_twin(self, texture: Texture, length: float, draw: Callable[[], tuple]) -> tuple:
        """What `draw` gives, drawn once for parts of the same texture and length: left and right are alike."""
        key = (draw.__name__, texture.seed, length)
        if key not in self.twins:
            self.twins[key] = draw()
        return self.twins[key]

    def swing(self, amplitude: float, phase: float = 0.0, base: float = 0.0, times: float = 1.0) -> Wave:
        """A swing in the creature's rhythm, with a little of its octave."""
        amplitude *= self.style.energy
        octave = (amplitude * self.dice.uniform(0, 0.3), 2 * times * self.style.frequency, self.dice.unit())
        return wave(base, amplitude, times * self.style.frequency, phase + self.style.phase, octave)

    def texture(self, main: Colour | None = None, plain: float | None = None) -> Texture:
        """A texture in the creature's style."""
        return sample_texture(self.dice, self.style.palette, main, self.style.plain if plain is None else plain)

    def add(self, part: Part) -> int:
        """Adds a part in the creature's shading and returns its number."""
        part.smooth = self.style.smooth

        def section() -> tuple[int, float]:
            if self.dice.coin(self.style.boxy):
                return 4, 0.785398
            return self.dice.choose((shapes.COLUMNS, 8, 6), (4, 2, 2)), 0.0

        if part.sides == shapes.COLUMNS:
            part.sides, part.turn = self.like_twin(part.texture, part.length, section)
        self.parts.append(part)
        return len(self.parts) - 1

    def limb(self, length: float, width: float, texture: Texture, flat: float = 1.0, end: float = 0.6, **rest) -> int:
        """A tube that narrows, often with a swelling; in supple creatures it flows out of what it hangs on."""

        def swelling() -> tuple[float, float]:
            return self.dice.uniform(0, 0.25), self.dice.uniform(0.3, 1.3)

        bulge, flare = self.like_twin(texture, length, swelling)
        if self.style.supple and "parent" in rest:
            rest.setdefault("blend", 0.3)
        else:
            flare = 0.0
        profile = shapes.limb(min(0.2, width / length), end, bulge, flare)
        return self.add(Part(profile, length, (width, width * flat), texture, **rest))

    def ball(self, length: float, widths: tuple[float, float], texture: Texture, origin: float = 0.5, **rest) -> int:
        """A ball or rounded block."""

        def lump() -> tuple:
            return (shapes.ellipsoid() if self.dice.coin(0.7) else shapes.limb(0.3, self.dice.uniform(0.6, 1.1), 0.1),)

        (profile,) = self.like_twin(texture, length, lump)
        return self.add(Part(profile, length, widths, texture, origin=origin, **rest))

    def cone(self, length: float, width: float, texture: Texture, **rest) -> int:
        """An ear, a horn, a beak, a spike."""
        return self.add(Part(shapes.cone(), length, (width, width * self.dice.uniform(0.4, 1)), texture, **rest))

    def fin(self, length: float, width: float, texture: Texture, **rest) -> int:
        """A thin sheet: fin, wing, ear, blade. Wide along x."""

        def sheet() -> tuple:
            taper = self.dice.uniform(0.2, 1.5)
            profile = shapes.prism(0.0, taper) if self.dice.coin(0.5) else shapes.ellipsoid()
            return profile, (width, self.dice.uniform(0.015, 0.035))

        profile, widths = self.like_twin(texture, length, sheet)
        return self.add(Part(profile, length, widths, texture, sides=4, turn=0.785398, **rest))


def wave_joints(body: Body, count: int, amplitude: float, delay: float, direction: float, rest: float = 0.0) -> list:
    """Joints along a tail, neck or fish: the same swing, later and later; rest is how far it is bent at rest."""
    return [
        Joint((k + 0.5) / count, 1 / count, body.swing(amplitude / count, -delay * k, rest / count), direction)
        for k in range(count)
    ]


def add_leg(
    body: Body,
    parent: int,
    attach: Vector,
    aim: Vector,
    side: Vector,
    length: float,
    width: float,
    phase: float,
    texture: Texture,
    stride: float,
    knee: float,
    spread: float,
    foot: float,
    end: float,
    foot_texture: Texture,
) -> None:
    """A leg with a knee (and an ankle), swinging about the body's x; a foot where foot > 0."""
    dice = body.dice
    joints = [
        Joint(dice.uniform(0.4, 0.55), 0.3 if body.style.supple else 0.15, body.swing(knee * 0.8, phase + 0.2, knee))
    ]
    if dice.coin(0.5):
        joints.append(Joint(0.8, 0.15, body.swing(0.3, phase + 0.4, -0.6 * knee)))
    socket = (body.swing(stride, phase, -0.35 * knee), wave(spread), STILL)
    leg = body.limb(
        length, width, texture, end=end, parent=parent, attach=attach, aim=aim, side=side, joints=joints, socket=socket
    )
    if foot > 0:
        body.ball(
            foot,
            (width * end * 1.3, width * end * 0.9),
            foot_texture,
            origin=0.25,
            parent=leg,
            attach=(0.0, 0.0, length * 0.97),
            aim=(0.0, 1.0, 0.15),
            side=(1.0, 0.0, 0.0),
            socket=(body.swing(0.3, phase + 0.5), STILL, STILL),
        )


def add_head(body: Body, parent: int, attach: Vector, aim: Vector, up: Vector, size: float, skin: Texture) -> int:
    """A head with some of: snout, ears, horns, eyes. `aim` is where it looks, `up` its crown."""
    dice = body.dice
    side = (up[1] * aim[2] - up[2] * aim[1], up[2] * aim[0] - up[0] * aim[2], up[0] * aim[1] - up[1] * aim[0])
    long = dice.uniform(0.9, 1.6)
    height, width = size * dice.uniform(0.35, 0.5), size * dice.uniform(0.3, 0.5)
    nod = (body.swing(0.2, dice.unit()), body.swing(0.2, dice.unit()), STILL)
    head = body.ball(
        size * long, (width, height), skin, origin=0.35, parent=parent, attach=attach, aim=aim, side=side, socket=nod
    )
    if dice.coin(0.5):
        muzzle, thick, texture = size * dice.uniform(0.4, 0.9), size * dice.uniform(0.14, 0.26), body.texture()
        root = {"parent": head, "attach": (0.0, -0.3 * height, 0.3 * size * long)}
        jaw = dice.coin(0.4)
        body.limb(muzzle, thick, texture, flat=0.6 if jaw else 1.0, aim=(0.0, 0.1 if jaw else -0.15, 1.0), **root)
        if jaw:
            bite = (body.swing(-0.3, dice.unit(), 0.35, times=dice.choose((1.0, 2.0))), STILL, STILL)
            body.limb(
                muzzle * 0.9, thick * 0.9, texture, flat=0.4, aim=(0.0, -0.1, 1.0), socket=bite, blend=0.0, **root
            )
    ears = dice.choose(("cone", "fin", "horn", "none"), (4, 2, 2, 2))
    texture = body.texture(plain=1.0)
    lean, back, at = dice.uniform(0.1, 1.0), dice.uniform(-0.6, 0.3), dice.uniform(-0.2, 0.2)
    long_ear, wide = size * dice.uniform(0.3, 0.9), size * dice.uniform(0.08, 0.22)
    for s in (-1.0, 1.0):
        place = {"parent": head, "attach": (s * width * 0.6, height * 0.7, at * size), "aim": (s * lean, 1.0, back)}
        if ears == "cone":
            body.cone(long_ear, wide, texture, **place)
        elif ears == "fin":
            body.fin(long_ear, wide, texture, **place)
        elif ears == "horn":
            bend = [Joint(0.4, 0.5, wave(dice.uniform(-1.2, 1.2)), dice.uniform(0, 6.3))]
            body.limb(long_ear, wide * 0.6, texture, end=0.2, joints=bend, **place)
    if dice.coin(0.55):
        eye = size * dice.uniform(0.08, 0.25)
        dark = body.texture((0.02, 0.02, 0.02) if dice.coin(0.8) else None, plain=1.0)
        z, y = size * long * dice.uniform(0.1, 0.45), height * dice.uniform(0.1, 0.6)
        for s in (-1.0, 1.0):
            body.ball(eye, (eye * 0.5, eye * 0.5), dark, parent=head, attach=(s * width * 0.75, y, z))
    return head


def add_tail(body: Body, trunk: int, attach: Vector, thick: float, rise: float, long: float | None = None) -> None:
    """A tail that waves, straight or curled."""
    dice = body.dice
    long = long or dice.log_uniform(0.15, 0.8)
    curl = dice.choose((0.0, dice.uniform(-1.5, 2.5)), (2, 1))
    joints = wave_joints(body, 3, dice.uniform(0.2, 1.2), 0.15, dice.choose((0.0, 1.5708)), 0.0)
    joints.append(Joint(0.45, 0.9, wave(curl), 0.0))
    width = dice.uniform(0.1, 0.5) * thick
    body.limb(
        long,
        width,
        body.texture(body.style.palette[0]),
        end=dice.choose((0.15, 0.6, 1.5), (3, 2, 1)),
        parent=trunk,
        attach=attach,
        aim=(0.0, rise, -1.0),
        side=(1.0, 0.0, 0.0),
        joints=joints,
    )
