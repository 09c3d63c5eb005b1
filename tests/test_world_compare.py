"""Statistics of clips against shapes whose statistics are known."""

import math

import pytest
import torch

from data_tools.compare_worlds import clip_statistics, quantile_table


def clip_of(mask: torch.Tensor, colour: float | torch.Tensor) -> dict[str, float]:
    """Statistics of masks [frame, height, width] in one grey."""
    alphas = mask[:, None].float()
    return clip_statistics(torch.ones(len(mask), 3, *mask.shape[1:]) * colour, alphas)


def test_a_disk_a_bar_and_a_square():
    rows, columns = torch.meshgrid(torch.arange(128) + 0.5, torch.arange(128) + 0.5, indexing="ij")
    disk = (((rows - 64) ** 2 + (columns - 64) ** 2).sqrt() < 30).expand(9, -1, -1)
    found = clip_of(disk, 0.4)
    assert found["outline"] == pytest.approx(1, abs=0.06) and found["thin"] < 0.02
    assert found["area"] == pytest.approx(math.pi * 30**2 / 128**2, abs=1e-3)
    assert found["psnr 1"] == pytest.approx(40) and found["plain"] == 1 and found["colours"] == 1
    assert found["light"] == pytest.approx(0.4) and found["dark"] == 0 and found["vivid"] == 0
    bar = torch.zeros(9, 128, 128, dtype=torch.bool)
    bar[:, 20:100, 50:53] = True
    assert clip_of(bar, 0.1)["thin"] == 1 and clip_of(bar, 0.1)["dark"] == 1 and clip_of(bar, 0.1)["outline"] > 5


def test_motion_is_measured_around_the_object():
    moving = torch.zeros(9, 64, 64, dtype=torch.bool)
    for frame in range(9):
        moving[frame, 20:30, 10 + 4 * frame : 20 + 4 * frame] = True
    found = clip_of(moving, 0.0)
    # Each step uncovers 10 x 4 pixels of black on white and covers as many, all within 4 pixels of the first: 18 x 18.
    assert found["psnr 1"] == pytest.approx(-10 * math.log10(80 / 18**2), abs=1e-4)
    assert found["psnr 2"] < found["psnr 1"]
    assert found["swept"] == pytest.approx(10 * 42 / 64**2, abs=1e-5)


def test_texture_shows_in_contrast_plain_and_colours():
    whole = torch.ones(9, 64, 64, dtype=torch.bool)
    stripes = (torch.arange(64) // 4 % 2).float() * 0.8 + 0.1
    found = clip_of(whole, stripes)
    assert found["contrast"] == pytest.approx(0.8 * 15 / 63, abs=1e-5)
    assert found["plain"] == pytest.approx(48 / 63, abs=1e-5)
    assert found["colours"] == 2 and found["spread"] == pytest.approx(0.4, abs=1e-3)


def test_the_table_has_real_above_world():
    lines = quantile_table([{"area": 0.1}, {"area": 0.3}], [{"area": 0.5}]).splitlines()
    assert lines[1].split()[:2] == ["area", "real"] and lines[1].split()[-1] == "0.200"
    assert lines[2].split()[0] == "world" and set(lines[2].split()[1:]) == {"0.500"}
