"""The procedural world: seeds, fit, depth and flow against closed forms."""

import math
from dataclasses import fields, replace

import pytest
import torch

from data_tools.camera_sampling import FIELD_OF_VIEW, SETUPS, context_views, generator_of, make_cameras
from data_tools.dice import Dice
from data_tools.motion import STILL, wave
from data_tools.render import place_moving_vertices, place_vertices, render
from data_tools.scenes import Description, Part, Scenes, pack_description
from data_tools.shapes import COLUMNS, ROWS, ellipsoid, prism
from data_tools.textures import Texture
from data_tools.world import WorldConfig, describe_scene, sample_batch, sample_scenes
from lrm4d.cameras import project, unproject

RED = Texture(0, ((0.8, 0.2, 0.1),) * 3, 1.0, (0.0, 0.0, 1.0), 0.0, 0.5, 1)
CANONICAL = [(k * math.pi / 2, 0.0, 2.7) for k in range(4)]


def describe_part(part: Part, path=(STILL,) * 3, turning=(STILL,) * 3, ambient: float = 1.0) -> Scenes:
    """A scene of one part, not fitted to the unit sphere."""
    lights = ((0.0, 0.0, 1.0), (0.0, 0.0, 1.0))
    description = Description([part], path, turning, ambient, 1.0, lights, (0.0, 0.0))
    return pack_description(description, torch.zeros(2, 1, ROWS, COLUMNS))


def box(half: float, **rest) -> Part:
    """An axis-aligned cube."""
    return Part(prism(), 2 * half, (half, half), RED, origin=0.5, sides=4, turn=math.pi / 4, **rest)


def test_a_seed_gives_the_same_scene_alone_and_in_any_batch():
    together, alone = sample_scenes([3, 11, 5]), sample_scenes([11])
    parts = alone.present.shape[1]
    for f in fields(Scenes):
        batched, single = getattr(together, f.name)[1], getattr(alone, f.name)[0]
        if batched.shape != single.shape:
            assert not together.present[1, parts:].any()
            batched = batched[:parts]
        torch.testing.assert_close(batched, single, rtol=1e-5, atol=1e-6)
    different = sample_scenes([12])
    assert not torch.equal(different.texture_colours, alone.texture_colours)


def test_a_batch_of_views_equals_its_scenes_alone():
    context, target = sample_batch([3, 11, 5], 3, 2, 24)
    context_alone, target_alone = sample_batch([11], 3, 2, 24)
    for batched, single in ((context, context_alone), (target, target_alone)):
        torch.testing.assert_close(batched.views.images[1:2], single.views.images, rtol=0, atol=1e-4)
        torch.testing.assert_close(batched.views.alphas[1:2], single.views.alphas, rtol=0, atol=0.12)
        assert (batched.views.alphas[1:2] != single.views.alphas).float().mean() < 1e-3
        torch.testing.assert_close(batched.views.times[1:2], single.views.times)
    assert context.views.images.shape == (3, 3, 3, 24, 24) and target.flows.shape == (3, 2, 3, 24, 24)
    assert (context.views.times.diff(dim=1) >= 0).all()


def test_the_swept_scene_just_fits_the_unit_sphere():
    scenes = sample_scenes(list(range(12)))
    owner = scenes.present.nonzero()[:, 0]
    norms = place_vertices(scenes, torch.linspace(0, 1, 41).expand(12, -1)).norm(dim=-1)
    for i in range(12):
        assert 0.99 < norms[owner == i].max() < 1.06  # between the times it was measured at, it may lean out a little
    fitted = place_vertices(scenes, torch.linspace(0, 1, 17).expand(12, -1)).norm(dim=-1).amax()
    torch.testing.assert_close(fitted, torch.tensor(1.0), rtol=0, atol=1e-4)


