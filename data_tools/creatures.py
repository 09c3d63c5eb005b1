"""Things that walk, swim and fly: descriptions of articulated creatures and how they move.

Directions: a creature stands in the world with z up and faces -y. Lying bodies run along their local z (forward) with
y up, standing ones along z (up) with y backward; legs that hang from either have y forward.
"""

from dataclasses import dataclass

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
    boxy: float
    energy: float
    frequency: float
    phase: float

    @staticmethod
    def sample(dice: Dice, energy: float) -> "Style":
        """A random style with a given liveliness (1 is a walk, 0 is still)."""
        return Style(
            palette=sample_palette(dice),
            plain=dice.choose((0.85, 0.5, 0.15), (3, 3, 3)),
            smooth=dice.coin(0.5),
            boxy=dice.choose((0.0, 0.15, 1.0), (5, 3, 1.5)),
            energy=energy,
            frequency=dice.choose((1.0, 2.0, 0.5, 1.5), (7, 2, 1.2, 0.8)),
            phase=dice.unit(),
        )


@dataclass
class Body:
    """A creature under construction: its parts, its style and the path of the whole."""

    dice: Dice
    style: Style
    parts: list[Part]

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
        if part.sides == shapes.COLUMNS and self.dice.coin(self.style.boxy):
            part.sides, part.turn = 4, 0.785398
        elif part.sides == shapes.COLUMNS:
            part.sides = self.dice.choose((shapes.COLUMNS, 8, 6), (4, 2, 2))
        self.parts.append(part)
        return len(self.parts) - 1

    def limb(self, length: float, width: float, texture: Texture, flat: float = 1.0, end: float = 0.6, **rest) -> int:
        """A tube that narrows, often with a swelling near its socket."""
        profile = shapes.limb(min(0.2, width / length), end, self.dice.uniform(0, 0.25))
        return self.add(Part(profile, length, (width, width * flat), texture, **rest))

    def ball(self, length: float, widths: tuple[float, float], texture: Texture, origin: float = 0.5, **rest) -> int:
        """A ball or rounded block."""
        profile = shapes.ellipsoid() if self.dice.coin(0.7) else shapes.limb(0.3, self.dice.uniform(0.6, 1.1), 0.1)
        return self.add(Part(profile, length, widths, texture, origin=origin, **rest))

    def cone(self, length: float, width: float, texture: Texture, **rest) -> int:
        """An ear, a horn, a beak, a spike."""
        return self.add(Part(shapes.cone(), length, (width, width * self.dice.uniform(0.4, 1)), texture, **rest))

    def fin(self, length: float, width: float, texture: Texture, **rest) -> int:
        """A thin sheet: fin, wing, ear, blade. Wide along x."""
        taper = self.dice.uniform(0.2, 1.5)
        profile = shapes.prism(0.0, taper) if self.dice.coin(0.5) else shapes.ellipsoid()
        widths = (width, self.dice.uniform(0.015, 0.035))
        return self.add(Part(profile, length, widths, texture, sides=4, turn=0.785398, **rest))


def wave_joints(body: Body, count: int, amplitude: float, delay: float, direction: float, rest: float = 0.0) -> list:
    """Joints along a tail, neck or fish: the same swing, later and later; rest is how far it is bent at rest."""
    return [
        Joint((k + 0.5) / count, 1 / count, body.swing(amplitude / count, -delay * k, rest / count), direction)
        for k in range(count)
    ]


def add_leg(
    body: Body, parent: int, attach: Vector, aim: Vector, side: Vector, length: float, width: float, phase: float,
    texture: Texture, stride: float, knee: float, spread: float, foot: float, end: float, foot_texture: Texture,
) -> None:  # fmt: skip
    """A leg with a knee (and an ankle), swinging about the body's x; a foot where foot > 0."""
    dice = body.dice
    joints = [Joint(dice.uniform(0.4, 0.55), 0.18, body.swing(knee * 0.8, phase + 0.2, knee))]
    if dice.coin(0.5):
        joints.append(Joint(0.8, 0.15, body.swing(0.3, phase + 0.4, -0.6 * knee)))
    socket = (body.swing(stride, phase, -0.35 * knee), wave(spread), STILL)
    leg = body.limb(
        length, width, texture, end=end, parent=parent, attach=attach, aim=aim, side=side, joints=joints, socket=socket
    )
    if foot > 0:
        body.ball(
            foot, (width * end * 1.3, width * end * 0.9), foot_texture, origin=0.25, parent=leg,
            attach=(0.0, 0.0, length * 0.97), aim=(0.0, 1.0, 0.15), side=(1.0, 0.0, 0.0),
            socket=(body.swing(0.3, phase + 0.5), STILL, STILL),
        )  # fmt: skip


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
        body.limb(
            size * dice.uniform(0.4, 0.9), size * dice.uniform(0.14, 0.26), body.texture(), parent=head,
            attach=(0.0, -0.3 * height, 0.3 * size * long), aim=(0.0, -0.15, 1.0),
        )  # fmt: skip
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


