"""Races between runs and their twins: known answers by hand, a tiny question, and every stored file whole and drawn."""
import json
import re
from collections import Counter

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy.stats import CensoredData, logrank, ttest_1samp

from conftest import ROOT
from infoprompt.core import InfoPromptModel, load_data
from infoprompt.data.tasks import get_task
from infoprompt.show.figures import told
from infoprompt.show.weights import stored_weights
from infoprompt.study.evidence import (BLOCKS, RATES, SHOWN, SLACK, arrival, fig_gains, fig_phase, fig_primary,
                                       fig_race, fig_rival, fig_spread, fig_twins, log_rank, mark_for, own_marks,
                                       pooled, primary, race, raced, smoothed, stored_grid, tuned)
from infoprompt.study.experiments import PRIMARY
from infoprompt.study.questions import HOW, LADDER, QUESTIONS, WhileStuck, early, gather, possible
from infoprompt.study.questions import NANO as FIVE
from infoprompt.study.sweeps import plan
from small import NANO

FILES = sorted((ROOT / "benchmarks/results").glob("evidence_*.parquet"))
CURVES = st.lists(st.floats(0, 5, allow_subnormal=False), min_size=2, max_size=40)
FREE = examples(max_examples=80)


# --- a curve

def test_smoothing_leaves_the_start_out_and_looks_back_two_epochs():
    assert smoothed([99, 4, 2, 1, .5]).tolist() == pytest.approx([4, 3, 7 / 3, 3.5 / 3])
    assert smoothed([99, 3]).tolist() == [3] and len(smoothed([99])) == 0


@pytest.mark.parametrize("mark, epoch", [(4, 1), (3, 2), (2.9, 3), (1.2, 4), (1.1, np.inf), (0, np.inf), (98, 1)])
def test_arrival_by_hand(mark, epoch):
    assert arrival([99, 4, 2, 1, .5], mark) == epoch
    assert arrival([0], mark) == np.inf, "a start is no arrival"


@given(CURVES, *[st.floats(0, 5, allow_subnormal=False)] * 2)
@FREE
def test_a_lower_curve_and_a_higher_mark_arrive_no_later(curve, mark, down):
    assert arrival([x - down for x in curve], mark) <= arrival(curve, mark)
    assert arrival(curve, mark + down) <= arrival(curve, mark)
    later = min(arrival(curve, mark), len(curve) - 1)
    assert arrival(curve[:int(later) + 1], mark) == arrival(curve, mark), "what comes after it does not count"


@given(CURVES)
@FREE
def test_every_run_reaches_its_own_mark(curve):
    assert arrival(curve, smoothed(curve).min() + SLACK) < np.inf


def test_early_terms_are_means_over_the_first_epochs():
    steps = pd.DataFrame(dict(epoch=[1., 5., 5.25, 1.], quantity=["l_rep"] * 3 + ["ce"], value=[1., 3., 50., 9.]))
    assert early(steps, "l_rep") == 2 and early(steps, "l_rep", 9) == 18 and np.isnan(early(steps, "l_head"))


# --- choosing rates, and racing

def row(beta=0., seed=0, after=(.5, .5, .5, .5), **kw):
    return dict(task="nano/a", beta=beta, gamma=0., lr=.01, seed=seed, curve=[1., *after], test_accuracy=.5) | kw


def test_each_task_and_arm_has_the_rate_with_its_lowest_loss():
    best = {("nano/a", 0.): .01, ("nano/a", .1): .03, ("nano/b", 0.): .03, ("nano/b", .1): .01}
    rows = [row(beta, seed, [.6 - .2 * (lr == best[task, beta]) + .3 * seed] * 4, task=task, lr=lr)
            for task, beta in best for lr in (.01, .03) for seed in range(3)]
    found = tuned(pd.DataFrame(rows))
    assert len(found) == 12 and {(r.task, r.beta): r.lr for r in found.itertuples()} == best
    assert set(found["arm"]) == {"beta = 0", "beta = 0.1"}