def test_depth_colour_and_area_of_a_box_are_those_of_its_front():
    size, half = 96, 0.493
    cameras = make_cameras([CANONICAL], [FIELD_OF_VIEW], size, size)
    seen = render(describe_part(box(half)), cameras, torch.zeros(1, 4))
    focal = size / 2 / math.tan(FIELD_OF_VIEW / 2)
    area = (2 * half * focal / (2.7 - half)) ** 2
    for view in range(4):
        hit = seen.hits[0, view]
        torch.testing.assert_close(seen.depths[0, view][hit], torch.full((int(hit.sum()),), 2.7 - half))
        # An edge along a row or column is found to a third of a pixel.
        assert abs(float(seen.views.alphas[0, view].sum()) - area) < 4 * area**0.5 / 6
        colour = seen.views.images[0, view][:, seen.views.alphas[0, view, 0] > 0]
        torch.testing.assert_close(colour, torch.tensor([0.8, 0.2, 0.1])[:, None].expand_as(colour))
    edge = seen.views.alphas[(seen.views.alphas > 0) & (seen.views.alphas < 1)]
    assert len(edge) > 0  # silhouettes are anti-aliased


def test_depth_of_a_ball_is_that_of_a_sphere_up_to_its_facets():
    size, radius = 64, 0.6
    cameras = make_cameras([CANONICAL[:1]], [FIELD_OF_VIEW], size, size)
    part = Part(ellipsoid(), 2 * radius, (radius, radius), RED, origin=0.5)
    seen = render(describe_part(part), cameras, torch.zeros(1, 1))
    origins, directions = cameras.rays()
    middle = -(origins * directions).sum(-1)
    across = (origins + middle[..., None] * directions).norm(dim=-1)
    half_chord = (radius**2 - across**2).clamp(min=0).sqrt()
    forward = directions @ torch.tensor([0.0, 1.0, 0.0])
    depth, exit_depth = (middle - half_chord) * forward, (middle + half_chord) * forward
    inside = across < 0.8 * radius
    assert seen.hits[:, :, 0][inside].all() and not seen.hits[:, :, 0][across > radius].any()
    error = (seen.depths[:, :, 0] - depth)[inside]
    assert error.min() > -1e-4  # facets lie inside the sphere
    most = radius * 2 * (1 - math.cos(math.pi / 12)) / 0.6
    assert error.max() < most
    early = (exit_depth - seen.exits[:, :, 0])[inside]
    assert early.min() > -1e-4 and early.max() < most
    assert not seen.exits[~seen.hits].any()


def test_flow_of_a_rigid_body_is_its_closed_form():
    drift, spin, size = (0.3, -0.2, 0.1), 1.4, 48
    scene = describe_part(
        box(0.45),
        path=tuple(wave(slope=v) for v in drift),
        turning=(STILL, STILL, wave(0.3, slope=spin)),
    )
    cameras = make_cameras([[(0.4, 0.3, 2.6), (2.0, -0.1, 3.0)]], [0.8], size, size)
    times = torch.tensor([[0.2, 0.7]])
    seen = render(scene, cameras, times)
    rows, columns = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    points = unproject(cameras[:, :, None, None], torch.stack([columns, rows], -1), seen.depths[:, :, 0])
    velocity = torch.tensor(drift)
    centre = velocity * (times[..., None] - 0.5)
    axis = torch.tensor([0.0, 0.0, spin])
    expected = velocity + torch.linalg.cross(axis.expand_as(points), points - centre[..., None, None, :])
    hit = seen.hits[:, :, 0]
    assert hit.sum() > 500
    torch.testing.assert_close(seen.flows.movedim(2, -1)[hit], expected[hit], rtol=1e-3, atol=1e-3)
    assert (seen.flows.movedim(2, -1)[~hit] == 0).all()