def four_legged(dice: Dice, style: Style) -> list[Part]:
    """Dogs, horses, bulls, lizards: a lying body with four or six legs, neck, head, tail."""
    body = Body(dice, style, [])
    skin = body.texture(style.palette[0])
    length = 1.0
    thick = dice.log_uniform(0.08, 0.22)
    leg_length, leg_width = dice.uniform(0.25, 0.75), dice.uniform(0.025, 0.065)
    profile = shapes.limb(0.15, dice.uniform(0.8, 1.3), dice.uniform(-0.2, 0.3))
    joints = wave_joints(body, 2, dice.uniform(0.0, 0.5), 0.2, 0.0) if dice.coin(0.6) else []
    trunk = body.add(
        Part(profile, length, (thick * dice.uniform(0.7, 1.1), thick), skin, aim=FORWARD, origin=0.5, joints=joints)
    )
    socks = body.texture(style.palette[0], plain=0.6)
    paws = body.texture(plain=1.0)
    gait = dice.choose(((0.0, 0.5, 0.5, 0.0), (0.0, 0.12, 0.5, 0.62), (0.0, 0.5, 0.25, 0.75)))
    pairs = 3 if dice.coin(0.1) else 2
    stride, knee = dice.uniform(0.3, 0.85), dice.uniform(0.1, 0.7)
    foot = leg_width * dice.uniform(2, 3.5) if dice.coin(0.4) else 0.0
    end, spread = dice.uniform(0.4, 0.9), dice.uniform(0, 0.15) if dice.coin(0.8) else dice.uniform(0.3, 1.0)
    for pair in range(pairs):
        z = length * (0.36 - 0.74 * pair / (pairs - 1))
        for i, s in enumerate((-1.0, 1.0)):
            add_leg(
                body, trunk, (s * thick * 0.6, -0.25 * thick, z), (0.0, -1.0, 0.0), (1.0, 0.0, 0.0), leg_length,
                leg_width, gait[(2 * pair + i) % 4], socks, stride, knee if pair else -0.6 * knee, s * spread, foot,
                end, paws,
            )  # fmt: skip
    neck_length, rise = dice.uniform(0.15, 0.6), dice.uniform(0.1, 1.6)
    neck = body.limb(
        neck_length, thick * dice.uniform(0.4, 0.75), body.texture(style.palette[0]), end=dice.uniform(0.6, 1.0),
        parent=trunk, attach=(0.0, 0.3 * thick, 0.4 * length), aim=(0.0, rise, 1.0), side=(1.0, 0.0, 0.0),
        socket=(body.swing(0.25, dice.unit()), body.swing(0.1, dice.unit()), STILL),
    )  # fmt: skip
    # In the neck's frame y is up and back; the head looks forward and a little down from there.
    look = (0.0, -0.6 * rise - dice.uniform(0, 0.4), 1.0)
    add_head(body, neck, (0.0, 0.0, neck_length * 0.9), look, (0.0, 1.0, 0.6 * rise), dice.uniform(0.15, 0.32), skin)
    if dice.coin(0.9):
        add_tail(body, trunk, (0.0, 0.4 * thick, -0.47 * length), thick, dice.uniform(-0.6, 1.2))
    return body.parts