def test_a_rate_is_chosen_by_the_smoothed_curve_not_by_a_dip_and_by_all_seeds():
    dip = [row(lr=.1, after=[.9, .9, .1, .9])]
    assert tuned(pd.DataFrame(dip + [row(lr=.2, after=[.6] * 4)]))["lr"].tolist() == [.2]
    lucky = [row(lr=.1, seed=0, after=[.1] * 4), row(lr=.1, seed=1, after=[.9] * 4)]
    assert set(tuned(pd.DataFrame(lucky + [row(lr=.2, seed=s, after=[.4] * 4) for s in (0, 1)]))["lr"]) == {.2}


def test_test_rows_choose_no_rate():
    rows = [row(lr=lr, after=[loss] * 4, test_accuracy=test) for lr, loss, test in
            ((.1, .5, .9), (.2, .4, .1), (.3, .6, .05))]
    assert tuned(pd.DataFrame(rows))["lr"].tolist() == tuned(pd.DataFrame(rows[::-1]))["lr"].tolist() == [.2]


def test_an_arm_is_named_by_what_varies_and_is_known():
    table = pd.DataFrame([row(), row(.1, rep_critic="dot"), row(.1, rep_critic="bilinear", k=4)]).assign(gamma=0.)
    assert tuned(table)["arm"].tolist() == ["beta = 0", "beta = 0.1, rep_critic = dot",
                                            "beta = 0.1, k = 4, rep_critic = bilinear"]


# smoothed .8, .65, .6, .5: the mark is .52
PLAIN = [.8, .5, .5, .5]


def two_arms(*others):
    "The base arm with one kind of curve, and one run a seed in the other arm."
    base = [row(0., s, PLAIN, test_accuracy=.5 + .1 * s) for s in range(len(others))]
    other = [row(.1, s, after, test_accuracy=.7 + .1 * s) for s, after in enumerate(others)]
    return tuned(pd.DataFrame(other + base))


def test_each_run_races_its_own_twin():
    slow_twin = two_arms(PLAIN, [.4] * 4, [.9] * 4)
    found = raced(slow_twin, "beta = 0").set_index(["arm", "seed"])
    assert found.loc["beta = 0.1", "epochs"].tolist() == [4, 1, np.inf] and (found["plain"] == 4).all()
    assert found.loc["beta = 0.1", "test"].tolist() == pytest.approx([.2] * 3)
    assert found.loc["beta = 0.1", "area"].tolist() == pytest.approx([0, .4 - .575, .9 - .575])
    own = found.loc["beta = 0"]
    assert (own[["test", "area"]] == 0).all(axis=None) and (own["epochs"] == 4).all()


def test_one_mark_serves_all_runs_of_a_task():
    plain = [[.8, .8, .8, .8], [.5, .5, .5, .5], [.2, .2, .2, .2]]
    rows = [row(0., s, after) for s, after in enumerate(plain)] + [row(.1, s, [.9, .52, .4, .1]) for s in range(3)]
    found = raced(tuned(pd.DataFrame(rows)), "beta = 0")
    assert mark_for([[1., *after] for after in plain]) == .5 + SLACK
    assert found["plain"].tolist() == [np.inf, 1, 1] * 2, "what the twin's own best would be does not count"
    assert found[found["arm"] == "beta = 0.1"]["epochs"].tolist() == [4] * 3  # smoothed .9, .71, .61, .34


def test_the_mark_is_smoothed():
    twin = [.8, .8, .2, .8, .8]  # smoothed .8, .8, .6, .6, .6: the mark is .62, where the dip alone would make it .22
    rows = [row(0., 0, twin), row(.1, 0, [.8, .61, .45, .45, .45])]  # smoothed .8, .705, .62, .503
    found = raced(tuned(pd.DataFrame(rows)), "beta = 0").set_index("arm")["epochs"]
    assert found.to_dict() == {"beta = 0": 3, "beta = 0.1": 3}


