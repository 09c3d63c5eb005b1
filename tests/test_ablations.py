import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from lrm4d.config import make_config
from train import ablation_table
from train.ablations import Ablations, KeptBatches, Run, run_table
from train.config import TrainConfig
from train.data import WorldBatches
from train.held_out import FIRST_SEED, HeldOut

ROOT = Path(__file__).parent.parent
SMALL = {
    "model_overrides": {"width": 64, "layers": 1, "evidence_distances": 12},
    "stages": [{"until": 1.0, "size": 16}],
    "steps": 3,
    "few_chance": 0.0,
    "many_views": [4, 4],
    "views_per_step": 8,
    "target_views": 2,
}
HELD_OUT = {"setups": ["random", "two_rotating"], "scenes": 2, "input_views": 4, "target_views": 2, "size": 16}


pytestmark = pytest.mark.usefixtures("one_thread")


def assert_same(found, expected) -> None:
    """Two batches, bit by bit."""
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("depths", "hits", "flows", "exits"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
        for name in ("images", "alphas", "times"):
            assert torch.equal(getattr(ours.views, name), getattr(theirs.views, name)), name
        for name in ("camera_to_world", "intrinsics", "width", "height"):
            pair = [torch.as_tensor(getattr(seen.views.cameras, name)) for seen in (ours, theirs)]
            assert torch.equal(*pair), name


def test_every_row_of_the_table_is_valid_and_no_two_are_the_same():
    table = make_config(Ablations, ROOT / "train/configs/ablations.yaml")
    runs = [Run(table.config(changes, 0), table.held_out, Path()) for changes in table.changes().values()]
    assert len({run.path for run in runs}) == len(runs) > 24
    with pytest.raises(ValueError, match="stepz"):
        table.config(["stepz=1"], 0)
    with pytest.raises(ValueError, match=r"exitz.*there are: base; "):
        table.changes(["exitz"])
    with pytest.raises(ValueError, match="drop it"):
        table.config(["shards=somewhere"], 0)


def test_kept_batches_are_the_trainings_and_serve_only_those_with_the_same_scenes(tmp_path):
    base = make_config(TrainConfig, SMALL)
    kept, made = KeptBatches(base, tmp_path), WorldBatches(base, 0, 1)
    kept.keep(2)
    (path,) = (tmp_path / "batches").iterdir()
    assert_same(kept[2], made[2])
    same = make_config(TrainConfig, SMALL, ["optimizer=muon", "loss.depth=0", "model_overrides.exits=false"])
    path.write_bytes(b"no batch")  # whoever reads it notices
    with pytest.raises(ValueError, match="not a readable"):
        KeptBatches(same, tmp_path)[2]
    for change in ("seed=1", "target_views=3", "many_views=[2, 2]", "stages=[{size: 16, world: {static: 1.0}}]"):
        other = make_config(TrainConfig, SMALL, [change])
        assert_same(KeptBatches(other, tmp_path)[2], WorldBatches(other, 0, 1)[2])


def test_a_static_start_shares_the_scenes_of_what_comes_after_it(tmp_path):
    base = make_config(TrainConfig, SMALL)
    late = ["stages=[{until: 0.5, size: 16, world: {static: 1.0}}, {until: 1.0, size: 16}]"]
    pair = [KeptBatches(config, tmp_path) for config in (base, make_config(TrainConfig, SMALL, late))]
    same = [pair[0].describe(index) == pair[1].describe(index) for index in range(3)]
    assert same == [False, False, True]


def test_no_training_draws_a_held_out_scene(monkeypatch, tmp_path):
    """For any seed and step: the generator's range ends where the held-out seeds begin."""
    seen = []
    monkeypatch.setattr("train.data.sample_batch", lambda seeds, *_, **__: seen.extend(seeds))
    for seed in range(20):
        batches = WorldBatches(make_config(TrainConfig, SMALL, [f"seed={seed}"]), 0, 1)
        for index in range(3):
            batches[index]
    monkeypatch.setattr("train.held_out.sample_batch", lambda seeds, *_, **__: seen.append(min(seeds)))
    HeldOut(**HELD_OUT).batch("random")
    assert max(seen[:-1]) < FIRST_SEED == seen[-1] and max(seen[:-1]) > 0.9 * FIRST_SEED


def test_a_table_that_was_cut_off_does_only_what_is_missing(tmp_path):
    variants = {"without exits": ["model_overrides.exits=false"], "the base again": ["seed=0"]}
    table = make_config(Ablations, {"base": SMALL, "variants": variants, "held_out": HELD_OUT})
    first = run_table(table, tmp_path, only=["the base again"])
    (done,) = (tmp_path / "runs").iterdir()
    assert first["rows"]["the base again"]["gains"] == {"psnr": 0, "psnr_object": 0}
    stamp = done.stat().st_mtime_ns
    content = run_table(table, tmp_path, workers=2)
    assert done.stat().st_mtime_ns == stamp and len(list((tmp_path / "runs").iterdir())) == 2
    assert json.loads((tmp_path / "ablations.json").read_text())["rows"] == content["rows"]
    rows = content["rows"]
    assert list(rows) == ["base", "without exits", "the base again"] and rows["base"] == first["rows"]["base"]
    for score in ("psnr", "psnr_object"):
        ours, base = (rows[name]["scores"]["mean"][score] for name in ("without exits", "base"))
        assert rows["without exits"]["gains"][score] == pytest.approx(ours - base) != 0
    markdown = (tmp_path / "ablations.md").read_text()
    lines = [line.split(" | ")[0] for line in markdown.splitlines()]
    assert [line for line in lines if line[2:] in rows] == 2 * [f"| {name}" for name in rows]
    assert "`model_overrides.exits=false`" in markdown and "One seed a row" in markdown


def test_gains_are_over_the_base_of_the_same_seed():
    def run(psnr: float, psnr_object: float | None) -> dict:
        return {"scores": {"mean": {"psnr": psnr, "psnr_object": psnr_object}}, "step_s": psnr, "skipped": 1}

    bases, runs = [run(20.0, 10.0), run(23.0, 11.0), None], [run(21.0, 12.0), run(26.0, None), run(90.0, 90.0)]
    row = ablation_table.summarize_row(runs, bases)
    assert row["gains"] == {"psnr": 2.0, "psnr_object": 2.0}  # mean of 1 and 3; of 2 alone
    assert row["deviations"] == {"psnr": pytest.approx(2**0.5), "psnr_object": None}
    assert row["runs"] == 3 and row["skipped"] == 3
    assert ablation_table.summarize_row([None], bases[:1]) == {"runs": 0}
    table = asdict(make_config(Ablations, {"base": SMALL, "held_out": HELD_OUT, "seeds": [0, 1, 2]}))
    rows = {"base": {"changes": [], **ablation_table.summarize_row(bases, bases)}, "late": {"changes": [], "runs": 0}}
    rows["more"] = {"changes": ["a=b"], **row}
    markdown = ablation_table.to_markdown({"machine": "a machine", "table": table, "rows": rows})
    assert "| more | `a=b` | 45.67 | 51.00 | +2.00 ± 1.41 | +2.00 | 45.667 |" in markdown
    assert "| late |  | not done |" in markdown and "3 seeds a row" in markdown and "a machine" in markdown
