"""Inpainters by name: what is asked where nothing is said, and low-rank layers beside the weights."""

import pytest
import torch
from grid_scenes import home_cameras, see_ball

from lrm4d.generation.backends import choose_sampling, load_inpainter, parse_lora
from lrm4d.generation.completion import complete
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.grid import start_grid
from lrm4d.generation.inpainter import Inpainter, Sampling
from lrm4d.generation.network import InpaintingNetwork, NanoConfig, save_network
from lrm4d.generation.plans import Plan
from lrm4d.generation.transformer import add_lora, save_lora
from lrm4d.generation.wan import WanInpainter
from lrm4d.trajectories import cameras_around

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = NanoConfig(width=24, heads=2, layers=1, patch=8, words=1, text_width=8, frequencies=16)


@pytest.fixture
def folder(tmp_path):
    """Weights, and low-rank layers that are not nothing, in a folder as tuning leaves it."""
    torch.manual_seed(0)
    network = InpaintingNetwork(TINY)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_network(network, tmp_path / "net")
    for parameter in add_lora(network.transformer.wan, rank=2):
        torch.nn.init.normal_(parameter)
    save_lora(network.transformer.wan, tmp_path / "tuned" / "lora.safetensors")
    return tmp_path


def start():
    times = torch.linspace(0, 1, 2)
    home = home_cameras(2, 16)
    images, depths, hit = see_ball(home, times)
    angle = torch.tensor([30.0])
    geometry = Geometry(depths, home, hit)
    return start_grid(
        images, geometry, cameras_around(angle, 0 * angle, 2.7 + 0 * angle, 50.0, 16, 16), times
    ), geometry


def test_low_rank_layers_count_by_their_weight(folder):
    grid, geometry = start()

    def made(lora: str | None) -> torch.Tensor:
        inpainter = load_inpainter(str(folder / "net"), lora=lora)
        return complete(grid, geometry, Plan(), inpainter, Sampling(steps=1)).images

    plain, tuned = made(None), made(str(folder / "tuned"))
    assert torch.equal(made(f"{folder / 'tuned'}:0"), plain) and not torch.equal(tuned, plain)
    assert torch.equal(made(f"{folder / 'tuned' / 'lora.safetensors'}:1.0"), tuned)
    half = made(f"{folder / 'tuned'}:0.5")
    assert not torch.equal(half, plain) and not torch.equal(half, tuned)


def test_unsaid_sampling_is_the_inpainters_own(folder):
    inpainter = load_inpainter(str(folder / "net"))
    assert isinstance(inpainter, Inpainter) and inpainter.usual.steps <= 4 and inpainter.usual.guidance == 1
    assert WanInpainter.usual.steps == 30 and WanInpainter.usual.guidance == 5
    usual = inpainter.usual
    assert choose_sampling(inpainter, steps=None, seed=3) == Sampling(usual.steps, 1.0, 3, usual.keep_known)
    assert choose_sampling(inpainter, steps=7, guidance=2.0, keep_known=False) == Sampling(7, 2.0)
    grid, geometry = start()
    made = [complete(grid, geometry, Plan(), inpainter, how).images for how in (None, inpainter.usual)]
    assert torch.equal(*made)


def test_weights_of_low_rank_layers_are_read_and_mistakes_said(folder):
    assert parse_lora("runs/a") == ("runs/a", 1.0) and parse_lora("runs/a:0.7") == ("runs/a", 0.7)
    assert parse_lora("C:\\runs") == ("C:\\runs", 1.0)
    with pytest.raises(ValueError, match="'much' is no weight"):
        parse_lora("runs/a:much")
    with pytest.raises(ValueError, match=r"no low-rank layers; expected a file, or a folder with lora\.safetensors"):
        load_inpainter(str(folder / "net"), lora=str(folder / "net"))
    (folder / "net" / "tune.json").write_text("{}")
    with pytest.raises(ValueError, match="tuning is not finished"):
        load_inpainter(str(folder / "net"), lora=str(folder / "net"))
