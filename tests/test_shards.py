import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from moving_scene import make_views, write_moving_scene, write_tiny_network

from data_tools import inspect_shards, write_shards
from data_tools.shard_views import LAYERS, concatenate_views, join_geometry, split_geometry
from data_tools.world import WorldViews, sample_batch
from lrm4d.cameras import Cameras, look_at, project, unproject
from lrm4d.scenes import load_scene
from lrm4d.shards import (
    EpochOrder,
    PackedScene,
    ShardReader,
    choose_views,
    find_shards,
    fit_square,
    index_shard,
    pack_scene,
    write_shard,
)
from lrm4d.shards.archive import index_path, read_index
from lrm4d.shards.schema import STEP, Layer, SceneHeader, _encode
from lrm4d.views import Views
from train.config import Stage, TrainConfig
from train.data import ShardBatches, load_batches

ROOT = Path(__file__).parent.parent
SCENES, SHARD_SCENES, SIZE = 7, 3, 16


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Seven scenes of 9 views in shards of 3, 3 and 1."""
    folder = tmp_path_factory.mktemp("world")
    run_writer(folder)
    return folder


@pytest.fixture
def copied(world, tmp_path) -> Path:
    return Path(shutil.copytree(world, tmp_path / "shards"))


def run_writer(folder: Path, *more: str) -> None:
    line = f"world --scenes {SCENES} --views 9 --size {SIZE} --shard-scenes {SHARD_SCENES} -o {folder}"
    write_shards.main([*line.split(), *more])


def config_of(folder: Path, **changes) -> TrainConfig:
    usual = {
        "steps": 12,
        "few_views": (1, 2),
        "few_chance": 0.3,
        "many_views": (3, 6),
        "target_views": 3,
        "views_per_step": 6,
        "stages": [Stage(0.5, 8), Stage(1.0, SIZE)],
    }
    return TrainConfig(shards=str(folder), **{**usual, **changes})


def assert_same(first: WorldViews, second: WorldViews, atol: float = 0.0) -> None:
    for name in LAYERS:
        torch.testing.assert_close(getattr(first, name), getattr(second, name), rtol=0, atol=atol)
    for name in ("images", "alphas", "times"):
        torch.testing.assert_close(getattr(first.views, name), getattr(second.views, name), rtol=0, atol=atol)
    for name in ("camera_to_world", "intrinsics"):
        one, other = (getattr(seen.views.cameras, name) for seen in (first, second))
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def flip_byte(path: Path, key: str) -> None:
    """Change one byte in the middle of a scene's first picture."""
    entry = next(entry for entry in read_index(path) if entry.key == key)
    data = bytearray(path.read_bytes())
    name = f"{key}.000.rgba.webp".encode()
    place = data.index(name, entry.offset, entry.offset + entry.size) + 512 + 40
    data[place] ^= 0xFF
    path.write_bytes(data)


# The schema


def test_a_scene_comes_back_as_it_was_packed():
    seen = sample_batch([3], 5, 0, 24)[0][0]
    views, geometry = split_geometry(seen)
    files = pack_scene([views[:2], views[2:]], geometry, range(3), range(3, 5), "here")
    packed = PackedScene.parse(files)
    chosen = [4, 0, 2]
    again = join_geometry(*packed.decode(chosen))
    for name in ("images", "alphas"):
        given, back = (getattr(side, name) for side in (views[chosen], again.views))
        torch.testing.assert_close(back, given, rtol=0, atol=0.5 / 255 + 1e-6)
    assert torch.equal(again.views.times, views.times[chosen])
    assert torch.equal(again.views.cameras.camera_to_world, views.cameras.camera_to_world[chosen])
    assert torch.equal(again.views.cameras.intrinsics, views.cameras.intrinsics[chosen])
    assert torch.equal(again.hits, seen.hits[chosen]) and bool(again.hits.any())
    for name in ("depths", "flows", "exits"):
        given, back = getattr(seen, name)[chosen], getattr(again, name)
        torch.testing.assert_close(back, given, rtol=0, atol=STEP / 2 + 1e-6)
        assert torch.equal(back == 0, (given / STEP).round() == 0), f"{name}: nothing must stay nothing"
    assert packed.header.inputs == (0, 1, 2) and packed.header.targets == (3, 4) and packed.header.source == "here"


