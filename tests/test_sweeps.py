"""Sweeps: every run of the plan, in parts or whole, killed or not, by one process or two."""
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from conftest import ROOT
from infoprompt.core import InfoPromptModel, InputError, load_data
from infoprompt.engine.population import bytes_of_row, chunks
from infoprompt.method.encoders import Encoder
from infoprompt.study import sweeps
from infoprompt.study.sweeps import best_of, fig_sweep, paired, plan, resampled, sweep
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


def test_a_band_holds_95_percent():
    gaps = np.random.default_rng(1).normal(2, 3, size=(400, 2)) * [1, 10]
    mean, low, high = resampled(gaps)
    reach = np.std(gaps, axis=0) / 400**.5 * 1.96  # of a normal mean; 1.645 would hold 90 %, 2.576 would hold 99 %
    np.testing.assert_allclose(mean, gaps.mean(0))
    np.testing.assert_allclose([mean - low, high - mean], [reach, reach], rtol=.08)
    one = pd.DataFrame([dict(beta=b, seed=s, score=b * g) for b in (0, 1) for s, g in enumerate(gaps[:, 0])])
    assert paired(one, "score", dict(beta=0)).loc[1, ["mean", "low", "high"]].tolist() == pytest.approx(
        [mean[0], low[0], high[0]], rel=.02)


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
