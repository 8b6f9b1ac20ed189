"""Estimates: truths with known limits, negatives that bound and that do not, errors that are errors, probes."""
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st

from conftest import ROOT
from infoprompt.data.tasks import InputError, load_data
from infoprompt.engine.feeds import Rows
from infoprompt.engine.population import Population, train_population
from infoprompt.theory import estimates
from infoprompt.theory.channels import gaussian_nats, gaussian_pairs, gaussian_rho, inner_product
from infoprompt.theory.estimates import (averaged, by_epoch, cross_fitted, estimate, fig_label, fig_readings,
                                         fit_critic, label_information, log_mixture, log_normal, pointwise,
                                         pointwise_head, pointwise_reading, pointwise_truth, probe_nats, states_of,
                                         stored_labels, trained)
from infoprompt.show.weights import t_interval
from small import NANO, new

SOME = settings(max_examples=5)
FRESH = int.from_bytes(np.random.default_rng().bytes(4), "little")
DRAWS = torch.Generator().manual_seed(FRESH)


@pytest.fixture(autouse=True)
def told():
    print("drawn from seed", FRESH)


def normal(*size, seed=0, scale=1.):
    return scale * torch.randn(*size, generator=torch.Generator().manual_seed(FRESH + seed), dtype=torch.float64)


def cloud(rows=2, prompts=6, d=4, offset=0.):
    "Made-up states: prompts around 0, others elsewhere, the un-prompted state narrow."
    return dict(own=normal(rows, prompts, d), reference=normal(rows, 9, d, seed=1) + offset,
                z0=normal(rows, d, seed=2, scale=.1) + offset)


def truth(own, sigma):
    return averaged(lambda _: pointwise_truth(own, sigma, DRAWS))


def reads(states, kind, sigma, k):
    return averaged(lambda _: pointwise_reading(states, kind, sigma, k, DRAWS))


def above(one, other, errors=4):
    "How far one (mean, error) stands above another, beyond so many errors."
    return one[0] - other[0] - errors * math.hypot(one[1], other[1])


def test_densities_are_those_of_torch():
    value, centres, spread = normal(2, 5, 3), normal(2, 4, 3, seed=1), .7
    each = torch.distributions.Normal(centres[:, None], spread).log_prob(value[:, :, None]).sum(-1)
    missing = 1.5 * math.log(2 * math.pi)
    assert torch.allclose(log_mixture(value, centres, spread) - missing, each.logsumexp(-1) - math.log(4))
    assert torch.allclose(log_normal((value**2).sum(-1), spread, 3) - missing,
                          torch.distributions.Normal(0., spread).log_prob(value).sum(-1))
    wide = torch.tensor([.5, 2.], dtype=torch.float64)[:, None, None]
    for row, s in enumerate((.5, 2.)):
        assert torch.allclose(log_mixture(value, centres, wide)[row], log_mixture(value, centres, s)[row])


@pytest.mark.parametrize("prompts", [1, 2, 16])
def test_truth_runs_from_log_n_to_nothing(prompts):
    own = normal(3, prompts, 5)
    curve = [truth(own, s)[0] for s in (1e-5, .3, 1., 3., 1e4)]
    assert curve[0] == pytest.approx(math.log(prompts), abs=1e-3) and abs(curve[-1]) < 1e-3
    assert prompts == 1 or all(a > b for a, b in zip(curve, curve[1:]))


def test_truth_of_two_prompts_is_an_integral():
    own, sigma = torch.tensor([[[-1.], [1.]]], dtype=torch.float64), .8
    at = torch.linspace(-9, 9, 200001, dtype=torch.float64)
    p = [torch.distributions.Normal(c, sigma).log_prob(at).exp() for c in (-1., 1.)]
    mean = sum(p) / 2
    exact = sum((q * (q.log() - mean.log()).where(q > 0, 0)).sum() for q in p).item() / 2 * 18 / 200000
    g = torch.Generator().manual_seed(FRESH)
    draws = torch.cat([pointwise_truth(own, sigma, g) for _ in range(4000)])
    assert draws.mean().item() == pytest.approx(exact, abs=5 * draws.std().item() / 8000**.5)


