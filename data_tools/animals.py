"""Animals: four legs, two legs and a long tail, fins, or a soft lump with stubs."""

from data_tools import shapes
from data_tools.body import FORWARD, Body, Style, add_head, add_leg, add_tail, wave_joints
from data_tools.dice import Dice
from data_tools.motion import STILL, wave
from data_tools.scenes import Joint, Part
from data_tools.textures import Texture


def four_legged(dice: Dice, style: Style) -> list[Part]:
    """Dogs, horses, bulls, lizards: a lying body with four or six legs, neck, head, tail."""
    body = Body(dice, style, [])
    skin = body.texture(style.palette[0])
    length = 1.0
    thick = dice.log_uniform(0.07, 0.2)
    leg_length, leg_width = dice.uniform(0.3, 0.8), dice.log_uniform(0.018, 0.055)
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
                body,
                trunk,
                (s * thick * 0.6, -0.25 * thick, z),
                (0.0, -1.0, 0.0),
                (1.0, 0.0, 0.0),
                leg_length,
                leg_width,
                gait[(2 * pair + i) % 4],
                socks,
                stride,
                knee if pair else -0.6 * knee,
                s * spread,
                foot,
                end,
                paws,
            )
    neck_length, rise = dice.uniform(0.15, 0.6), dice.uniform(0.1, 1.6)
    neck = body.limb(
        neck_length,
        thick * dice.uniform(0.4, 0.75),
        body.texture(style.palette[0]),
        end=dice.uniform(0.6, 1.0),
        parent=trunk,
        attach=(0.0, 0.3 * thick, 0.4 * length),
        aim=(0.0, rise, 1.0),
        side=(1.0, 0.0, 0.0),
        socket=(body.swing(0.25, dice.unit()), body.swing(0.1, dice.unit()), STILL),
    )
    # In the neck's frame y is up and back; the head looks forward and a little down from there.
    look = (0.0, -0.6 * rise - dice.uniform(0, 0.4), 1.0)
    add_head(body, neck, (0.0, 0.0, neck_length * 0.9), look, (0.0, 1.0, 0.6 * rise), dice.uniform(0.15, 0.32), skin)
    if dice.coin(0.9):
        add_tail(body, trunk, (0.0, 0.4 * thick, -0.47 * length), thick, dice.uniform(-0.6, 1.2))
    return body.parts


def two_legged_lizard(dice: Dice, style: Style) -> list[Part]:
    """Dinosaurs and birds: a body on two strong legs, a long tail, small arms or wings."""
    body = Body(dice, style, [])
    skin = body.texture(style.palette[0])
    thick, length = dice.log_uniform(0.06, 0.17), dice.uniform(0.5, 0.8)
    pitch = dice.uniform(-0.1, 0.6)
    profile = shapes.limb(0.2, dice.uniform(0.6, 1.1), dice.uniform(0.0, 0.4))
    trunk = body.add(
        Part(
            profile,
            length,
            (thick * 0.8, thick),
            skin,
            aim=(0.0, -1.0, pitch),
            origin=0.4,
            socket=(body.swing(0.12, dice.unit(), times=2.0), STILL, body.swing(0.1)),
        )
    )
    knee = dice.uniform(0.5, 1.0)
    stride, long = dice.uniform(0.3, 0.8), dice.uniform(0.4, 0.7)
    texture, claws = body.texture(style.palette[0]), body.texture()
    for i, s in enumerate((-1.0, 1.0)):
        add_leg(
            body,
            trunk,
            (s * thick * 0.7, -0.1 * thick, -0.05),
            (0.0, -1.0, 0.4 - pitch),
            (1.0, 0.0, 0.0),
            long,
            dice.log_uniform(0.022, 0.075),
            0.5 * i,
            texture,
            stride,
            knee,
            0.0,
            dice.uniform(0.1, 0.2),
            0.5,
            claws,
        )
    if dice.coin(0.7):
        add_short_arms(body, trunk, thick, length, skin)
    else:
        add_wings(body, trunk, thick)
    neck_length, rise = dice.uniform(0.12, 0.45), dice.uniform(0.2, 1.5)
    neck = body.limb(
        neck_length,
        thick * dice.uniform(0.4, 0.7),
        skin,
        end=0.8,
        parent=trunk,
        attach=(0.0, 0.2 * thick, 0.5 * length),
        aim=(0.0, rise, 1.0),
        socket=(body.swing(0.2, dice.unit()), STILL, STILL),
    )
    add_head(
        body, neck, (0.0, 0.0, neck_length * 0.9), (0.0, -rise, 1.0), (0.0, 1.0, rise), dice.uniform(0.13, 0.25), skin
    )
    add_tail(
        body, trunk, (0.0, 0.1 * thick, -0.36 * length), 2.2 * thick, dice.uniform(-0.2, 0.5), dice.uniform(0.3, 1.3)
    )
    return body.parts


