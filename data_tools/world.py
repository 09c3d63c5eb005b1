"""The procedural 4D world: scenes by seed, and batches of views for training.

scenes = sample_scenes([0, 1, 2])
context, targets = sample_batch([0, 1, 2], 12, 8, size=64)
context, targets = describe_batch([0, 1, 2], 12, 8, size=64).to("cuda").render()
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data_tools.body import Body, Style
from data_tools.camera_sampling import (
    SETUP_WEIGHTS,
    SETUPS,
    context_views,
    generator_of,
    make_cameras,
    target_views,
    views_tensor,
)
from data_tools.contraptions import grow, vanish
from data_tools.creatures import CREATURES
from data_tools.details import add_details
from data_tools.dice import Dice
from data_tools.motion import STILL, hop, wave
from data_tools.objects import OBJECTS
from data_tools.render import SAMPLES, WorldViews, place_vertices, render
from data_tools.scenes import ONE, Description, Part, Scenes, pack_description, stack_scenes
from data_tools.shapes import COLUMNS, ROWS
from data_tools.world_batch import WorldBatch
from lrm4d.cameras import Cameras

BOUND_TIMES = 17
"""Times at which a scene is measured to fit the unit sphere."""


@dataclass(frozen=True)
class WorldConfig:
    """What the world is made of. Shares are probabilities.

    creatures: share of articulated creatures; the others are objects. static: share of things that do not move at all.
    rigid: share that moves as a whole on top. appearing: share with parts that come or go. speed: factor on motion.
    """

    creatures: float = 0.72
    static: float = 0.04
    rigid: float = 0.2
    appearing: float = 0.1
    speed: float = 1.0


def describe_scene(dice: Dice, config: WorldConfig) -> Description:
    """A random scene."""
    still = dice.coin(config.static)
    energy = 0.0 if still else config.speed * dice.log_uniform(0.35, 1.9)
    style = Style.sample(dice, energy)
    makers = CREATURES if dice.coin(config.creatures) else OBJECTS
    maker = dice.choose([m for m, _ in makers], [w for _, w in makers])
    parts = maker(dice, style)
    if maker in [m for m, _ in CREATURES]:
        add_details(Body(dice, style, parts))
    if dice.coin(config.appearing):
        _let_parts_appear(dice, style, parts)
    path, turning = _whole_motion(dice, style, maker in [m for m, _ in CREATURES], config)
    ambient = dice.uniform(0.45, 0.8)
    light = dice.uniform(0.5, 0.9) - 0.3 * ambient
    share = dice.uniform(0.6, 1.0)
    sky = (dice.uniform(-1, 1), dice.uniform(-1, 1), dice.uniform(0.4, 1.5))
    fill = (dice.uniform(-1, 1), dice.uniform(-1, 1), dice.uniform(-0.5, 1))
    return Description(
        parts, path, turning, ambient, dice.uniform(0.85, 1.15), (sky, fill), (share * light, (1 - share) * light)
    )


def _let_parts_appear(dice: Dice, style: Style, parts: list[Part]) -> None:
    """Makes one to three of the parts that nothing hangs on, and that do not stretch yet, appear or vanish."""
    carrying = {part.parent for part in parts}
    ends = [i for i, part in enumerate(parts) if part.parent >= 0 and i not in carrying and part.stretch == (ONE,) * 3]
    for _ in range(min(dice.integer(1, 3), len(ends))):
        parts[ends.pop(dice.integer(0, len(ends) - 1))].stretch = dice.choose((grow, vanish), (2, 1))(
            dice, style, dice.uniform(0.15, 0.8)
        )


def _whole_motion(dice: Dice, style: Style, creature: bool, config: WorldConfig) -> tuple:
    """Path and turning of the whole: bobbing and swaying, sometimes jumping, tumbling, drifting."""
    e, f = style.energy, style.frequency
    path, turning = [STILL] * 3, [STILL] * 3
    facing = 0.0 if creature and dice.coin(0.6) else dice.uniform(-math.pi, math.pi)
    turning[2] = wave(facing)
    if e == 0:
        return tuple(path), tuple(turning)
    if creature and dice.coin(0.8):
        path[2] = wave(0.0, dice.uniform(0, 0.06) * e, dice.choose((f, 2 * f)), dice.unit())
        if dice.coin(0.35):
            path[2] = hop(dice.uniform(0.15, 0.7) * e, f, dice.unit())
        if dice.coin(0.3):
            path[dice.integer(0, 1)] = wave(0.0, dice.uniform(0.05, 0.35) * e, f, dice.unit())
        turning[0] = wave(0.0, dice.choose((dice.uniform(0, 0.15), dice.uniform(0.1, 0.4))) * e, f, dice.unit())
        turning[1] = wave(0.0, dice.uniform(0, 0.06) * e, f, dice.unit())
        turning[2] = wave(facing, dice.uniform(0, 0.12) * e, f, dice.unit())
        if dice.coin(0.12):  # it falls over, or gets up
            fall = (dice.sign() * dice.uniform(1.0, 1.6), dice.uniform(0.3, 0.8), dice.uniform(0.2, 0.7))
            turning[dice.integer(0, 1)] = wave(0.0, step=fall)
    if dice.coin(config.rigid if creature else 3.5 * config.rigid):
        turn = dice.choose((dice.uniform(-1, 1), dice.uniform(-3, 3)), (2, 1)) * e
        if dice.coin(0.6):
            turning[2] = wave(facing, 0.0, slope=turn)
        else:
            turning[0], turning[2] = wave(0.0, 0.0, slope=turn), wave(facing, slope=dice.uniform(-1, 1) * e)
        if dice.coin(0.5):
            path = [
                wave(0.0, dice.uniform(0, 0.15) * e, f, dice.unit(), slope=dice.uniform(-0.3, 0.3) * e) for _ in path
            ]
    return tuple(path), tuple(turning)


def _sample_unfitted(generator: torch.Generator, config: WorldConfig) -> Scenes:
    description = describe_scene(Dice(generator), config)
    noise = torch.randn(2, len(description.parts), ROWS, COLUMNS, generator=generator)
    return pack_description(description, noise)


def sample_scene(generator: torch.Generator, config: WorldConfig = WorldConfig()) -> Scenes:
    """A random scene, as a batch of one, fitted into the unit sphere over its whole clip."""
    return fit_unit_sphere(_sample_unfitted(generator, config))


def sample_scenes(seeds: list[int], config: WorldConfig = WorldConfig(), device: torch.device | str = "cpu") -> Scenes:
    """The scenes of seeds; a seed gives the same scene in any batch."""
    scenes = stack_scenes([_sample_unfitted(generator_of(seed), config) for seed in seeds])
    return fit_unit_sphere(scenes.to(device))


def fit_unit_sphere(scenes: Scenes) -> Scenes:
    """The scenes moved and scaled so that all their vertices, over the clip, just fit the unit sphere."""
    device, count = scenes.scales.device, len(scenes)
    times = torch.linspace(0, 1, BOUND_TIMES, device=device).expand(count, -1)
    vertices = place_vertices(scenes, times).flatten(1, 2)
    owner, _ = scenes.here

    def over_parts(values: Tensor, reduce: str) -> Tensor:
        """Least or greatest [scene, k] of values [part, k]."""
        index = owner[:, None].expand_as(values)
        return values.new_zeros(count, values.shape[1]).scatter_reduce(0, index, values, reduce, include_self=False)

    centre = 0.5 * (over_parts(vertices.amin(1), "amin") + over_parts(vertices.amax(1), "amax"))
    away = (vertices - centre[owner][:, None]).square().sum(-1).amax(1)
    radius = over_parts(away[:, None], "amax")[:, 0].sqrt()
    return replace(scenes, centres=scenes.centres + centre * scenes.scales[:, None], scales=scenes.scales * radius)


def describe_batch(
    seeds: list[int],
    input_views: int,
    target_views_count: int,
    size: int,
    config: WorldConfig = WorldConfig(),
    setup: str | None = None,
    samples: int = SAMPLES,
) -> WorldBatch:
    """The scenes of seeds with cameras and times of their views, on the CPU; see sample_batch for the arguments.

    Fitted already: a GPU would wait for the launches of some 900 small operations, and here a batch hides them.
    """
    scenes, poses, times, fovs = [], [], [], []
    for seed in seeds:
        generator = generator_of(seed)
        scenes.append(_sample_unfitted(generator, config))
        dice = Dice(generator)
        chosen = setup or dice.choose(SETUPS, SETUP_WEIGHTS)
        context_poses, context_times, fov = context_views(dice, input_views, chosen)
        target_poses, target_times = target_views(dice, target_views_count)
        poses.append(context_poses + target_poses)
        times.append(context_times + target_times)
        fovs.append(fov)
    fitted = fit_unit_sphere(stack_scenes(scenes))
    return WorldBatch.pack(fitted, make_cameras(poses, fovs, size, size), views_tensor(times), input_views, samples)


def sample_batch(
    seeds: list[int],
    input_views: int,
    target_views_count: int,
    size: int,
    device: torch.device | str = "cpu",
    config: WorldConfig = WorldConfig(),
    setup: str | None = None,
    samples: int = SAMPLES,
) -> tuple[WorldViews, WorldViews]:
    """Context and target views [scene, view] of the scenes of seeds, pictures of size x size.

    setup: one of camera_sampling.SETUPS for the context's cameras; None draws one a scene.
    """
    described = describe_batch(seeds, input_views, target_views_count, size, config, setup, samples)
    return described.to(device).render()


__all__ = [
    "Cameras",
    "Scenes",
    "WorldBatch",
    "WorldConfig",
    "WorldViews",
    "describe_batch",
    "render",
    "sample_batch",
    "sample_scene",
    "sample_scenes",
]
