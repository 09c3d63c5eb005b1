"""The corrector's training: what it is judged by, that it learns what it was not shown, that its run goes on."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lrm4d.losses import psnr_loss
from lrm4d.refinement.corrector import Corrector, CorrectorConfig, load_corrector, save_corrector
from train.config import CorrectorRun, Stage
from train.corrector import CorrectorTask

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("one_thread")
TINY = CorrectorRun(
    corrector={"width": 16, "pooled": 8, "latent": 4, "rounds": 2},
    stages=[Stage(1.0, 32)],
    few_chance=0.0,
    many_views=(6, 6),
    views_per_step=6,
    target_views=4,
    fixed_scenes=1,
    workers=0,
)


@pytest.fixture(scope="module")
def batch():
    task = CorrectorTask(TINY)
    return task, next(iter(task.load_batches(0, 1, torch.device("cpu"), 0)))


def test_an_untrained_corrector_gains_nothing_and_only_it_learns(batch):
    task, given = batch
    torch.manual_seed(0)
    model = task.make_model()
    answer = task.ask(model, given)
    losses = task.losses(answer, given, 0)
    start, states = answer[0]
    targets = given[1].views[0]
    white = torch.ones(3)
    alone = psnr_loss(start.render(targets.cameras, targets.times, white).image, targets.composite(white))
    assert len(states) == 2 and not any(value.requires_grad for value in start.tensors().values())
    assert losses["gain"].abs() < 0.05 and losses["psnr"].item() == pytest.approx(alone.item(), abs=0.01)
    losses["loss"].backward()
    assert model.to_changes.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in task.reconstructor.model.parameters())


def read_log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def run(folder: Path, steps: int) -> None:
    line = [sys.executable, "-m", "train.corrector", "train/configs/corrector_debug.yaml", "-o", str(folder)]
    changes = ["corrector={width: 16, pooled: 8, latent: 4}", "stages=[{until: 1.0, size: 32}]", "many_views=[6, 6]"]
    changes += ["learning_rate=0.01", "warmup=2", "views_per_step=6", "workers=0", "log_every=1", "sample_every=8"]
    subprocess.run(
        [*line, *changes, f"steps={steps}"], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True
    )


def test_it_learns_and_a_run_that_ended_early_goes_on(tmp_path):
    run(tmp_path, 12)
    log = read_log(tmp_path)
    assert [entry["step"] for entry in log] == list(range(1, 13))
    assert log[-1]["gain"] > log[0]["gain"] + 0.05
    assert load_corrector(tmp_path).config.width == 16
    assert len(list((tmp_path / "samples").glob("*.png"))) == 1
    run(tmp_path, 13)
    assert [entry["step"] for entry in read_log(tmp_path)] == list(range(1, 14))


def test_weights_of_another_shape_are_refused(tmp_path):
    save_corrector(Corrector(CorrectorConfig(width=8)), tmp_path)
    task = CorrectorTask(replace(TINY, corrector={"width": 24}, start_from=str(tmp_path)))
    with pytest.raises(ValueError, match="expected"):
        task.start(task.make_model())
