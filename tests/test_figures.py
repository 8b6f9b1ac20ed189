"""Curves and figures: right numbers and an honest sentence."""
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given, strategies as st

from infoprompt.show.figures import (curves, description, fig_convergence, fig_run, fig_strip, headline, stored_runs,
                                     table, told)


def history(runs: int = 1, epochs: int = 6, per: int = 8, scale: float = 1., validation: bool = True) -> pd.DataFrame:
    "A history whose loss falls and whose score rises, each run a little higher than the one before."
    rows = [(r, s, s / per, q, scale * (r + base / s)) for r in range(runs) for s in range(1, epochs * per + 1)
            for q, base in (("loss", 2.), ("ce", 1.), ("l_rep", 3.), ("l_head", 2.5))]
    if validation:
        rows += [(r, e * per, float(e), q, v) for r in range(runs) for e in range(epochs + 1)
                 for q, v in (("val_accuracy", .5 + .05 * e + .01 * r), ("val_loss", .7 - .01 * e))]
    return pd.DataFrame(rows, columns=["run", "step", "epoch", "quantity", "value"])


def test_validation_is_left_as_it_is():
    found = curves(history())["val_accuracy"]
    np.testing.assert_allclose(found["mean"], [.5, .55, .6, .65, .7, .75, .8])
    assert (found["sd"] == 0).all()


def test_terms_are_means_over_windows():
    h = history(epochs=30)
    want = h.query("quantity == 'ce'")["value"].to_numpy().reshape(30, 8).mean(1)
    np.testing.assert_allclose(curves(h)["ce"]["mean"], want)


def test_bands_are_standard_deviations_over_runs():
    found = curves(history(runs=3, epochs=30))
    np.testing.assert_allclose(found["loss"]["sd"], 1.)
    np.testing.assert_allclose(found["val_accuracy"]["sd"], .01)


@given(epochs=st.integers(1, 70), per=st.integers(1, 40), points=st.integers(1, 50))
def test_windows_hold_every_step_once(epochs, per, points):
    steps = np.arange(1, epochs * per + 1)
    h = pd.DataFrame(dict(run=0, step=steps, epoch=steps / per, quantity="loss", value=1.))
    found = curves(h, points)["loss"]
    assert (found["mean"] == 1).all() and min(points, len(steps)) <= len(found) + 1 and len(found) <= len(steps)
    assert found["epoch"].is_monotonic_increasing and found["epoch"].is_unique


def test_headline_says_when_nothing_was_learnt():
    found = curves(history())
    assert headline(found, .9) == "No better than the majority class: validation accuracy 0.80 at best, against 0.90"
    assert headline(found, .5) == "Validation accuracy went from 0.50 to 0.80 at best; the majority class gets 0.50"
    assert "no validation rows" in headline(curves(history(validation=False)))


def panels(fig) -> dict:
    "Names of the lines in each panel."
    return {axis: [t.name for t in fig.data if (t.yaxis or "y") == axis and t.meta != "band"] for axis in ("y", "y2")}


def test_figure_has_both_panels_and_all_lines():
    fig = fig_convergence(history(), majority=.5, untrained=.48, probe=.7)
    assert panels(fig) == {"y": ["loss", "cross-entropy", "L_rep", "L_head", "CE on validation"],
                           "y2": ["validation", "majority", "untrained", "probe"]}
    assert not [t for t in fig.data if t.meta == "band"]
    about = fig.layout.meta["about"]
    assert all(words in about for words in ("nats", "0.7: probe", "validation accuracy from 0.5 to 0.8"))


def test_several_runs_have_bands_in_both_panels():
    bands = [t for t in fig_convergence(history(runs=3)).data if t.meta == "band"]
    assert len(bands) == 2 and max(bands[1].y) <= 1


def test_axis_is_logarithmic_where_terms_differ():
    assert fig_convergence(history(epochs=1, per=4)).layout.yaxis.type is None
    assert fig_convergence(history(epochs=300)).layout.yaxis.type == "log"


@pytest.mark.parametrize("h", [history(validation=False), history().query("step == 0"), history(epochs=1, per=1)],
                         ids=["no validation", "stopped before a step", "one step"])
def test_figure_of_an_incomplete_history(h):
    assert fig_convergence(h, majority=.5).layout.title.text


def test_description_of_lines():
    assert description(curves(history()), dict(majority=.5)).endswith("Horizontal line at 0.5: majority.")


@pytest.mark.parametrize("template, number, want", [("{x}", 2., "2"), ("{x:d}", 2.6, "3"), ("{x:.2f}", 1.234, "1.23"),
                                                    ("{x:.3g}", .012345, "0.0123"), ("{x:.0%}", .256, "26%"),
                                                    ("{x}", "word", "word"), ("{x:.1f}", None, "–"),
                                                    ("{x} of {x}", 1, "1 of 1")])
def test_templates(template, number, want):
    assert told(template, dict(x=number)) == want


def test_strip_shows_every_place_and_escapes_tokens():
    places = [dict(token=t, kind=k, slot=-1, position=i, type=0, seen=1)
              for i, (t, k) in enumerate([("<s>", "special"), ("P0", "prompt"), ("<mask>", "mask")])]
    cells = fig_strip(places).data[0]
    assert [row[0] for row in cells.text] == ["&lt;s&gt;", "P0", "&lt;mask&gt;"]
    assert [row[0] for row in cells.z] == [0, 2, 3]


@pytest.mark.parametrize("terms", ["published", "none"])
def test_stored_runs_are_drawn_by_seed(terms):
    every, one = fig_run(terms=terms), fig_run("2", terms)
    assert [t.meta for t in one.data].count("band") == 0 < [t.meta for t in every.data].count("band")
    assert ("L_rep" in [t.name for t in one.data]) == (terms == "published")
    assert sorted(r["seed"] for r in stored_runs() if r["terms"] == terms) == list(range(5))


def test_a_grid_has_its_numbers_as_a_table_too():
    text = table(go.Figure(go.Heatmap(x=["0", "1"], y=["a"], z=[[.25, .75]])))
    assert "<th>a</th>" in text and "0.75" in text and table(go.Figure()) == ""
