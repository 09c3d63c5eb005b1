import ast
from pathlib import Path

import pytest
import torch
from PIL import Image

from lrm4d.generation import masks
from lrm4d.generation.masks import (
    COMPOSITES,
    draw_composite,
    draw_region,
    fray,
    from_inpainting_mask,
    grow_holes,
    hide,
    hide_side,
    join_holes,
    keep_first_frame,
    load_region,
    mark_boxes,
    mark_stroke,
    to_inpainting_mask,
)
from lrm4d.video import write_video


def make_visibility(count: int = 5, size: int = 32) -> torch.Tensor:
    """All seen but a square in the middle."""
    visibility = torch.ones(count, 1, size, size, dtype=torch.bool)
    visibility[..., 12:20, 12:20] = False
    return visibility


def test_an_inpainting_mask_is_one_where_nothing_is_seen():
    visibility = make_visibility()
    mask = to_inpainting_mask(visibility)
    assert mask[0, 0, 15, 15] == 1 and mask[0, 0, 0, 0] == 0
    assert torch.equal(from_inpainting_mask(mask), visibility)


def test_what_is_hidden_is_a_hole_but_in_the_first_frame():
    region = mark_boxes(torch.tensor([[0.25, 0.5, 0.5, 1.0]]).expand(3, 4), 8, 16)
    assert region[0, 0, 4:, 4:8].all() and region.sum() == 3 * 16
    visibility = keep_first_frame(hide(region))
    assert visibility[0].all()
    assert torch.equal(visibility[1:], ~region[1:])


def test_joined_holes_are_all_holes():
    first, second = make_visibility(), hide(mark_boxes(torch.tensor([[0.0, 0, 0.1, 0.1]]), 32, 32))
    joined = join_holes(first, second)
    assert torch.equal(~joined, ~first | ~second)


def test_composites_are_one_of_three_kinds_by_the_seed():
    warped, edited = make_visibility(), hide(mark_boxes(torch.tensor([[0.0, 0, 0.3, 0.3]] * 5), 32, 32))
    wanted = {"visibility": warped, "editing": edited, "union": warped & edited}
    seen = set()
    for seed in range(30):
        drawn = draw_composite(warped, edited, torch.Generator().manual_seed(seed))
        assert torch.equal(drawn, draw_composite(warped, edited, torch.Generator().manual_seed(seed)))
        seen |= {kind for kind in COMPOSITES if torch.equal(drawn, wanted[kind])}
    assert seen == set(COMPOSITES)


def test_holes_grow_by_so_many_pixels():
    grown = grow_holes(make_visibility(), 3)
    assert (~grown).sum() == 5 * 14 * 14
    assert not grown[..., 9:23, 9:23].any()
    assert torch.equal(grow_holes(grown, 0), grown)


def test_frayed_holes_contain_the_holes_and_reach_no_farther_than_asked():
    visibility = make_visibility()
    frayed = fray(visibility, 4, torch.Generator().manual_seed(0))
    assert bool((frayed <= visibility).all()), "no hole is closed"
    assert bool((frayed >= grow_holes(visibility, 4)).all()), "and none grows farther"
    added = (visibility & ~frayed).sum() / (visibility & ~grow_holes(visibility, 4)).sum()
    assert 0.2 < added < 0.9, "the border is neither untouched nor straight"
    assert torch.equal(frayed, fray(visibility, 4, torch.Generator().manual_seed(0)))
    assert torch.equal(fray(visibility, 0, torch.Generator()), visibility)


def test_a_stroke_is_all_that_is_near_its_line():
    region = mark_stroke(torch.tensor([[0.25, 0.5], [0.75, 0.5]]), 0.1, 50, 100)
    rows, columns = torch.meshgrid(torch.arange(50) + 0.5, torch.arange(100) + 0.5, indexing="ij")
    nearest = columns.clamp(25, 75)
    expected = ((columns - nearest) ** 2 + (rows - 25) ** 2).sqrt() <= 5
    assert torch.equal(region[0, 0], expected)
    dot = mark_stroke(torch.tensor([[0.5, 0.5]]), 0.2, 50, 100)
    assert dot.sum() == pytest.approx(torch.pi * 100, rel=0.05)


def test_a_hidden_side_is_a_share_of_what_is_seen_beyond_a_line():
    seen = make_visibility()
    for seed in range(20):
        left = hide_side(seen, torch.Generator().manual_seed(seed))
        share = 1 - float(left.sum() / seen.sum())
        assert 0.19 < share < 0.71 and not bool((left & ~seen).any())
        there, lost = (torch.nonzero((left if kept else seen & ~left)[0, 0]).double() for kept in (True, False))
        axis = there.mean(0) - lost.mean(0)
        assert torch.equal(left[0], left[-1]) and ((there @ axis).mean() > (lost @ axis).max())
    nothing = torch.zeros_like(seen)
    assert torch.equal(hide_side(nothing, torch.Generator()), nothing)


def test_random_regions_are_neither_empty_nor_all():
    shares = [float(draw_region(4, 24, 32, torch.Generator().manual_seed(seed)).float().mean()) for seed in range(20)]
    assert all(0 < share < 0.9 for share in shares) and len(set(shares)) > 15


def test_region_files_are_white_inside(tmp_path):
    region = mark_boxes(torch.tensor([[0.25, 0.25, 0.75, 0.75]]), 32, 48)
    picture = Image.fromarray((region[0, 0].byte() * 255).numpy())
    picture.save(tmp_path / "one.png")
    assert torch.equal(load_region(tmp_path / "one.png", 3, 32, 48), region.expand(3, 1, 32, 48))
    assert torch.equal(load_region(tmp_path / "one.png", 1, 16, 24), region[..., ::2, ::2])
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(3):
        (picture if index else Image.new("L", (48, 32))).save(folder / f"{index:03}.png")
    several = load_region(folder, 3, 32, 48)
    assert not several[0].any() and torch.equal(several[1:], region.expand(2, 1, 32, 48))
    write_video(tmp_path / "mask.mp4", region.float().expand(4, 3, 32, 48))
    filmed = load_region(tmp_path / "mask.mp4", 4, 32, 48)
    assert (filmed != region).float().mean() < 0.02


def test_region_files_that_do_not_fit_or_are_broken_are_errors(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    Image.new("L", (4, 4)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match="2 mask frames for 5"):
        load_region(tmp_path, 5, 4, 4)
    Image.new("L", (8, 4)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match="of one size"):
        load_region(tmp_path, 2, 4, 4)
    (tmp_path / "a.png").write_bytes((tmp_path / "b.png").read_bytes()[:30])
    with pytest.raises(ValueError, match=r"a\.png: cannot be read"):
        load_region(tmp_path / "a.png", 1, 4, 4)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="no pictures"):
        load_region(tmp_path / "nothing", 1, 4, 4)


def test_only_one_place_knows_the_other_polarity():
    """Masks that are 1 where something is to be generated exist between masks.py and the pipeline that wants them."""
    room = Path(masks.__file__).parent
    knowing, handing = set(), set()
    for file in room.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        knowing |= {file.name} if names & {"to_inpainting_mask", "from_inpainting_mask"} else set()
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        handing |= {file.name for call in calls for word in call.keywords if word.arg in ("mask", "mask_image")}
    assert knowing == {"wan.py"} and handing == {"wan.py"}
