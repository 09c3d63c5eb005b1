import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from data_tools.world import WorldConfig, sample_batch
from lrm4d.checkpoint import read_safetensors
from lrm4d.config import make_config
from train.config import Stage, TrainConfig, ema_decay_at, geometry_weight_at, learning_rate_at, norm_limit
from train.data import Batch, WorldBatches, WorldDescriptions, load_batches, load_in_order
from train.measuring import SHARES, FlopCount
from train.objective import _match_loss, geometry_losses, reconstruction_losses, true_distances
from train.render_ahead import render_ahead

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


pytestmark = pytest.mark.usefixtures("one_thread")


def start_training(folder: Path, *changes: str, processes: int = 1) -> subprocess.Popen:
    """A run as a process group of its own, so that all of it can be killed."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    line = [sys.executable, *(launcher if processes > 1 else []), "-m", "train.reconstruction"]
    line += ["train/configs/debug.yaml", "-o", str(folder), *TINY, *changes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)


def kill_after(process: subprocess.Popen, folder: Path, steps: int) -> int:
    """SIGKILL to all processes of a run once it has logged some steps; returns the last step it had logged."""
    deadline = time.monotonic() + 240
    while not (folder / "checkpoints" / "latest").exists() or max(read_log(folder), default=0) < steps:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(random.uniform(0, 0.3))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return max(read_log(folder))


def read_log(folder: Path) -> dict[int, dict]:
    path = folder / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {entry["step"]: entry for entry in map(json.loads, lines)}


def test_learning_rate_is_a_trapezoid():
    config = TrainConfig(steps=100, warmup=10, decay=0.3, learning_rate=2.0, geometry_fade=1.0)
    assert learning_rate_at(config, 4) == pytest.approx(1.0)
    assert learning_rate_at(config, 9) == learning_rate_at(config, 69) == 2.0
    assert learning_rate_at(config, 85) == pytest.approx(1.0)
    assert learning_rate_at(config, 99) == pytest.approx(2 / 30)
    assert geometry_weight_at(config, 0) == 1 and geometry_weight_at(config, 100) == pytest.approx(0.1)


def test_the_average_forgets_its_start_and_then_as_slowly_as_asked():
    config = TrainConfig(ema=0.99)
    assert [ema_decay_at(config, step) for step in (0, 8)] == [0.1, 0.5]
    assert ema_decay_at(config, 890) == pytest.approx(0.99) and ema_decay_at(config, 10**6) == 0.99
    assert ema_decay_at(TrainConfig(ema=0), 10**6) == 0


def test_a_gradient_is_too_long_against_the_median_of_those_before():
    config = TrainConfig(skip_above=4.0)
    assert norm_limit(config, [1.0] * 19) == math.inf
    assert norm_limit(config, [1.0] * 19 + [100.0]) == 4
    assert norm_limit(config, [1.0] * 100 + [3.0] * 51) == 12  # grown for good: the median follows
    assert norm_limit(TrainConfig(skip_above=0.0), [1.0] * 100) == math.inf


def test_a_stage_changes_the_world():
    config = make_config(
        TrainConfig, {"steps": 10, "stages": [{"until": 0.5, "size": 32, "world": {"static": 1.0}}, {"size": 32}]}
    )
    assert [config.world_at(step).static for step in (0, 4, 5)] == [1.0, 1.0, WorldConfig().static]
    config.views_per_step, config.few_chance, config.many_views = 12, 0.0, (3, 3)
    still, moving = (WorldBatches(config, rank=0, world_size=1)[step][0].flows for step in (0, 5))
    assert still.abs().max() == 0 < moving.abs().max()
    with pytest.raises(ValueError, match="speeed"):
        make_config(TrainConfig, ["stages=[{world: {speeed: 2}}]"]).world_at(0)


def test_stages_and_names():
    config = TrainConfig(steps=100, stages=[Stage(0.25, 32), Stage(1.0, 64)])
    assert [config.size_at(step) for step in (0, 24, 25, 99)] == [32, 32, 64, 64]
    with pytest.raises(ValueError, match="nano, small, base, large"):
        TrainConfig(model="huge").model_config()
    with pytest.raises(ValueError, match="stepz"):
        make_config(TrainConfig, ["stepz=3"])


RECIPES = [
    path
    for path in sorted((ROOT / "train/configs").glob("*.yaml"))
    if path.stem != "ablations" and not path.stem.startswith(("inpainter", "corrector"))
]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid(path):
    config = make_config(TrainConfig, path)
    config.model_config()
    assert config.stages[-1].until == 1.0


def batches(**changes) -> WorldBatches:
    config = TrainConfig(stages=[Stage(1.0, 32)], views_per_step=12, target_views=3, **changes)
    return WorldBatches(config, rank=0, world_size=1)


def test_a_step_has_the_same_batch_whenever_it_is_asked_for():
    first, again = batches()[7], batches()[7]
    other = batches()[8]
    torch.testing.assert_close(first[0].views.images, again[0].views.images)
    torch.testing.assert_close(first[1].views.times, again[1].views.times)
    assert first[0].views.images.shape != other[0].views.images.shape or not torch.equal(
        first[0].views.images, other[0].views.images
    )


def test_workers_describe_the_batches_that_are_described_in_place():
    made = batches(steps=5, few_chance=0.0, many_views=(4, 4))
    descriptions = WorldDescriptions(made.config, rank=0, world_size=1)
    received = list(load_in_order(descriptions, made.config, first_step=2, workers=2))
    assert len(received) == 3
    for index, batch in enumerate(received, start=2):
        assert torch.equal(batch.buffer, descriptions[index].buffer) and batch.layout == descriptions[index].layout
        assert_same_views(batch.render(), made[index])


@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_gpu_is_given_the_batches_of_the_cpu(workers, monkeypatch):
    """Without a GPU here: what is moved to it stays, and is rendered when it is asked for."""
    moved = []
    monkeypatch.setattr("train.data.render_ahead", lambda loader, device: (d.to(device).render() for d in loader))
    monkeypatch.setattr("data_tools.world.WorldBatch.to", lambda batch, device: moved.append(str(device)) or batch)
    made = batches(steps=3, few_chance=0.0, many_views=(4, 4), workers=workers)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    found = list(load_batches(made.config, 0, 1, torch.device("cuda", 1), first_step=1))
    assert moved == ["cuda:1"] * 2
    monkeypatch.undo()
    for index, batch in enumerate(found, start=1):
        assert_same_views(batch, made[index])


@pytest.mark.cuda
def test_what_breaks_a_rendering_ahead_is_raised_and_one_that_is_left_ends():
    def descriptions():
        yield batch
        raise ValueError("broken")

    made = batches(steps=8, few_chance=0.0, many_views=(4, 4), workers=0)
    batch = WorldDescriptions(made.config, 0, 1)[0]
    ahead = render_ahead(descriptions(), torch.device("cuda"))
    next(ahead)
    with pytest.raises(ValueError, match="broken"):
        next(ahead)
    before = threading.active_count()
    ahead = render_ahead(itertools.repeat(batch), torch.device("cuda"))
    next(ahead)
    ahead.close()
    assert threading.active_count() == before


@pytest.mark.cuda
def test_batches_for_a_gpu_are_made_there():
    made = batches(steps=3, few_chance=0.0, many_views=(4, 4), workers=1)
    for index, (context, _) in enumerate(load_batches(made.config, 0, 1, torch.device("cuda"), first_step=0)):
        assert context.views.images.is_cuda
        assert (context.to("cpu").depths - made[index][0].depths).abs().gt(1e-3).float().mean() < 5e-3


def assert_same_views(one: Batch, two: Batch) -> None:
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.views.images, b.views.images) and torch.equal(a.depths, b.depths)
        assert torch.equal(a.flows, b.flows) and torch.equal(a.views.times, b.views.times)
        assert torch.equal(a.views.cameras.camera_to_world, b.views.cameras.camera_to_world)


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
        both = torch.cat([context.depths, context.exits], dim=2)  # where rays enter, and where they leave
        depths = answer.patches.cut(both)[answer.tokens, answer.pixels]
        directions = answer.patches.directions[answer.tokens, answer.pixels]
        cameras = context.views.cameras
        scenes, views = answer.patches.scenes[answer.tokens], answer.patches.views[answer.tokens]
        forward = cameras.camera_to_world[scenes, views, :3, 2]
        true = replace(answer, distances=depths / (directions * forward).sum(-1, keepdim=True))
        assert geometry_losses(true, context)["depth"] < 1e-9 < 0.01 < untrained["depth"]
        # The distance is right: the point at it projects to the pixel's own place with the world's depth.
        points = answer.patches.origins[answer.tokens] + true.distances[:, :1] * directions
        in_camera = (
            cameras.world_to_camera[scenes, views] @ torch.nn.functional.pad(points, (0, 1), value=1)[..., None]
        )
        torch.testing.assert_close(in_camera[hits, 2, 0], depths[hits, 0], rtol=1e-4, atol=1e-4)
        assert (depths[hits, 1] > depths[hits, 0]).float().mean() > 0.99
        losses = reconstruction_losses(answer, context, targets, TrainConfig().loss, geometry=0.0)
        assert set(losses) == {"color", "alpha", "ssim"}


def test_exact_geometry_is_worth_more_than_what_is_off():
    """Of a thing at rest, opaque Gaussians at the world's own distances are better than shifted ones."""
    from dataclasses import replace

    from lrm4d.reconstruction import CONFIGS, ReconstructionModel
    from train.oracles import make_opaque, score

    context, targets = sample_batch([5], 8, 4, 64, setup="random", config=WorldConfig(static=1.0))
    torch.manual_seed(0)
    with torch.no_grad():
        answer = ReconstructionModel(replace(CONFIGS["nano"], width=64, layers=1))(context.views)
        truth = true_distances(answer, context)
        exact, shifted = (make_opaque(answer, truth + off * (truth > 0), 1.0, 0.3) for off in (0.0, 0.2))
        for views in (context, targets):
            assert score(exact, views) > score(shifted, views) + 4


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
    assert kill_after(process, killed, steps=4) < 12
    assert start_training(killed, "steps=12", "checkpoint_minutes=0", muon).wait(timeout=300) == 0
    expected, found = read_log(whole), read_log(killed)
    assert set(found) == set(expected)
    for step in range(1, 13):
        assert found[step]["loss"] == pytest.approx(expected[step]["loss"], rel=1e-4), step
    assert len(list((killed / "checkpoints").glob("step_*"))) <= 2


