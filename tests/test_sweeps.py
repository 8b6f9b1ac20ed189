"""Sweeps: every run of the plan, in parts or whole, killed or not, by one process or two."""
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from conftest import ROOT
from infoprompt.core import InfoPromptModel, InputError, load_data
from infoprompt.engine.population import bytes_of_row, chunks
from infoprompt.method.encoders import Encoder
from infoprompt.study import sweeps
from infoprompt.show.weights import TASKS, setting, t_interval
from infoprompt.study.sweeps import (JUDGES, SEEDS, best_of, chance_gaps, false_alarms, fig_false_alarms, fig_sweep,
                                     is_clear, paired, plan, sweep)
from small import NANO, bits, close, new

SMALL = dict(encoder=NANO, shots=16, epochs=2, progress=False, betas=(0, .1), gammas=(.05,), seeds=(3, 5), lrs=(1e-3,),
             inits=("vocab",))


def sorted_table(table):
    return table.sort_values(["beta", "gamma", "n_prompt", "seed"]).reset_index(drop=True)


def test_plan_is_all_combinations():
    runs = plan(betas=(0, 1), gammas=(0,), inits=("vocab", "label"), seeds=range(3), lrs=(1e-3, 1e-2), prompt="free")
    assert len(runs) == 24 and len({json.dumps(r) for r in runs}) == 24 and all(r["prompt"] == "free" for r in runs)
    with pytest.raises(InputError, match="seeds is .*at least 1"): plan(seeds=())


def test_a_row_is_a_fit():
    table, best = sweep(**SMALL)
    for _, row in table.iterrows():
        data = load_data("nano/sentiment", shots=16, seed=row["seed"])
        model = new(beta=row["beta"], gamma=row["gamma"], seed=row["seed"])
        model.fit(data["train"], data["validation"], epochs=2, lr=1e-3, seed=row["seed"], progress=False)
        assert row["test_accuracy"] == pytest.approx(model.evaluate(data["test"])["accuracy"], abs=.011)
        if (row["beta"], row["seed"]) == (best.settings["beta"], best.settings["seed"]):
            assert close(bits(best), bits(model), 1e-4)
    top = table.sort_values(["val_accuracy", "val_loss"], ascending=[False, True]).iloc[0]
    assert (best.settings["beta"], best.settings["seed"]) == (top["beta"], top["seed"])


def test_parts_do_not_change_the_table(tmp_path):
    whole, one = sweep(**SMALL, n_prompts=(1, 4))
    cut, other = sweep(**SMALL, n_prompts=(1, 4), budget=1e-3, out=tmp_path)
    assert len(list(tmp_path.glob("part-*.json"))) == 8
    pd.testing.assert_frame_equal(sorted_table(whole), sorted_table(cut), atol=1e-3)
    pd.testing.assert_frame_equal(cut, pd.read_parquet(tmp_path / "results.parquet"))
    assert one.settings == other.settings and close(bits(one), bits(other), 1e-4)


def test_killed_in_a_part_and_resumed(tmp_path, monkeypatch):
    want, _ = sweep(**SMALL, budget=.02, out=tmp_path / "whole")
    assert len(list((tmp_path / "whole").glob("part-*.json"))) > 1
    real, calls = sweeps.run_part, []

    def dies(*args, **kw):
        calls.append(1)
        if len(calls) == 2: raise RuntimeError("killed")
        return real(*args, **kw)
    monkeypatch.setattr(sweeps, "run_part", dies)
    with pytest.raises(RuntimeError): sweep(**SMALL, budget=.02, out=tmp_path / "cut")
    found, _ = sweep(**SMALL, budget=.02, out=tmp_path / "cut")
    assert len(calls) == 1 + len(list((tmp_path / "whole").glob("part-*.json")))
    pd.testing.assert_frame_equal(found, want)
    with pytest.raises(InputError, match="another sweep .*epochs"):
        sweep(**SMALL | dict(epochs=3), out=tmp_path / "cut")


def test_chunks_cover_every_run_once():
    for size, budget in ((45, .25), (1, 1e-9), (7, 1.), (100, .05)):
        parts = chunks(size, bytes_of_row(NANO, 40), 8, budget)
        assert [r for p in parts for r in p] == list(range(size)) and max(map(len, parts)) - len(parts[0]) <= 0
    assert len(chunks(45, bytes_of_row(NANO, 40), 8, 100.)) == 1


TWO = """
import sys, torch
torch.set_num_threads(1)
from infoprompt.study.sweeps import sweep
table, best = sweep(shots=16, epochs=2, progress=False, betas=(0, .1), gammas=(.05,), seeds=(3, 5), lrs=(1e-3,),
                    inits=("vocab",), budget=.02, out=sys.argv[1])
"""


def test_two_processes_share_the_parts(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
               tmp_path / "two.py", tmp_path / "out"]
    env = os.environ | dict(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT), ACCELERATE_USE_CPU="true")
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    table = pd.read_parquet(tmp_path / "out/results.parquet")
    alone, _ = sweep(**SMALL)
    pd.testing.assert_frame_equal(sorted_table(table), sorted_table(alone), atol=1e-3)


