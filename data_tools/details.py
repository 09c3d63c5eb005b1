"""Small things that sit on the parts of a creature: bands, spikes, knobs, plates, packs."""

import math

from data_tools import shapes
from data_tools.body import Body
from data_tools.scenes import Part

MOST_PARTS = 20
"""Parts of a scene that details may fill up to."""


def add_details(body: Body) -> None:
    """A few details on random parts of a body, in colours of their own."""
    dice = body.dice
    hosts = [i for i, part in enumerate(body.parts) if part.length > 0.15 and min(part.widths) > 0.025]
    for _ in range(dice.integer(0, 3) if hosts else 0):
        host = hosts[0] if dice.coin(0.4) else dice.choose(hosts)
        kind = dice.choose((_add_band, _add_spikes, _add_knobs, _add_pack), (4, 2, 2, 1))
        kind(body, host)
    del body.parts[MOST_PARTS:]


def _add_band(body: Body, host: int) -> None:
    """A belt, collar, cuff or ring around a part."""
    dice, part = body.dice, body.parts[host]
    height = dice.uniform(0.15, 0.85)
    width = radius_at(part, height) * dice.uniform(1.08, 1.3)
    band = shapes.prism(dice.choose((0.0, 0.25)), dice.uniform(0.9, 1.1))
    length = part.length * dice.log_uniform(0.04, 0.2)
    body.parts.append(
        Part(
            band, length, (part.widths[0] * width, part.widths[1] * width), body.texture(plain=0.7), parent=host,
            attach=(0.0, 0.0, (height - part.origin) * part.length), origin=0.5, sides=part.sides, turn=part.turn,
            power=part.power, smooth=part.smooth,
        )
    )  # fmt: skip


def _add_spikes(body: Body, host: int) -> None:
    """A row of cones or plates along a part: spikes of a back, buttons, a crest."""
    dice, part = body.dice, body.parts[host]
    angle = dice.choose((math.pi / 2, -math.pi / 2, dice.uniform(0, 2 * math.pi)), (3, 1, 1))
    count, size, texture = dice.integer(2, 5), dice.log_uniform(0.04, 0.16), body.texture(plain=0.9)
    profile, lean = shapes.cone() if dice.coin(0.7) else shapes.ellipsoid(), dice.uniform(-0.8, 0.8)
    widths = (size * dice.uniform(0.1, 0.4), size * dice.uniform(0.2, 0.6))
    for i in range(count):
        attach, out = on_surface(part, 0.15 + 0.7 * i / (count - 1), angle)
        body.parts.append(
            Part(profile, size, widths, texture, parent=host, attach=attach, aim=(*out, lean), smooth=part.smooth)
        )


def _add_knobs(body: Body, host: int) -> None:
    """Two like lumps on both sides of a part: eyes, ears, shoulder plates, lamps."""
    dice, part = body.dice, body.parts[host]
    height, up, size = dice.uniform(0.1, 0.95), dice.uniform(-0.5, 1.2), dice.log_uniform(0.03, 0.12)
    texture, profile = body.texture(plain=0.6), shapes.ellipsoid() if dice.coin(0.6) else shapes.prism(0.15)
    widths = (size * dice.uniform(0.3, 1.0), size * dice.uniform(0.3, 1.0))
    for angle in (up, math.pi - up):
        attach, out = on_surface(part, height, angle)
        body.parts.append(
            Part(
                profile, size, widths, texture, parent=host, attach=attach, aim=(*out, 0.0), origin=0.4,
                smooth=part.smooth,
            )
        )  # fmt: skip


def _add_pack(body: Body, host: int) -> None:
    """A box on a part: a pack, a saddle, a badge."""
    dice, part = body.dice, body.parts[host]
    attach, out = on_surface(part, dice.uniform(0.3, 0.8), dice.choose((math.pi / 2, -math.pi / 2)))
    size = min(part.length * 0.4, max(part.widths)) * dice.uniform(0.5, 1.2)
    body.parts.append(
        Part(
            shapes.prism(dice.choose((0.0, 0.15)), dice.uniform(0.7, 1.1)), size * dice.uniform(0.3, 1.2),
            (size * dice.uniform(0.5, 1.0), size * dice.uniform(0.5, 1.0)), body.texture(plain=0.4), parent=host,
            attach=attach, aim=(*out, 0.0), origin=0.2, sides=4, turn=math.pi / 4,
        )
    )  # fmt: skip


def radius_at(part: Part, height: float) -> float:
    """The radius of a part's profile at a height (0 to 1), in half-widths."""
    heights, radii = part.profile
    above = next((i for i, h in enumerate(heights) if h >= height and i > 0), len(heights) - 1)
    low, high = heights[above - 1], heights[above]
    mix = (height - low) / (high - low) if high > low else 1.0
    return radii[above - 1] * (1 - mix) + radii[above] * mix


def on_surface(part: Part, height: float, angle: float) -> tuple[tuple[float, float, float], tuple[float, float]]:
    """A place just under a part's surface, at a height (0 to 1) and an angle around it, and the way out (x, y)."""
    radius, x, y = 0.9 * radius_at(part, height), math.cos(angle), math.sin(angle)
    place = (radius * part.widths[0] * x, radius * part.widths[1] * y, (height - part.origin) * part.length)
    return place, (x, y)