ZERO = "deepspeed={{zero_optimization: {{stage: {}, stage3_param_persistence_threshold: 1000}}}}"
"""Small enough that stage 3 cuts the matrices of tiny networks too."""
TWO = ("steps=12", "accumulate=2", "ema=0.9", "fixed_scenes=8")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """A run of two processes that share nothing out."""
    folder = tmp_path_factory.mktemp("unbroken")
    assert start_training(folder, *TWO, "checkpoint_minutes=100", processes=2).wait(timeout=300) == 0
    return folder


@pytest.mark.parametrize(
    ("stage", "change"), [(2, "sample_every=5"), (3, "checkpoint_activations=true")], ids=["ZeRO 2", "ZeRO 3"]
)
def test_two_processes_killed_and_started_again_learn_as_unbroken_and_without_zero(tmp_path, unbroken, stage, change):
    """However the state is shared out, whatever is computed again, and however often it starts: one curve."""
    line = (*TWO, change, "checkpoint_minutes=0", ZERO.format(stage))
    at_death = kill_after(start_training(tmp_path, *line, processes=2), tmp_path, random.randint(2, 5))
    assert at_death < 12
    assert start_training(tmp_path, *line, processes=2).wait(timeout=300) == 0
    expected, found = read_log(unbroken), read_log(tmp_path)
    assert set(found) == set(expected) == set(range(1, 13))
    for step in range(1, 13):
        for name in ("loss", "norm"):
            assert found[step][name] == pytest.approx(expected[step][name], rel=1e-3), (step, name, at_death)
    weights, _ = read_safetensors(tmp_path / "model.safetensors")
    for name, value in read_safetensors(unbroken / "model.safetensors")[0].items():
        torch.testing.assert_close(weights[name].float(), value.float(), rtol=1e-2, atol=1e-4)


