"""Instruments read what autograd says of each run alone, and change nothing by reading."""
import pandas as pd
import pytest
import torch

from infoprompt.data.tasks import load_data
from infoprompt.engine.feeds import Feed, Rows
from infoprompt.engine.population import Population, terms, train_population
from infoprompt.engine.instruments import beside, felt, fig_instruments, fig_shares, readings
from small import bits, new, same

DATA = load_data("nano/sentiment", shots=16, seed=0)


def by_hand(model, seed):
    "Gradient of each term on each part of one model."
    one = Population([model])
    params = {k: p.requires_grad_() for k, p in one.stack().items()}
    out = terms(one, params, Feed(one, Rows(one, DATA["train"]), 8, [(seed, seed)])(0, 0))
    each = {}
    for term in ("ce", "l_rep", "l_head"):
        if term not in out: continue
        grads = torch.autograd.grad(out[term].mean(), list(params.values()), retain_graph=True, allow_unused=True)
        each[term] = dict(zip(params, grads))
    return each


def test_readings_are_each_runs_own_gradients():
    models = [new(seed=0), new(seed=1, beta=2.), new(seed=2, gamma=0)]
    together = Population(models)
    params = {k: p.requires_grad_() for k, p in together.stack().items()}
    batch = Feed(together, Rows(together, DATA["train"]), 8, [(r, r) for r in range(3)])(0, 0)
    out = terms(together, params, batch, felt)
    for r, model in enumerate(models):
        each = by_hand(new(seed=r, **{k: model.settings[k] for k in ("beta", "gamma")}), r)
        for term, grads in each.items():
            for part in ("prompt", "head", "rep_critic"):
                want = 0. if grads[part] is None else grads[part].norm().item()
                assert out[f"grad_{term}_{part}"][r].mean().item() == pytest.approx(want, rel=1e-3, abs=1e-6)
        task, weights = each["ce"]["prompt"], dict(l_rep=model.settings["beta"], l_head=model.settings["gamma"])
        push = sum(weights[t] * each[t]["prompt"] for t in weights if t in each)
        share = push.norm() / (push.norm() + task.norm())
        cosine = torch.cosine_similarity(push.flatten(), task.flatten(), dim=0)
        assert out["share"][r].mean().item() == pytest.approx(share.item(), rel=1e-3)
        assert out["cosine"][r].mean().item() == pytest.approx(cosine.item(), abs=1e-3)
    assert out["grad_l_head_prompt"][2].isnan().all() and out["share"][:2].max() < 1


def test_reading_changes_nothing():
    go = lambda model, **kw: train_population(Population([model]), DATA["train"], None, 2, [.01], 8, [(0, 0)],
                                              progress=False, **kw)
    one, other = new(), new()
    go(one); go(other, watch=felt)
    assert same(bits(one), bits(other))
    extra = set(other.history["quantity"]) - set(one.history["quantity"])
    assert {"share", "cosine", "grad_ce_prompt", "grad_l_rep_rep_critic"} <= extra


def test_without_information_terms_there_is_no_share():
    model = new(beta=0, gamma=0)
    train_population(Population([model]), DATA["train"], None, 2, [.01], 8, [(0, 0)], progress=False, watch=felt)
    assert "share" not in set(model.history["quantity"])
    fig = fig_instruments(model.history)
    assert [t.name for t in fig.data] == ["cross-entropy", "cross-entropy on the prompt"]
    assert "nan" not in fig.layout.title.text


def test_figure_of_several_runs():
    models = [new(seed=s) for s in range(2)]
    train_population(Population(models), DATA["train"], None, 2, [.01] * 2, 8, [(0, 0), (1, 1)], progress=False,
                     watch=felt)
    fig = fig_instruments(pd.concat([m.history.assign(run=r) for r, m in enumerate(models)]))
    assert len(fig.data) == 9 and "of at most 3.50 nats" in fig.layout.title.text


def test_kl_of_the_bottleneck_has_its_own_gradient():
    model = new(beta=0, gamma=0, bottleneck=True)
    train_population(Population([model]), DATA["train"], None, 1, [.01], 8, [(0, 0)], progress=False, watch=felt)
    noted = model.history.groupby("quantity")["value"].mean()
    assert noted["grad_kl_prompt"] > 0 and noted["grad_kl_head"] == 0 and "share" not in noted


def test_readings_and_their_figure():
    models = [new(seed=s) for s in range(2)] + [new(seed=s, rep_critic="dot") for s in range(2)]
    train_population(Population(models), DATA["train"], DATA["validation"], 2, [.01] * 4, 8, [(0, s) for s in range(4)],
                     progress=False, watch=felt)
    found = dict(bilinear=readings(models[:2]), dot=readings(models[2:]))
    h = models[0].history
    assert found["bilinear"]["share"][0] == pytest.approx(h[h["quantity"] == "share"]["value"].mean())
    assert found["bilinear"]["score"][0] == h[h["quantity"] == "val_accuracy"]["value"].max()
    assert found["dot"]["on_critic"].isna().all() and (found["dot"]["reading"] <= found["dot"]["cap"]).all()
    fig = fig_shares(found)
    assert [list(t.y) for t in fig.data] == [["bilinear", "dot"]] * 2
    assert fig.data[0].x[1] == pytest.approx(found["dot"]["share"].mean(), rel=1e-3)


def test_twins_apart():
    models = [new(seed=s, beta=b, gamma=0) for b in (0., 1.) for s in range(2)]
    start = [m.prompt.detach().clone() for m in models]
    train_population(Population(models), DATA["train"], DATA["validation"], 1, [.01] * 4, 8,
                     [(0, s) for _ in range(2) for s in range(2)], progress=False, optimizer="sgd",
                     look=beside(torch.tensor([0, 1, 0, 1])), weight_decay=0.)
    last = [m.history.groupby("quantity")["value"].last() for m in models]
    for r in range(2):
        assert last[r]["apart"] == 0 and last[r]["along"] == pytest.approx(1, abs=1e-5)
        one, other = (models[i].prompt.detach() - start[i] for i in (r, r + 2))
        want = (one - other).norm() / (one.norm() + other.norm()) * 2
        assert last[r + 2]["apart"] == pytest.approx(want.item(), rel=1e-3)
    assert not any(m.history.query("step == 0")["quantity"].eq("apart").any() for m in models)
