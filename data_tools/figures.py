"""Figures that stand: people, knights, robots, walking machines."""

from data_tools import shapes
from data_tools.body import Body, Style, add_leg
from data_tools.dice import Dice
from data_tools.motion import STILL, wave
from data_tools.scenes import Joint, Part, Vector
from data_tools.textures import Texture


def standing(dice: Dice, style: Style) -> list[Part]:
    """People, robots, knights: a standing trunk, head, two arms, two legs, things worn and held."""
    body = Body(dice, style, [])
    shirt, trousers = body.texture(style.palette[0]), body.texture()
    skin = body.texture(plain=0.85)
    chibi = dice.coin(0.5)
    tall = dice.uniform(0.3, 0.5)
    wide, deep = dice.uniform(0.09, 0.2), dice.uniform(0.06, 0.14)
    profile = shapes.limb(0.15, dice.uniform(0.8, 1.5), dice.uniform(-0.1, 0.3))
    if dice.coin(0.3):
        profile = shapes.prism(dice.uniform(0.0, 0.15), dice.uniform(0.6, 1.4))
    lean = wave(dice.uniform(-0.3, 0.1))
    trunk = body.add(
        Part(
            profile,
            tall,
            (wide, deep),
            shirt,
            origin=0.1,
            socket=(lean, STILL, body.swing(0.2, dice.unit())),
            joints=[Joint(0.4, 0.5, body.swing(0.15, dice.unit()), dice.choose((0.0, 1.5708)))],
        )
    )
    head_size = dice.uniform(0.28, 0.5) if chibi else dice.uniform(0.16, 0.26)
    nod = (body.swing(0.15, dice.unit()), body.swing(0.1, dice.unit()), body.swing(0.2, dice.unit()))
    head = body.ball(
        head_size,
        (head_size * dice.uniform(0.4, 0.55), head_size * dice.uniform(0.35, 0.5)),
        skin,
        origin=0.05,
        parent=trunk,
        attach=(0.0, 0.0, tall * dice.uniform(0.95, 1.15)),
        socket=nod,
    )
    add_hat(body, head, head_size)
    if dice.coin(0.35):
        add_eyes(body, head, head_size)
    leg_length, leg_width = (
        dice.uniform(0.2, 0.35) if chibi else dice.uniform(0.35, 0.6),
        dice.log_uniform(0.035, 0.09),
    )
    stride, knee = dice.uniform(0.2, 0.8), dice.uniform(0.1, 0.6)
    boots = body.texture()
    foot = dice.uniform(0.1, 0.2) if dice.coin(0.6) else 0.0
    for i, s in enumerate((-1.0, 1.0)):
        add_leg(
            body,
            trunk,
            (s * wide * 0.55, 0.0, 0.02),
            (0.0, 0.0, -1.0),
            (1.0, 0.0, 0.0),
            leg_length,
            leg_width,
            0.5 * i,
            trousers,
            stride,
            knee,
            s * 0.05,
            foot,
            dice.uniform(0.6, 1.1),
            boots,
        )
    add_arms(body, trunk, tall, wide, skin if dice.coin(0.4) else shirt, skin)
    if dice.coin(0.3):
        add_cape(body, trunk, tall, wide, deep)
    return body.parts


def add_hat(body: Body, head: int, head_size: float) -> None:
    """Something worn on a head `head_size` high, or nothing."""
    dice = body.dice
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
        body.add(
            Part(shapes.prism(0.1), head_size * 0.4, (head_size * 0.5,) * 2, cloth, sides=4, turn=0.785398, **on_head)
        )


def add_eyes(body: Body, head: int, head_size: float) -> None:
    """Two eyes, dark or of any colour."""
    dice = body.dice
    eye = head_size * dice.uniform(0.12, 0.25)
    dark = body.texture((0.03, 0.03, 0.03) if dice.coin(0.7) else None, plain=1.0)
    for s in (-1.0, 1.0):
        place = (s * head_size * 0.2, -0.38 * head_size, head_size * 0.55)
        body.ball(eye, (eye * 0.5, eye * 0.4), dark, parent=head, attach=place)


