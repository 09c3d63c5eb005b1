import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from moving_scene import make_gaussians

from lrm4d.cameras import Cameras, look_at
from lrm4d.generation.depth import (
    DepthProvider,
    GivenDepth,
    HuggingFaceDepth,
    NetworkDepth,
    load_geometry,
    render_geometry,
    save_geometry,
)
from lrm4d.generation.depth.align import align_over_time, align_to_reference, fit_scale_shift, spread_inverse
from lrm4d.generation.depth.hugging_face import fit_size
from lrm4d.generation.geometry import Geometry, static_cameras

pytestmark = pytest.mark.usefixtures("one_thread")


def make_geometry(count: int = 3, width: int = 10, height: int = 6) -> Geometry:
    """Random depths, poses and a lens of its own; a pixel is not valid."""
    generator = torch.Generator().manual_seed(0)
    depths = 1 + torch.rand(count, 1, height, width, generator=generator)
    depths[0, 0, 1, 2] = 0
    poses = look_at(torch.randn(count, 3, generator=generator), torch.tensor([0.0, 9.0, 0.0]).expand(count, 3))
    intrinsics = static_cameras(count, width, height, 41.0).intrinsics
    return Geometry(depths, Cameras(poses, intrinsics, width, height), depths > 0)


def assert_same(got: Geometry, wanted: Geometry, tolerance: float = 0.0):
    """Equal in all that a geometry is."""
    assert torch.equal(got.valid, wanted.valid)
    assert torch.allclose(got.depths, wanted.depths, rtol=tolerance, atol=0)
    assert torch.allclose(got.cameras.camera_to_world, wanted.cameras.camera_to_world, atol=1e-5)
    assert torch.allclose(got.cameras.intrinsics, wanted.cameras.intrinsics)


def write_exr(path: Path, depth: np.ndarray, channel: str = "Z"):
    """A scan-line EXR file as ViPE's."""
    exr = pytest.importorskip("OpenEXR")
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    with exr.File(header, {channel: depth}) as file:
        file.write(str(path))


def test_our_own_layout_round_trips(tmp_path):
    geometry = make_geometry()
    save_geometry(tmp_path / "a" / "geometry.npz", geometry)
    assert_same(load_geometry(tmp_path / "a" / "geometry.npz"), geometry)


def test_megasams_layout(tmp_path):
    wanted = make_geometry()
    np.savez(
        tmp_path / "scene_sgd_cvd_hr.npz",
        images=np.zeros((3, 6, 10, 3), np.uint8),
        depths=wanted.depths[:, 0].half().numpy(),
        intrinsic=wanted.cameras.intrinsics[0].numpy(),
        cam_c2w=wanted.cameras.camera_to_world.double().numpy(),
    )
    assert_same(load_geometry(tmp_path / "scene_sgd_cvd_hr.npz"), wanted, 1e-3)


def test_gen3cs_layout(tmp_path):
    wanted = make_geometry()
    np.savez(tmp_path / "depth.npz", depth=torch.where(wanted.valid, wanted.depths, 7.0)[:, 0].numpy())
    np.savez(tmp_path / "mask.npz", mask=wanted.valid[:, 0].float().numpy())
    cameras = {"w2c": wanted.cameras.world_to_camera.numpy(), "intrinsics": wanted.cameras.intrinsics.numpy()}
    np.savez(tmp_path / "camera.npz", **cameras)
    assert_same(load_geometry(tmp_path), wanted)


def write_vipe(folder: Path, wanted: Geometry) -> None:
    """ViPE's folder of one video."""
    for part in ("depth", "pose", "intrinsics"):
        (folder / part).mkdir()
    with zipfile.ZipFile(folder / "depth/clip.zip", "w") as archive:
        for index, depth in enumerate(wanted.depths[:, 0].half().numpy()):
            write_exr(folder / "one.exr", depth)
            archive.write(folder / "one.exr", f"{index:05d}.exr")
    backwards = np.arange(len(wanted))[::-1]
    lens = wanted.cameras.intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]].numpy()
    poses = wanted.cameras.camera_to_world.numpy()
    np.savez(folder / "pose/clip.npz", inds=backwards, data=poses[backwards])
    np.savez(folder / "intrinsics/clip.npz", inds=backwards, data=lens[backwards])
    (folder / "intrinsics/clip_camera.txt").write_text("0: PINHOLE\n1: PINHOLE\n2: PINHOLE\n")