def test_large_values_get_a_coarser_step_and_stay_within_half_of_it():
    values = torch.tensor([-50.0, 0.0, 12.3456, 49.0]).reshape(1, 1, 2, 2)
    layer = Layer.of(values)
    back = layer.decode(layer.encode(values))
    assert layer.step > STEP and back[0, 0, 0, 1] == 0
    assert (back - values).abs().max() <= layer.step * 0.5001
    with pytest.raises(ValueError, match="finite"):
        Layer.of(torch.tensor([float("nan")]).reshape(1, 1, 1, 1))


def test_pictures_may_be_png_and_geometry_may_be_missing():
    views = make_views(3)
    files = pack_scene([views])
    webp, _ = PackedScene.parse(files).decode([1])
    pixels = (torch.cat([webp.images, webp.alphas], 1)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    content = {name: value for name, value in json.loads(files["json"]).items() if name != "crc32"}
    as_png = {**files, "001.rgba.png": _encode(pixels, "PNG"), "json": json.dumps(content).encode()}
    del as_png["001.rgba.webp"]
    png, geometry = PackedScene.parse(as_png).decode([1])
    assert torch.equal(png.images, webp.images) and torch.equal(png.alphas, webp.alphas) and geometry == {}
    seen = join_geometry(png, geometry)
    assert not seen.hits.any() and seen.flows.shape == (1, 3, 24, 32) and not seen.depths.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "other"}, "schema 'other'; expected 'lrm4d-scene-1'"),
        ({"times": [0.0, 2.0]}, r"times are \[0.0, 2.0\]; expected"),
        ({"times": [0.0]}, "1 times, 2 camera_to_world"),
        ({"times": "now"}, "times is now; expected a list"),
        ({"width": 0}, "width is 0"),
        ({"camera_to_world": [[1, 2], [3, 4]]}, "expected views x 4 x 4"),
        ({"inputs": [0, 5]}, r"inputs are \[0, 5\]; expected different indices of views, 0 to 1"),
        ({"inputs": [1, 1]}, "expected different"),
        ({"geometry": {"flows": {"channels": 3, "step": 1, "zero": 0, "boolean": False}}}, "expected depths and hits"),
        ({"geometry": {"depths": {"depth": 3}}}, "expected {layer"),
        ({"crc32": [1]}, "crc32"),
    ],
)
def test_a_wrong_header_is_refused_with_the_reason(change, message):
    content = json.loads(pack_scene([make_views(2)])["json"])
    SceneHeader.parse(json.dumps(content).encode())
    with pytest.raises(ValueError, match=message):
        SceneHeader.parse(json.dumps({**content, **change}).encode())


@pytest.mark.parametrize(("row", "column", "value"), [(0, 0, -7.0), (3, 3, 2.0), (1, 3, float("nan"))])
def test_a_matrix_that_is_no_pose_is_refused(row, column, value):
    content = json.loads(pack_scene([make_views(2)])["json"])
    content["camera_to_world"][1][row][column] = value
    with pytest.raises(ValueError, match="camera_to_world of view 1"):
        SceneHeader.parse(json.dumps(content).encode())


def test_corrupt_missing_and_wrong_files_of_a_scene_are_named():
    files = pack_scene([make_views(2)])
    corrupt = {**files, "001.rgba.webp": files["001.rgba.webp"][:-1] + b"?"}
    with pytest.raises(ValueError, match=r"001.rgba.webp is corrupt"):
        PackedScene.parse(corrupt)
    without = {name: data for name, data in files.items() if name != "001.rgba.webp"}
    with pytest.raises(ValueError, match=r"it has no 001.rgba.webp"):
        PackedScene.parse(without)
    larger = pack_scene([make_views(2, 40, 30)])
    plain = json.loads(files["json"])
    del plain["crc32"]
    mixed = {**larger, "json": json.dumps(plain).encode()}
    with pytest.raises(ValueError, match=r"40 x 30 pixels.*expected 32 x 24"):
        PackedScene.parse(mixed).decode([0])
    with pytest.raises(ValueError, match="view 2 has no picture"):
        PackedScene(PackedScene.parse(files).header, files).decode([0, 2])
    with pytest.raises(ValueError, match="cannot be decoded"):
        PackedScene.parse({**mixed, "000.rgba.webp": b"\x80\x04N."}).decode([0])  # a pickle of None