@pytest.mark.parametrize("k", [3, 40])
@pytest.mark.parametrize("sigma", [.05, .5, 2.])
def test_population_reads_at_most_the_truth(k, sigma):
    states = cloud()
    assert above(reads(states, "population", sigma, k), truth(states["own"], sigma)) < 0


def test_population_comes_near_the_truth_with_many_negatives():
    states = cloud()
    few, many, real = reads(states, "population", .5, 3), reads(states, "population", .5, 200), truth(states["own"], .5)
    assert above(many, few, 1) > 0 and many[0] == pytest.approx(real[0], abs=.05 + 5 * math.hypot(many[1], real[1]))


@pytest.mark.parametrize("kind", ["reference", "null"])
def test_surrogates_read_more_than_there_is(kind):
    states, real = cloud(offset=30.), math.log(6)
    assert reads(states, kind, .5, 40)[0] == pytest.approx(math.log(41), abs=1e-3) and math.log(41) > real


def test_surrogates_agree_with_the_truth_where_kl_is_none():
    states = cloud()
    states["reference"] = states["own"]
    assert abs(reads(states, "reference", .5, 40)[0] - reads(states, "population", .5, 40)[0]) < .2


def test_head_reads_at_most_the_truth_and_nothing_of_equal_heads():
    own = normal(1, 8, 6)
    for sigma in (.1, 1., 4.):
        found = averaged(lambda _: pointwise_head(own, sigma, 30, DRAWS))
        assert above(found, truth(own, sigma)) < 0
    assert averaged(lambda g: pointwise_head(torch.zeros(1, 8, 6), 1., 7, g))[0] == pytest.approx(0, abs=1e-6)


def test_heads_may_be_repeated_for_more_draws():
    own = normal(1, 8, 6).expand(40, -1, -1)
    scores = pointwise_head(own, .5, 60, DRAWS)
    assert scores.shape == (40, 8)
    found, real = averaged(lambda _: pointwise_head(own, .5, 60, DRAWS)), truth(own, .5)
    assert real[0] - .3 < found[0] < real[0] + 4 * math.hypot(found[1], real[1])


def test_plain_training_leaves_the_mean_over_two_classes_where_it_was():
    models = trained(3, epochs=2, beta=0, gamma=0)
    heads = torch.stack([m.head.detach() for m in models])
    assert heads.mean(1).std(0).max() < 1e-4 < 1e-2 < heads.std(0).max()


def test_estimate_is_below_the_truth_and_its_error_is_the_spread():
    rho, g = gaussian_rho(1.5, 6), torch.Generator().manual_seed(FRESH)
    found = pd.DataFrame([estimate(*gaussian_pairs(rho, 6, 24, g)) for _ in range(150)])
    assert found["nats"].mean() < 1.5 and (found["nats"] <= math.log(24)).all() and (found["cap"] == math.log(24)).all()
    assert .75 < found["se"].mean() / found["nats"].std() < 1.4


def test_estimate_of_independent_pairs_is_not_above_nothing():
    g = torch.Generator().manual_seed(FRESH)
    found = np.array([estimate(*gaussian_pairs(0., 6, 16, g))["nats"] for _ in range(200)])
    assert found.mean() < 3 * found.std() / 200**.5


def test_estimate_by_hand():
    x, y = normal(3, 2), normal(3, 2, seed=1)
    scores = (x @ y.T / 2**.5).numpy()
    one = lambda row, own: math.log(len(row)) - math.log(sum(math.exp(v - own) for v in row))
    hand = lambda s: np.mean([one(row, row[i]) for i, row in enumerate(s)])
    left = [hand(np.delete(np.delete(scores, r, 0), r, 1)) for r in range(3)]
    found = estimate(x, y)
    assert found["nats"] == pytest.approx(hand(scores)) and found["cap"] == math.log(3)
    assert found["se"] == pytest.approx((2 / 3 * sum((v - np.mean(left))**2 for v in left))**.5)
    assert pointwise(torch.as_tensor(scores)).shape == (3,)


def test_rows_are_averaged():
    x, y = normal(4, 10, 3), normal(4, 10, 3, seed=1)
    each = [estimate(a, b)["nats"] for a, b in zip(x, y)]
    assert estimate(x, y)["nats"] == pytest.approx(np.mean(each))
    assert cross_fitted(x, y)["cap"] == math.log(5)