def add_cape(body: Body, trunk: int, tall: float, wide: float, deep: float) -> None:
    """A cloth that hangs from the shoulders of a trunk `tall` high, `wide` and `deep` in its halves."""
    dice = body.dice
    cape = body.texture()
    body.fin(
        tall * dice.uniform(0.8, 1.5),
        wide,
        cape,
        parent=trunk,
        attach=(0.0, deep * 1.1, tall * 0.95),
        aim=(0.0, 0.25, -1.0),
        socket=(body.swing(0.3, dice.unit(), 0.1), STILL, STILL),
        joints=[Joint(0.5, 0.4, body.swing(0.4, dice.unit()))],
    )


def add_arms(body: Body, trunk: int, tall: float, wide: float, sleeve: Texture, skin: Texture) -> None:
    """Two arms that swing against the legs, with hands, and what they hold."""
    dice = body.dice
    length, width = tall * dice.uniform(0.7, 1.4), dice.log_uniform(0.022, 0.07)
    amplitude, bend, open_ = dice.uniform(0.2, 1.0), dice.uniform(0.1, 1.2), dice.uniform(0.1, 1.2)
    together, hands = dice.coin(0.3), dice.coin(0.6)
    for i, s in enumerate((-1.0, 1.0)):
        phase = 0.5 * (1 - i) if not together else 0.0
        arm = body.limb(
            length,
            width,
            sleeve,
            parent=trunk,
            attach=(s * wide, 0.0, tall * 0.85),
            aim=(s * open_, 0.0, -1.0),
            side=(1.0, 0.0, s * open_),
            socket=(body.swing(amplitude, phase), body.swing(0.2, dice.unit()), STILL),
            joints=[Joint(0.5, 0.2, body.swing(0.3, phase, -bend))],
            end=dice.uniform(0.6, 1.0),
        )
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
                    shapes.prism(0.0, dice.uniform(0.3, 1.2)),
                    dice.uniform(0.3, 0.9),
                    (thin * dice.uniform(1, 3), thin),
                    texture,
                    origin=dice.uniform(0.05, 0.5),
                    aim=(dice.uniform(-0.3, 0.3), 1.0, 0.2),
                    sides=4,
                    turn=0.785398,
                    **tip,
                )
            )
        if held == "shield":
            size = dice.uniform(0.12, 0.25)
            sides = dice.choose((4, 6, shapes.COLUMNS))
            body.add(
                Part(
                    shapes.prism(0.1),
                    0.04,
                    (size, size * 1.2),
                    texture,
                    aim=(s, 0.3, 0.0),
                    sides=sides,
                    turn=0.785398,
                    **tip,
                )
            )
        if held == "block":
            size = dice.uniform(0.08, 0.2)
            body.add(Part(shapes.prism(), size, (size * 0.5, size * 0.4), texture, sides=4, turn=0.785398, **tip))