# Shard files


def test_shards_are_the_same_bytes_each_time_and_webdataset_reads_them(tmp_path, monkeypatch):
    import webdataset

    monkeypatch.setattr(webdataset.utils, "enforce_security", True)
    scenes = [(f"{i:06}-x", pack_scene([make_views(2 + i)])) for i in range(3)]
    paths = [tmp_path / name / "shard-000000.tar" for name in "ab"]
    entries = [write_shard(path, scenes) for path in paths]
    assert paths[0].read_bytes() == paths[1].read_bytes() and entries[0] == entries[1]
    read = list(webdataset.WebDataset([str(paths[0])], shardshuffle=False))
    assert [sample["__key__"] for sample in read] == [key for key, _ in scenes]
    for sample, (_, files) in zip(read, scenes, strict=True):
        assert {name: data for name, data in sample.items() if name[0] != "_"} == files
    with pytest.raises(ValueError, match="dot or a slash"):
        write_shard(tmp_path / "c.tar", [("a.b", scenes[0][1])])
    assert not list(tmp_path.glob("*.tar")), "nothing half written stays"


def test_the_index_says_what_the_shard_says(copied):
    path = copied / "shard-000000.tar"
    entries = read_index(path)
    assert entries == index_shard(path) and entries[0].key == "000000-seed-0"
    assert [(entry.inputs, entry.targets, entry.both) for entry in entries] == [(6, 3, 0)] * 3
    index_path(path).unlink()
    assert read_index(path) == entries
    index_path(path).write_text('{"scenes": [{}]}')
    with pytest.raises(ValueError, match=r"shard-000000.index.json: not an index"):
        read_index(path)


def test_every_shard_that_is_asked_for_must_be_there(copied):
    names = [path.name for path in find_shards(copied)]
    assert names == [f"shard-{i:06}.tar" for i in range(3)]
    assert [p.name for p in find_shards(f"{copied}/shard-{{000002,000000}}.tar")] == [names[2], names[0]]
    assert [p.name for p in find_shards(f"{copied}/*1.tar")] == names[1:2]
    with pytest.raises(ValueError, match=r"no .*shard-000003.tar and 1 others"):
        find_shards(f"{copied}/shard-{{000000..000004}}.tar")
    (copied / names[1]).rename(copied / ".shard-000001.half.tar")
    with pytest.raises(ValueError, match="2 of 3 shards are there"):
        find_shards(copied)
    with pytest.raises(ValueError, match=r"no .tar files"):
        find_shards(copied.parent)


def test_broken_scenes_are_reported_with_shard_and_key_and_another_is_taken(copied, caplog):
    flip_byte(copied / "shard-000001.tar", "000004-seed-4")
    config = config_of(copied, steps=40)
    whole, broken = ShardBatches(config_of(copied), 0, 1), ShardBatches(config, 0, 1)
    with caplog.at_level(logging.WARNING):
        batches = [broken[i] for i in range(40)]
    assert all(bool(targets.views.alphas.isfinite().all()) for _, targets in batches)
    assert broken.reader.broken == [f"{copied}/shard-000001.tar: 000004-seed-4"]
    told = [record.getMessage() for record in caplog.records if "broken" in record.getMessage()]
    assert len(told) == 1 and "000.rgba.webp is corrupt" in told[0] and "1 of 7" in told[0]
    assert whole.reader.broken == []