def test_too_few_runs_are_refused():
    with pytest.raises(InputError, match="3 or more"): estimate(normal(2, 3), normal(2, 3))
    with pytest.raises(InputError, match="no l_rep"): by_epoch(trained(1, epochs=1, beta=0, gamma=0), "l_rep", 3)


def test_a_critic_that_judges_its_own_runs_invents_information():
    g = torch.Generator().manual_seed(FRESH)
    pairs = [gaussian_pairs(0., 6, 20, g) for _ in range(20)]
    own = np.array([estimate(x, y, fit_critic(x, y))["nats"] for x, y in pairs])
    other = np.array([cross_fitted(x, y)["nats"] for x, y in pairs])
    assert own.min() > 0 and own.mean() > .2 and other.mean() < 3 * other.std() / 20**.5


def test_the_error_of_a_cross_fitted_estimate_is_of_the_size_of_its_spread():
    g = torch.Generator().manual_seed(FRESH)
    found = pd.DataFrame([cross_fitted(*gaussian_pairs(gaussian_rho(1., 3), 3, 16, g)) for _ in range(60)])
    assert .5 < found["se"].mean() / found["nats"].std() < 2.5


def test_a_fitted_critic_finds_what_the_plain_score_misses():
    g = torch.Generator().manual_seed(FRESH)
    turn = torch.linalg.qr(normal(6, 6))[0]
    x, y = gaussian_pairs(gaussian_rho(3., 6), 6, 96, g)
    plain, fitted = estimate(x, y @ turn), cross_fitted(x, y @ turn)
    assert fitted["nats"] > plain["nats"] + .3 and fitted["nats"] - 3 * fitted["se"] < 3.


@SOME
@given(st.floats(-5, 5, allow_subnormal=False), st.floats(.1, 10))
def test_a_fitted_critic_does_not_mind_units(shift, scale):
    x, y = normal(12, 3), normal(12, 3, seed=1)
    one, other = (cross_fitted(a, y)["nats"] for a in (x, scale * x + shift))
    assert one == pytest.approx(other, abs=1e-3)


def test_coupled_runs_tell_which_run_it_is_and_no_more():
    runs, d, drift = 16, 16, 30.
    e = normal(runs, runs, d)
    prompts, heads = drift * normal(runs, 1, d, seed=1) + e, 10 * (e - e.mean(1, keepdim=True))
    assert estimate(heads, prompts)["nats"] > 2.4 > gaussian_nats(((1 - 1 / runs) / (drift**2 + 1))**.5, d) * 100
    assert np.mean([estimate(heads[:, i], prompts[:, i])["nats"] for i in range(runs)]) < .05


@pytest.fixture(scope="module")
def fixed_heads():
    kinds = "context", "population"
    return {kind: trained(8, epochs=3, lr=.1, fixed=("head",), beta=0, gamma=5., k=7, head_negatives=kind)
            for kind in kinds}


def test_history_of_equal_heads_reads_nothing_with_population_negatives_alone(fixed_heads):
    found = {kind: by_epoch(models, "l_head", 7) for kind, models in fixed_heads.items()}
    assert found["population"]["mean"].max() < 1e-6 and found["context"]["mean"].iloc[-1] > .05
    assert found["population"]["epoch"].tolist() == [1, 2, 3]


def test_history_is_read_by_epoch_and_run(fixed_heads):
    models = fixed_heads["context"]
    notes = [m.history.query("quantity == 'l_head'") for m in models]
    steps = np.array([n.sort_values("step")["value"] for n in notes]).reshape(len(models), 3, 8)
    terms = steps.mean(2).T
    found = by_epoch(models, "l_head", 7)
    assert np.allclose(found["mean"], math.log(8) - terms.mean(1))
    assert np.allclose(found["sd"], terms.std(1, ddof=1) / 8**.5)


def test_states_are_those_of_each_run_alone():
    models = [new(seed=s) for s in range(3)]
    data = load_data("nano/sentiment", 16, 0)["test"].select(range(30))
    alone = []
    for m in models:
        one = Population([m])
        alone.append(states_of(one, one.stack(), Rows(one, data, losses=False))[0])
    population = Population(models)
    z = states_of(population, population.stack(), Rows(population, data, losses=False))
    assert z.shape == (3, 30, NANO.d_out) and torch.allclose(z, torch.stack(alone), atol=1e-4)


