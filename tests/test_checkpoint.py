import json
import os
import stat
import threading

import pytest
import torch

from lrm4d.checkpoint import atomic_path, read_json, read_safetensors, write_safetensors, write_text


def test_tensors_and_metadata_come_back(tmp_path):
    tensors = {
        "half": torch.randn(3, 4).half(),
        "transposed": torch.randn(5, 2).T,
        "bfloat": torch.randn(7).bfloat16(),
        "whole": torch.arange(6).reshape(2, 3),
        "empty": torch.zeros(0, 3),
    }
    write_safetensors(tmp_path / "new" / "x.safetensors", tensors, {"note": json.dumps({"ä": 1})})
    read, metadata = read_safetensors(tmp_path / "new" / "x.safetensors")
    assert set(read) == set(tensors)
    for name, value in tensors.items():
        assert read[name].dtype == value.dtype
        assert torch.equal(read[name], value)
    assert json.loads(metadata["note"]) == {"ä": 1}


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="midway"), atomic_path(path) as temporary:
        temporary.write_text("new, half of it")
        raise RuntimeError("midway")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "x.txt"
    write_text(path, "old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent, "os.replace is atomic within one file system only"
    assert path.read_text() == "new"


def test_files_have_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_text(tmp_path / "atomic", "x")
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("plain", "atomic")]
    assert modes[0] == modes[1]


def test_writers_in_threads_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "x.txt"
    texts = [str(i) * 10_000 for i in range(8)]
    threads = [threading.Thread(target=write_text, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 64, b"{}"])
def test_what_is_no_safetensors_file_is_an_error_with_its_name(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.safetensors: not a readable"):
        read_safetensors(path)


def test_cut_off_file_is_an_error(tmp_path):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": torch.zeros(100)}, {})
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="cut off"):
        read_safetensors(path)


def test_missing_and_broken_files_are_named(tmp_path):
    for read in (read_safetensors, read_json):
        with pytest.raises(ValueError, match=r"nothing\.x: no such file"):
            read(tmp_path / "nothing.x")
    (tmp_path / "bad.json").write_text("{,")
    with pytest.raises(ValueError, match=r"bad\.json: not valid JSON"):
        read_json(tmp_path / "bad.json")