def test_intervals_of_a_race_are_students():
    rng = np.random.default_rng(0)
    rows = [row(b, s, [.5 + b * rng.normal()] * 4, test_accuracy=.5 + b * rng.normal()) for b in (0., .1)
            for s in range(10)]
    runs = raced(tuned(pd.DataFrame(rows)), "beta = 0")
    found, gains = race(runs).loc[("nano/a", "beta = 0.1")], runs[runs["arm"] == "beta = 0.1"]
    for value, names in (("test", ["low", "high"]), ("area", ["area_low", "area_high"])):
        assert found[names].tolist() == pytest.approx([*ttest_1samp(gains[value], 0).confidence_interval()])


def test_a_race_by_hand():
    found = race(raced(two_arms([.4] * 4, [.9] * 4, [.9] * 4), "beta = 0")).loc["nano/a"]
    assert found.loc["beta = 0.1", ["plain", "epochs", "seeds"]].tolist() == [4, np.inf, 3]
    assert found.loc["beta = 0.1", ["arrived", "test", "low", "high"]].tolist() == pytest.approx([1 / 3, .2, .2, .2])
    assert found.loc["beta = 0.1", "area"] == pytest.approx(np.mean([-.175, .325, .325]))
    assert found.loc["beta = 0.1", "area_low"] < found.loc["beta = 0.1", "area"] < found.loc["beta = 0.1", "area_high"]
    assert found.loc["beta = 0", ["epochs", "arrived", "test", "area"]].tolist() == [4, 1, 0, 0]
    most = race(raced(two_arms([.4] * 4, PLAIN, [.9] * 4), "beta = 0")).loc[("nano/a", "beta = 0.1")]
    assert (most["epochs"], most["arrived"]) == (4, pytest.approx(2 / 3)), "one that never arrives is later than any"


def test_figures_say_what_the_race_found():
    table = two_arms([.4] * 4, [.9] * 4, [.9] * 4).assign(arm=lambda t: t["arm"] + ", gamma = 0")
    phase = {v: fig_phase(table, "nano/a", v) for v in ("epochs", "test")}
    assert [[*r] for r in phase["epochs"].data[0].text] == [["4<br>100% arrive", "inf<br>33% arrive"]]
    assert "needs 4 epochs in the median; at best 4" in phase["epochs"].layout.title.text
    assert "1 of 1 settings differ clearly from plain tuning; chance: 0.1" in phase["test"].layout.title.text
    never = fig_race(table, "nano/a", {"beta = 0, gamma = 0": "plain", "beta = 0.1, gamma = 0": "β"})
    assert "after more than 4 epochs, against 4 epochs (log-rank p = " in never.layout.title.text
    assert "test differs by +0.200" in never.layout.title.text and [t.name for t in never.data] == ["plain", "β"]
    shares = [1, 1, 1, 1, 0], [1, 2 / 3, 2 / 3, 2 / 3, 2 / 3]
    assert np.array([t.y for t in never.data]) == pytest.approx(np.array(shares), abs=1e-3)
    gains = pd.DataFrame(dict(mean=[1., 0, -1], low=[.5, -1, -2], high=[2., 1, -.5]), index=list("abc"))
    assert "x: 1 of 3 intervals above zero, 1 below; by chance 0.1 each" in \
        fig_gains(gains, "gain", "x").layout.title.text
    spread = fig_spread(pd.DataFrame([row(init=i, gamma=g, test_accuracy=.5 + g * s, seed=s)
                                      for i in ("vocab", "label") for g in (0., .05) for s in (0, 2)]), "nano/a")
    assert "0.000 without the head loss and 0.071 with" in spread.layout.title.text


def test_runs_that_never_arrive_are_censored():
    runs = pd.DataFrame(dict(epochs=[1., 2., 2., np.inf], plain=[5., 9., np.inf, np.inf], last=30))
    seen = lambda values, censored: CensoredData.right_censored(values, censored)
    want = logrank(seen([1, 2, 2, 30], [0, 0, 0, 1]), seen([5, 9, 30, 30], [0, 0, 1, 1])).pvalue
    assert log_rank(runs) == pytest.approx(want) and 0 < want < 1
    assert log_rank(runs.assign(epochs=runs["plain"])) == 1
    assert np.isnan(log_rank(runs.assign(epochs=np.inf, plain=np.inf)))


