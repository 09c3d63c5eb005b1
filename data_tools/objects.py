"""Things that are no creatures: assemblies, deforming single shapes, grids of movers; descriptions of parts."""

import math

from data_tools import shapes
from data_tools.body import Body, Style, wave_joints
from data_tools.contraptions import CONTRAPTIONS
from data_tools.dice import Dice
from data_tools.motion import STILL, wave
from data_tools.scenes import ONE, Joint, Part, Wave


def random_shape(dice: Dice, size: float) -> dict:
    """Profile, length, widths and cross-section of any primitive of about a size (half its extent)."""
    name = dice.choose(
        ("ball", "box", "cylinder", "cone", "capsule", "ring", "turned", "bowl", "pipe"),
        (3, 4, 2, 1.5, 2, 1.2, 2, 0.6, 1),
    )
    long = size * 2 * dice.log_uniform(0.5, 1.8)
    wide = size * dice.log_uniform(0.2, 1.1)
    widths = (wide, wide * dice.choose((1.0, dice.log_uniform(0.15, 1.0))))
    sides = dice.choose((shapes.COLUMNS, 8, 6, 5, 3), (8, 1, 1, 0.5, 0.5))
    if name == "box":
        profile = shapes.prism(
            dice.choose((0.0, dice.uniform(0.03, 0.2)), (2, 1)), dice.choose((1.0, dice.uniform(0.3, 1.3)), (2, 1))
        )
        return {"profile": profile, "length": long, "widths": widths, "sides": 4, "turn": math.pi / 4}
    if name == "ball":
        power = dice.choose((1.0, dice.uniform(0.5, 1.0)), (2, 1))
        return {
            "profile": shapes.ellipsoid(),
            "length": long,
            "widths": widths,
            "sides": shapes.COLUMNS,
            "power": power,
        }
    if name == "ring":
        thick = dice.uniform(0.1, 0.45)
        length = 2 * thick * wide * dice.uniform(0.7, 1.3)
        return {"profile": shapes.ring(thick), "length": length, "widths": widths, "sides": shapes.COLUMNS}
    if name == "pipe":
        shape = dice.choose(({"sides": 4, "turn": math.pi / 4}, {"sides": sides}))
        return {"profile": shapes.pipe(dice.log_uniform(0.08, 0.4)), "length": 0.5 * long, "widths": widths, **shape}
    profile = {
        "cylinder": lambda: shapes.prism(dice.choose((0.0, 0.1)), dice.choose((1.0, dice.uniform(0.5, 1.2)))),
        "cone": shapes.cone,
        "capsule": lambda: shapes.limb(min(0.35, wide / long), dice.uniform(0.4, 1.1), dice.uniform(-0.2, 0.3)),
        "turned": lambda: shapes.turned(dice),
        "bowl": lambda: shapes.bowl(dice.uniform(0.1, 0.25)),
    }[name]()
    if name == "capsule":
        long *= 1.4
        widths = (widths[0] * 0.6, widths[1] * 0.6)
    return {"profile": profile, "length": long, "widths": widths, "sides": sides}


def assembly(dice: Dice, style: Style) -> list[Part]:
    """Shapes grown on shapes, each swinging, sliding or turning a little on its own."""
    body = Body(dice, style, [])
    symmetric = dice.coin(0.4)
    sizes: list[float] = []
    size = 0.4
    for i in range(dice.integer(2, 9)):
        shape = random_shape(dice, size * (1 if i == 0 else dice.uniform(0.35, 0.9)))
        lumps = dice.uniform(0, 0.12) if dice.coin(0.2) else 0.0
        texture = body.texture(style.palette[0] if dice.coin(0.3) else None)
        if i == 0:
            body.add(
                Part(texture=texture, origin=0.5, aim=dice.direction(), side=dice.direction(), lumps=lumps, **shape)
            )
            sizes.append(size)
            continue
        parent = 0 if dice.coin(0.5) else dice.integer(0, len(body.parts) - 1)
        host = body.parts[parent]
        angle, h = dice.uniform(0, 2 * math.pi), dice.uniform(0, 1)
        x, y = math.cos(angle) * host.widths[0] * 0.7, math.sin(angle) * host.widths[1] * 0.7
        attach = (x, y, (h - host.origin) * host.length)
        aim = (x / host.widths[0], y / host.widths[1], 3 * (h - 0.5) + dice.uniform(-0.3, 0.3))
        socket = tuple(body.swing(dice.uniform(0.2, 1.0), dice.unit()) if dice.coin(0.55) else STILL for _ in range(3))
        slide = STILL
        if dice.coin(0.15):
            slide = body.swing(0.3 * size, dice.unit())
        joints = wave_joints(body, 2, dice.uniform(0.2, 1.0), 0.15, dice.uniform(0, 6.3)) if dice.coin(0.25) else []
        common = dict(texture=texture, parent=parent, lumps=lumps, joints=joints, **shape)
        body.add(
            Part(attach=attach, aim=aim, side=dice.direction(), socket=socket, slide=(slide, STILL, slide), **common)
        )
        if symmetric and abs(x) > 0.02 and len(body.parts) < 14:
            twin = {**common}
            body.add(
                Part(
                    attach=(-x, y, attach[2]),
                    aim=(-aim[0], aim[1], aim[2]),
                    side=dice.direction(),
                    socket=socket,
                    slide=(slide, STILL, slide),
                    **twin,
                )
            )
    return body.parts


