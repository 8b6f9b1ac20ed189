"""Instruments read what autograd says of each run alone, and change nothing by reading."""
import pandas as pd
import pytest
import torch

from infoprompt.feeds import Feed, Rows
from infoprompt.instruments import felt, fig_instruments
from infoprompt.population import Population, terms, train_population
from infoprompt.tasks import load_data
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
