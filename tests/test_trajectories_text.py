import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrm4d.trajectories import MOVES, arc, bullet, dolly, orbit, parse_path, pedestal, zoom

NUMBERS = st.one_of(
    st.integers(-720, 720), st.floats(-1e3, 1e3, allow_nan=False), st.floats(-1e30, 1e30, allow_nan=False)
)
ABOVE_ZERO = st.one_of(st.integers(1, 50), st.floats(1e-6, 1e6))
TIMES = st.one_of(st.just("hold"), st.floats(0, 1), st.lists(st.floats(0, 1), min_size=1, max_size=4).map(tuple))
COMMON = {
    "azimuth": NUMBERS,
    "elevation": NUMBERS,
    "distance": ABOVE_ZERO,
    "fov": st.floats(1, 179),
    "ease": st.sampled_from(["linear", "in", "out", "in-out"]),
    "share": ABOVE_ZERO,
}
OWN = {
    "orbit": {"turns": NUMBERS},
    "arc": {"by": NUMBERS, "to": NUMBERS, "rise": NUMBERS},
    "spiral": {"turns": NUMBERS, "rise": NUMBERS, "to": ABOVE_ZERO},
    "bullet": {"turns": NUMBERS},
    "dolly": {"by": NUMBERS, "to": ABOVE_ZERO},
    "dolly_zoom": {"by": NUMBERS, "to": ABOVE_ZERO},
    "zoom": {"by": ABOVE_ZERO, "to": st.floats(1, 179)},
    **{name: {"by": NUMBERS} for name in ("truck", "pedestal", "pan", "tilt", "roll")},
    "static": {},
}


@st.composite
def moves(draw, placed=True):
    """A move with any of its options; placings and times only where asked, as moves together may clash."""
    name = draw(st.sampled_from(sorted(MOVES)))
    common = COMMON | {"time": TIMES} if placed else {"ease": COMMON["ease"], "share": COMMON["share"]}
    options = draw(st.fixed_dictionaries({}, optional=OWN[name] | common))
    if name == "bullet" and not placed:
        name, options = "orbit", options
    return MOVES[name](**options)


def joined(parts):
    """Sequences of them, and such together with a move that clashes with none."""
    several = st.lists(parts, min_size=2, max_size=3)
    return st.one_of(
        several.map(lambda items: items[0] >> items[1] if len(items) == 2 else items[0] >> items[1] >> items[2]),
        st.tuples(parts, moves(placed=False)).map(lambda pair: pair[0] + pair[1]),
        st.tuples(moves(placed=False), parts).map(lambda pair: pair[0] + pair[1]),
    )


@settings(max_examples=150, deadline=None)
@given(st.recursive(moves(), joined, max_leaves=6))
def test_the_text_of_a_path_is_the_path(path):
    assert parse_path(str(path)) == path


def test_text_and_python_are_the_same_objects():
    text = "orbit:turns=1 + dolly:to=2.2; bullet:time=0.5,ease=in-out"
    path = (orbit(turns=1) + dolly(to=2.2)) >> bullet(time=0.5, ease="in-out")
    assert parse_path(text) == path
    assert str(path) == "orbit + dolly:to=2.2; bullet:ease=in-out,time=0.5"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("orbit", orbit()),
        (" orbit : turns = 2 , elevation = +30 ", orbit(turns=2, elevation=30)),
        ("orbit:turns=-.5", orbit(turns=-0.5)),
        ("orbit:turns=1e-3+zoom", orbit(turns=0.001) + zoom()),
        ("orbit:time=0:1:0;arc:to=5", orbit(time=(0, 1, 0)) >> arc(to=5)),
        ("bullet:time=hold", bullet()),
        ("(orbit; dolly) + pedestal", (orbit() >> dolly()) + pedestal()),
        ("((orbit))", orbit()),
        ("orbit; (dolly; zoom)", orbit() >> dolly() >> zoom()),
    ],
)
def test_texts(text, path):
    assert parse_path(text) == path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spin", "no move 'spin'; there are orbit, arc, spiral"),
        ("", "no move ''"),
        ("orbit +", "no move ''"),
        ("orbit; ; dolly", "no move ';'"),
        ("orbit dolly", "did not expect 'dolly'"),
        ("orbit:speed=2", "cannot read 'speed=2'; orbit knows turns=1, azimuth"),
        ("orbit:elevation=high", "cannot read 'elevation=high'"),
        ("orbit:elevation", "cannot read 'elevation'"),
        ("orbit:turns=nan", "cannot read|turns is nan"),
        ("orbit:turns=1,turns=2", "says turns twice"),
        ("orbit:ease=soft", "ease is 'soft'"),
        ("orbit:time=0:2", "times '0:2'"),
        ("orbit:distance=0", "distance 0"),
        ("(orbit; dolly", r"expected '\)' instead of ''"),
        ("orbit)", r"did not expect '\)'"),
        ("orbit:azimuth=1 + dolly:azimuth=1", "azimuth is set twice"),
        ("orbit: turns=1; %", "no move '%'"),
        ("(" * 5000, "too many parentheses"),
    ],
)
def test_unreadable_texts_say_what_can_be_read(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_path(text)
    assert f"trajectory '{text}'" in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="orbitdoly:=,;+()0.5-einhg ", max_size=30))
def test_no_text_is_more_than_a_value_error(text):
    try:
        path = parse_path(text)
    except ValueError:
        return
    assert parse_path(str(path)) == path
