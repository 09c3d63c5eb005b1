"""Things with openings, things that open, grow and appear: containers, frames, plants, landscapes."""

import math

from data_tools import shapes
from data_tools.body import Body, Style, wave_joints
from data_tools.dice import Dice
from data_tools.motion import STILL, wave
from data_tools.scenes import ONE, Joint, Part, Vector, Wave

BOX = {"sides": 4, "turn": math.pi / 4}


def open_and_close(dice: Dice, style: Style, angle: float) -> Wave:
    """A turn from closed to open by an angle: once, or again and again. It stays shut where nothing moves."""
    if style.energy == 0:
        return wave(dice.choose((0.0, angle)))
    if dice.coin(0.5):
        return wave(0.5 * angle, 0.5 * angle, style.frequency, dice.unit())
    opens = dice.coin(0.7)
    return wave(
        0.0 if opens else angle, step=(angle if opens else -angle, dice.uniform(0.2, 0.8), _haste(dice, style))
    )


def grow(dice: Dice, style: Style, when: float, least: float = 0.02) -> tuple[Wave, Wave, Wave]:
    """A stretch from the least to 1 at a time, suddenly or slowly: a part appears."""
    if style.energy == 0:
        return ONE, ONE, ONE
    return (wave(least, step=(1 - least, when, _haste(dice, style))),) * 3


def vanish(dice: Dice, style: Style, when: float) -> tuple[Wave, Wave, Wave]:
    """A stretch from 1 to nearly nothing at a time."""
    return tuple((1.0, *w[1:7], -w[7], *w[8:]) for w in grow(dice, style, when))


def _haste(dice: Dice, style: Style) -> float:
    """How long a step takes, in clips; shorter for lively things."""
    return min(dice.log_uniform(0.15, 0.7) / max(style.energy, 0.3) ** 0.5, 0.9)


def container(dice: Dice, style: Style) -> list[Part]:
    """A chest, pot, cup or tin: hollow, sometimes with a lid that opens, handles, and things that rise out of it."""
    body = Body(dice, style, [])
    square = dice.coin(0.5)
    wide, deep = dice.uniform(0.2, 0.45), dice.uniform(0.15, 0.45)
    deep = deep if square else wide
    tall, wall = dice.uniform(0.25, 0.8), dice.uniform(0.06, 0.2)
    shape = BOX if square else {"sides": dice.choose((shapes.COLUMNS, 8, 6)), "turn": 0.0}
    profile = shapes.pipe(wall) if square or dice.coin(0.5) else shapes.bowl(wall)
    skin = body.texture(style.palette[0])
    sway = (body.swing(0.15, dice.unit()), body.swing(0.15, dice.unit()), STILL)
    pot = body.add(Part(profile, tall, (wide, deep), skin, socket=sway, **shape))
    floor = Part(shapes.prism(), 0.05, (wide * 0.95, deep * 0.95), skin, parent=pot, **shape)
    body.add(floor)
    if dice.coin(0.75):
        swing = open_and_close(dice, style, -dice.uniform(0.8, 2.2))
        dome = shapes.prism(dice.uniform(0.05, 0.45), 1.0) if dice.coin(0.6) else shapes.cone()
        lid = body.add(
            Part(
                shapes.prism(), 0.04, (wide * 0.1, 0.03), skin, parent=pot, attach=(0.0, deep, tall),
                socket=(swing, STILL, STILL), **BOX,
            )
        )  # fmt: skip
        height = dice.uniform(0.04, 0.25)
        texture = body.texture()
        body.add(
            Part(dome, height, (wide * 1.03, deep * 1.03), texture, parent=lid, attach=(0.0, -deep, 0.0), **shape)
        )
    for s in dice.choose(((), (1.0,), (-1.0, 1.0)), (1, 2, 2)):
        add_handle(body, pot, (s * wide * 0.95, 0.0, tall * 0.25), (s, 0.0, 0.35), tall * dice.uniform(0.7, 1.1))
    for _ in range(dice.integer(0, 3)):
        size = dice.uniform(0.06, 0.18)
        x, y = dice.uniform(-0.5, 0.5) * wide, dice.uniform(-0.5, 0.5) * deep
        climb = 0.4 * (tall + size) * min(style.energy, 1)
        rise = wave(climb, climb, style.frequency, dice.unit())
        place = {"parent": pot, "attach": (x, y, tall * dice.uniform(0.3, 0.8)), "slide": (STILL, STILL, rise)}
        body.ball(size * 2, (size, size), body.texture(), **place)
    return body.parts