def test_the_parts_of_a_step_make_its_time(unbroken):
    for entry in read_log(unbroken).values():
        parts = [entry[name] for name in SHARES]
        assert min(parts) > 0 and sum(parts) == pytest.approx(entry["step_s"] + entry["wait_s"], rel=1e-3)
        assert entry["scenes"] == 4


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


@pytest.fixture(scope="module")
def alone():
    """This process as the only one of a run."""
    from train.engine import start_processes

    before = dict(os.environ)
    start_processes()
    yield
    torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


def make_engine(stage: int, accumulate: int = 1, average: bool = False, clip: float = 0.0):
    from train.engine import Engine

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 50), torch.nn.Tanh(), torch.nn.Linear(50, 1))
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    return Engine(model, optimizer, clip, {"zero_optimization": {"stage": stage}}, accumulate, average)


def take_step(engine, *seeds: int, scale: float = 1.0, limit: float = math.inf) -> tuple[float, bool]:
    """A step on regression batches drawn from seeds, one batch each."""
    for place, seed in enumerate(seeds):
        inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
        loss = scale * (engine.forward(inputs)[:, 0] - inputs.prod(dim=1)).square().mean()
        engine.backward(loss, last=place + 1 == len(seeds))
    return engine.step(0.01, 0.8, limit)