def test_probe_is_at_most_the_entropy_and_nothing_of_noise():
    y = np.arange(120) % 3
    seen = np.eye(3)[y] * 10 + normal(120, 3).numpy()
    assert .9 < probe_nats(seen, y) <= math.log(3)
    noise = [probe_nats(normal(120, 5, seed=s).numpy(), y) for s in range(20)]
    assert np.mean(noise) < 0 < math.log(3)


def test_probe_of_known_information_is_a_lower_bound():
    y = (normal(3000) > 0).long()
    x = 2. * y + normal(3000, seed=1)
    at = torch.linspace(-8, 10, 100001, dtype=torch.float64)
    p = [torch.distributions.Normal(c, 1.).log_prob(at).exp() for c in (0., 2.)]
    mean = sum(p) / 2
    exact = sum((q * (q / mean).log()).sum() for q in p).item() / 2 * 18 / 100000
    assert exact - .06 < probe_nats(x[:, None].numpy(), y.numpy()) < exact + .06


def test_label_information_goes_into_the_history():
    data = load_data("nano/sentiment", 16, 0)
    models = [new(seed=s, beta=beta, gamma=0, k=4) for s in range(2) for beta in (0, .1)]
    look = label_information(data["test"].select(range(100)))
    train_population(Population(models), data["train"], data["validation"], 2, [1e-2] * 4, 8,
                     [(s, s) for s in (0, 0, 1, 1)], progress=False, look=look)
    for m in models:
        found = m.history.query("quantity == 'label_nats'")
        assert found["epoch"].tolist() == [0, 1, 2] and found["value"].between(-.4, math.log(2)).all()
    first = [m.history.query("quantity == 'label_nats' and epoch == 0")["value"].item() for m in models]
    assert first[0] == pytest.approx(first[1], abs=1e-3), "twins start alike"


def test_stored_labels_are_whole_and_within_their_limits():
    rows, kept = stored_labels(), json.loads((ROOT / "benchmarks/results/label_information.json").read_text())
    assert {"command", "commit", "versions"} <= set(kept["made"])
    runs = pd.DataFrame(kept["runs"]).groupby(["task", "negatives", "beta"])
    for r in rows:
        one = runs.get_group((r["task"], r["negatives"], r["beta"]))
        assert len(one) == 20 and one["last"].mean() == pytest.approx(r["mean"][-1], abs=1e-3)
        assert max(r["mean"]) <= r["entropy"] and len(r["mean"]) == len(r["gain"]) == 31
        assert r["beta"] or not any(r["gain"])
        gaps = one["last"].to_numpy() - runs.get_group((r["task"], r["negatives"], 0))["last"].to_numpy()
        assert [r["gain"][-1], r["low"], r["high"]] == pytest.approx(t_interval(gaps), abs=1e-3)


def test_figures_say_what_they_draw():
    for r in stored_labels():
        fig = fig_label(r["task"], r["negatives"])
        most = [o for o in stored_labels() if (o["task"], o["negatives"]) == (r["task"], r["negatives"])][-1]
        gain = most["gain"][-1]
        assert fig.layout.meta["numbers"]["gain"] == gain and f"{gain:.3f}" in fig.layout.title.text
        assert {"β = 0", "β = 0.1", "β = 1", "H(Y)"} <= {t.name for t in fig.data}


def test_readings_figure(monkeypatch):
    monkeypatch.setattr(estimates, "SIGMAS", [.01, 1.])
    estimates.tabled.cache_clear()
    for part in ("representation", "head"):
        fig = fig_readings(part, 7, 4)
        lines = {t.name: t.y for t in fig.data if t.name}
        assert lines["log N"][0] == pytest.approx(math.log(4), abs=1e-3) and "truth" in lines
        worst = max(a - b for name in ("null", "reference", "words") if name in lines
                    for a, b in zip(lines[name], lines["truth"]))
        assert f"{worst:.2f}" in fig.layout.title.text
    estimates.tabled.cache_clear()