def test_a_mark_favours_the_run_that_set_it():
    curves = [[1., *after] for after in ([.8] * 4, [.6, .5, .4, .1], [.9, .2, .2, .2])]
    found = own_marks(curves)  # marks: .82, .353, .22; smoothed: .6, .55, .5, .333 and .9, .55, .433, .2
    assert found["plain"].tolist() == [1, 4, 4] and found["epochs"].tolist() == [1, 4, np.inf]
    assert set(found["last"]) == {4}
    fig = fig_rival(pd.DataFrame([row(seed=s, curve=c) for s, c in enumerate(curves)]), "nano/a")
    assert "set the mark needs 4 epochs, an equal rival 4 epochs (log-rank p = " in fig.layout.title.text
    assert [*fig.data[1].y] == pytest.approx([1, 2 / 3, 2 / 3, 2 / 3, 1 / 3], abs=1e-3)


def test_terms_act_while_a_batch_is_at_chance():
    "Two starts: one guesses, one has an opinion."
    found = []
    for seed in 0, 4:
        model = WhileStuck(NANO, "nano/sentiment", beta=1., gamma=.5, init="vocab", seed=seed)
        out = model(**model.collate_fn(model.rows(load_data("nano/sentiment", 16, 0)["train"])))
        terms = out.l_rep.item() + .5 * out.l_head.item()
        found.append(out.ce.item() >= .9 * np.log(2))
        assert out.loss.item() == pytest.approx(out.ce.item() + terms * found[-1]) and terms > 1
    assert found == [True, False]


# --- the question that was fixed in advance

def test_the_primary_question_by_hand():
    "From the stored files alone: rates by validation cross-entropy, means over tasks, Student's interval over seeds."
    gaps, low = [], lambda c: min(np.mean(c[max(1, i - 2):i + 1]) for i in range(1, len(c)))
    for task in PRIMARY["tasks"]:
        best = {}
        for arm in "base", "weights":
            asked = "init == 'vocab' and beta == {} and gamma == {}".format(*PRIMARY[arm])
            parts = [stored_weights(task, lr).query(asked).sort_values("seed") for lr in PRIMARY["lrs"]]
            best[arm] = min(parts, key=lambda part: np.mean([low(c) for c in part["val_loss"]]))
        gaps.append([best["weights"][v].to_numpy() - best["base"][v].to_numpy() for v in ("test",)] +
                    [np.subtract(*([np.mean(c[1:]) for c in best[a]["val_loss"]] for a in ("weights", "base")))])
    for value, one in zip(PRIMARY["outcomes"], np.mean(gaps, axis=0)):
        low_high = ttest_1samp(one, 0).confidence_interval()
        assert primary().loc[(value, "all five")].tolist() == pytest.approx([one.mean(), *low_high])


def test_test_rows_choose_no_rate_of_the_primary_question(monkeypatch):
    before = primary().loc["area"]
    flipped = lambda *args, **kw: (t := stored_grid(*args, **kw)).assign(test_accuracy=1 - t["test_accuracy"])
    monkeypatch.setattr("infoprompt.study.evidence.stored_grid", flipped)
    pd.testing.assert_frame_equal(primary().loc["area"], before)
    assert primary().loc["test", "mean"].tolist() != before["mean"].tolist()


def test_pooling_needs_every_seed_on_every_task():
    runs = pd.DataFrame([dict(task=t, seed=s, test=s + 10 * (t == "b")) for t in "ab" for s in range(3)])
    assert pooled(runs, "test")[0] == 6 and np.isnan(pooled(runs[1:], "test")[0])