def test_vipes_layout(tmp_path):
    wanted = make_geometry()
    write_vipe(tmp_path, wanted)
    assert_same(load_geometry(tmp_path), wanted, 1e-3)
    np.savez(tmp_path / "pose/clip.npz", inds=np.arange(2), data=np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match="nothing of frame 2"):
        load_geometry(tmp_path)
    (tmp_path / "intrinsics/clip_camera.txt").write_text("0: PANORAMA\n")
    np.savez(tmp_path / "pose/clip.npz", inds=np.arange(3), data=np.zeros((3, 4, 4)))
    with pytest.raises(ValueError, match="no pinholes"):
        load_geometry(tmp_path)


@pytest.mark.parametrize("kind", ["npy", "exr", "npz", "folder of npy", "folder of exr"])
def test_depth_alone_gets_a_camera_at_rest(tmp_path, kind):
    depths = 1 + torch.rand(1 if kind == "exr" else 3, 6, 10)
    depths[0, 2, 3] = torch.nan
    path = tmp_path / f"depth.{kind}"
    if kind == "npy":
        np.save(path, depths.numpy())
    elif kind == "exr":
        write_exr(path, depths[0].numpy(), "Y")
    elif kind == "npz":
        np.savez(path, depth=depths[..., None].numpy())
    else:
        path = tmp_path
        for index, depth in enumerate(depths):
            np.save(path / f"{index}.npy", depth) if "npy" in kind else write_exr(path / f"{index}.exr", depth.numpy())
    geometry = load_geometry(path, fov=70.0)
    assert torch.equal(geometry.valid[:, 0], depths.isfinite())
    assert torch.equal(geometry.depths[:, 0], depths.nan_to_num(0))
    assert torch.allclose(geometry.cameras.intrinsics, static_cameras(len(depths), 10, 6, 70.0).intrinsics)


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.exr"])
def test_broken_files_are_errors_that_name_the_file(tmp_path, name):
    path = tmp_path / name
    depths = np.ones((40, 50), np.float32)
    if name == "a.exr":
        write_exr(path, depths)
    else:
        np.save(path, depths) if name == "a.npy" else np.savez(path, depths=depths)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(ValueError, match=f"{name}: not a readable"):
        load_geometry(path)


