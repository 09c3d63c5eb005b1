"""What the world's parts can do: holes, height fields, blended joints, hops, growth, marks."""

import math

import pytest
import torch

from data_tools.body import Body, Style
from data_tools.camera_sampling import FIELD_OF_VIEW, generator_of, make_cameras
from data_tools.contraptions import CONTRAPTIONS, grow, vanish
from data_tools.details import MOST_PARTS, add_details, on_surface, radius_at
from data_tools.dice import Dice
from data_tools.motion import STILL, evaluate_waves, hop, wave
from data_tools.render import place_vertices, render
from data_tools.scenes import Description, Part, Scenes, pack_description
from data_tools.shapes import COLUMNS, ROWS, SHEET, limb, pipe, prism, ring
from data_tools.textures import KINDS, Texture, draw_glyphs, mix_weights

GREY = Texture(0, ((0.5, 0.5, 0.5),) * 3, 1.0, (0.0, 0.0, 1.0), 0.0, 0.5, 1)


def describe_parts(parts: list[Part], noise: torch.Tensor | None = None) -> Scenes:
    """A scene of parts, not fitted to the unit sphere; nothing moves as a whole."""
    lights = ((0.0, 0.0, 1.0), (0.0, 0.0, 1.0))
    description = Description(parts, (STILL,) * 3, (STILL,) * 3, 1.0, 1.0, lights, (0.0, 0.0))
    return pack_description(description, torch.zeros(2, len(parts), ROWS, COLUMNS) if noise is None else noise)


def rows_at(parts: list[Part], times: list[float]) -> torch.Tensor:
    """Vertices [part, time, row, column, 3]."""
    vertices = place_vertices(describe_parts(parts), torch.tensor([times]))
    return vertices.unflatten(2, (ROWS, COLUMNS))


@pytest.mark.parametrize("profile, sides", [(pipe(0.2), COLUMNS), (pipe(0.2), 4), (ring(0.2), COLUMNS)])
def test_one_looks_through_pipes_frames_and_rings_but_not_through_their_walls(profile, sides):
    part = Part(profile, 0.5, (0.6, 0.6), GREY, origin=0.5, aim=(0.0, -1.0, 0.0), sides=sides, turn=math.pi / 4)
    cameras = make_cameras([[(0.0, 0.0, 2.7), (math.pi / 2, 0.0, 2.7)]], [FIELD_OF_VIEW], 64, 64)
    front, side = render(describe_parts([part]), cameras, torch.zeros(1, 2)).views.alphas[0, :, 0]
    assert front[28:36, 28:36].max() == 0  # the hole
    wall = front[31:33, :].amax(0) > 0
    assert wall[:32].any() and wall[32:].any()  # its two walls beside it
    assert side[28:36, 28:36].min() == 1


def test_a_blended_limb_keeps_its_root_and_turns_its_tip_about_the_middle_of_the_blend():
    angle, blend, length = 0.8, 0.4, 0.7
    trunk = Part(prism(), 1.0, (0.2, 0.2), GREY)
    socket = (wave(0.0, slope=2 * angle), STILL, STILL)  # 0 at the time 1/2, the angle at 1
    arm = Part(
        limb(0.1, 0.8), length, (0.05, 0.05), GREY, parent=0, attach=(0.2, 0.0, 0.5), socket=socket, blend=blend
    )
    rest, turned = rows_at([trunk, arm], [0.5, 1.0])[1]
    torch.testing.assert_close(turned[0], rest[0])  # in the parent, whatever the socket does
    height = torch.tensor([h * length for h in arm.profile[0]])
    beyond = height > blend * length
    pivot = torch.tensor([0.2, 0.0, 0.5 + 0.5 * blend * length])
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
    torch.testing.assert_close(turned[beyond], (rest[beyond] - pivot) @ turn.T + pivot, rtol=1e-5, atol=1e-6)
    steps = (turned[1:].mean(1) - turned[:-1].mean(1)).norm(dim=-1)
    assert (steps <= (height[1:] - height[:-1]) * 1.05 + 1e-6).all()  # the spine bends, it does not break or grow


def test_children_of_a_blended_limb_go_with_the_place_they_hang_on():
    socket = (wave(0.0, slope=2.0), STILL, STILL)
    arm = Part(limb(0.1, 1.0), 0.8, (0.05, 0.05), GREY, socket=socket, blend=0.3)
    tip = Part(prism(), 0.1, (0.05, 0.05), GREY, parent=0, attach=(0.0, 0.0, 0.8))
    arms, tips = rows_at([arm, tip], [0.0, 0.5, 0.9])
    torch.testing.assert_close(tips[:, 0, 0], arms[:, -1, 0], rtol=1e-5, atol=1e-6)


