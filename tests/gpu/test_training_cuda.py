"""The world is the same on CUDA, and the network learns there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data_tools.world import sample_batch

pytestmark = pytest.mark.cuda
ROOT = Path(__file__).parents[2]


def test_the_world_on_cuda_is_the_cpus():
    for here, there in zip(*(sample_batch([0, 1, 2, 3], 6, 3, 48, device=d) for d in ("cpu", "cuda")), strict=True):
        # An edge that runs through a sample may fall to either side.
        difference = (there.views.images.cpu() - here.views.images).abs()
        assert (difference < 1e-3).float().mean() > 0.998
        for name in ("depths", "flows", "exits"):
            values, right = getattr(there, name).cpu(), getattr(here, name)
            assert ((values - right).abs() < 1e-3).float().mean() > 0.998, name


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_on_cuda_learns_one_scene(tmp_path, workers):
    changes = ["steps=40", f"workers={workers}", "log_every=10", "sample_every=40", "warmup=5", "views_per_step=12"]
    changes += ["fixed_scenes=1", "few_chance=0", "many_views=[12, 12]", "stages=[{size: 48}]"]
    command = [sys.executable, "-m", "train.reconstruction", "train/configs/debug.yaml", "-o", str(tmp_path), *changes]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["color"] < 0.7 * log[0]["color"]
    assert (tmp_path / "samples/step_40.png").exists() and (tmp_path / "model.safetensors").exists()
    assert torch.cuda.is_available()