def add_tail(body: Body, trunk: int, attach: Vector, thick: float, rise: float, long: float | None = None) -> None:
    """A tail that waves, straight or curled."""
    dice = body.dice
    long = long or dice.log_uniform(0.15, 0.8)
    curl = dice.choose((0.0, dice.uniform(-1.5, 2.5)), (2, 1))
    joints = wave_joints(body, 3, dice.uniform(0.2, 1.2), 0.15, dice.choose((0.0, 1.5708)), 0.0)
    joints.append(Joint(0.45, 0.9, wave(curl), 0.0))
    width = dice.uniform(0.1, 0.5) * thick
    body.limb(
        long, width, body.texture(body.style.palette[0]), end=dice.choose((0.15, 0.6, 1.5), (3, 2, 1)), parent=trunk,
        attach=attach, aim=(0.0, rise, -1.0), side=(1.0, 0.0, 0.0), joints=joints,
    )  # fmt: skip


def two_legged_lizard(dice: Dice, style: Style) -> list[Part]:
    """Dinosaurs and birds: a body on two strong legs, a long tail, small arms or wings."""
    body = Body(dice, style, [])
    skin = body.texture(style.palette[0])
    thick, length = dice.log_uniform(0.07, 0.18), dice.uniform(0.5, 0.8)
    pitch = dice.uniform(-0.1, 0.6)
    profile = shapes.limb(0.2, dice.uniform(0.6, 1.1), dice.uniform(0.0, 0.4))
    trunk = body.add(
        Part(
            profile, length, (thick * 0.8, thick), skin, aim=(0.0, -1.0, pitch), origin=0.4,
            socket=(body.swing(0.12, dice.unit(), times=2.0), STILL, body.swing(0.1)),
        )  # fmt: skip
    )
    knee = dice.uniform(0.5, 1.0)
    stride, long = dice.uniform(0.3, 0.8), dice.uniform(0.4, 0.7)
    texture, claws = body.texture(style.palette[0]), body.texture()
    for i, s in enumerate((-1.0, 1.0)):
        add_leg(
            body, trunk, (s * thick * 0.7, -0.1 * thick, -0.05), (0.0, -1.0, 0.4 - pitch), (1.0, 0.0, 0.0), long,
            dice.uniform(0.035, 0.08), 0.5 * i, texture, stride, knee, 0.0, dice.uniform(0.1, 0.2), 0.5, claws,
        )  # fmt: skip
    if dice.coin(0.7):
        arm, bend = dice.uniform(0.12, 0.3), dice.uniform(0.2, 1.0)
        for s in (-1.0, 1.0):
            body.limb(
                arm, 0.03, skin, parent=trunk, attach=(s * thick * 0.7, -0.4 * thick, 0.45 * length),
                aim=(s * 0.2, -1.0, 0.4), socket=(body.swing(0.3, dice.unit()), STILL, STILL),
                joints=[Joint(0.5, 0.3, wave(-bend))],
            )  # fmt: skip
    else:
        span, amplitude = dice.uniform(0.3, 0.8), dice.uniform(0.2, 0.9)
        texture = body.texture()
        for s in (-1.0, 1.0):
            body.fin(
                span, dice.uniform(0.1, 0.25), texture, parent=trunk, attach=(s * thick * 0.7, 0.3 * thick, 0.1),
                aim=(s, 0.2, 0.0), side=(0.0, 0.0, 1.0),
                socket=(body.swing(s * amplitude), STILL, STILL), joints=[Joint(0.5, 0.3, body.swing(s * 0.5, -0.2))],
            )  # fmt: skip
    neck_length, rise = dice.uniform(0.12, 0.45), dice.uniform(0.2, 1.5)
    neck = body.limb(
        neck_length, thick * dice.uniform(0.4, 0.7), skin, end=0.8, parent=trunk,
        attach=(0.0, 0.2 * thick, 0.5 * length), aim=(0.0, rise, 1.0), socket=(body.swing(0.2, dice.unit()), STILL, STILL),
    )  # fmt: skip
    add_head(
        body, neck, (0.0, 0.0, neck_length * 0.9), (0.0, -rise, 1.0), (0.0, 1.0, rise), dice.uniform(0.13, 0.25), skin
    )
    add_tail(body, trunk, (0.0, 0.1 * thick, -0.36 * length), 2.2 * thick, dice.uniform(-0.2, 0.5), dice.uniform(0.3, 1.3))
    return body.parts


