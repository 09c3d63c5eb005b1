"""Tuning to a video: what changes, that it helps, and that a run that was stopped goes on as if it had not been."""

import json
from pathlib import Path

import pytest
import torch

from lrm4d.cameras import project
from lrm4d.generation.completion import complete_geometry
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.network import InpaintingNetwork, NanoConfig
from lrm4d.generation.transformer import load_lora
from lrm4d.generation.tuning import Tuning, draw_turn, tune, turn_cameras
from lrm4d.generation.warping import warp
from lrm4d.trajectories import cameras_around

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = NanoConfig(width=24, heads=2, layers=2, patch=4, words=1, text_width=8, frequencies=16)
SHORT = Tuning(first=30.0, further=10.0, last=40.0, steps=3, frames=2, rank=4, sampling=2, save_every=2, own=1.0)


def make_network() -> InpaintingNetwork:
    torch.manual_seed(0)
    network = InpaintingNetwork(TINY)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def make_video(count: int = 3, size: int = 18) -> tuple[torch.Tensor, Geometry]:
    """A patterned ball before a wall, seen by a camera at rest, with a size that no patch divides."""
    zero = torch.zeros(count)
    cameras = cameras_around(zero, zero, torch.full((count,), 2.7), 50.0, size, size)
    origins, directions = cameras.rays()
    middle = -(origins * directions).sum(-1)
    half = (0.5 - (origins + directions * middle[..., None]).square().sum(-1)).clamp(min=0).sqrt()
    ball = half > 0
    distances = torch.where(ball, middle - half, (2.0 - origins[..., 1]) / directions[..., 1])
    points = origins + directions * distances[..., None]
    video = (0.5 + 0.4 * torch.sin(3 * points + torch.arange(count)[:, None, None, None])).movedim(-1, 1)
    depths = (distances * (directions @ cameras.camera_to_world[0, :3, 2]))[:, None]
    return video.clamp(0, 1), Geometry(depths, cameras, torch.ones_like(depths, dtype=torch.bool))


def read_losses(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_rounds_reach_farther_and_farther():
    assert Tuning().reaches == [30, 40, 50, 60]
    assert Tuning(last=55.0).reaches == [30, 40, 50, 55] and Tuning(last=30.0).reaches == [30]
    for wrong in ({"first": 0.0}, {"last": 10.0}, {"further": 0.0}, {"rank": 0}):
        with pytest.raises(ValueError, match="expected"):
            Tuning(**wrong)
    generator = torch.Generator().manual_seed(0)
    turns = torch.tensor([draw_turn(30.0, generator) for _ in range(200)])
    assert turns[:, 0].abs().max() <= 30 and turns[:, 1].abs().max() <= 10
    assert turns[:, 0].min() < -20 and turns[:, 0].max() > 20


def test_turned_cameras_stand_where_a_rig_would():
    start = cameras_around(torch.zeros(1), torch.zeros(1), torch.full((1,), 2.7), 50.0, 8, 8)
    expected = cameras_around(torch.tensor([35.0]), torch.tensor([12.0]), torch.full((1,), 2.7), 50.0, 8, 8)
    turned = turn_cameras(start, 35.0, 12.0)
    torch.testing.assert_close(turned.camera_to_world, expected.camera_to_world, atol=1e-5, rtol=0)
    torch.testing.assert_close(project(turned, torch.zeros(1, 3))[0], torch.full((1, 2), 4.0))


def test_made_up_places_get_the_estimated_depth_in_the_warps_scale():
    video, geometry = make_video()
    cameras = turn_cameras(geometry.cameras, 40.0, 0.0)
    warped = warp(video, geometry, cameras)
    truth = torch.where(warped.visibility, warped.depths, 3.0)

    def estimate(images: torch.Tensor) -> Geometry:  # true but for a scale and a shift of the inverse depth
        return Geometry(1 / (0.5 / truth + 0.1), cameras, torch.ones_like(warped.visibility))

    got = complete_geometry(video, warped, cameras, estimate)
    assert got.valid.all() and not warped.visibility.all()
    torch.testing.assert_close(got.depths, truth, rtol=1e-3, atol=1e-3)
    alone = complete_geometry(video, warped, cameras, None)
    assert torch.equal(alone.valid, warped.visibility)


def test_only_low_rank_layers_change_and_they_lower_the_loss(tmp_path):
    video, geometry = make_video()
    network, before = make_network(), make_network().state_dict()
    always = {"level_center": 8.0, "level_spread": 0.0}  # pure noise each time, so that losses can be compared
    tuning = Tuning(first=30.0, last=30.0, steps=40, frames=2, rank=8, learning_rate=0.02, own=0.5, **always)
    steps: list[tuple] = []
    path = tune(network, video, geometry, tmp_path, tuning, progress=lambda *step: steps.append(step))
    losses = [line["loss"] for line in read_losses(tmp_path)]
    assert len(losses) == 40 and sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert steps[-1] == ("tune", 40, 40)
    for name, value in network.state_dict().items():
        if ".lora_" not in name:
            assert torch.equal(value, before[name.replace(".base_layer", "")]), name
    again = make_network()
    load_lora(again.transformer.wan, path)
    for name, value in again.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(tmp_path, stop):
    """Between savings, just before pictures are made, and after they were."""
    video, geometry = make_video()
    tune(make_network(), video, geometry, tmp_path / "whole", SHORT)

    def interrupt(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("tune", stop):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(make_network(), video, geometry, tmp_path / "stopped", SHORT, progress=interrupt)
    assert len(read_losses(tmp_path / "stopped")) == stop
    tune(make_network(), video, geometry, tmp_path / "stopped", SHORT)
    expected, found = (read_losses(tmp_path / name) for name in ("whole", "stopped"))
    assert found == expected and len(found) == 6 and {line["reach"] for line in found} == {30.0, 40.0}
    whole, stopped = ((tmp_path / name / "lora.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped
    assert (tmp_path / "whole/made/round_0.safetensors").exists()


def test_a_folder_belongs_to_one_run(tmp_path):
    video, geometry = make_video()
    tune(make_network(), video, geometry, tmp_path, Tuning(first=30.0, last=30.0, steps=1, rank=2, frames=2))
    with pytest.raises(ValueError, match="differs in steps, rank, inputs"):
        tune(make_network(), 1 - video, geometry, tmp_path, Tuning(first=30.0, last=30.0, steps=2, rank=3, frames=2))