def test_pairs_are_of_one_seed():
    rng = np.random.default_rng(0)
    rows = [dict(beta=b, gamma=g, seed=s, score=s + 10 * b + g)
            for b in (0, 1) for g in (0, 2) for s in rng.permutation(6)]
    found = paired(pd.DataFrame(rows), "score", dict(beta=0, gamma=0))
    assert found["mean"].round(9).to_dict() == {(0, 0): 0, (0, 2): 2, (1, 0): 10, (1, 2): 12}
    assert (found["low"].round(9) == found["mean"].round(9)).all(), "seeds cancel, so the band has no width"
    one = paired(pd.DataFrame(rows).query("gamma == 0"), "score", dict(beta=0))
    assert one["mean"].round(9).to_dict() == {0: 0, 1: 10} and (one["seeds"] == 6).all()


def test_validation_rows_choose_the_run():
    run = lambda val, loss, test: dict(val_accuracy=val, val_loss=loss, test_accuracy=test)
    rows = [run(.7, .1, .99), run(.9, .5, .3), run(.9, .4, .2), run(np.nan, np.nan, 1.)]
    assert best_of(rows, "abcd") == "c" and best_of(rows[2::-1], "cba") == "c"


def test_pairs_have_students_interval_also_where_a_seed_is_missing():
    gaps = np.random.default_rng(1).normal(2, 3, 7)
    table = pd.DataFrame([dict(beta=b, seed=s, score=b * g) for b in (0, 1) for s, g in enumerate(gaps)])
    want = ttest_1samp(gaps, 0).confidence_interval()
    found = paired(table, "score", dict(beta=0)).loc[1]
    assert [found["mean"], found["low"], found["high"]] == pytest.approx([gaps.mean(), want.low, want.high])
    fewer = paired(table.query("beta == 0 or seed > 1"), "score", dict(beta=0)).loc[1]
    assert fewer["seeds"] == 5 and fewer["mean"] == pytest.approx(gaps[2:].mean())
    alone = paired(table.query("seed == 0"), "score", dict(beta=0)).loc[1]
    assert alone["mean"] == gaps[0] and alone[["low", "high"]].isna().all()


# --- false alarms

def alarms(gaps, judge): return is_clear(gaps, judge).mean()


@pytest.mark.parametrize("seeds", [5, 10, 20])
def test_our_interval_keeps_its_promise(seeds):
    "4,000 comparisons in which nothing differs; twice the binomial error at 5 % is 0.7 %, thrice 1 %."
    normal = np.random.default_rng(seeds).normal(size=(4000, seeds))
    ours = np.array([t_interval(gaps)[1:] for gaps in normal])
    clear = (ours[:, 0] > 0) | (ours[:, 1] < 0)
    assert .04 < clear.mean() < .06
    assert (clear == is_clear(normal, "Student's t")).all(), "the simulation judges as we do"


@pytest.mark.parametrize("seeds", [5, 10, 20])
@pytest.mark.parametrize("task", TASKS)
def test_our_interval_keeps_its_promise_on_plain_runs(task, seeds):
    plain = setting(task, .01, "vocab")[0., 0.]["test"]
    assert alarms(chance_gaps(plain, seeds, 4000), "Student's t") < .06


def test_bootstrap_of_five_seeds_does_not():
    normal = np.random.default_rng(0).normal(size=(1000, 5))
    assert alarms(normal, "percentile bootstrap") > .12 and alarms(normal, "sign-flip test") == 0


def test_sign_flips_are_exact_and_see_what_is_there():
    gaps = np.array([[1., 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, -6], [0, 0, 0, 0, 0, 0]])
    assert is_clear(gaps, "sign-flip test").tolist() == [True, False, False], "2 / 64, and more"
    assert [is_clear(gaps, judge)[2] for judge in JUDGES] == [False] * 3
    assert [is_clear(gaps + 100, judge).all() for judge in JUDGES] == [True] * 3


def test_chance_draws_two_different_runs_from_those_stored():
    scores = np.array([.5, .6, .9])
    gaps = chance_gaps(scores, 4, 3000)
    assert gaps.shape == (3000, 4) and set(gaps.ravel().round(6)) == {-.4, -.3, -.1, .1, .3, .4}
    assert abs(gaps.mean()) < .02


def test_false_alarms_are_drawn_and_told():
    fig = fig_false_alarms("relation", 3)
    assert [t.name for t in fig.data] == [*JUDGES]
    drawn = {t.name: t.y[list(SEEDS).index(3)] for t in fig.data}
    assert drawn == pytest.approx(false_alarms("relation", 3), rel=1e-3)
    assert f"bootstrap calls {drawn['percentile bootstrap']:.1%}" in fig.layout.title.text


def test_phase_diagram_says_its_best_cell():
    rows = [dict(beta=b, gamma=g, seed=s, score=.5 + .1 * b + .01 * s)
            for b in (0, 1) for g in (0, 2) for s in range(3)]
    fig = fig_sweep(pd.DataFrame(rows), "score")
    assert "0.610 at best" in fig.layout.title.text and "beta = 1" in fig.layout.title.text
    assert "3 seeds" in fig.layout.title.text and fig.data[0].text[0][0] == "0.510<br>± 0.010"


def test_an_encoder_is_needed_once(monkeypatch):
    built = []
    real = Encoder.__init__
    monkeypatch.setattr(Encoder, "__init__", lambda self, *a, **k: (built.append(1), real(self, *a, **k))[1])
    sweep(**SMALL | dict(encoder="nano", betas=(0,), seeds=(1,), epochs=1))
    assert len(built) == 1
