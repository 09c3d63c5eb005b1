import pytest
import torch

from lrm4d.export.contact_sheet import contact_sheet, error_pictures, grid_sheet, reconstruction_sheet, spread


def test_every_picture_is_on_the_sheet_unchanged():
    generator = torch.Generator().manual_seed(0)
    colors = torch.randint(0, 256, (2, 3, 3), generator=generator) / 255
    rows = {name: color[:, :, None, None].expand(3, 3, 96, 100) for name, color in zip("ab", colors, strict=True)}
    rows["b"] = rows["b"][:2]
    sheet = contact_sheet(rows, ["x", "y", "z"], "title")
    pixels = {tuple(p) for p in (sheet.flatten(1).T * 255).round().int().tolist()}
    counts = [
        int(((sheet - color[:, None, None]).abs().amax(0) < 1e-4).sum()) for color in [*colors[0], *colors[1, :2]]
    ]
    assert counts == [9600] * 5
    assert tuple((colors[1, 2] * 255).round().int().tolist()) not in pixels


def test_small_pictures_are_enlarged():
    assert contact_sheet({"a": torch.zeros(1, 3, 16, 32)}).shape[1] >= 96


def count_red(sheet):
    return int(((sheet[0] > 0.9) & (sheet[1] < 0.7) & (sheet[2] < 0.1)).sum())


def test_reconstruction_sheet_shows_no_error_where_there_is_none():
    truth = torch.full((20, 3, 96, 96), 0.25)
    exact = reconstruction_sheet(truth[:2], truth, truth)
    wrong = reconstruction_sheet(truth[:2], truth + 0.25, truth)
    assert exact.shape == wrong.shape
    assert count_red(exact) == 0
    assert count_red(wrong) == 8 * 96 * 96


def test_a_grids_sheet_has_holes_and_what_was_made_of_them():
    images = torch.zeros(20, 3, 3, 96, 96)
    images[:, :, 0] = 1.0
    known = torch.ones(20, 3, 1, 96, 96, dtype=torch.bool)
    known[:, 1, :, :48] = False
    sheet = grid_sheet(images, known)
    grey = (sheet - 128 / 255).abs().amax(0) < 1e-3
    red = (sheet - torch.tensor([1.0, 0, 0])[:, None, None]).abs().amax(0) < 1e-3
    # Soft edges of letters are grey too.
    assert 0 <= int(grey.sum()) - 8 * 48 * 96 < 50, "half of one view's warps, at eight moments"
    assert int(red.sum()) == 8 * (5 * 96 - 48) * 96, "the video, two warps, two views"


def test_error_colours_get_darker():
    levels = error_pictures(torch.linspace(0, 0.6, 7)[:, None, None, None].expand(7, 3, 1, 1), torch.zeros(7, 3, 1, 1))
    brightness = levels.sum(dim=(1, 2, 3))
    assert brightness[0] == 3 and brightness[-1] == 0
    assert bool((brightness.diff()[:5] < 0).all())


def test_spread_has_both_ends():
    assert spread(24, 4) == [0, 8, 15, 23]
    assert spread(3, 8) == [0, 1, 2]
    assert spread(1, 8) == [0]


def test_no_rows_is_an_error():
    with pytest.raises(ValueError, match="no rows"):
        contact_sheet({})