def walker(dice: Dice, style: Style) -> list[Part]:
    """Machines: blocks on legs of stiff segments, guns and antennas; much small detail of texture."""
    body = Body(dice, style, [])
    style.boxy, style.smooth = 0.6, False
    style.plain = min(style.plain, 0.4)
    wide, deep, tall = (dice.uniform(0.12, 0.3) for _ in range(3))
    trunk = body.add(
        Part(
            shapes.prism(dice.uniform(0, 0.25), dice.uniform(0.7, 1.2)),
            2 * tall,
            (wide, deep),
            body.texture(),
            origin=0.2,
            socket=(body.swing(0.08, 0.2), STILL, body.swing(0.15)),
        )
    )
    legs = dice.choose((2, 4), (3, 1))
    thigh, shin = dice.uniform(0.25, 0.5), dice.uniform(0.25, 0.5)
    knee, stride, width = dice.uniform(0.3, 1.2), dice.uniform(0.3, 0.8), dice.uniform(0.04, 0.08)
    back = dice.choose((1.0, -1.0), (2, 1))
    textures = [body.texture() for _ in range(3)]
    for i in range(legs):
        s, y = (-1.0, 1.0)[i % 2], 0.0 if legs == 2 else (-0.8, 0.8)[i // 2] * deep
        phase = 0.5 * (i % 2) + 0.5 * (i // 2)
        attach, swing = (s * wide, y, 0.0), (stride, knee, back * knee, phase)
        add_stiff_leg(body, trunk, attach, s, (thigh, shin, width), swing, textures)
    add_guns(body, trunk, wide, deep, tall)
    size = dice.uniform(0.08, 0.2)
    body.ball(
        size,
        (size * 0.7, size * 0.6),
        body.texture(),
        parent=trunk,
        attach=(0.0, -0.3 * deep, 2 * tall),
        socket=(STILL, STILL, body.swing(0.4, dice.unit())),
    )
    return body.parts


def add_stiff_leg(
    body: Body,
    trunk: int,
    attach: Vector,
    side: float,
    sizes: tuple[float, float, float],
    swing: tuple[float, float, float, float],
    textures: list[Texture],
) -> None:
    """A leg of two boxes and a foot.

    side: -1 left, 1 right. sizes: the lengths of thigh and shin, half the width. swing: amplitudes of hip and knee,
    what the knee is bent by at rest (radians), phase (turns). textures: of thigh, shin, foot.
    """
    (thigh, shin, width), (stride, knee, bend, phase) = sizes, swing
    box = {"sides": 4, "turn": 0.785398}
    upper = body.add(
        Part(
            shapes.prism(0.1, 0.8),
            thigh,
            (width, width * 1.3),
            textures[0],
            parent=trunk,
            attach=attach,
            aim=(0.0, 0.0, -1.0),
            socket=(body.swing(stride, phase, -0.5 * bend), wave(side * body.dice.uniform(0, 0.2)), STILL),
            **box,
        )
    )
    lower = body.add(
        Part(
            shapes.prism(0.1, 0.7),
            shin,
            (width * 0.8, width),
            textures[1],
            parent=upper,
            attach=(0.0, 0.0, thigh * 0.95),
            socket=(body.swing(0.6 * knee, phase + 0.2, bend), STILL, STILL),
            **box,
        )
    )
    body.add(
        Part(
            shapes.prism(0.1, 0.8),
            width * 3,
            (width * 1.3, width * 0.7),
            textures[2],
            parent=lower,
            origin=0.3,
            attach=(0.0, 0.0, shin * 0.97),
            aim=(0.0, 1.0, 0.1),
            socket=(body.swing(0.3, phase + 0.5), STILL, STILL),
            **box,
        )
    )


def add_guns(body: Body, trunk: int, wide: float, deep: float, tall: float) -> None:
    """Guns and antennas on a block that is `wide`, `deep` and `tall` in its halves, alone or in pairs."""
    dice = body.dice
    for _ in range(dice.integer(1, 3)):
        texture, long, thin = body.texture(), dice.uniform(0.1, 0.6), dice.uniform(0.015, 0.08)
        x, y, z = dice.uniform(0, 1) * wide, dice.uniform(-1, 1) * deep, dice.uniform(0.5, 1) * 2 * tall
        aim = dice.choose(((0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (0.5, -0.5, 0.5)))
        turn = dice.uniform(0, 0.4)
        for s in (-1.0, 1.0) if dice.coin(0.6) else (1.0,):
            body.add(
                Part(
                    shapes.prism(0.0, dice.uniform(0.6, 1.1)),
                    long,
                    (thin, thin),
                    texture,
                    parent=trunk,
                    attach=(s * x, y, z),
                    origin=dice.uniform(0.05, 0.4),
                    aim=(s * aim[0], aim[1], aim[2]),
                    socket=(body.swing(turn, dice.unit()), STILL, STILL),
                )
            )