def test_a_cut_off_shard_is_noticed_with_and_without_its_index(copied, caplog):
    path = copied / "shard-000000.tar"
    data, second = path.read_bytes(), read_index(path)[1]
    path.write_bytes(data[: len(data) // 2])
    reader = ShardReader(copied)
    assert len(reader) == SCENES and "cut off" in caplog.text
    reader.packed(0)
    with pytest.raises(ValueError, match=r"shard-000000.tar: 000002-seed-2: the shard ends \d+ bytes before"):
        reader.packed(2)
    with pytest.raises(ValueError, match="every scene that was tried is broken"):
        reader.first_whole([2], lambda packed: packed)
    index_path(path).unlink()
    for end in (len(data) // 2, len(data) // 2 + 100, second.offset + second.size):
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match=r"shard-000000.tar: .*was (it|the shard) cut off"):
            ShardReader(copied)


def test_garbage_in_a_tar_header_is_a_broken_scene(copied):
    path = copied / "shard-000000.tar"
    entry = read_index(path)[1]
    data = bytearray(path.read_bytes())
    data[entry.offset : entry.offset + 512] = os.urandom(512)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"shard-000000.tar: 000001-seed-1: "):
        ShardReader(copied).packed(1)


# Order and choice


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_an_epoch_has_every_scene_once_over_all_ranks(ranks):
    order = EpochOrder(10, seed=5)
    epochs = []
    for epoch in range(3):
        numbers = range(10 * epoch, 10 * epoch + 10)
        by_rank = [[order.scene(number) for number in numbers if number % ranks == rank] for rank in range(ranks)]
        assert sorted(scene for scenes in by_rank for scene in scenes) == list(range(10))
        assert {order.epoch(number) for number in numbers} == {epoch}
        epochs.append([order.scene(number) for number in numbers])
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert [EpochOrder(10, seed=6).scene(i) for i in range(10)] != epochs[0]


def test_targets_are_not_inputs_and_inputs_follow_time():
    header = PackedScene.parse(pack_scene([make_views(8)])).header
    shuffled = replace(header, times=header.times[torch.tensor([3, 1, 7, 0, 5, 2, 6, 4])])
    seen = set()
    for number in range(30):
        inputs, targets = choose_views(shuffled, 3, 4, seed=0, number=number)
        times = shuffled.times[inputs].tolist()
        assert times == sorted(times) and len({*inputs, *targets}) == 7
        seen.add(tuple(sorted(inputs)))
    assert len(seen) > 15, "the choice changes"
    split = replace(header, inputs=(0, 1, 2, 3), targets=(4, 5, 6, 7))
    inputs, targets = choose_views(split, 4, 2, seed=0, number=1)
    assert inputs == [0, 1, 2, 3] and set(targets) <= {4, 5, 6, 7}
    with pytest.raises(ValueError, match="5 input and 2 target views"):
        choose_views(split, 5, 2, seed=0, number=1)


def test_scenes_with_too_few_views_are_refused_at_the_start(world):
    with pytest.raises(ValueError, match=r"shard-000000.tar: 000000-seed-0 has 9 views, 6 for input.*7 of 7"):
        ShardBatches(config_of(world, many_views=(3, 7)), 0, 1)
    with pytest.raises(ValueError, match="3 as targets; expected 6 inputs and 4 others"):
        ShardBatches(config_of(world, target_views=4), 0, 1)
    with pytest.raises(ValueError, match="trains on shards"):
        ShardBatches(config_of(world, stages=[Stage(1.0, SIZE, {"static": 1.0})]), 0, 1)


# Other sizes


def test_a_slanted_plane_stays_in_its_place_at_another_size():
    """Depths of the plane z = 0.4 x, cut to a square and resized: each pixel still unprojects onto the plane."""
    width, height, normal = 40, 28, torch.tensor([-0.4, 0.0, 1.0])
    pose = look_at(torch.tensor([[0.5, -1.0, 2.5]]), torch.zeros(1, 3))
    intrinsics = torch.tensor([[[50.0, 0, 21], [0, 48, 13], [0, 0, 1]]])
    cameras = Cameras(pose, intrinsics, width, height)
    origins, directions = cameras.rays()
    distances = -(origins @ normal) / (directions @ normal)
    depths = (distances * (directions @ pose[0, :3, 2]))[:, None]
    hits = torch.ones_like(depths, dtype=torch.bool)
    hits[..., :10] = False
    flows = depths.expand(-1, 3, -1, -1) * torch.tensor([1.0, -1, 2])[:, None, None]
    geometry = {"depths": depths * hits, "hits": hits, "flows": flows * hits}
    slope = depths.diff(dim=-1).abs().min()  # what a shift by half a pixel would be wrong by, at least, twice
    views = Views(torch.rand(1, 3, height, width), torch.ones(1, 1, height, width), cameras, torch.zeros(1))
    for size in (14, 28, 41):
        fitted, resized = fit_square(views, geometry, size)
        assert fitted.cameras.width == fitted.cameras.height == size and fitted.images.shape[-2:] == (size, size)
        corners = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="xy"), -1) + 0.5
        points = unproject(fitted.cameras.reshape(1, 1, 1), corners, resized["depths"][:, 0])
        inside = resized["hits"][:, 0].clone()
        assert not inside.any() or not resized["depths"][:, 0][~inside].any()
        assert inside[..., -1].all() and not inside[..., 0].any()
        # At the picture's edge, and beside the part without hits, the depth is the nearest pixel's.
        inside[..., 1:] &= inside[..., :-1].clone()
        inside[..., 1:] &= inside[..., :-1].clone()
        middle = inside[:, 2:-2, 2:-2]
        assert middle.float().mean() > 0.5
        assert (points @ normal)[:, 2:-2, 2:-2][middle].abs().max() < 5e-4 < 0.01 < slope
        ratio = resized["flows"] / resized["depths"].clamp(min=1e-6)
        torch.testing.assert_close(ratio[0, :, -1, -1], torch.tensor([1.0, -1, 2]))
        middle = torch.tensor([[0.1, 0.05, 0.3]])
        before, after = (project(camera, middle)[0][0] for camera in (cameras, fitted.cameras))
        torch.testing.assert_close(after, (before - torch.tensor([6.0, 0.0])) * size / 28, rtol=1e-4, atol=1e-3)