def copy_weights(engine) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in engine.weights().items()}


@pytest.mark.parametrize("stage", range(4))
def test_steps_average_accumulate_and_skip_alike_at_every_stage_of_zero(alone, stage):
    engine = make_engine(stage, average=True)
    plain, expected = make_engine(0), copy_weights(engine)
    for seed in range(5):
        norm, applied = take_step(plain, seed)
        assert take_step(engine, seed) == (pytest.approx(norm, rel=1e-5), True) and applied
        for name, value in plain.weights().items():
            expected[name] = 0.8 * expected[name] + 0.2 * value
    torch.testing.assert_close(copy_weights(engine), expected)
    # Steps that are skipped leave no trace, in the weights or in what the optimizer remembers.
    before = copy_weights(engine)
    norm, applied = take_step(engine, 5, limit=1e-3)
    assert norm > 1e-3 and not applied
    norm, applied = take_step(engine, 5, scale=math.nan)
    assert not math.isfinite(norm) and not applied
    torch.testing.assert_close(copy_weights(engine), before, rtol=0, atol=0)
    engine.average = None
    take_step(engine, 6, limit=1e3)
    take_step(plain, 6)
    torch.testing.assert_close(copy_weights(engine), copy_weights(plain))


@pytest.mark.parametrize("stage", range(4))
def test_two_batches_of_a_step_are_one_batch_of_both(alone, stage):
    engine, whole = make_engine(stage, accumulate=2), make_engine(0)
    for step in range(3):
        norm, applied = take_step(engine, 2 * step, 2 * step + 1, limit=0.0 if step == 1 else math.inf)
        assert applied == (step != 1)
        inputs = torch.cat([torch.randn(8, 3, generator=torch.Generator().manual_seed(2 * step + i)) for i in (0, 1)])
        whole.backward((whole.forward(inputs)[:, 0] - inputs.prod(dim=1)).square().mean(), last=True)
        assert norm == pytest.approx(whole.step(0.01, limit=0.0 if step == 1 else math.inf)[0], rel=1e-5)
    torch.testing.assert_close(copy_weights(engine), copy_weights(whole))


def test_clipping_scales_the_gradient_to_the_length_asked_for(alone):
    for stage in (0, 2):
        clipped, scaled = make_engine(stage, clip=0.1), make_engine(stage)
        norm, _ = take_step(clipped, 0)
        assert norm > 0.1
        take_step(scaled, 0, scale=0.1 / norm)
        torch.testing.assert_close(copy_weights(clipped), copy_weights(scaled), rtol=1e-3, atol=1e-5)


