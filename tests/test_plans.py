import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from grid_scenes import ball_grid

from lrm4d.generation.layout import Slot
from lrm4d.generation.plans import Cell, Plan, split_windows
from lrm4d.generation.presets import load_preset, preset_names
from lrm4d.generation.route import spline, straight

PLANS = {
    "straight": Plan(),
    "spline": Plan(max_hop=12.0),
    "windows": Plan(window=4, overlap=1),
    "packed": Plan(packed=3),
    "joint": Plan(joint=True, rule="fused", warp_slots=True),
    "all": Plan(max_hop=12.0, window=3, overlap=1, packed=2, joint=True),
}


def steps_of(plan: Plan, count: int = 7, bank: str = "ring:views=3"):
    grid, _ = ball_grid(bank, count=count, size=8)
    route = spline(grid.cameras, plan.max_hop) if plan.max_hop else straight(grid.cameras)
    repaired = torch.rand(count, len(route.origins), generator=torch.Generator().manual_seed(0))
    repaired[:, 0] = 0
    return plan.steps(route, repaired), route, repaired


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_each_picture_is_made_once_from_what_was_made_before(plan):
    steps, route, _ = steps_of(plan)
    made = {Cell(0, time) for time in range(7)}
    for step in steps:
        assert made.issuperset(step.context) and made.isdisjoint(step.targets)
        finished = {cell.station for cell in made if all(Cell(cell.station, time) in made for time in range(7))}
        assert finished.issuperset(route.origins[cell.station] for cell in step.targets), "its warp can be made"
        made |= set(step.targets)
    assert made == {Cell(station, time) for station in range(len(route.origins)) for time in range(7)}
    assert len(made) == 7 + sum(len(step.targets) for step in steps)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_layouts_have_the_video_of_the_same_moments(plan):
    for step in steps_of(plan)[0]:
        layout = step.layout(plan.rule, plan.warp_slots)
        first = min(cell.time for cell in step.cells)
        assert [(slot.view, slot.time + first) for slot in layout.shown] == list(step.cells)
        assert min(slot.time for slot in layout.slots) == 0
        sources = {slot.time for slot in layout.slots if slot.role == "source"}
        assert {slot.time for slot in layout.slots if slot.target} <= sources
        assert any(slot.role == "warp" for slot in layout.slots) == plan.warp_slots and layout.rule == plan.rule


def test_windows_in_closed_form():
    assert split_windows(9, None, 0) == split_windows(9, 9, 3) == split_windows(9, 20, 3) == [(0, 0, 9)]
    assert split_windows(8, 4, 0) == [(0, 0, 4), (4, 4, 8)]
    assert split_windows(21, 9, 5) == [(0, 0, 9), (4, 9, 13), (8, 13, 17), (12, 17, 21)]
    assert split_windows(25, 13, 5) == [(0, 0, 13), (8, 13, 21), (12, 21, 25)]
    for count in range(1, 30):
        for length in range(1, 12):
            for overlap in range(length):
                windows = split_windows(count, length, overlap)
                assert [time for _, fresh, stop in windows for time in range(fresh, stop)] == list(range(count))
                assert {stop - start for start, _, stop in windows} == {min(length, count)}
                assert all(fresh - start >= min(overlap, start) for start, fresh, _ in windows)


def test_windows_see_the_end_of_the_one_before():
    steps, *_ = steps_of(Plan(window=4, overlap=1), bank="fan:views=1")
    assert [len(step.targets) for step in steps] == [4, 3]
    assert steps[1].targets == tuple(Cell(1, time) for time in (4, 5, 6))
    assert steps[1].context == (*(Cell(0, time) for time in (3, 4, 5, 6)), Cell(1, 3))
    assert steps[1].layout().slots[4] == Slot(1, 0, "context")


def test_packed_are_the_most_repaired_of_finished_views():
    steps, _, repaired = steps_of(Plan(packed=3))
    for index, step in enumerate(steps):
        packed = [cell for cell in step.context if cell.station]
        earlier = [Cell(s, t) for done in steps[:index] for s, t in done.targets]
        best = sorted((float(repaired[t, s]) for s, t in earlier), reverse=True)[:3]
        assert [float(repaired[t, s]) for s, t in packed] == best and set(packed) <= set(earlier)
    whole = torch.zeros_like(repaired)
    assert all(not any(s for s, _ in step.context) for step in Plan(packed=3).steps(steps_of(Plan())[1], whole))


def test_equivalent_plans_have_equal_steps():
    assert steps_of(Plan(packed=0))[0] == steps_of(Plan())[0]
    assert steps_of(Plan(joint=True), bank="fan:views=1")[0] == steps_of(Plan(), bank="fan:views=1")[0]
    assert steps_of(Plan(window=7))[0] == steps_of(Plan(max_hop=180.0))[0] == steps_of(Plan())[0]
    (step,), *_ = steps_of(Plan(joint=True))
    assert len(step.targets) == 21, "all views and moments at once"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_hop": 0.0}, "max_hop"),
        ({"window": 0}, "window"),
        ({"window": 4, "overlap": 4}, "below the window"),
        ({"overlap": -1}, "overlap"),
        ({"packed": -1}, "packed"),
        ({"rule": "none"}, "full, fused"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Plan(**options)


def test_presets_are_only_configurations(tmp_path):
    assert preset_names() == ["easycreator", "full4d", "see4d"]
    see4d, easycreator, full4d = (load_preset(name).plan for name in ("see4d", "easycreator", "full4d"))
    assert see4d == Plan(max_hop=15.0, window=17, overlap=5)
    assert easycreator == Plan(packed=4)
    assert full4d == Plan(joint=True, rule="fused", warp_slots=True)
    assert load_preset("see4d", ["plan.window=9", "bank=dome"]).plan == replace(see4d, window=9)
    own = tmp_path / "own.yaml"
    own.write_text("plan: {packed: 2, joint: true}\n")
    assert load_preset(own).plan == Plan(packed=2, joint=True)
    own.write_text("plan: {packs: 2}\n")
    with pytest.raises(ValueError, match="packs"):
        load_preset(own)
    with pytest.raises(ValueError, match="there are easycreator, full4d, see4d"):
        load_preset("full5d")


def test_no_code_decides_by_a_presets_name():
    root = Path(__file__).resolve().parent.parent / "lrm4d"
    deciding = (ast.Compare, ast.Match, ast.Dict, ast.Set)
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, deciding):
                words = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                assert not words & set(preset_names()), f"{file}:{node.lineno}"