@pytest.mark.parametrize("outcome", SHOWN)
@pytest.mark.parametrize("rate", RATES)
def test_the_first_figure_says_what_was_found(outcome, rate):
    value, sign = SHOWN[outcome]
    found, fig = primary(RATES[rate]).loc[(value, "all five")] * sign, fig_primary(outcome, rate)
    assert f"all five tasks together {found['mean']:+.3f} ({min(found['low'], found['high']):+.3f} to " in \
        fig.layout.title.text and fig.data[0].x[0] == pytest.approx(found["mean"], rel=1e-2)


@pytest.mark.parametrize("task, words, mask", [("paraphrase", True, False), ("entailment", False, False),
                                               ("sentiment", False, True)])
def test_a_task_has_the_faults_that_it_can_have(task, words, mask):
    there = possible(get_task(f"nano/{task}"), LADDER["as published"]["faults"])
    assert there == ("clamp", "first", *["words"] * words, *["mask"] * mask)


@pytest.mark.parametrize("seeds, verdict", [("0 to 4", "clearly better"), ("15 to 19", "clearly worse"),
                                            ("all twenty", "no clear difference")])
def test_twins_say_what_the_chosen_seeds_say(seeds, verdict):
    fig = fig_twins(seeds=seeds)
    dots = fig.data[2]
    chosen = np.array(dots.y)[BLOCKS[seeds]]
    assert verdict in fig.layout.title.text and len(dots.y) == 20
    low, high = ttest_1samp(chosen, 0).confidence_interval()
    assert [fig.data[0].y[2], fig.data[0].y[0]] == pytest.approx([low, high], rel=5e-3)
    assert [size > 6 for size in dots.marker.size] == [s in range(20)[BLOCKS[seeds]] for s in range(20)]


# --- gathering

@pytest.fixture
def tiny(monkeypatch):
    "A question of two blocks."
    monkeypatch.setitem(QUESTIONS, "tiny", [
        dict(betas=(0., .1), gammas=(0.,), lrs=(1e-2,), seeds=range(2), shots=16),
        dict(betas=(0.,), gammas=(.05,), lrs=(1e-2,), seeds=range(2), shots=8, optimizer="sgd")])
    return lambda **kw: gather("tiny", "nano/sentiment", epochs=1, progress=False, **kw)


def test_a_question_gives_one_row_a_run_with_its_curve(tiny):
    table = tiny()
    rows = table[["beta", "gamma", "seed", "shots"]].itertuples(index=False, name=None)
    assert table["optimizer"].tolist() == ["adamw"] * 4 + ["sgd"] * 2
    assert [*rows] == [(0., 0., 0, 16), (0., 0., 1, 16), (.1, 0., 0, 16), (.1, 0., 1, 16), (0., .05, 0, 8),
                       (0., .05, 1, 8)] and [*table["task"].unique()] == ["nano/sentiment"]
    assert all(len(c) == 2 and np.isfinite(c).all() for c in table["curve"])
    assert table["l_rep"].notna().tolist() == [False, False, True, True, False, False]
    assert table["l_head"].notna().tolist() == [False] * 4 + [True] * 2
    cut = tiny(size=2)
    names = ["val_loss", "test_accuracy", "l_rep", "l_head"]
    pd.testing.assert_frame_equal(cut[names], table[names], atol=2e-3, rtol=1e-3)
    model = InfoPromptModel(NANO, "nano/sentiment", beta=0, gamma=0, init="vocab", seed=1)
    data = load_data("nano/sentiment", shots=16, seed=1)
    loss = model.fit(data["train"], data["validation"], 1, 1e-2, seed=1, progress=False).query("quantity == 'val_loss'")
    assert table["curve"][1] == pytest.approx(loss["value"].tolist(), abs=1e-3)


# --- what is stored

def planned(question, task):
    "What tells each run of a question and task apart."
    for block in QUESTIONS[question]:
        own = dict(task=task) | {k: block.get(k, HOW[k]) for k in ("shots", "optimizer", "acts")}
        yield from (own | run for run in plan(**{k: v for k, v in block.items() if k not in HOW}))