def add_handle(body: Body, parent: int, attach: Vector, aim: Vector, long: float) -> None:
    """A tube bent to an arch, both ends in what it is on: one can look through. It bends in the plane of aim and z."""
    thin = body.dice.uniform(0.02, 0.05)
    joints = [Joint(h, 0.45, wave(0.85)) for h in (0.2, 0.5, 0.8)]
    body.add(
        Part(
            shapes.limb(0.05, 1.0), long, (thin, thin), body.texture(), parent=parent, attach=attach, aim=aim,
            side=(0.0, -aim[0], 0.0) if abs(aim[0]) > 0.1 else (1.0, 0.0, 0.0), joints=joints,
        )
    )  # fmt: skip


def frames(dice: Dice, style: Style) -> list[Part]:
    """Rings, pipes, windows and arches, in a chain, a row or one in another; one looks through all of them."""
    body = Body(dice, style, [])
    count, manner = dice.integer(1, 6), dice.choose(("nested", "row", "chain"))
    square, wall = dice.coin(0.4), dice.log_uniform(0.06, 0.3)
    size, depth = dice.uniform(0.35, 0.5), dice.log_uniform(0.06, 0.8)
    flat = dice.choose((1.0, dice.uniform(0.4, 1.0)))
    spin = dice.uniform(0, 2.5) * style.energy if dice.coin(0.6) else 0.0
    same = body.texture() if dice.coin(0.4) else None
    base = -1
    for i in range(count):
        scale = size * (1 - 0.75 * i / count if manner == "nested" else 1.0)
        if square:
            profile, shape = shapes.pipe(wall), BOX
        else:
            profile = shapes.pipe(wall) if dice.coin(0.4) else shapes.ring(wall)
            shape = {"sides": dice.choose((shapes.COLUMNS, 8, 5, 3), (5, 1, 1, 1)), "turn": 0.0}
        turn = dice.sign() * spin
        about = wave(0.0, 0.0, slope=turn) if dice.coin(0.5) else body.swing(0.8, dice.unit())
        place: dict = {"aim": (0.0, -1.0, 0.0)}
        if manner == "row":
            place |= {"attach": (0.0, (i - (count - 1) / 2) * dice.uniform(0.2, 0.5), 0.0)}
        elif base >= 0:
            place |= {"parent": base, "aim": (0.0, 0.0, 1.0)}
            if manner == "chain":
                place |= {"attach": (1.7 * scale, 0.0, 0.0), "aim": (0.0, 1.0, 0.0)}
        socket = dice.choose(((about, STILL, STILL), (STILL, about, STILL), (STILL, body.swing(0.4), about)))
        length = 2 * depth * scale if profile[1][0] == 1.0 and profile[0][4] == 1.0 else 2 * wall * scale
        texture = same or body.texture()
        base = body.add(
            Part(profile, length, (scale, scale * flat), texture, origin=0.5, socket=socket, **shape, **place)
        )
    for _ in range(dice.integer(0, 2)):
        through = wave(0.0, dice.uniform(0.3, 0.7) * min(style.energy, 1), style.frequency, dice.unit())
        x, z = dice.uniform(-0.4, 0.4) * size, dice.uniform(-0.4, 0.4) * size
        long, thin = dice.log_uniform(0.1, 0.8), dice.uniform(0.03, 0.1)
        place = {"attach": (x, 0.0, z), "aim": (0.0, -1.0, 0.0), "slide": (STILL, through, STILL)}
        body.add(Part(shapes.limb(0.2, 0.7), long, (thin, thin), body.texture(), origin=0.5, **place))
    return body.parts


def plant(dice: Dice, style: Style) -> list[Part]:
    """A stem that sways, branches, leaves and a flower that opens; sometimes it grows while one looks."""
    body = Body(dice, style, [])
    tall, thin = 1.0, dice.log_uniform(0.015, 0.08)
    growing = dice.coin(0.35)
    bark, leaf = body.texture(style.palette[0]), body.texture()
    if dice.coin(0.5):
        wide = dice.uniform(0.1, 0.22)
        body.add(Part(shapes.bowl(0.15), 2 * wide, (wide, wide), body.texture(), origin=0.8))
    sway = wave_joints(body, 3, dice.uniform(0.2, 1.0), 0.1, dice.uniform(0, 6.3), dice.uniform(-0.5, 0.5))
    stretch = grow(dice, style, 0.25, least=0.3) if growing else (ONE, ONE, ONE)
    stem = body.add(Part(shapes.limb(0.05, 0.5), tall, (thin, thin), bark, joints=sway, stretch=stretch))
    long, wide, count = dice.uniform(0.15, 0.5), dice.uniform(0.04, 0.13), dice.integer(3, 9)
    rise, round_ = dice.uniform(-0.3, 1.2), dice.coin(0.3)
    for i in range(count):
        angle, h = 2.4 * i + dice.uniform(-0.3, 0.3), 0.2 + 0.75 * i / count
        place = {
            "parent": stem, "attach": (0.0, 0.0, tall * h), "aim": (math.cos(angle), math.sin(angle), rise),
            "side": (-math.sin(angle), math.cos(angle), 0.0),
            "socket": (body.swing(0.3, dice.unit()), body.swing(0.3, dice.unit()), STILL),
            "stretch": grow(dice, style, min(0.2 + 0.6 * h, 0.85)) if growing else (ONE, ONE, ONE),
        }  # fmt: skip
        if round_:
            body.ball(long, (wide * 2, wide * 2), leaf, origin=0.1, **place)
        else:
            body.fin(long, wide, leaf, joints=[Joint(0.5, 0.8, body.swing(0.3, dice.unit(), 0.4))], **place)
    if dice.coin(0.6):
        add_flower(body, stem, tall * 0.97)
    return body.parts


