"""lrm4d tune on a small clip: what it writes, that generate takes it, and what it says of mistakes."""

import json

import pytest
import torch
from grid_scenes import home_cameras, see_ball

from lrm4d.cli import run
from lrm4d.generation.depth import save_geometry
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.grid import load_grid
from lrm4d.generation.network import InpaintingNetwork, NanoConfig, save_network
from lrm4d.video import write_video

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = NanoConfig(width=24, heads=2, layers=1, patch=8, words=1, text_width=8, frequencies=16)


@pytest.fixture
def clip(tmp_path):
    """The ball's video and geometry, in a world of its own scale, and a network."""
    times = torch.linspace(0, 1, 3)
    home = home_cameras(3, 32)
    images, depths, hit = see_ball(home, times)
    write_video(tmp_path / "clip.mp4", images, 12.0)
    save_geometry(tmp_path / "g.npz", Geometry(depths, home, hit))
    torch.manual_seed(0)
    network = InpaintingNetwork(TINY)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_network(network, tmp_path / "net")
    return tmp_path


def command(name: str, clip, *more) -> list[str]:
    given = [name, clip / "clip.mp4", "--geometry", clip / "g.npz", "--inpainter", clip / "net", "-o", clip / name]
    return [str(word) for word in (*given, *more)]


def test_tuned_layers_are_what_generate_takes(clip, capsys):
    tune = command(
        "tune", clip, "--last", 40, "--steps", 3, "--set", "learning_rate=0.02", "--set", "rank=2", "--json"
    )
    assert run(tune) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["reaches"] == [30, 40] and told["steps"] == 6 and told["frames"] == 3 and told["width"] == 32
    assert told["output"] == str(clip / "tune" / "lora.safetensors") and told["loss_last"] > 0
    assert run(tune) == 0, "the same run again has nothing left to do"
    assert json.loads(capsys.readouterr().out) == told
    bank = ("--bank", "fan:views=2,span=80")
    grids = []
    for lora in ("0", "1"):
        assert run(command("generate", clip, *bank, "--lora", f"{clip / 'tune'}:{lora}", "--json")) == 0
        grids.append(load_grid(clip / "generate").images)
        (clip / "generate").rename(clip / f"with_{lora}")
    assert run(command("generate", clip, *bank)) == 0
    assert torch.equal(load_grid(clip / "generate").images, grids[0]) and not torch.equal(*grids)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--set", "ranks=3"), "Tuning has: first, further, last"),
        (("--set", "own=2"), "expected shares in [0, 1]"),
        (("--last", 20), "rounds from 30 to 20 degrees"),
        (("--steps", 0), "steps is 0; expected at least 1"),
        (("--inpainter", "wan:x"), "tuning is for the small inpainter"),
        (("--inpainter", "nothing"), "no inpainter called 'nothing'"),
    ],
)
def test_mistakes_are_said(clip, more, message, capsys):
    assert run(command("tune", clip, *more)) == 2
    assert message in capsys.readouterr().err
    assert not (clip / "tune").exists()


def test_a_folder_of_another_run_is_refused(clip, capsys):
    assert run(command("tune", clip, "--last", 30, "--steps", 1)) == 0
    assert "--lora" in capsys.readouterr().out
    assert run(command("tune", clip, "--last", 30, "--steps", 2)) == 2
    assert "differs in steps" in capsys.readouterr().err
    assert run(command("generate", clip, "--lora", clip / "net")) == 2
    assert "no low-rank layers" in capsys.readouterr().err