def test_geometry_along_edges_is_never_a_mean_of_two_surfaces():
    seen = sample_batch([5], 4, 0, 48)[0][0]
    views, geometry = split_geometry(seen)
    _, half = fit_square(views, geometry, 24)
    near = -torch.nn.functional.max_pool2d(-torch.where(seen.hits, seen.depths, 1e6), 2)
    far = torch.nn.functional.max_pool2d(seen.depths, 2)
    inside = half["hits"]
    assert inside.any() and bool((half["depths"][inside] >= near[inside] - 1e-5).all())
    assert bool((half["depths"][inside] <= far[inside] + 1e-5).all())
    jump = inside & (far - near > 0.2)
    four = torch.nn.functional.pixel_unshuffle(seen.depths, 2)
    of_one = ((half["depths"] - four).abs() < 1e-5).any(1, keepdim=True)
    assert jump.any() and bool(of_one[jump].all())


# Training on them


def test_shards_of_the_world_give_what_the_world_gives(world):
    config = config_of(
        world, fixed_scenes=1, few_chance=0.0, many_views=(6, 6), target_views=3, stages=[Stage(1.0, SIZE)]
    )
    context, targets = ShardBatches(config, 0, 1)[5]
    expected, others = sample_batch([0], 6, 3, SIZE)
    assert_same(context, expected, atol=0.5 / 255 + 1e-6)
    order = [(others.views.cameras.origins[0] - o).norm(dim=-1).argmin() for o in targets.views.cameras.origins[0]]
    assert sorted(order) == [0, 1, 2]
    everything = concatenate_views([expected[0], others[0]])
    assert everything.views.shape == (9,) and torch.equal(everything.flows[:6], expected.flows[0])


