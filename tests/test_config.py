from dataclasses import asdict, dataclass, field

import pytest

from lrm4d.config import make_config
from lrm4d.reconstruction import CONFIGS, ModelConfig


@dataclass
class Inner:
    rate: float = 0.1
    names: list[str] = field(default_factory=list)


@dataclass
class Outer:
    steps: int = 10
    near: float | None = 0.5
    inner: Inner = field(default_factory=Inner)


def test_later_sources_win_and_the_rest_keeps_its_defaults(tmp_path):
    (tmp_path / "a.yaml").write_text("steps: 20\ninner: {rate: 0.2, names: [a, b]}\n")
    config = make_config(Outer, tmp_path / "a.yaml", {"inner": {"rate": 0.3}}, ["steps=40"])
    assert config == Outer(steps=40, near=0.5, inner=Inner(rate=0.3, names=["a", "b"]))
    assert isinstance(config.inner, Inner)


def test_no_source_is_the_defaults():
    assert make_config(Outer) == Outer()


def test_command_line_values_are_read_as_their_types():
    config = make_config(Outer, ["near=null", "inner.names=[x,y]", "inner.rate=1e-3"])
    assert config.near is None
    assert config.inner == Inner(rate=1e-3, names=["x", "y"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"stepz": 1}, "stepz.*Outer has: steps, near, inner"),
        (["inner.rat=1"], "rat"),
        ({"steps": "many"}, "many"),
        ("missing.yaml", r"missing\.yaml: no such"),
    ],
)
def test_unknown_keys_wrong_types_and_missing_files_are_named(source, message):
    with pytest.raises(ValueError, match=message):
        make_config(Outer, source)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_network_survives_its_config_file(name):
    assert make_config(ModelConfig, asdict(CONFIGS[name])) == CONFIGS[name]


def test_checks_of_the_dataclass_itself_hold():
    with pytest.raises(ValueError, match="multiple of head_width"):
        make_config(ModelConfig, {"width": 100})


def test_broken_yaml_is_named(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("steps: [1, 2")
    with pytest.raises(ValueError, match=r"broken\.yaml: not valid YAML"):
        make_config(Outer, path)