def standing(dice: Dice, style: Style) -> list[Part]:
    """People, robots, knights: a standing trunk, head, two arms, two legs, things worn and held."""
    body = Body(dice, style, [])
    shirt, trousers = body.texture(style.palette[0]), body.texture()
    skin = body.texture(plain=0.85)
    chibi = dice.coin(0.5)
    tall = dice.uniform(0.3, 0.5)
    wide, deep = dice.uniform(0.1, 0.22), dice.uniform(0.07, 0.15)
    profile = shapes.limb(0.15, dice.uniform(0.8, 1.5), dice.uniform(-0.1, 0.3))
    if dice.coin(0.3):
        profile = shapes.prism(dice.uniform(0.0, 0.15), dice.uniform(0.6, 1.4))
    lean = wave(dice.uniform(-0.3, 0.1))
    trunk = body.add(
        Part(
            profile, tall, (wide, deep), shirt, origin=0.1,
            socket=(lean, STILL, body.swing(0.2, dice.unit())),
            joints=[Joint(0.4, 0.5, body.swing(0.15, dice.unit()), dice.choose((0.0, 1.5708)))],
        )  # fmt: skip
    )
    head_size = dice.uniform(0.28, 0.5) if chibi else dice.uniform(0.16, 0.26)
    nod = (body.swing(0.15, dice.unit()), body.swing(0.1, dice.unit()), body.swing(0.2, dice.unit()))
    head = body.ball(
        head_size, (head_size * dice.uniform(0.4, 0.55), head_size * dice.uniform(0.35, 0.5)), skin, origin=0.05,
        parent=trunk, attach=(0.0, 0.0, tall * dice.uniform(0.95, 1.15)), socket=nod,
    )  # fmt: skip
    hat = dice.choose(("none", "cap", "cone", "brim", "box"), (3, 3, 2, 1.5, 1))
    cloth = body.texture()
    on_head = {"parent": head, "attach": (0.0, 0.0, head_size * dice.uniform(0.55, 0.85))}
    if hat == "cap":
        body.ball(head_size * 0.6, (head_size * 0.56, head_size * 0.56), cloth, origin=0.4, **on_head)
    if hat in ("cone", "brim"):
        tip = [Joint(0.6, 0.4, body.swing(0.3, dice.unit(), dice.uniform(-0.6, 0.6)))]
        body.cone(head_size * dice.uniform(0.6, 1.2), head_size * 0.5, cloth, joints=tip, **on_head)
    if hat == "brim":
        brim = head_size * dice.uniform(0.7, 1.1)
        body.add(Part(shapes.prism(), head_size * 0.08, (brim, brim), cloth, **on_head))
    if hat == "box":
        body.add(Part(shapes.prism(0.1), head_size * 0.4, (head_size * 0.5,) * 2, cloth, sides=4, turn=0.785398, **on_head))
    if dice.coin(0.35):
        eye = head_size * dice.uniform(0.12, 0.25)
        dark = body.texture((0.03, 0.03, 0.03) if dice.coin(0.7) else None, plain=1.0)
        for s in (-1.0, 1.0):
            place = (s * head_size * 0.2, -0.38 * head_size, head_size * 0.55)
            body.ball(eye, (eye * 0.5, eye * 0.4), dark, parent=head, attach=place)
    leg_length, leg_width = dice.uniform(0.2, 0.35) if chibi else dice.uniform(0.35, 0.6), dice.uniform(0.05, 0.1)
    stride, knee = dice.uniform(0.2, 0.8), dice.uniform(0.1, 0.6)
    boots = body.texture()
    foot = dice.uniform(0.1, 0.2) if dice.coin(0.6) else 0.0
    for i, s in enumerate((-1.0, 1.0)):
        add_leg(
            body, trunk, (s * wide * 0.55, 0.0, 0.02), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0), leg_length, leg_width,
            0.5 * i, trousers, stride, knee, s * 0.05, foot, dice.uniform(0.6, 1.1), boots,
        )  # fmt: skip
    add_arms(body, trunk, tall, wide, skin if dice.coin(0.4) else shirt, skin)
    if dice.coin(0.3):
        cape = body.texture()
        body.fin(
            tall * dice.uniform(0.8, 1.5), wide, cape, parent=trunk, attach=(0.0, deep * 1.1, tall * 0.95),
            aim=(0.0, 0.25, -1.0), socket=(body.swing(0.3, dice.unit(), 0.1), STILL, STILL),
            joints=[Joint(0.5, 0.4, body.swing(0.4, dice.unit()))],
        )  # fmt: skip
    return body.parts