def test_batches_keep_the_rules_and_all_ranks_take_as_many(world):
    config = config_of(world, steps=60)
    ranks = [ShardBatches(config, rank, 2) for rank in range(2)]
    counts = set()
    for step in range(0, 60, 7):
        pairs = [batches[step] for batches in ranks]
        (context, targets), (other, _) = pairs
        assert context.views.shape == other.views.shape and not torch.equal(context.views.images, other.views.images)
        scenes, views = context.views.shape
        assert views in (1, 2, 3, 4, 5, 6) and scenes == max(1, min(8, 6 // views)) and targets.views.shape[1] == 3
        assert context.views.images.shape[-1] == config.size_at(step)
        counts.add(views)
    assert len(counts) > 2
    assert ranks[0].place(0) == (0, 0)
    epoch, taken = ranks[1].place(50)
    assert taken == sum(len(ranks[1][i][0].views) for i in range(50)) and epoch == (2 * taken + 1) // SCENES > 3
    longer = ShardBatches(config_of(world, steps=90), 1, 2)
    assert longer.views[:60] == ranks[1].views, "a run that is made longer keeps its past"


@pytest.mark.parametrize(
    ("ranks", "rank", "workers_before", "workers_after"),
    [(1, 0, 0, 1), (1, 0, 2, 0), (2, 0, 0, 0), (2, 0, 0, 2), (2, 1, 1, 0), (2, 1, 0, 0)],
)
def test_a_broken_off_epoch_goes_on_exactly(world, ranks, rank, workers_before, workers_after):
    config = config_of(world, steps=9, accumulate=2)
    unbroken = ShardBatches(config, rank, ranks)
    expected = [unbroken[i] for i in range(18)]
    stop = 4
    assert unbroken.place(2 * stop)[1] * ranks % SCENES, "in the middle of an epoch"
    cpu = torch.device("cpu")
    before = iter(load_batches(replace(config, workers=workers_before), rank, ranks, cpu, 0))
    found = [next(before) for _ in range(2 * stop)]
    del before  # with what its workers had made ahead
    found += list(load_batches(replace(config, workers=workers_after), rank, ranks, cpu, stop))
    assert len(found) == len(expected)
    for (context, targets), (same_context, same_targets) in zip(found, expected, strict=True):
        assert_same(context, same_context)
        assert_same(targets, same_targets)


def test_what_a_worker_finds_broken_is_known_to_the_run(copied):
    for number in range(3):
        flip_byte(copied / "shard-000000.tar", f"00000{number}-seed-{number}")
    loader = load_batches(config_of(copied, workers=1, steps=16), 0, 1, torch.device("cpu"), 0)
    assert len(list(loader)) == 16
    assert loader.dataset.reader.broken == [f"{copied}/shard-000000.tar: 00000{i}-seed-{i}" for i in range(3)]


def test_scenes_without_geometry_train_on_pictures_alone(tmp_path):
    from lrm4d.reconstruction.pretrained import load_pretrained
    from train.objective import reconstruction_losses

    write_moving_scene(tmp_path / "scene", 9)
    write_shards.main(["folders", str(tmp_path / "scene"), "-o", str(tmp_path / "shards")])
    stages = [Stage(1.0, SIZE)]
    config = config_of(tmp_path / "shards", many_views=(4, 4), few_chance=0.0, stages=stages)
    context, targets = ShardBatches(config, 0, 1)[0]
    assert not context.hits.any() and bool(context.views.alphas.any())
    model = load_pretrained(write_tiny_network(tmp_path / "net")).train()
    answer = model(context.views)
    losses = reconstruction_losses(answer, context, targets, config.loss, geometry=1.0)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert bool(total.isfinite()) and {"color", "alpha"} <= set(losses)
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_the_trainer_trains_on_shards(world, tmp_path):
    line = [sys.executable, "-m", "train.reconstruction", "train/configs/debug.yaml", "-o", str(tmp_path)]
    tiny = "model_overrides={width: 64, layers: 1, evidence_distances: 4}"
    changes = [
        tiny,
        "stages=[{until: 1.0, size: 16}]",
        "many_views=[6, 6]",
        "target_views=3",
        "workers=0",
        "log_every=1",
        "steps=2",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WDS_SECURE": "1"}
    subprocess.run([*line, *changes, f"shards={world}"], cwd=ROOT, env=environment, check=True, capture_output=True)
    log = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(log) == 2 and log[0]["depth"] > 0


# The writer


def test_a_writer_that_was_broken_off_goes_on_with_what_is_missing(world, copied, capsys):
    kept = (copied / "shard-000000.tar").stat().st_mtime_ns
    (copied / "shard-000001.tar").unlink()
    index_path(copied / "shard-000001.tar").unlink()
    index_path(copied / "shard-000002.tar").unlink()  # killed between the shard and its index
    (copied / ".shard-000001.half.tar").write_bytes(b"half")
    run_writer(copied)
    assert "wrote 1 shards" in capsys.readouterr().out
    assert (copied / "shard-000000.tar").stat().st_mtime_ns == kept
    files = sorted(path.name for path in world.iterdir())
    assert sorted(path.name for path in copied.iterdir()) == files
    for name in files:
        assert (copied / name).read_bytes() == (world / name).read_bytes(), name


def test_shards_of_another_recipe_are_not_mixed(copied, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_writer(copied, "--seed", "9")
    assert stopped.value.code == 1 and "holds shards of another recipe: world is" in capsys.readouterr().err
    (copied / "recipe.json").unlink()
    with pytest.raises(SystemExit):
        run_writer(copied)
    assert "no recipe.json" in capsys.readouterr().err


def test_scene_folders_become_shards_pixel_by_pixel(tmp_path):
    for name in ("a fox", "b.v2"):
        write_moving_scene(tmp_path / name, 6)
    out = tmp_path / "out"
    write_shards.main(["folders", str(tmp_path / "a fox"), str(tmp_path / "b.v2"), "-o", str(out)])
    reader = ShardReader(out)
    assert [entry.key for _, entry in reader.places] == ["000000-a-fox", "000001-b-v2"]
    scene = load_scene(tmp_path / "a fox")
    expected = scene.views(scene.file_paths)
    views, geometry = reader.packed(0).decode(range(6))
    assert geometry == {}
    torch.testing.assert_close(views.images, expected.images, rtol=0, atol=1e-6)
    torch.testing.assert_close(views.alphas, expected.alphas, rtol=0, atol=1e-6)
    torch.testing.assert_close(views.cameras.camera_to_world, expected.cameras.camera_to_world, rtol=0, atol=0)
    assert torch.equal(views.times, expected.times)
    with pytest.raises(SystemExit):
        write_shards.main(["folders", str(tmp_path / "nowhere"), "-o", str(tmp_path / "none")])


@pytest.mark.shared
def test_real_scenes_become_shards(shared, tmp_path):
    folder = sorted(path for path in (shared / "scenes/128").iterdir() if path.is_dir())[0]
    write_shards.main(["folders", str(folder), "--size", "32", "-o", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        inspect_shards.main([str(tmp_path)])
    assert stopped.value.code == 0
    context, targets = ShardBatches(config_of(tmp_path, many_views=(12, 24), target_views=8), 0, 1)[11]
    assert context.views.images.shape[-1] == SIZE and targets.views.shape[1] == 8


# The inspector


def inspect(capsys, *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        inspect_shards.main(list(arguments))
    captured = capsys.readouterr()
    return int(stopped.value.code), captured.out + captured.err


def test_the_inspector_counts_and_draws(world, tmp_path, capsys):
    code, text = inspect(capsys, str(world), "--sheet", str(tmp_path / "sheet.png"))
    assert code == 0 and "3 shards, 7 scenes" in text and "whole scenes: 7, broken: 0" in text
    assert "views a scene: 9 (7 scenes)" in text and "16 x 16" in text and "depths, hits, flows" in text
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_the_inspector_names_every_broken_scene(copied, tmp_path, capsys):
    flip_byte(copied / "shard-000000.tar", "000001-seed-1")
    data = (copied / "shard-000001.tar").read_bytes()
    (copied / "shard-000001.tar").write_bytes(data[: read_index(copied / "shard-000001.tar")[2].offset])
    code, text = inspect(capsys, str(copied), "--sheet", str(tmp_path / "sheet.png"))
    assert code == 1 and "whole scenes: 5, broken: 2" in text
    assert "PROBLEM" in text and "000001-seed-1: 000.rgba.webp is corrupt" in text.replace("\n", " ")
    assert "000005-seed-5: the shard ends" in text.replace("\n", " ")


def with_poses(files: dict[str, bytes], change) -> PackedScene:
    content = json.loads(files["json"])
    content["camera_to_world"] = change(torch.tensor(content["camera_to_world"])).tolist()
    return PackedScene.parse({**files, "json": json.dumps(content).encode()})


def test_cameras_and_depths_that_cannot_be_are_problems():
    views, geometry = split_geometry(sample_batch([2], 4, 0, 16)[0][0])
    files = pack_scene([views], geometry)
    assert 0 < inspect_shards.check_scene(PackedScene.parse(files)) < 1
    opengl = views.cameras.camera_to_world.new_tensor([1.0, -1, -1, 1])
    with pytest.raises(ValueError, match="view 0 and 3 others do not see the unit sphere"):
        inspect_shards.check_scene(with_poses(files, lambda poses: poses * opengl))
    nearer = torch.ones(4, 4)
    nearer[:3, 3] = 0.1
    with pytest.raises(ValueError, match="inside the unit sphere"):
        inspect_shards.check_scene(with_poses(files, lambda poses: poses * nearer))
    wrong = {**geometry, "depths": geometry["depths"] * 2}
    with pytest.raises(ValueError, match="expected depth along the camera's z"):
        inspect_shards.check_scene(PackedScene.parse(pack_scene([views], wrong)))
    blank = replace(views, alphas=torch.zeros_like(views.alphas))
    with pytest.raises(ValueError, match="transparent all over"):
        inspect_shards.check_scene(PackedScene.parse(pack_scene([blank])))