def deforming(dice: Dice, style: Style) -> list[Part]:
    """One shape that bends, twists, squashes, grows or becomes another."""
    body = Body(dice, style, [])
    shape = random_shape(dice, 0.5)
    e = max(style.energy, 0.3)
    f, joints, twist, stretch = style.frequency, [], STILL, (ONE, ONE, ONE)
    morph, profile, lumps, morph_lumps = STILL, None, 0.0, 0.0
    if dice.coin(0.35):
        amount = dice.uniform(0.3, 1.6) * e
        joints = [
            Joint((k + 0.5) / 4, 0.3, wave(dice.uniform(-0.2, 0.2), amount / 4, f, style.phase + 0.1 * k), 0.0)
            for k in range(4)
        ]
    if dice.coin(0.25) or not joints:
        twist = wave(0.0, dice.uniform(0.3, 1.5) * e, f, dice.unit())
    if dice.coin(0.4):
        amount, phase = min(dice.uniform(0.1, 0.5) * e, 0.6), dice.unit()
        stretch = tuple(
            wave(1.0, a * amount, f, phase) for a in dice.choose(((-0.6, -0.6, 1), (1, 1, 1), (1, 0, 0), (0, 0, 1)))
        )
    if dice.coin(0.6):
        morph = _morph_wave(dice, style)
        other = random_shape(dice, 0.5)["profile"]
        profile = other if dice.coin(0.6) else None
        morph_lumps = dice.uniform(0.1, 0.5) if dice.coin(0.7) else 0.0
        if profile is None and morph_lumps == 0.0:
            morph_lumps = 0.3
    if dice.coin(0.3):
        lumps = dice.uniform(0.05, 0.2)
    body.add(
        Part(
            texture=body.texture(style.palette[0], plain=0.45),
            origin=dice.choose((0.0, 0.5)),
            joints=joints,
            twist=twist,
            stretch=stretch,
            morph=morph,
            morph_profile=profile,
            lumps=lumps,
            morph_lumps=morph_lumps,
            aim=dice.choose(((0.0, 0.0, 1.0), (0.0, -1.0, 0.0), dice.direction())),
            **shape,
        )
    )
    for _ in range(dice.integer(0, 3) if dice.coin(0.4) else 0):
        x, y, z = dice.direction()
        small = random_shape(dice, dice.uniform(0.08, 0.25))
        w, h = shape["widths"], (z * 0.5 + 0.5 - body.parts[0].origin) * shape["length"]
        body.add(
            Part(texture=body.texture(), parent=0, attach=(x * w[0] * 0.8, y * w[1] * 0.8, h), aim=(x, y, z), **small)
        )
    return body.parts


def _morph_wave(dice: Dice, style: Style) -> Wave:
    """From 0 to 1 and perhaps back."""
    if dice.coin(0.6):
        return wave(0.5, 0.5, style.frequency, dice.unit())
    return wave(0.0, step=(1.0, dice.uniform(0.3, 0.7), dice.uniform(0.3, 1.0)))


def grid(dice: Dice, style: Style) -> list[Part]:
    """A row or grid of like shapes, each with a move of its own, sometimes on a plate."""
    body = Body(dice, style, [])
    columns, rows = dice.choose(((3, 3), (2, 2), (4, 1), (6, 1), (8, 1), (3, 2), (5, 2), (3, 1)))
    shape = random_shape(dice, 0.25)
    if dice.coin(0.5):
        side = dice.uniform(0.12, 0.25)
        shape = {
            "profile": shapes.prism(),
            "length": 2 * side * dice.choose((1.0, 2.0)),
            "widths": (side, side),
            "sides": 4,
            "turn": math.pi / 4,
        }
    upright = dice.coin(0.5)
    gap = dice.uniform(1.1, 1.8) * 2 * max(shape["widths"][0], shape["length"] / 2 if upright and rows > 1 else 0.05)
    colours, same = body.texture(), dice.coin(0.4)
    move = dice.choose(("slide", "turn", "stretch", "mixed"))
    delay = dice.uniform(0, 0.25)
    for i in range(columns):
        for j in range(rows):
            x, other = (i - (columns - 1) / 2) * gap, (j - (rows - 1) / 2) * gap
            kind = dice.choose(("slide", "turn", "stretch", "none")) if move == "mixed" else move
            phase, amount = delay * (i + j), style.energy * dice.uniform(0.5, 1.2)
            part = Part(
                texture=colours if same else body.texture(),
                attach=(x, 0.0, other) if upright else (x, other, 0.0),
                origin=0.0,
                **shape,
            )
            if kind == "slide":
                part.slide = (STILL, STILL, wave(0.0, 0.4 * amount * gap, style.frequency, phase))
            if kind == "turn":
                part.socket = (
                    STILL,
                    STILL,
                    wave(0.0, amount, style.frequency, phase, slope=dice.choose((0.0, 3.0)) * amount),
                )
            if kind == "stretch":
                part.stretch = (ONE, ONE, wave(1.2, min(1.0 * amount, 1.0), style.frequency, phase))
            body.add(part)
    if dice.coin(0.4) and not upright:
        widths = (columns * gap * 0.55, rows * gap * 0.55)
        body.add(
            Part(
                shapes.prism(),
                0.06,
                widths,
                body.texture(plain=0.4),
                attach=(0.0, 0.0, -0.06),
                sides=4,
                turn=math.pi / 4,
            )
        )
    return body.parts


OBJECTS = ((assembly, 3.0), (deforming, 2.0), (grid, 1.2), *CONTRAPTIONS)
"""Makers of objects and their weights."""
