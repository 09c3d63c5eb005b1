"""eval.refinement: its curves, its report and its going on, on the scene that comes with lrm4d."""

import json

import pytest

from eval import refinement
from eval.refinement_report import mean_curves
from lrm4d.cli.reconstruct import DEMO_SCENE

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    settings = ["count=300", "nodes=10", "knots=6", "steps=12", "views=4"]
    settings += ["weights.prior=0"]
    words = [word for setting in settings for word in ("--set", setting)]
    times = ["--seconds", "20", "--scratch-seconds", "1", "--size", "32", "--every", "4"]
    output = tmp_path_factory.mktemp("refinement")
    return ["--scenes", str(DEMO_SCENE), "--protocol", "demo", *times, *words, "-o", str(output)], output


def test_curves_run_forward_from_the_network(line, capsys):
    arguments, output = line
    assert refinement.main(arguments) == 0
    scene = json.loads((output / "report.json").read_text())["scenes"]["demo"]
    network, refined, fits = scene["network"], scene["refined"], scene["fits"]
    assert refined[0] == network[0] and len(fits) == 3 and len(refined) == 2 + len(fits)
    for curve in (refined, fits, scene["scratch"]):
        seconds = [point["seconds"] for point in curve]
        assert seconds == sorted(seconds)
    assert refined[1]["psnr"] > network[0]["psnr"]
    for before, fit, blend in zip(refined[1:], fits, refined[2:], strict=False):
        assert before["seconds"] < fit["seconds"] <= blend["seconds"] < 20
        assert blend["gaussians"] > fit["gaussians"]  # it has those of the corrected scene too
    assert 1 <= scene["scratch"][-1]["seconds"] < 10
    assert (output / "curves.png").is_file() and "dB" in (output / "report.md").read_text()
    assert mean_curves({"demo": scene})["network"][0]["psnr"] == pytest.approx(network[0]["psnr"])


def test_the_same_command_goes_on_and_another_task_is_refused(line, capsys):
    arguments, output = line
    before = (output / "scenes/demo.json").stat().st_mtime_ns
    assert refinement.main(arguments) == 0
    assert (output / "scenes/demo.json").stat().st_mtime_ns == before
    assert refinement.main([*arguments, "--set", "steps=13"]) == 2
    assert "error" in capsys.readouterr().err