def add_arms(body: Body, trunk: int, tall: float, wide: float, sleeve: Texture, skin: Texture) -> None:
    """Two arms that swing against the legs, with hands, and what they hold."""
    dice = body.dice
    length, width = tall * dice.uniform(0.7, 1.4), dice.uniform(0.035, 0.08)
    amplitude, bend, open_ = dice.uniform(0.2, 1.0), dice.uniform(0.1, 1.2), dice.uniform(0.1, 1.2)
    together, hands = dice.coin(0.3), dice.coin(0.6)
    for i, s in enumerate((-1.0, 1.0)):
        phase = 0.5 * (1 - i) if not together else 0.0
        arm = body.limb(
            length, width, sleeve, parent=trunk, attach=(s * wide, 0.0, tall * 0.85), aim=(s * open_, 0.0, -1.0),
            side=(1.0, 0.0, s * open_), socket=(body.swing(amplitude, phase), body.swing(0.2, dice.unit()), STILL),
            joints=[Joint(0.5, 0.2, body.swing(0.3, phase, -bend))], end=dice.uniform(0.6, 1.0),
        )  # fmt: skip
        tip = {"parent": arm, "attach": (0.0, 0.0, length * 0.97)}
        if hands:
            size = width * dice.uniform(1.8, 3.2)
            body.ball(size, (size * 0.5, size * 0.5), skin, **tip)
        held = dice.choose(("none", "stick", "shield", "block"), (5, 1.5, 0.8, 0.8))
        texture = body.texture()
        if held == "stick":
            thin = dice.uniform(0.012, 0.04)
            body.add(
                Part(
                    shapes.prism(0.0, dice.uniform(0.3, 1.2)), dice.uniform(0.3, 0.9), (thin * dice.uniform(1, 3), thin),
                    texture, origin=dice.uniform(0.05, 0.5), aim=(dice.uniform(-0.3, 0.3), 1.0, 0.2), sides=4,
                    turn=0.785398, **tip,
                )  # fmt: skip
            )
        if held == "shield":
            size = dice.uniform(0.12, 0.25)
            sides = dice.choose((4, 6, shapes.COLUMNS))
            body.add(
                Part(shapes.prism(0.1), 0.04, (size, size * 1.2), texture, aim=(s, 0.3, 0.0), sides=sides, turn=0.785398, **tip)
            )
        if held == "block":
            size = dice.uniform(0.08, 0.2)
            body.add(Part(shapes.prism(), size, (size * 0.5, size * 0.4), texture, sides=4, turn=0.785398, **tip))