def add_short_arms(body: Body, trunk: int, thick: float, length: float, skin: Texture) -> None:
    """Two bent arms at the front of a lying trunk `length` long and `thick` in half its height."""
    dice = body.dice
    arm, bend = dice.uniform(0.12, 0.3), dice.uniform(0.2, 1.0)
    for s in (-1.0, 1.0):
        body.limb(
            arm,
            0.03,
            skin,
            parent=trunk,
            attach=(s * thick * 0.7, -0.4 * thick, 0.45 * length),
            aim=(s * 0.2, -1.0, 0.4),
            socket=(body.swing(0.3, dice.unit()), STILL, STILL),
            joints=[Joint(0.5, 0.3, wave(-bend))],
        )


def add_wings(body: Body, trunk: int, thick: float) -> None:
    """Two wings that beat, on a lying trunk `thick` in half its height."""
    dice = body.dice
    span, amplitude = dice.uniform(0.3, 0.8), dice.uniform(0.2, 0.9)
    texture = body.texture()
    for s in (-1.0, 1.0):
        body.fin(
            span,
            dice.uniform(0.1, 0.25),
            texture,
            parent=trunk,
            attach=(s * thick * 0.7, 0.3 * thick, 0.1),
            aim=(s, 0.2, 0.0),
            side=(0.0, 0.0, 1.0),
            socket=(body.swing(s * amplitude), STILL, STILL),
            joints=[Joint(0.5, 0.3, body.swing(s * 0.5, -0.2))],
        )


def swimmer(dice: Dice, style: Style) -> list[Part]:
    """Fish: a body that waves, fins, a tail, big eyes."""
    body = Body(dice, style, [])
    length, tall = 1.0, dice.uniform(0.12, 0.38)
    wide = tall * dice.uniform(0.3, 0.9)
    profile = shapes.ellipsoid() if dice.coin(0.5) else shapes.limb(0.25, dice.uniform(0.9, 1.8), 0.4)
    # The local z runs from the head to the tail: joints turn what lies beyond, and a fish keeps its head still.
    amount = dice.uniform(0.3, 1.2)
    skin = body.texture(style.palette[0], plain=0.4)
    trunk = body.add(
        Part(
            profile,
            length,
            (wide, tall),
            skin,
            aim=(0.0, 1.0, 0.0),
            side=(-1.0, 0.0, 0.0),
            origin=0.5,
            joints=wave_joints(body, 3, amount * 0.7, 0.15, 1.5708),
        )
    )
    fins = body.texture(plain=0.5)
    for rise in (0.5, -0.5) if dice.coin(0.5) else (0.0,):
        body.fin(
            dice.uniform(0.2, 0.5),
            dice.uniform(0.08, 0.22),
            fins,
            parent=trunk,
            attach=(0.0, 0.0, 0.42 * length),
            aim=(0.0, rise, 1.0),
            side=(0.0, 1.0, 0.0),
            socket=(body.swing(amount * 0.6, -0.1), STILL, STILL),
            joints=[Joint(0.3, 0.5, body.swing(amount * 0.5, -0.25))],
        )
    for up in (1.0, -1.0):
        if dice.coin(0.6):
            body.fin(
                dice.uniform(0.1, 0.4),
                dice.uniform(0.08, 0.3),
                fins,
                parent=trunk,
                attach=(0.0, up * tall * 0.8, dice.uniform(-0.2, 0.2)),
                aim=(0.0, up, 0.4),
                side=(0.0, 0.0, 1.0),
                socket=(STILL, body.swing(0.2, dice.unit()), STILL),
            )
    span, at = dice.uniform(0.12, 0.35), dice.uniform(-0.25, 0.05)
    for s in (-1.0, 1.0):
        body.fin(
            span,
            dice.uniform(0.06, 0.12),
            fins,
            parent=trunk,
            attach=(s * wide * 0.85, -0.2 * tall, at),
            aim=(s, -0.3, 0.5),
            side=(0.0, 0.0, 1.0),
            socket=(body.swing(s * 0.6, dice.unit(), times=2.0), STILL, STILL),
        )
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
            dice.uniform(0.15, 0.4),
            thin,
            fins,
            parent=trunk,
            attach=(x * wide * 0.8, y * tall * 0.8, z * 0.3),
            aim=(x, y, z * 0.5),
            joints=[Joint(0.5, 0.6, body.swing(0.3, dice.unit(), dice.uniform(-1.5, 1.5)))],
        )
    return body.parts


