"The stored runs over weights and starts: whole, small, and drawn as they are."
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from scipy.stats import ttest_1samp

from conftest import ROOT
from infoprompt.show import weights
from infoprompt.show.explore import fragment, frame, html_page
from infoprompt.show.weights import (BETAS, GAMMAS, OUTCOMES, TASKS, epochs_to, fig_weights, is_stuck, mark_of,
                                     pack_runs, read_runs, setting, stored_rates, stored_starts, stored_weights,
                                     t_interval)
from infoprompt.study.live import explore_weights, train_live

PICTURE = ROOT / "nbs/images/weights.svg"  # README's, by tools/figure.py
FILES = [(task, lr) for task in TASKS for lr in stored_rates()]


@pytest.mark.parametrize("task, lr", FILES)
def test_every_run_is_there_once(task, lr):
    file, table = ROOT / f"infoprompt/assets/weights_{task}_{lr:g}.parquet", stored_weights(task, lr)
    assert file.stat().st_size <= 300_000
    pairs = [(0., 0.), (.1, .05)] if lr == .001 else [(b, g) for b in BETAS for g in GAMMAS]
    want = {(b, g, init, seed) for b, g in pairs for init in stored_starts() for seed in range(20)}
    keys = list(zip(table["beta"], table["gamma"], table["init"], table["seed"]))
    assert len({*keys}) == len(keys) and {*keys} >= want
    lengths = dict(val_loss=31, val_score=31, l_rep=30, l_head=30)
    assert all(len(curve) == n for q, n in lengths.items() for curve in table[q])
    for q, weight in dict(l_rep="beta", l_head="gamma").items():
        has = np.array([np.isfinite(c).all() for c in table[q]])
        assert (has == (table[weight] > 0))[table["diverged"] == 0].all()


@pytest.mark.parametrize("task, lr", FILES)
def test_the_epoch_was_chosen_on_validation_rows(task, lr):
    for run in stored_weights(task, lr).query("diverged == 0").itertuples():
        assert run.val_score[int(run.epoch)] == np.nanmax(run.val_score[1:])


@given(st.lists(st.floats(-3, 30) | st.just(np.nan), min_size=1, max_size=9))
def test_packing_keeps_three_digits(tmp_path_factory, curve):
    table = pd.DataFrame(dict(seed=[0], **{q: [curve] for q in weights.QUANTITIES}))
    file = tmp_path_factory.mktemp("packed") / "one.parquet"
    file.write_bytes(pack_runs(table, dict(task="x")))
    found = read_runs(file)
    assert found.attrs == dict(task="x")
    np.testing.assert_allclose(found["val_loss"][0], curve, atol=5.1e-4)
    np.testing.assert_allclose(found["val_score"][0], np.clip(curve, None, 3.2767), atol=5.1e-5)


def test_a_run_is_stuck_within_the_binomial_error_of_the_line():
    runs = pd.DataFrame(dict(test=[.5, .53, .532, .6, np.nan], majority=.5, rows=1000))
    assert is_stuck(runs).tolist() == [True, True, False, False, True]  # .5 + 1.96 * .0158 = .531


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=30).filter(lambda x: np.std(x) > 1e-3))
def test_the_interval_is_students(gaps):
    want = ttest_1samp(gaps, 0).confidence_interval(.95)
    np.testing.assert_allclose(t_interval(gaps), [np.mean(gaps), want.low, want.high], atol=1e-9)


def test_the_interval_holds_its_rate():
    "Of 4,000 comparisons of like with like some 5 % miss zero, as they should."
    rng = np.random.default_rng(0)
    missed = [low > 0 or high < 0 for _, low, high in (t_interval(g) for g in rng.normal(size=(4000, 20)))]
    assert .04 < np.mean(missed) < .06


def test_the_mark_lies_between_the_line_and_what_can_be_reached():
    for task in TASKS:
        runs = pd.concat([stored_weights(task, lr) for lr in stored_rates()])
        best = np.array([np.nanmax(c) for c in runs["val_score"]])
        assert runs["majority"].iloc[0] < mark_of(task) < np.quantile(best, .9)
    assert epochs_to([.9, .1, .2], .5) == np.inf and epochs_to([.1, .6, .2], .5) == 1