def add_flower(body: Body, stem: int, at: float) -> None:
    """A ring of petals that opens, around a button."""
    dice, count = body.dice, body.dice.integer(4, 7)
    petal, long, wide = body.texture(), body.dice.uniform(0.12, 0.35), body.dice.uniform(0.05, 0.12)
    wide_open = open_and_close(dice, body.style, dice.uniform(0.6, 1.7))
    for i in range(count):
        angle = 2 * math.pi * i / count
        # The petals stand upright, each with its x axis along the rim: a turn about x lays it outward.
        body.fin(
            long, wide, petal, parent=stem, attach=(0.0, 0.0, at),
            aim=(0.1 * math.cos(angle), 0.1 * math.sin(angle), 1.0), side=(-math.sin(angle), math.cos(angle), 0.0),
            socket=(wide_open, STILL, STILL),
        )  # fmt: skip
    button = dice.uniform(0.03, 0.08)
    body.ball(2 * button, (button, button), body.texture(), parent=stem, attach=(0.0, 0.0, at))


def landscape(dice: Dice, style: Style) -> list[Part]:
    """A height field, lying as land, hanging as cloth or standing as a wall, that may rise, with things upon it."""
    body = Body(dice, style, [])
    wide, thick = dice.uniform(0.3, 0.6), dice.log_uniform(0.01, 0.08)
    moving = style.energy > 0 and dice.coin(0.6)
    ground = Part(
        shapes.prism(0.0, dice.choose((1.0, dice.uniform(0.4, 1.2)))), 1.0, (wide, thick), body.texture(plain=0.3),
        origin=0.5, aim=(0.0, -1.0, 0.0), sides=shapes.SHEET, lumps=dice.uniform(0.05, 0.5),
        joints=wave_joints(body, 3, dice.uniform(0.3, 1.5), 0.2, 0.0) if not moving or dice.coin(0.5) else [],
        morph=wave(0.5, 0.5, style.frequency, dice.unit()) if moving else STILL, morph_lumps=dice.uniform(0.1, 0.5),
    )  # fmt: skip
    if dice.coin(0.3):
        ground.aim, ground.side = dice.direction(), dice.direction()
    land = body.add(ground)
    for _ in range(dice.integer(0, 6)):
        size = dice.log_uniform(0.03, 0.14)
        x, z = dice.uniform(-0.7, 0.7) * wide, dice.uniform(-0.42, 0.42)
        place = {"parent": land, "attach": (x, thick, z), "aim": (0.0, 1.0, 0.0)}
        travel = (
            (body.swing(0.3, dice.unit()), STILL, body.swing(0.3, dice.unit())) if dice.coin(0.4) else (STILL,) * 3
        )
        texture, tall = body.texture(), dice.uniform(1, 5) * size
        kind = dice.choose(("ball", "tower", "tree", "arch"))
        if kind == "ball":
            body.ball(2 * size, (size, size), texture, slide=travel, **place)
        elif kind == "tower":
            spin = (STILL, STILL, body.swing(0.5, dice.unit()))
            body.add(
                Part(shapes.prism(0.0, dice.uniform(0.5, 1)), tall, (size, size), texture, socket=spin, **BOX, **place)
            )
        elif kind == "tree":
            body.cone(tall, size, texture, joints=wave_joints(body, 2, 0.5, 0.1, dice.uniform(0, 6.3)), **place)
        else:
            add_handle(body, land, (x, thick, z), (0.0, 1.0, 0.0), 3 * tall)
    return body.parts


CONTRAPTIONS = ((container, 1.2), (frames, 1.2), (plant, 1.3), (landscape, 1.0))
"""Makers of these and their weights among objects."""