def test_what_is_no_geometry_is_an_error(tmp_path):
    np.savez(tmp_path / "a.npz", pictures=np.ones(3))
    with pytest.raises(ValueError, match="expected 'depths' or 'depth'"):
        load_geometry(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", depths=np.ones((3, 4, 5)), cam_c2w=np.ones((2, 4, 4)))
    with pytest.raises(ValueError, match=r"camera_to_world of shape \(2, 4, 4\)"):
        load_geometry(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", depths=np.ones((3, 4, 5)), valid=np.ones((3, 4, 4), bool))
    with pytest.raises(ValueError, match="a mask of shape"):
        load_geometry(tmp_path / "a.npz")
    np.save(tmp_path / "pickled.npy", np.array([{"code": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="not a readable"):
        load_geometry(tmp_path / "pickled.npy")
    np.save(tmp_path / "a.npy", np.ones(7))
    with pytest.raises(ValueError, match=r"expected \[time, height, width\]"):
        load_geometry(tmp_path / "a.npy")
    for missing in (tmp_path / "nothing.npz", tmp_path / "a.txt"):
        with pytest.raises(ValueError, match=missing.name):
            load_geometry(missing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no depth"):
        load_geometry(tmp_path / "empty")


def test_given_depth_takes_the_frames_size_and_length(tmp_path):
    save_geometry(tmp_path / "g.npz", make_geometry(3, 20, 12))
    provider = GivenDepth(tmp_path / "g.npz")
    small = provider(torch.rand(3, 3, 6, 10))
    assert small.depths.shape == (3, 1, 6, 10) and small.cameras.width == 10
    with pytest.raises(ValueError, match="depths of 3 frames, and 4 frames"):
        provider(torch.rand(4, 3, 6, 10))
    save_geometry(tmp_path / "one.npz", make_geometry(1))
    assert len(GivenDepth(tmp_path / "one.npz")(torch.rand(4, 3, 6, 10))) == 4


@pytest.mark.parametrize("seed", range(4))
def test_alignment_recovers_scale_and_shift_in_spite_of_outliers(seed):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    truth = 0.2 + draw(5000)
    scale, shift = 0.3 + 3 * draw(()), draw(()) - 0.5
    values = (truth - shift) / scale + 0.002 * torch.randn(5000, generator=generator)
    values[:1200] = draw(1200) * 4 - 1
    got = fit_scale_shift(values, truth)
    assert got[0] == pytest.approx(float(scale), rel=0.02)
    assert got[1] == pytest.approx(float(shift), abs=0.02)


def test_frames_that_flicker_agree_after_alignment():
    generator = torch.Generator().manual_seed(0)
    truth = (0.2 + torch.rand(1, 1, 30, 40, generator=generator)).repeat(12, 1, 1, 1)
    for index in range(12):
        truth[index, :, 5:15, index : index + 10] = 2.0  # something near walks by
    scales, shifts = 0.5 + torch.rand(12, 1, 1, 1, generator=generator), torch.rand(12, 1, 1, 1, generator=generator)
    flickering = truth * scales + shifts
    known = torch.ones_like(truth, dtype=torch.bool)
    steady = align_over_time(flickering, known)
    assert torch.allclose(steady, truth * scales[0] + shifts[0], atol=1e-3)
    assert torch.allclose(align_to_reference(flickering, truth, known), truth, atol=1e-3)
    assert torch.allclose(align_to_reference(flickering, truth[:1], known[:1]), truth, atol=1e-3)


def test_alignment_does_not_fade_along_a_noisy_chain():
    generator = torch.Generator().manual_seed(1)
    truth = 0.2 + torch.rand(1, 1, 60, 60, generator=generator)
    noisy = truth + 0.05 * torch.randn(30, 1, 60, 60, generator=generator)
    steady = align_over_time(noisy, torch.ones_like(noisy, dtype=torch.bool))
    assert float(steady[-1].std() / steady[0].std()) == pytest.approx(1, abs=0.05)


def test_alignment_of_constants_only_shifts_and_of_nothing_is_an_error():
    assert fit_scale_shift(torch.full((9,), 2.0), torch.linspace(1, 3, 9))[0] == 1
    scale, shift = fit_scale_shift(torch.full((9,), 2.0), torch.full((9,), 5.0))
    assert (scale, shift) == (1, 3)
    with pytest.raises(ValueError, match="at least 3"):
        fit_scale_shift(torch.ones(2), torch.ones(2))


def test_spreading_keeps_the_order_and_fills_the_range():
    inverse = torch.rand(2, 1, 20, 20) * 37 + 5
    depths = spread_inverse(inverse, 2.0, 10.0)
    assert depths.min() == pytest.approx(2.0) and depths.max() == pytest.approx(10.0)
    nearer = inverse.flatten()[:-1] > inverse.flatten()[1:] + 1
    assert bool((depths.flatten()[:-1] <= depths.flatten()[1:])[nearer].all())


def test_a_scenes_geometry_is_its_rendering():
    scene, cameras = make_gaussians(), static_cameras(2, 24, 16, 60.0).resize(24, 16)
    behind = torch.tensor([0.0, -2.5, 0.0]).expand(2, 3)
    cameras = Cameras(look_at(behind, torch.zeros(2, 3)), cameras.intrinsics, 24, 16)
    times = torch.tensor([0.2, 0.7])
    geometry = render_geometry(scene, cameras, times)
    rendering = scene.render(cameras, times)
    assert torch.equal(geometry.depths, rendering.depth)
    assert torch.equal(geometry.valid, rendering.alpha >= 0.5) and 0 < geometry.valid.float().mean() < 1


def test_the_network_is_asked_for_each_frame_alone():
    asked = []

    def reconstruct(views):
        asked.append(views)
        return make_gaussians(seed=len(asked))

    camera = Cameras(
        look_at(torch.tensor([[0.0, -2.5, 0.0]]), torch.zeros(1, 3)), static_cameras(1, 8, 8).intrinsics, 8, 8
    )
    frames = torch.rand(2, 3, 16, 24)
    provider = NetworkDepth(reconstruct, camera, cut_out=lambda x: (x[:, :1] > 0.3).float())
    assert isinstance(provider.__call__, type(DepthProvider.__call__.__get__(provider)))
    geometry = provider(frames)
    assert [view.images.shape for view in asked] == [(1, 3, 16, 24)] * 2
    assert torch.equal(asked[1].images, frames[1:])
    expected = render_geometry(make_gaussians(seed=2), camera.resize(24, 16), torch.zeros(1))
    assert torch.equal(geometry.depths[1:], expected.depths)
    assert torch.equal(geometry.valid[1:], expected.valid & (frames[1:, :1] > 0.3))


def save_depth_anything(folder: Path, kind: str) -> None:
    """A tiny one of random weights, and how its pictures are prepared."""
    transformers = pytest.importorskip("transformers")
    backbone = transformers.Dinov2Config(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        out_features=["stage1", "stage2"],
        reshape_hidden_states=False,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=24,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
        depth_estimation_type=kind,
        max_depth=20 if kind == "metric" else 1,
    )
    torch.manual_seed(0)
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    settings = {"size": {"height": 28, "width": 28}, "keep_aspect_ratio": True, "ensure_multiple_of": 14}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("kind", ["relative", "metric"])
def test_depth_anything_from_a_folder(tmp_path, kind):
    save_depth_anything(tmp_path, kind)
    told = []
    provider = HuggingFaceDepth(str(tmp_path), fov=50.0, near=1.0, far=5.0)
    frames = torch.rand(2, 3, 28, 42)
    geometry = provider(frames, lambda *progress: told.append(progress))
    assert geometry.depths.shape == (2, 1, 28, 42) and geometry.valid.all()
    assert told == [("depth", 1, 2), ("depth", 2, 2)]
    assert torch.allclose(geometry.cameras.intrinsics, static_cameras(2, 42, 28, 50.0).intrinsics)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (frames[:1] - mean[:, None, None]) / deviation[:, None, None]
    raw = provider.model(pixel_values=pixels).predicted_depth[0].detach()
    if kind == "metric":
        assert torch.allclose(geometry.depths[0, 0], raw, rtol=1e-3)
    else:
        order = torch.corrcoef(torch.stack([1 / geometry.depths[0, 0].flatten(), raw.flatten()]))[0, 1]
        assert order > 0.95 and geometry.depths.min() >= 1 and geometry.depths.max() <= 5


def test_depth_pro_tells_the_field_of_view_too(tmp_path):
    transformers = pytest.importorskip("transformers")
    encoder = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    encoder |= {"image_size": 16, "patch_size": 4}
    config = transformers.DepthProConfig(
        patch_size=16,
        fusion_hidden_size=8,
        intermediate_hook_ids=[1, 0],
        intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.5, 1.0],
        scaled_images_overlap_ratios=[0.0, 0.2],
        scaled_images_feature_dims=[8, 8],
        merge_padding_value=1,
        use_fov_model=True,
        num_fov_head_layers=1,
        image_model_config=dict(encoder),
        patch_model_config=dict(encoder),
        fov_model_config=dict(encoder),
    )
    torch.manual_seed(0)
    model = transformers.DepthProForDepthEstimation(config)
    with torch.no_grad():
        model.fov_model.head.layers[-1].bias.fill_(60.0)
    model.save_pretrained(tmp_path)
    settings = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    frames = torch.rand(1, 3, 32, 32)
    geometry = HuggingFaceDepth(str(tmp_path), fov=20.0)(frames)
    with torch.no_grad():
        raw = model.eval()(pixel_values=(frames - 0.5) / 0.5)
    fov = math.radians(float(raw.field_of_view))
    assert 40 < math.degrees(fov) < 80
    focal = 16 / math.tan(fov / 2)
    assert torch.allclose(geometry.cameras.intrinsics[0, 0, 0], torch.tensor(focal), rtol=1e-4)
    resized = torch.nn.functional.interpolate(raw.predicted_depth[:, None], (32, 32), mode="bilinear")
    assert torch.allclose(geometry.depths, 1 / (resized * 32 / focal).clamp(1e-4, 1e4), rtol=1e-3)


def test_sizes_that_models_want():
    free = {"size": {"height": 518, "width": 518}, "keep_aspect_ratio": True, "ensure_multiple_of": 14}
    assert fit_size(1080, 1920, free) == (518, 924)
    assert fit_size(256, 256, free) == (518, 518)
    assert fit_size(1080, 1920, {"size": {"height": 1536, "width": 1536}}) == (1536, 1536)


def test_models_that_cannot_be_loaded_are_errors(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        HuggingFaceDepth(str(tmp_path))
    save_depth_anything(tmp_path, "relative")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"cannot be loaded .*preprocessor_config\.json"):
        HuggingFaceDepth(str(tmp_path))