def test_zero_resumes_only_on_what_it_was_saved_on(alone, tmp_path):
    engine = make_engine(2)
    take_step(engine, 0)
    engine.save(tmp_path, 1, {"norms": [1.5]})
    step, state = make_engine(2).load(tmp_path)
    assert step == 1 and state["norms"] == [1.5]
    with pytest.raises(ValueError, match="ZeRO stage 2 by 1 processes, this run has stage 3 and 1"):
        make_engine(3).load(tmp_path)
    (tmp_path / "step_1/processes.json").write_text('{"stage": 2, "processes": 4}')
    with pytest.raises(ValueError, match="by 4 processes"):
        make_engine(2).load(tmp_path)


def test_flops_are_those_that_torch_counts():
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from lrm4d.reconstruction.transformer import Transformer

    torch.manual_seed(0)
    transformer = Transformer(width=64, layers=3, head_width=16, mlp_ratio=4, qk_norm=True)
    tokens, flops = torch.randn(30, 64), FlopCount(transformer)
    # torch does not count its own fused attention on the CPU; in its parts it does.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        transformer(tokens, [10, 20])
    assert flops.take() == counter.get_total_flops() > 0
    transformer.checkpoint_activations = True
    transformer(tokens.requires_grad_(), [10, 20]).sum().backward()
    assert flops.take() == counter.get_total_flops()  # what is computed again does not count


def test_throughput_says_where_the_time_goes(alone):
    from train.reconstruction import ReconstructionTask
    from train.throughput import measure_throughput, throughput_table
    from train.trainer import Trainer

    trainer = Trainer(ReconstructionTask(make_config(TrainConfig, ROOT / "train/configs/debug.yaml", TINY)))
    means = measure_throughput(trainer, 0, steps=2)
    assert sum(means[name] for name in SHARES) == pytest.approx(means["step_s"] + means["wait_s"])
    assert 0 < means["network_tflop_per_s"] < means["matmul_tflop_per_s"]
    table = throughput_table(means, "debug")
    assert sum(float(share.rstrip("%")) for share in table.columns[2]._cells[: len(SHARES)]) == pytest.approx(
        100, abs=1
    )


def test_the_steps_that_fit_a_time_take_that_time():
    from train.throughput import steps_that_fit

    config = TrainConfig(stages=[Stage(0.25, 64), Stage(1.0, 128)])
    steps = steps_that_fit(config, [0.1, 0.5], minutes=3)
    assert 0.25 * steps * 0.1 + 0.75 * steps * 0.5 == pytest.approx(180, abs=0.5)


def test_stages_are_timed_each_at_its_size(alone):
    from train.reconstruction import ReconstructionTask
    from train.throughput import WARM_UP, time_stages
    from train.trainer import Trainer

    stages = "stages=[{until: 0.5, size: 16}, {until: 1.0, size: 64}]"
    changes = [*TINY, f"steps={4 * WARM_UP}", stages, "few_chance=0", "many_views=[4, 4]", "workers=0"]
    small, large = time_stages(Trainer(ReconstructionTask(make_config(TrainConfig, changes))), steps=3)
    assert 0 < small < large


def test_the_log_goes_to_the_folder_and_to_boards(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from train.log import Log

    config = TrainConfig(log_every=2, log_to=["tensorboard"])
    log = Log(config, tmp_path, 0)
    for step in range(4):
        values = dict.fromkeys([*SHARES, "step_s", "scenes", "network_tflop"], 1.0)
        log.add(step, {**values, "loss": float(step)}, {"skipped": 3})
    log.add_picture(3, torch.rand(3, 8, 9))
    log.close()
    assert [(step, entry["loss"], entry["skipped"]) for step, entry in read_log(tmp_path).items()] == [
        (2, 0.5, 3),
        (4, 2.5, 3),
    ]
    assert read_log(tmp_path)[4]["network_tflop_per_s"] == 0.5 and (tmp_path / "samples/step_4.png").exists()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"), {"images": 0, "scalars": 0})
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(2, 0.5), (4, 2.5)]
    assert [(event.step, event.width, event.height) for event in events.Images("sample")] == [(4, 9, 8)]


def test_boards_that_are_not_there_are_named(tmp_path, monkeypatch):
    from train.log import Log

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="pip install wandb"):
        Log(TrainConfig(log_to=["wandb"]), tmp_path, 0)
    with pytest.raises(ValueError, match="tensorboard, wandb"):
        Log(TrainConfig(log_to=["comet"]), tmp_path, 0)