def blob(dice: Dice, style: Style) -> list[Part]:
    """A soft lump with stubs: arms, horns, legs in any number, squashing as it goes."""
    body = Body(dice, style, [])
    style.boxy = min(style.boxy, 0.15)
    tall, wide = dice.uniform(0.4, 0.9), dice.uniform(0.25, 0.5)
    squash = dice.uniform(0, 0.15) * style.energy
    phase = dice.unit()
    breath = (
        wave(1.0, -squash, style.frequency, phase),
        wave(1.0, -squash, style.frequency, phase),
        wave(1.0, squash, style.frequency, phase),
    )
    skin = body.texture(style.palette[0], plain=0.7)
    profile = (
        shapes.turned(dice) if dice.coin(0.4) else shapes.limb(0.25, dice.uniform(0.5, 1.2), dice.uniform(0, 0.3))
    )
    trunk = body.add(
        Part(
            profile,
            tall,
            (wide, wide * dice.uniform(0.6, 1.1)),
            skin,
            stretch=breath,
            lumps=dice.uniform(0, 0.06),
            joints=wave_joints(body, 2, dice.uniform(0, 0.5), 0.1, dice.choose((0.0, 1.5708))),
        )
    )
    for _ in range(dice.integer(1, 4)):
        z, x, y = dice.uniform(0.05, 0.9), dice.uniform(0.3, 1.0), dice.uniform(-1.0, 1.0)
        rise, long, width = dice.uniform(-1.0, 1.0), dice.uniform(0.2, 0.6), dice.uniform(0.05, 0.13)
        swing, phase, end = dice.uniform(0.2, 0.9), dice.unit(), dice.uniform(0.3, 1.2)
        for s in (-1.0, 1.0):
            body.limb(
                long,
                width,
                skin,
                end=end,
                parent=trunk,
                attach=(s * x * wide * 0.6, y * wide * 0.4, z * tall),
                aim=(s * x, 0.7 * y, rise),
                side=(0.0, 1.0, 0.0),
                socket=(body.swing(swing, phase), STILL, STILL),
                joints=[Joint(0.5, 0.4, body.swing(0.4, phase + 0.2))],
            )
    if dice.coin(0.6):
        dark = body.texture((0.02, 0.02, 0.02), plain=1.0)
        eye, z = tall * dice.uniform(0.08, 0.2), tall * dice.uniform(0.5, 0.8)
        for s in (-1.0, 1.0):
            body.ball(eye, (eye * 0.3, eye * 0.3), dark, parent=trunk, attach=(s * wide * 0.3, -0.75 * wide, z))
    return body.parts
