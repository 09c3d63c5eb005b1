"""The corrector's training: what it is judged by, that it learns what it was not shown, that its run can be resumed."""

import json
from dataclasses import replace

import pytest
import torch

from lrm4d.config import make_config
from lrm4d.losses import psnr_loss
from lrm4d.refinement.corrector import load_corrector
from train.config import CorrectorRun, Stage
from train.corrector import CorrectorTask
from train.trainer import train

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = CorrectorRun(
    corrector={"width": 16, "pooled": 8, "latent": 4, "rounds": 2},
    stages=[Stage(1.0, 32)],
    steps=12,
    warmup=2,
    learning_rate=0.01,
    few_chance=0.0,
    many_views=(6, 6),
    views_per_step=6,
    target_views=4,
    fixed_scenes=1,
    workers=0,
    log_every=1,
    sample_every=8,
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


def test_it_learns_and_a_run_that_ended_early_goes_on(tmp_path):
    train(CorrectorTask(TINY), tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == list(range(1, 13))
    assert log[-1]["gain"] > log[0]["gain"] + 0.05
    trained = load_corrector(tmp_path / "run")
    train(CorrectorTask(replace(TINY, steps=13)), tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 13
    assert trained.config == make_config(type(trained.config), TINY.corrector)


def test_weights_of_another_shape_are_refused(tmp_path):
    train(CorrectorTask(replace(TINY, steps=1)), tmp_path / "run")
    task = CorrectorTask(replace(TINY, corrector={"width": 24}, start_from=str(tmp_path / "run")))
    with pytest.raises(ValueError, match="expected"):
        task.start(task.make_model())