def test_velocities_of_vertices_are_their_derivatives():
    seeds = list(range(20, 44))
    scenes = sample_scenes(seeds)
    scenes = Scenes(**{f.name: v.double() if v.is_floating_point() else v for f, v in each_field(scenes)})
    times = torch.rand(len(seeds), 3, generator=generator_of(0), dtype=torch.float64)
    _, exact = torch.func.jvp(lambda t: place_vertices(scenes, t), (times,), (torch.ones_like(times),))
    single = sample_scenes(seeds)
    vertices, velocities = place_moving_vertices(single, times.float())
    assert (
        velocities.abs().max() > 0.1 and (single.morph[..., 1] != 0).any() and (single.joint_angles[..., 1] != 0).any()
    )
    torch.testing.assert_close(vertices, place_vertices(single, times.float()), rtol=0, atol=1e-5)
    torch.testing.assert_close(velocities.double(), exact, rtol=1e-4, atol=1e-4)


def each_field(scenes: Scenes):
    """(field, value) of a batch of scenes."""
    return [(f, getattr(scenes, f.name)) for f in fields(Scenes)]


def test_points_of_one_view_are_where_another_sees_them_or_behind_something():
    size = 64
    scenes = sample_scenes([31, 32, 33, 34])
    poses = [[(0.3, 0.2, 2.7), (0.5, 0.35, 2.7)]] * 4
    cameras = make_cameras(poses, [FIELD_OF_VIEW] * 4, size, size)
    seen = render(scenes, cameras, torch.full((4, 2), 0.4))
    rows, columns = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    points = unproject(cameras[:, :1, None, None], torch.stack([columns, rows], -1)[None, None], seen.depths[:, :1, 0])
    pixels, depth = project(cameras[:, 1:, None, None], points)
    index = pixels.floor().long().clamp(0, size - 1)
    scene = torch.arange(4)[:, None, None, None]
    there = seen.depths[scene, 1, 0, index[..., 1], index[..., 0]]
    seen_there = seen.hits[scene, 1, 0, index[..., 1], index[..., 0]]
    valid = seen.hits[:, :1, 0] & seen_there
    behind = (depth - there)[valid]
    assert valid.sum() > 800
    assert (behind.abs() < 0.04).float().mean() > 0.75  # most points of a near camera are seen by the other
    assert (behind > -0.1).float().mean() > 0.97  # and none hangs in front of what the other sees


def test_the_renders_do_not_depend_on_samples_but_for_edges():
    scenes = sample_scenes([41, 42])
    cameras = make_cameras([CANONICAL] * 2, [FIELD_OF_VIEW] * 2, 32, 32)
    coarse, fine = (render(scenes, cameras, torch.full((2, 4), 0.5), samples=s) for s in (1, 5))
    # At silhouettes the edges' tolerance is another part of a pixel.
    assert ((coarse.depths - fine.depths).abs() < 1e-3).float().mean() > 0.99
    assert (coarse.views.alphas - fine.views.alphas).abs().mean() < 0.03
    inside = (fine.views.alphas == 1) & (coarse.views.alphas == 1)
    assert inside.any()


def test_bad_arguments_are_refused():
    scenes = sample_scenes([1])
    cameras = make_cameras([CANONICAL], [FIELD_OF_VIEW], 8, 8)
    with pytest.raises(ValueError, match="odd"):
        render(scenes, cameras, torch.zeros(1, 4), samples=2)
    with pytest.raises(ValueError, match="same shape"):
        render(scenes, cameras, torch.zeros(1, 3))
    with pytest.raises(ValueError, match="set-up 'sideways'"):
        context_views(Dice(generator_of(0)), 4, "sideways")