def known(row, names):
    usual = dict(optimizer="adamw", acts="always")
    return frozenset((k, v) for k, v in (usual | row).items() if k in names and not pd.isna(v))


@pytest.fixture(params=FILES, ids=lambda f: f.stem.removeprefix("evidence_"))
def stored(request):
    "A stored question and its table."
    return request.param.stem.removeprefix("evidence_"), pd.read_parquet(request.param)


def test_there_is_evidence():
    assert {"critics", "more"} <= {file.stem.removeprefix("evidence_") for file in FILES} <= set(QUESTIONS)


def origins(file):
    "What made a file of results: one dict a part."
    if file.suffix == ".parquet": return [pd.read_parquet(file).attrs]
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.suffix == ".jsonl" else \
        [d := json.loads(file.read_text()), *(x for x in d.values() if isinstance(x, dict))]
    assert file.suffix != ".jsonl" or "made" in lines[0], "lines that nobody speaks for"
    return [line["made"] for line in lines if "made" in line]


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks/results").glob("*.*")), ids=lambda f: f.name)
def test_a_file_of_results_is_small_and_says_how_it_was_made(file):
    assert file.stat().st_size <= 300_000 and origins(file)
    for made in origins(file):
        assert (ROOT / made["command"].removeprefix("python ").split()[0]).is_file()
        assert re.fullmatch("[0-9a-f]{7,}", made["commit"])
        assert set(made["versions"]) >= {"infoprompt", "torch", "transformers"}


def test_rows_know_their_commit(stored):
    _, table = stored
    assert table["commit"].str.fullmatch("[0-9a-f]{7,}").all() and table.attrs["commit"] in {*table["commit"]}


def test_every_run_of_a_question_is_there_once(stored):
    question, table = stored
    assert set(table["task"]) <= {f"nano/{t}" for t in FIVE}
    runs = [r for task in table["task"].unique() for r in planned(question, task)]
    names = {k for r in runs for k in r}
    there = Counter(known(r, names) for r in table.to_dict("records"))
    assert there == Counter(known(r, names) for r in runs) and max(there.values()) == 1


def test_stored_curves_are_whole(stored):
    question, table = stored
    fine, epochs = table[table["diverged"] == 0], QUESTIONS[question][0].get("epochs", HOW["epochs"])
    assert all(len(c) == epochs + 1 and np.isfinite(c).all() for c in fine["curve"])
    assert table["test_accuracy"].between(0, 1).all() and len(fine) > .9 * len(table)
    kept = [c[int(e)] for c, e in zip(fine["curve"], fine["epoch"])]
    assert kept == pytest.approx(fine["val_loss"].tolist(), abs=1e-4)
    for term, weight in ("l_rep", "beta"), ("l_head", "gamma"):
        assert (fine[term].notna() == (fine[weight] > 0)).all()


def test_figures_draw_from_what_is_stored(stored):
    question, table = stored
    table = tuned(table)
    plain = table.query("beta == 0 and gamma == 0")
    base = (table if plain.empty else plain)["arm"].iloc[0]  # plain runs like those of `forms` are in the grid
    found = race(raced(table, base))
    for task, part in found.groupby("task"):
        gains = part.droplevel("task")[["test", "low", "high"]].rename(columns=dict(test="mean"))
        arms = dict.fromkeys([base, *(a for a in gains.index if a != base)][:3], "arm")
        drawn = [fig_gains(gains if len(arms) < 2 else gains.drop(base), "test accuracy", task)]
        if len(arms) > 1: drawn.append(fig_race(table, task, arms))  # `forms` has one arm; its twins are in the grid
        for fig in drawn:
            assert isinstance(fig, go.Figure) and fig.layout.title.text and "{" not in fig.layout.title.text
            assert "{" not in told(fig.layout.meta["about"], fig.layout.meta["numbers"])
        assert gains.loc[base].tolist() == [0, 0, 0] and (part["arrived"].between(0, 1)).all()
