import struct

import pytest
import torch

from lrm4d import video


def moving_square(frames=6, height=32, width=48):
    pictures = torch.ones(frames, 3, height, width)
    for i in range(frames):
        pictures[i, 0, 8:24, 4 + 4 * i : 16 + 4 * i] = 0.2
        pictures[i, 1, 8:24, 4 + 4 * i : 16 + 4 * i] = 0.6
    return pictures


@pytest.mark.parametrize("name, tolerance", [("a.mp4", 0.03), ("a.gif", 0.02)])
def test_a_video_comes_back(tmp_path, name, tolerance):
    frames = moving_square()
    video.write_video(tmp_path / "new" / name, frames, 10.0)
    back, rate = video.read_video(tmp_path / "new" / name)
    assert back.shape == frames.shape and back.dtype == torch.uint8
    assert rate == pytest.approx(10)
    assert (back.float() / 255 - frames).abs().mean() < tolerance
    # Which frame is which must be unmistakable.
    errors = (back[:, None].float() / 255 - frames[None]).square().mean(dim=(2, 3, 4))
    assert errors.argmin(dim=1).tolist() == list(range(6))
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_bytes_and_floats_give_the_same_video(tmp_path):
    frames = moving_square(3)
    video.write_video(tmp_path / "a.mp4", frames)
    video.write_video(tmp_path / "b.mp4", video.to_bytes(frames))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_odd_sides_are_padded_for_mp4_only(tmp_path):
    frames = moving_square(2, 31, 47)
    video.write_video(tmp_path / "a.mp4", frames)
    video.write_video(tmp_path / "a.gif", frames)
    assert video.read_video(tmp_path / "a.mp4")[0].shape == (2, 3, 32, 48)
    assert video.read_video(tmp_path / "a.gif")[0].shape == (2, 3, 31, 47)


def test_fractional_rates_survive(tmp_path):
    video.write_video(tmp_path / "a.mp4", moving_square(3), 12.5)
    assert video.read_video(tmp_path / "a.mp4")[1] == pytest.approx(12.5)


def test_a_phones_rotation_is_applied(tmp_path):
    upright = moving_square(2)
    video.write_video(tmp_path / "a.mp4", upright.rot90(1, dims=(2, 3)))
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    matrix = content.index(b"tkhd") + 44  # version 0 of the track header box
    assert struct.unpack_from(">9i", content, matrix) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", content, matrix, 0, 65536, 0, -65536, 0, 0, 32 << 16, 0, 1 << 30)
    (tmp_path / "b.mp4").write_bytes(content)
    back, _ = video.read_video(tmp_path / "b.mp4")
    assert back.shape == upright.shape
    assert (back.float() / 255 - upright).abs().mean() < 0.03


def test_reading_can_stop_early(tmp_path):
    video.write_video(tmp_path / "a.mp4", moving_square(6))
    assert len(video.read_video(tmp_path / "a.mp4", most_frames=2)[0]) == 2


def test_errors_name_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"x\.avi.*\.mp4 or \.gif"):
        video.write_video(tmp_path / "x.avi", moving_square(1))
    with pytest.raises(ValueError, match="0 frames"):
        video.write_video(tmp_path / "x.mp4", torch.zeros(0, 3, 8, 8))
    (tmp_path / "broken.mp4").write_bytes(b"not a video at all")
    with pytest.raises(ValueError, match=r"broken\.mp4: cannot be decoded"):
        video.read_video(tmp_path / "broken.mp4")
    with pytest.raises(ValueError, match="no such video"):
        video.read_video(tmp_path / "missing.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.mp4"]