@pytest.mark.parametrize("task, lr, init", [("sentiment", .01, "vocab"), ("relation", .01, stored_starts()[-1])])
def test_sentence_and_map_count_what_is_drawn(task, lr, init):
    cells, plain = setting(task, lr, init), setting(task, lr, init)[0., 0.]
    for (b, g), one in cells.items():
        fig = fig_weights(b, g, init, lr, task)
        curves = [t for t in fig.data if (t.name or "").startswith("seed")]
        orange = [t for t in curves if t.line.color == "#e07b39"]
        assert len(curves) == 20 and len(orange) == one["stuck"].sum()
        assert f"{len(orange)} of 20" in fig.layout.title.text
        heat = fig.data[-1]
        assert heat.text[GAMMAS.index(g)][BETAS.index(b)] == f"{len(orange)} of 20"
        if b or g:
            gain = one["test"] - plain["test"]
            np.testing.assert_allclose(one["gain"], t_interval(gain))
            assert f"{gain.mean():+.2f}" in fig.layout.title.text


def test_what_was_not_run_is_said_and_not_drawn():
    fig = fig_weights(1., 0., lr=.001)
    assert "only plain prompt tuning and the published weights" in fig.layout.title.text
    assert all(np.isnan(np.asarray(t.y, float)).all() for t in fig.data if (t.name or "").startswith("seed"))
    assert sum(text != "" for row in fig.data[-1].text for text in row) == 2


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_outcome_has_its_map(outcome):
    texts = [text for row in fig_weights(outcome=outcome).data[-1].text for text in row]
    assert len({*texts}) > 1 and all(texts)


def test_the_first_frame_shows_the_phenomenon():
    "A mixture: some runs learn, and some do not."
    one = setting("sentiment", .01, "vocab")[0., 0.]
    assert 0 < one["stuck"].sum() < 20


def test_presets_are_settings_that_were_run():
    for preset in explore_weights().presets.values(): assert frame(fig_weights(**preset))["numbers"]["stuck"] >= 0


@pytest.fixture(scope="module")
def explorer():
    "The explorer; its table of all frames takes half a minute."
    return explore_weights()


def test_the_explorer_is_small_enough_for_a_page(explorer):
    assert len(fragment(explorer.spec, explorer.first)) < 1_000_000


@pytest.mark.parametrize("width, scheme", [(1280, "light"), (390, "dark")])
def test_the_explorer_on_a_page(explorer, page, tmp_path, width, scheme):
    said, asked, file = [], [], tmp_path / "page.html"
    file.write_text(html_page(explorer), encoding="utf-8")
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size(dict(width=width, height=844))
    page.emulate_media(color_scheme=scheme)
    page.goto(file.as_uri())
    page.wait_for_selector(".main-svg .scatterlayer .trace")
    page.get_by_role("slider", name="β").press("End")
    page.get_by_text("relation", exact=True).click()
    page.get_by_text("test score", exact=True).click()
    want = fig_weights(1., task="relation", outcome="test score").layout.title.text
    page.wait_for_function("text => document.querySelector('figcaption').textContent === text", arg=want)
    drawn = page.evaluate("document.querySelector('.plot').data.filter(t => (t.name ?? '').startsWith('seed'))"
                          ".map(t => [...t.y])")
    stored = setting("relation", explorer.start["lr"], "vocab")[1., 0.]["curves"]
    np.testing.assert_allclose(np.array(drawn, float), stored, atol=1e-3)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert said == [] and asked == [file.as_uri()]


def test_a_live_training_follows_the_stored_one():
    drawn, at = [], dict(beta=.1, gamma=.05, init="vocab", lr=.001, task="sentiment", outcome="test score")
    train_live(drawn.append, lambda: len(drawn) == 4, seeds=range(2), **at)
    assert len(drawn) == 4, "the start, and three epochs"
    table = stored_weights("sentiment", .001).query("beta == .1 and gamma == .05 and init == 'vocab'")
    for seed, line in enumerate(t for t in drawn[-1].data if (t.name or "").startswith("live")):
        stored = table.query(f"seed == {seed}")["val_score"].iloc[0][:4]
        np.testing.assert_allclose(line.y, stored, atol=1.1 / 64)


def test_a_live_training_ends_by_itself():
    drawn, at = [], dict(beta=0., gamma=0., init="vocab", lr=.01, task="relation", outcome="test score")
    train_live(drawn.append, lambda: False, seeds=range(1), epochs=2, **at)
    assert len(drawn) == 3 and "epoch 2 of 2" in drawn[-1].layout.title.text


def test_readmes_picture_shows_the_stored_runs():
    cells = [text for row in fig_weights().data[-1].text for text in row]
    assert re.findall(r">(\d+ of \d+)<", PICTURE.read_text(encoding="utf-8")) == cells, "run python tools/figure.py"