def swimmer(dice: Dice, style: Style) -> list[Part]:
    """Fish: a body that waves, fins, a tail, big eyes."""
    body = Body(dice, style, [])
    length, tall = 1.0, dice.uniform(0.15, 0.42)
    wide = tall * dice.uniform(0.4, 1.0)
    profile = shapes.ellipsoid() if dice.coin(0.5) else shapes.limb(0.25, dice.uniform(0.9, 1.8), 0.4)
    # The local z runs from the head to the tail: joints turn what lies beyond, and a fish keeps its head still.
    amount = dice.uniform(0.3, 1.2)
    skin = body.texture(style.palette[0], plain=0.4)
    trunk = body.add(
        Part(
            profile, length, (wide, tall), skin, aim=(0.0, 1.0, 0.0), side=(-1.0, 0.0, 0.0), origin=0.5,
            joints=wave_joints(body, 3, amount * 0.7, 0.15, 1.5708),
        )  # fmt: skip
    )
    fins = body.texture(plain=0.5)
    for rise in (0.5, -0.5) if dice.coin(0.5) else (0.0,):
        body.fin(
            dice.uniform(0.2, 0.5), dice.uniform(0.08, 0.22), fins, parent=trunk, attach=(0.0, 0.0, 0.42 * length),
            aim=(0.0, rise, 1.0), side=(0.0, 1.0, 0.0),
            socket=(body.swing(amount * 0.6, -0.1), STILL, STILL), joints=[Joint(0.3, 0.5, body.swing(amount * 0.5, -0.25))],
        )  # fmt: skip
    for up in (1.0, -1.0):
        if dice.coin(0.6):
            body.fin(
                dice.uniform(0.1, 0.4), dice.uniform(0.08, 0.3), fins, parent=trunk,
                attach=(0.0, up * tall * 0.8, dice.uniform(-0.2, 0.2)), aim=(0.0, up, 0.4), side=(0.0, 0.0, 1.0),
                socket=(STILL, body.swing(0.2, dice.unit()), STILL),
            )  # fmt: skip
    span, at = dice.uniform(0.12, 0.35), dice.uniform(-0.25, 0.05)
    for s in (-1.0, 1.0):
        body.fin(
            span, dice.uniform(0.06, 0.12), fins, parent=trunk, attach=(s * wide * 0.85, -0.2 * tall, at),
            aim=(s, -0.3, 0.5), side=(0.0, 0.0, 1.0), socket=(body.swing(s * 0.6, dice.unit(), times=2.0), STILL, STILL),
        )  # fmt: skip
    if dice.coin(0.75):
        eye = tall * dice.uniform(0.25, 0.7)
        dark = body.texture((0.02, 0.02, 0.02), plain=1.0)
        z = -dice.uniform(0.2, 0.38)
        for s in (-1.0, 1.0):
            body.ball(eye, (eye * 0.5, eye * 0.5), dark, parent=trunk, attach=(s * wide * 0.75, 0.2 * tall, z))
    for _ in range(dice.integer(1, 3) if dice.coin(0.25) else 0):
        x, y, z = dice.direction()
        thin = dice.uniform(0.015, 0.04)
        body.limb(
            dice.uniform(0.15, 0.4), thin, fins, parent=trunk, attach=(x * wide * 0.8, y * tall * 0.8, z * 0.3),
            aim=(x, y, z * 0.5), joints=[Joint(0.5, 0.6, body.swing(0.3, dice.unit(), dice.uniform(-1.5, 1.5)))],
        )  # fmt: skip
    return body.parts


def blob(dice: Dice, style: Style) -> list[Part]:
    """A soft lump with stubs: arms, horns, legs in any number, squashing as it goes."""
    body = Body(dice, style, [])
    style.boxy = min(style.boxy, 0.15)
    tall, wide = dice.uniform(0.4, 0.9), dice.uniform(0.25, 0.5)
    squash = dice.uniform(0, 0.15) * style.energy
    phase = dice.unit()
    breath = (
        wave(1.0, -squash, style.frequency, phase), wave(1.0, -squash, style.frequency, phase),
        wave(1.0, squash, style.frequency, phase),
    )  # fmt: skip
    skin = body.texture(style.palette[0], plain=0.7)
    profile = shapes.turned(dice) if dice.coin(0.4) else shapes.limb(0.25, dice.uniform(0.5, 1.2), dice.uniform(0, 0.3))
    trunk = body.add(
        Part(
            profile, tall, (wide, wide * dice.uniform(0.6, 1.1)), skin, stretch=breath, lumps=dice.uniform(0, 0.06),
            joints=wave_joints(body, 2, dice.uniform(0, 0.5), 0.1, dice.choose((0.0, 1.5708))),
        )  # fmt: skip
    )
    for _ in range(dice.integer(1, 4)):
        z, x, y = dice.uniform(0.05, 0.9), dice.uniform(0.3, 1.0), dice.uniform(-1.0, 1.0)
        rise, long, width = dice.uniform(-1.0, 1.0), dice.uniform(0.2, 0.6), dice.uniform(0.05, 0.13)
        swing, phase, end = dice.uniform(0.2, 0.9), dice.unit(), dice.uniform(0.3, 1.2)
        for s in (-1.0, 1.0):
            body.limb(
                long, width, skin, end=end, parent=trunk, attach=(s * x * wide * 0.6, y * wide * 0.4, z * tall),
                aim=(s * x, 0.7 * y, rise), side=(0.0, 1.0, 0.0),
                socket=(body.swing(swing, phase), STILL, STILL), joints=[Joint(0.5, 0.4, body.swing(0.4, phase + 0.2))],
            )  # fmt: skip
    if dice.coin(0.6):
        dark = body.texture((0.02, 0.02, 0.02), plain=1.0)
        eye, z = tall * dice.uniform(0.08, 0.2), tall * dice.uniform(0.5, 0.8)
        for s in (-1.0, 1.0):
            body.ball(eye, (eye * 0.3, eye * 0.3), dark, parent=trunk, attach=(s * wide * 0.3, -0.75 * wide, z))
    return body.parts


