import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lrm4d.config import make_config
from train.config import Stage, TrainConfig, geometry_weight_at, learning_rate_at
from train.data import WorldBatches
from train.objective import _match_loss, geometry_losses, reconstruction_losses

ROOT = Path(__file__).parent.parent
TINY = [
    "model_overrides={width: 64, layers: 2, evidence_distances: 12}",
    "stages=[{until: 1.0, size: 32}]",
    "fixed_scenes=1",
    "few_chance=0",
    "many_views=[6, 6]",
    "views_per_step=6",
    "target_views=4",
    "warmup=5",
    "log_every=1",
    "workers=0",
]


def start_training(folder: Path, *changes: str) -> subprocess.Popen:
    line = [sys.executable, "-m", "train.reconstruction", "train/configs/debug.yaml", "-o", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*line, *TINY, *changes], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


def read_log(folder: Path) -> dict[int, dict]:
    path = folder / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {entry["step"]: entry for entry in map(json.loads, lines)}


def test_learning_rate_is_a_trapezoid():
    config = TrainConfig(steps=100, warmup=10, decay=0.3, learning_rate=2.0)
    assert learning_rate_at(config, 4) == pytest.approx(1.0)
    assert learning_rate_at(config, 9) == learning_rate_at(config, 69) == 2.0
    assert learning_rate_at(config, 85) == pytest.approx(1.0)
    assert learning_rate_at(config, 99) == pytest.approx(2 / 30)
    assert geometry_weight_at(config, 0) == 1 and geometry_weight_at(config, 100) == pytest.approx(0.1)


def test_stages_and_names():
    config = TrainConfig(steps=100, stages=[Stage(0.25, 32), Stage(1.0, 64)])
    assert [config.size_at(step) for step in (0, 24, 25, 99)] == [32, 32, 64, 64]
    with pytest.raises(ValueError, match="nano, small, base, large"):
        TrainConfig(model="huge").model_config()
    with pytest.raises(ValueError, match="stepz"):
        make_config(TrainConfig, ["stepz=3"])