def test_a_height_field_rises_on_its_face_only_and_morphs():
    noise = torch.randn(2, 1, ROWS, COLUMNS, generator=generator_of(3))
    part = Part(prism(), 1.0, (0.5, 0.04), GREY, sides=SHEET, lumps=0.3, morph=wave(0.0, slope=2.0), morph_lumps=0.3)
    vertices = place_vertices(describe_parts([part], noise), torch.tensor([[0.5, 1.0]]))
    rest, morphed = vertices.unflatten(2, (ROWS, COLUMNS))[0]
    face, back = slice(0, COLUMNS // 2), slice(COLUMNS // 2, COLUMNS)
    for field in (rest, morphed):
        torch.testing.assert_close(field[1:-1, back, 1], torch.full((ROWS - 2, COLUMNS // 2), -0.04))
        assert field[1:-1, face, 1].min() >= 0.04 - 1e-6 and field[..., 1].max() > 0.08
        assert field[..., 0].abs().max() <= 0.5 + 1e-6
    assert (morphed[..., 1] - rest[..., 1]).min() > -1e-6 and (morphed - rest).abs().max() > 0.05


def test_a_hop_is_up_half_of_the_time_and_down_the_other_half():
    times = torch.linspace(0, 1, 200)
    height, frequency, phase = 0.6, 2.0, 0.3
    found = evaluate_waves(torch.tensor(hop(height, frequency, phase)), times)
    jump = height * (2 * math.pi * (frequency * times + phase)).sin().clamp(min=0)
    assert (found - (jump - height / math.pi)).abs().max() < 0.11 * height  # two harmonics of many


def test_parts_appear_and_vanish():
    style = Style.sample(Dice(generator_of(0)), 1.0)
    for make, first, last in ((grow, 0.02, 1.0), (vanish, 1.0, 0.02)):
        stretch = make(Dice(generator_of(1)), style, 0.5)
        vertices = rows_at([Part(prism(), 0.5, (0.2, 0.2), GREY, stretch=stretch)], [0.0, 0.5, 1.0])[0]
        length = vertices[..., 2].amax((1, 2)) / 0.5
        torch.testing.assert_close(length[[0, 2]], torch.tensor([first, last]))
        assert 0.3 < length[1] < 0.7


@pytest.mark.parametrize("maker", [m for m, _ in CONTRAPTIONS])
def test_contraptions_stand_still_without_energy_and_move_with_it(maker):
    for energy in (0.0, 1.0):
        moved = []
        for seed in range(6):
            dice = Dice(generator_of(seed))
            vertices = rows_at(maker(dice, Style.sample(dice, energy)), [0.0, 0.4, 0.9])
            assert vertices.isfinite().all()
            moved.append((vertices - vertices[:, :1]).abs().max())
        assert max(moved) == 0 if energy == 0 else sum(m > 0.05 for m in moved) >= 4


def test_glyphs_stand_apart_and_differ():
    side = torch.arange(20) / 20 + 0.025
    y, x = torch.meshgrid(side, side, indexing="ij")
    cell = torch.stack([x, y], -1).flatten(0, 1)
    cells = torch.tensor([[i, j] for i in range(8) for j in range(8)], dtype=torch.float32)
    ink = draw_glyphs((cells[:, None] + cell).flatten(0, 1), torch.full((64 * 400,), 5)).view(64, 20, 20)
    assert not ink[:, :, 0].any() and not ink[:, -1].any()  # a gap between neighbours
    written = ink.flatten(1).any(1)
    rows = written.view(8, 8).float().mean(0)  # cells are [column, row]
    assert written.float().mean() > 0.4 and ((rows == 0) | (rows > 0.8)).all()  # lines are written or empty
    assert len({tuple(glyph.flatten().tolist()) for glyph in ink[written]}) > 0.7 * int(written.sum())


@pytest.mark.parametrize("kind", KINDS[1:])
def test_textures_mix_within_bounds_and_alike_in_any_batch(kind):
    generator = generator_of(0)
    points, span = 6 * torch.rand(400, 3, generator=generator) - 3, torch.rand(400, generator=generator)
    faces, thresholds = torch.arange(400), torch.linspace(0.3, 0.7, 400)
    seeds = torch.arange(400) % 5
    whole = mix_weights(kind, points, span, faces, thresholds, seeds)
    half = mix_weights(kind, *(v[:200] for v in (points, span, faces, thresholds, seeds)))
    for all_of, some in zip(whole, half, strict=True):
        torch.testing.assert_close(all_of[:200], some)
        assert all_of.min() >= 0 and all_of.max() <= 1
    assert whole[0].std() > 0.05  # it shows
    if kind not in ("gradient", "noise", "grain"):
        assert ((whole[0] == 0) | (whole[0] == 1)).all()  # sharp edges


def test_details_sit_on_the_surface_of_what_they_are_on():
    part = Part(limb(0.1, 0.5), 0.8, (0.2, 0.1), GREY, origin=0.25)
    assert radius_at(part, 0.0) == 0 and radius_at(part, 1.0) == 0
    assert radius_at(part, 0.5) == pytest.approx(0.75)  # half-way between 1 and 0.5
    vertices = rows_at([part], [0.0])[0, 0]
    (x, y, z), out = on_surface(part, 0.5, 0.0)
    ring_at = (vertices[:, 0, 2] - z).abs().argmin()
    assert x == pytest.approx(0.9 * float(vertices[ring_at, 0, 0]), rel=1e-3) and (y, out) == (0.0, (1.0, 0.0))


def test_details_are_added_within_the_limit():
    counts = []
    for seed in range(40):
        dice = Dice(generator_of(seed))
        body = Body(dice, Style.sample(dice, 1.0), [Part(prism(), 1.0, (0.2, 0.2), GREY) for _ in range(15)])
        add_details(body)
        counts.append(len(body.parts))
        assert all(0 <= p.parent < 15 for p in body.parts[15:])
    assert min(counts) == 15 and max(counts) == MOST_PARTS