def walker(dice: Dice, style: Style) -> list[Part]:
    """Machines: blocks on legs of stiff segments, guns and antennas; much small detail of texture."""
    body = Body(dice, style, [])
    style.boxy, style.smooth = 0.6, False
    style.plain = min(style.plain, 0.4)
    wide, deep, tall = (dice.uniform(0.12, 0.3) for _ in range(3))
    trunk = body.add(
        Part(
            shapes.prism(dice.uniform(0, 0.25), dice.uniform(0.7, 1.2)), 2 * tall, (wide, deep), body.texture(), origin=0.2,
            socket=(body.swing(0.08, 0.2), STILL, body.swing(0.15)),
        )  # fmt: skip
    )
    legs = dice.choose((2, 4), (3, 1))
    thigh, shin = dice.uniform(0.25, 0.5), dice.uniform(0.25, 0.5)
    knee, stride, width = dice.uniform(0.3, 1.2), dice.uniform(0.3, 0.8), dice.uniform(0.04, 0.08)
    back = dice.choose((1.0, -1.0), (2, 1))
    textures = [body.texture() for _ in range(3)]
    box = {"sides": 4, "turn": 0.785398}
    for i in range(legs):
        s, y = (-1.0, 1.0)[i % 2], 0.0 if legs == 2 else (-0.8, 0.8)[i // 2] * deep
        phase = 0.5 * (i % 2) + 0.5 * (i // 2)
        upper = body.add(
            Part(
                shapes.prism(0.1, 0.8), thigh, (width, width * 1.3), textures[0], parent=trunk,
                attach=(s * wide, y, 0.0), aim=(0.0, 0.0, -1.0),
                socket=(body.swing(stride, phase, -0.5 * back * knee), wave(s * dice.uniform(0, 0.2)), STILL), **box,
            )  # fmt: skip
        )
        lower = body.add(
            Part(
                shapes.prism(0.1, 0.7), shin, (width * 0.8, width), textures[1], parent=upper, attach=(0.0, 0.0, thigh * 0.95),
                socket=(body.swing(0.6 * knee, phase + 0.2, back * knee), STILL, STILL), **box,
            )  # fmt: skip
        )
        body.add(
            Part(
                shapes.prism(0.1, 0.8), width * 3, (width * 1.3, width * 0.7), textures[2], parent=lower, origin=0.3,
                attach=(0.0, 0.0, shin * 0.97), aim=(0.0, 1.0, 0.1),
                socket=(body.swing(0.3, phase + 0.5), STILL, STILL), **box,
            )  # fmt: skip
        )
    for _ in range(dice.integer(1, 3)):
        texture, long, thin = body.texture(), dice.uniform(0.1, 0.6), dice.uniform(0.015, 0.08)
        x, y, z = dice.uniform(0, 1) * wide, dice.uniform(-1, 1) * deep, dice.uniform(0.5, 1) * 2 * tall
        aim = dice.choose(((0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (0.5, -0.5, 0.5)))
        turn = dice.uniform(0, 0.4)
        for s in (-1.0, 1.0) if dice.coin(0.6) else (1.0,):
            body.add(
                Part(
                    shapes.prism(0.0, dice.uniform(0.6, 1.1)), long, (thin, thin), texture, parent=trunk, attach=(s * x, y, z),
                    origin=dice.uniform(0.05, 0.4), aim=(s * aim[0], aim[1], aim[2]),
                    socket=(body.swing(turn, dice.unit()), STILL, STILL),
                )  # fmt: skip
            )
    size = dice.uniform(0.08, 0.2)
    body.ball(size, (size * 0.7, size * 0.6), body.texture(), parent=trunk, attach=(0.0, -0.3 * deep, 2 * tall), socket=(STILL, STILL, body.swing(0.4, dice.unit())))
    return body.parts


CREATURES = (
    (four_legged, 5.0),
    (two_legged_lizard, 3.0),
    (standing, 5.0),
    (swimmer, 3.0),
    (blob, 1.5),
    (walker, 2.0),
)
"""Makers of creatures and their weights."""