@pytest.mark.parametrize("path", sorted((ROOT / "train/configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid(path):
    config = make_config(TrainConfig, path)
    config.model_config()
    assert config.stages[-1].until == 1.0


def batches(**changes) -> WorldBatches:
    config = TrainConfig(stages=[Stage(1.0, 32)], views_per_step=12, target_views=3, **changes)
    return WorldBatches(config, rank=0, world_size=1, device=torch.device("cpu"))


def test_a_step_has_the_same_batch_whenever_it_is_asked_for():
    first, again = batches()[7], batches()[7]
    other = batches()[8]
    torch.testing.assert_close(first[0].views.images, again[0].views.images)
    torch.testing.assert_close(first[1].views.times, again[1].views.times)
    assert first[0].views.images.shape != other[0].views.images.shape or not torch.equal(
        first[0].views.images, other[0].views.images
    )


def test_the_true_geometry_has_no_geometry_loss():
    """Put the world's own distances and velocities in the network's answer: the direct losses vanish."""
    from dataclasses import replace

    from lrm4d.reconstruction import CONFIGS, ReconstructionModel

    context, targets = batches(few_chance=0.0, many_views=(4, 4))[0]
    torch.manual_seed(0)
    config = replace(CONFIGS["nano"], width=64, layers=1)
    model = ReconstructionModel(config)
    with torch.no_grad():
        answer = model(context.views)
        untrained = geometry_losses(answer, context)
        hits = answer.patches.cut(context.hits.float())[answer.tokens, answer.pixels, 0] > 0
        depths = answer.patches.cut(context.depths)[answer.tokens, answer.pixels, 0]
        directions = answer.patches.directions[answer.tokens, answer.pixels]
        cameras = context.views.cameras
        scenes, views = answer.patches.scenes[answer.tokens], answer.patches.views[answer.tokens]
        forward = cameras.camera_to_world[scenes, views, :3, 2]
        true = replace(answer, distances=depths / (directions * forward).sum(-1))
        assert geometry_losses(true, context)["depth"] < 1e-9 < 0.01 < untrained["depth"]
        # The distance is right: the point at it projects to the pixel's own place with the world's depth.
        points = answer.patches.origins[answer.tokens] + true.distances[:, None] * directions
        in_camera = (
            cameras.world_to_camera[scenes, views] @ torch.nn.functional.pad(points, (0, 1), value=1)[..., None]
        )
        torch.testing.assert_close(in_camera[hits, 2, 0], depths[hits], rtol=1e-4, atol=1e-4)
        losses = reconstruction_losses(answer, context, targets, TrainConfig().loss, geometry=0.0)
        assert set(losses) == {"color", "alpha", "ssim"}


def test_match_loss_is_least_at_the_two_steps_around_the_truth():
    """At fraction 0.375 of 4 steps the truth is the middle of the second step."""
    fractions = torch.tensor([0.375])
    sure = [_match_loss(20 * torch.eye(4)[step : step + 1], fractions).item() for step in range(4)]
    assert sure[1] < 1e-6 and min(sure[0], sure[2], sure[3]) > 10
    between = _match_loss(20 * torch.tensor([[0.0, 1.0, 1.0, 0.0]]), torch.tensor([0.5])).item()
    assert between == pytest.approx(0.6931, abs=1e-3)


def test_checkpoints_hold_plain_data_and_nothing_else(tmp_path):
    from train.engine import SafetensorsCheckpoints

    engine = SafetensorsCheckpoints()
    state = {
        "module": {"a": torch.randn(3), "b": torch.zeros(0, 2)},
        "optimizer": {"state": {0: {"step": torch.tensor(4.0)}}, "param_groups": [{"betas": (0.9, 0.95), "lr": None}]},
        "names": ["x", True, 2, 0.5],
    }
    engine.save(state, tmp_path / "state.pt")
    loaded = engine.load(tmp_path / "state.pt")
    assert loaded["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
    assert loaded["optimizer"]["state"][0]["step"] == 4 and loaded["names"] == state["names"]
    assert torch.equal(loaded["module"]["a"], state["module"]["a"]) and loaded["module"]["b"].shape == (0, 2)
    with pytest.raises(ValueError, match="without pickle"):
        engine.save({"oops": object()}, tmp_path / "bad.pt")
    assert not (tmp_path / "bad.pt").exists()


def test_overfitting_one_scene_cuts_the_loss_by_ten(tmp_path):
    process = start_training(
        tmp_path, "steps=150", "learning_rate=0.003", "checkpoint_minutes=100", "sample_every=150"
    )
    assert process.wait(timeout=300) == 0
    log = read_log(tmp_path)
    first = sum(log[step]["color"] for step in range(1, 4)) / 3
    last = sum(log[step]["color"] for step in range(148, 151)) / 3
    assert last < first / 10
    assert (tmp_path / "samples/step_150.png").exists()
    assert (tmp_path / "model.safetensors").exists() and (tmp_path / "config.json").exists()


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    muon = "optimizer=muon"
    assert start_training(whole, "steps=12", "checkpoint_minutes=100", muon).wait(timeout=300) == 0
    process = start_training(killed, "steps=12", "checkpoint_minutes=0", muon)
    deadline = time.monotonic() + 240
    while not (killed / "checkpoints" / "latest").exists() or max(read_log(killed), default=0) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    at_death = max(read_log(killed))
    assert at_death < 12
    assert start_training(killed, "steps=12", "checkpoint_minutes=0", muon).wait(timeout=300) == 0
    expected, found = read_log(whole), read_log(killed)
    assert set(found) == set(expected)
    for step in range(1, 13):
        assert found[step]["loss"] == pytest.approx(expected[step]["loss"], rel=1e-4), step
    assert len(list((killed / "checkpoints").glob("step_*"))) <= 2


def test_average_is_the_mean_of_the_weights(monkeypatch, tmp_path):
    from dataclasses import replace

    from lrm4d.reconstruction import CONFIGS, ReconstructionModel
    from lrm4d.reconstruction.pretrained import load_pretrained, save_pretrained
    from train import average

    config = replace(CONFIGS["nano"], width=64, layers=1)
    for name in "ab":
        save_pretrained(ReconstructionModel(config), tmp_path / name)
    first, second = (load_pretrained(tmp_path / name).state_dict() for name in "ab")
    monkeypatch.setattr(sys, "argv", ["average", f"{tmp_path}/a", f"{tmp_path}/b", "-o", f"{tmp_path}/mean"])
    average.main()
    for name, value in load_pretrained(tmp_path / "mean").state_dict().items():
        torch.testing.assert_close(value, ((first[name] + second[name]) / 2).bfloat16().float())
    save_pretrained(ReconstructionModel(replace(config, layers=2)), tmp_path / "b")
    with pytest.raises(SystemExit):
        average.main()


def test_what_would_be_ignored_or_lost_is_refused_at_the_start():
    from train.engine import check_deepspeed

    assert check_deepspeed({"zero_optimization": {"stage": 0}, "bf16": {"enabled": False}}, "muon") == 0
    assert check_deepspeed({"zero_optimization": {"stage": 2}}, "adamw") == 2
    with pytest.raises(ValueError, match="optimizer=muon needs whole matrices, ZeRO stage 2"):
        check_deepspeed({"zero_optimization": {"stage": 2}}, "muon")
    with pytest.raises(ValueError, match="set by accumulate"):
        check_deepspeed({"gradient_accumulation_steps": 2}, "adamw")
    with pytest.raises(ValueError, match="bf16=true"):
        check_deepspeed({"bf16": {"enabled": True}}, "adamw")
