"""Rendering of glTF assets; only where Blender's package is (it has an environment of its own)."""

import json

import numpy as np
import pytest

pytest.importorskip("bpy")

from data_tools.render_assets import OPENGL_TO_OPENCV, Job, camera_pose, render_asset, render_at_rest


def test_cameras_stand_around_the_origin_and_look_at_it():
    front = camera_pose(0.0)
    np.testing.assert_allclose(front[:3], [[1, 0, 0, 0], [0, 0, -1, -2.7], [0, 1, 0, 0]], atol=1e-12)
    for turn in (-60, 15, 90):
        pose = camera_pose(turn)
        np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-12)
        np.testing.assert_allclose(pose[:3, 3], 2.7 * pose[:3, 2], atol=1e-12)
    np.testing.assert_allclose(camera_pose(90)[:3, 3], [2.7, 0, 0], atol=1e-12)


def test_depths_of_two_views_are_of_one_surface(tmp_path, shared):
    asset = shared / "assets" / "animated" / "AnimatedMorphCube.glb"
    render_asset(asset, 0, Job(times=2, size=32, samples=2), tmp_path / "cube", {"licence": "as told"})
    content = json.loads((tmp_path / "cube" / "transforms.json").read_text())
    assert content["licence"] == "as told" and len(content["frames"]) == 18
    front, other = (np.load(tmp_path / "cube" / "depth" / f"{name}.npz") for name in ("front", "turn+15"))
    rows, columns = np.nonzero(front["valid"][0])
    pixels = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
    points = np.linalg.inv(front["intrinsics"][0]) @ pixels * front["depths"][0][rows, columns]
    world = front["camera_to_world"][0] @ np.concatenate([points, np.ones((1, len(rows)))])
    seen = (np.linalg.inv(camera_pose(15.0) @ OPENGL_TO_OPENCV) @ world)[:3]
    places = (other["intrinsics"][0] @ seen / seen[2])[:2].astype(int)
    there = other["depths"][0][places[1], places[0]]
    close = np.abs(there - seen[2]) < 0.06
    assert close.mean() > 0.9
    # The front of the cube is flat, so its depth is one number: distances along rays would differ.
    middle = front["depths"][0][front["valid"][0]]
    assert np.ptp(middle) < 1e-4


def test_a_thing_at_rest_is_the_middle_of_its_clip_from_the_same_cameras(tmp_path, shared):
    """A clip of three moments has its middle as the second: what its cameras saw then, they see always."""
    asset, job = shared / "assets" / "animated" / "AnimatedMorphCube.glb", Job(times=3, size=32, samples=2)
    render_asset(asset, 0, job, tmp_path / "cube", {"licence": "as told"})
    files = [f"images/{view}_{moment:03}.png" for view in ("front", "turn+60") for moment in range(3)]
    protocol = {"random": {"inputs": files[:3], "targets": files[3:]}}
    (tmp_path / "cube" / "protocols.json").write_text(json.dumps(protocol))
    render_at_rest(asset, 0, job, tmp_path / "rest", {"licence": "as told"}, tmp_path / "cube", 2)
    content = json.loads((tmp_path / "rest" / "transforms.json").read_text())
    kept = json.loads((tmp_path / "rest" / "protocols.json").read_text())["random"]
    assert kept == {"inputs": files[:3], "targets": [files[3], files[5]]} and content["licence"] == "as told"
    assert [frame["time"] for frame in content["frames"]] == [0, 0.5, 1, 0, 1]
    pictures = {file: (tmp_path / "rest" / file).read_bytes() for file in files[:4]}
    assert pictures[files[0]] == pictures[files[1]] == pictures[files[2]] != pictures[files[3]]
    assert (
        pictures[files[1]]
        == (tmp_path / "cube" / files[1]).read_bytes()
        != (tmp_path / "cube" / files[0]).read_bytes()
    )