def test_set_ups_place_cameras_as_the_evaluation_does():
    dice = Dice(generator_of(0))
    poses, times, fov = context_views(dice, 24, "alternating_canonical")
    cameras = make_cameras([poses], [fov], 128, 128)
    expected = [[0.0, -2.7, 0.0], [2.7, 0.0, 0.0], [0.0, 2.7, 0.0], [-2.7, 0.0, 0.0]]  # front, left, back, right
    torch.testing.assert_close(cameras.origins[0, :4], torch.tensor(expected), rtol=0, atol=1e-5)
    torch.testing.assert_close(cameras.intrinsics[0, 0, 0, 0], torch.tensor(140.11103527))
    torch.testing.assert_close(torch.tensor(times), torch.linspace(0, 1, 24))
    poses, times, _ = context_views(dice, 24, "two_rotating")
    origins = make_cameras([poses], [fov], 128, 128).origins[0]
    torch.testing.assert_close(origins[0], torch.tensor([0.0, -2.53717, 0.923454]), rtol=0, atol=1e-4)
    assert origins[3, 0] > 0 > origins[4, 0]  # rotl at odd, rotr at even frames
    assert origins[22:, 1].min() > 2.5  # both end at the back
    poses, times, _ = context_views(dice, 24, "frame_interpolation")
    assert len(set(times)) == 12 and all(round(t * 23) % 2 == 0 for t in times)
    for setup in SETUPS:
        for count in (1, 5, 24, 30):
            poses, times, _ = context_views(dice, count, setup)
            assert len(poses) == len(times) == count and 0 <= min(times) <= max(times) <= 1


def test_still_worlds_stand_still_and_others_move():
    still = sample_batch([5, 6], 2, 1, 16, config=WorldConfig(static=1.0))[0]
    assert still.hits.any() and still.flows.abs().max() == 0
    moving = sample_batch(list(range(8)), 2, 1, 16, config=WorldConfig(static=0.0))[0]
    assert (moving.flows.abs().amax(dim=(1, 2, 3, 4)) > 0.05).sum() >= 7


def test_statistics_are_those_of_assets():
    seen = sample_batch(list(range(700, 720)), 4, 0, 32, setup="random")[0]
    cover = seen.views.alphas.mean(dim=(1, 2, 3, 4))
    assert 0.07 < cover.mean() < 0.17 and cover.max() < 0.6
    scenes = sample_scenes(list(range(700, 720)))
    paths = place_vertices(scenes, torch.linspace(0, 1, 12).expand(20, -1))
    travel = (paths - paths[:, :1]).norm(dim=-1).amax(1).mean(-1)
    assert 0.2 < travel.mean() < 0.7  # of a diameter of 2: a tenth to a third


def test_parts_are_bounded_in_number():
    counts = [len(describe_scene(Dice(generator_of(s)), WorldConfig()).parts) for s in range(150)]
    assert min(counts) >= 1 and max(counts) <= 20 and len(set(counts)) > 8


def test_times_of_views_change_only_what_moves():
    scene = describe_part(box(0.4), path=(wave(0.0, slope=0.4), STILL, STILL))
    cameras = make_cameras([CANONICAL[:1] * 2], [FIELD_OF_VIEW], 32, 32)
    seen = render(scene, cameras, torch.tensor([[0.0, 1.0]]))
    columns = torch.arange(32) + 0.5
    centres = (seen.views.alphas[0, :, 0] * columns).sum((1, 2)) / seen.views.alphas[0, :, 0].sum((1, 2))
    focal = 16 / math.tan(FIELD_OF_VIEW / 2)
    expected = 0.4 * focal / (2.7 - 0.4)
    assert abs(float(centres[1] - centres[0]) - expected) < 0.35
    assert replace(seen, hits=seen.hits).views.times.tolist() == [[0.0, 1.0]]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(("seeds", "views", "size"), [([3, 11, 5], 4, 32), (list(range(32)), 20, 64)])
def test_cuda_and_cpu_make_the_same_views(seeds, views, size):
    on_cpu, on_cuda = (sample_batch(seeds, views, 2, size, device=device)[0] for device in ("cpu", "cuda"))
    on_cuda = on_cuda.to("cpu")
    assert ((on_cpu.depths - on_cuda.depths).abs() < 1e-3).float().mean() > 0.995
    pairs = zip(
        (on_cpu.views.images * on_cpu.views.alphas, on_cpu.views.alphas, on_cpu.flows),
        (on_cuda.views.images * on_cuda.views.alphas, on_cuda.views.alphas, on_cuda.flows),
        strict=True,
    )
    assert all((a - b).abs().mean() < 5e-3 for a, b in pairs)
