"""What a page is given: every answer of a figure, written down small and exactly, and nothing from outside."""
import base64
import json
import math
import re
from itertools import product

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, strategies as st

from infoprompt.show.explore import (RENDERER, Stops, Typed, explore, fragment, frame, html_page, merged, packed, show,
                                     tabled)
from infoprompt.show.figures import say


def fig_line(slope=1, start=0., text="", kind="plain"):
    "A line; its number of points and its axis follow the kind."
    at = list(range(3 if kind == "plain" else 5))
    fig = go.Figure(go.Scatter(x=at, y=[start + slope * x for x in at], mode="lines"))
    fig.update_yaxes(type="log" if kind == "log" else "linear")
    return say(fig, "{kind} line to {end:.1f} " + text, "A line.", kind=kind, end=start + slope * at[-1])


CONTROLS = dict(slope=Stops([1, 2, 4], "slope", published=2), start=Stops([0., .5], "start"),
                kind=Stops(["plain", "log"], "kind"))


def unpacked(table: dict) -> list:
    "What the renderer makes of a packed table."
    ints = np.frombuffer(base64.b64decode(table["data"]), "<i2").astype(float)
    values = table["offset"] + table["scale"] * ints
    values = np.exp(values) if table["log"] else values
    return np.where(ints == -2**15, np.nan, values).reshape(-1, table["width"]).tolist()


def filled(node, at: dict, stops: dict):
    "What the renderer makes of a frame at one place of the grid."
    if isinstance(node, list): return [filled(part, at, stops) for part in node]
    if not isinstance(node, dict): return node
    if "$" not in node: return {key: filled(part, at, stops) for key, part in node.items()}
    table, flat = node["$"], 0
    for name in table["over"]: flat = flat * stops[name] + at[name]
    return (table["rows"] if "rows" in table else unpacked(table["packed"]))[table["index"][flat]]


def test_every_setting_is_stored():
    spec = explore(fig_line, **CONTROLS).spec
    stops = {name: len(control.values) for name, control in CONTROLS.items()}
    for places in product(*map(range, stops.values())):
        at = dict(zip(stops, places))
        want = frame(fig_line(**{name: CONTROLS[name].values[i] for name, i in at.items()}))
        found = filled(spec["frame"], at, stops)
        np.testing.assert_allclose(found["data"][0].pop("y"), want["data"][0].pop("y"), atol=1e-4)
        assert found == want


def test_a_part_follows_only_its_controls():
    parts = explore(fig_line, **CONTROLS).spec["frame"]
    assert parts["data"][0]["x"]["$"]["over"] == ["kind"] == parts["layout"]["yaxis"]["type"]["$"]["over"]
    assert parts["data"][0]["mode"] == "lines"


number = st.one_of(st.none(), st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: round(v, 6)))


@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(number, min_size=n, max_size=n), min_size=1, max_size=4)))
def test_packed_numbers_come_back(rows):
    want, found = (np.array(r, dtype=float) for r in (rows, unpacked(packed(rows))))
    assert (np.isnan(want) == np.isnan(found)).all()
    kept = want[np.isfinite(want)]
    if kept.size and kept.min() > 0 and kept.max() > 1e3 * kept.min():
        np.testing.assert_allclose(found, want, rtol=math.log(kept.max() / kept.min()) / 2**15 + 1e-9)
    elif kept.size:
        np.testing.assert_allclose(found, want, atol=(kept.max() - kept.min()) / 2**16 + 1e-9 * abs(kept).max())


@pytest.mark.parametrize("rows", [[[0, 1, 2], [30000, -4, 7]], [[5]], [[-3, None]]])
def test_whole_numbers_are_exact(rows):
    assert np.array_equal(unpacked(packed(rows)), np.array(rows, dtype=float), equal_nan=True)


def test_tables_hold_each_value_once():
    found = tabled(["a", "b", "a", "b"], dict(one=2, two=2))
    assert found == dict(over=["two"], index=[0, 1], rows=["a", "b"])


def test_parts_of_other_shapes_are_kept_whole():
    parts = [dict(a=[1]), dict(a=[1, 2]), dict(b=0), dict(a=None)]
    found = merged(parts, dict(k=4))
    assert [filled(found, dict(k=i), dict(k=4)) for i in range(4)] == parts


def test_start_must_be_a_stop():
    with pytest.raises(ValueError, match="starts at slope=1, which is not one of its stops: add it to"):
        explore(fig_line, slope=Stops([2, 4], "slope")).spec


def test_unknown_setting_is_named():
    with pytest.raises(ValueError, match="fig_line has no setting 'steep': it has slope, start"):
        explore(fig_line, steep=Stops([1], "steep"))


def test_typed_text_is_not_tabled():
    spec = explore(fig_line, text=Typed("your text"), kind=CONTROLS["kind"]).spec
    assert [c["values"] for c in spec["controls"]] == [None, ["plain", "log"]]
    assert spec["frame"]["sentence"] == "{kind} line to {end:.1f} "


def test_no_number_that_json_lacks():
    fig = go.Figure(go.Scatter(y=[math.inf, math.nan, 1.]))
    text = fragment(show(fig).spec, show(fig).first)
    assert not re.search(r"NaN|[^.]Infinity", text.split("show(place, {")[1])


def test_bundle_is_two_types_and_the_same_each_time():
    first, second = (explore(fig_line, **CONTROLS)._repr_mimebundle_() for _ in range(2))
    assert first == second and set(first) == {"application/vnd.plotly.v1+json", "text/html"}
    json.dumps(first)
    assert re.search(r'<figure id="fig-[0-9a-f]{12}"><figcaption>plain line to 2.0 </figcaption>', first["text/html"])
    assert show(fig_line(slope=3))._repr_mimebundle_() != show(fig_line())._repr_mimebundle_()


def test_text_is_escaped():
    fig = say(go.Figure(go.Scatter(y=[1])), "</script><b>", '"<i>')
    text = html_page(show(fig))
    assert "</script><b>" not in text and '"<i>' not in text


def test_page_is_self_contained():
    text = html_page(explore(fig_line, **CONTROLS))
    assert '<html lang="en">' in text and "<title>plain line to 2.0 </title>" in text and "<details>" in text
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=", text[:text.index("<script>")])


def test_renderer_is_short():
    lines = RENDERER.splitlines()
    assert len(lines) <= 300 and max(map(len, lines)) <= 120
