"""Bounds on mutual information: exact on small tables, in the mean over fresh draws, and as functions of any scores.

Draws are fresh in every run; a statistical statement allows 5 standard errors, which it computes, and a failure prints
the seed. On small tables nothing is drawn: every expectation is a finite sum.
"""
import itertools
import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from infoprompt.data.tasks import InputError
from infoprompt.method.mi import (club, donsker_varadhan, infonce, infonce_bound, interpolated, jensen_shannon, nwj,
                                  plug_in, reading, split, tuba, without_each)
from infoprompt.show.figures import told
from infoprompt.theory.channels import (BOUNDS, KLS, NEGATIVES, TRUTHS, Bilinear, Concatenated, Separable, climb,
                                       discrete_nats, discrete_pairs, discrete_ratio, fig_bounds, fig_giveaway,
                                       gaussian_nats, gaussian_pairs, gaussian_rho, gaussian_scores, given_away,
                                       inner_product, judged, symmetric_channel)


SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 6))
TABLES = SHAPES.flatmap(lambda s: hnp.arrays(np.float64, (s[0], s[1] + 1), elements=st.floats(-30, 30, width=32)))
SMALL = st.tuples(st.integers(2, 3), st.integers(2, 3)).flatmap(lambda s: st.tuples(
    hnp.arrays(np.int64, s, elements=st.integers(0, 3)),
    hnp.arrays(np.float64, s, elements=st.floats(-3, 3, width=32))))
ALPHAS = st.sampled_from([0., .01, .5, .9, 1.])
STEADY = dict(infonce=infonce_bound, dv=donsker_varadhan, interpolated=interpolated, js=jensen_shannon, club=club)
WILD = dict(nwj=nwj, tuba=tuba, plug_in=plug_in)


def close(a, b, tol=1e-9):
    "Equal as doubles, up to a tolerance."
    a, b = (torch.as_tensor(v, dtype=torch.float64) for v in (a, b))
    torch.testing.assert_close(a, b, atol=tol, rtol=tol)


def halves(table):
    "Scores as positives (n,) and negatives (n, K)."
    t = torch.as_tensor(table)
    return t[:, 0], t[:, 1:]


@pytest.fixture
def g():
    "A generator whose seed nobody has chosen."
    generator = torch.Generator()
    print("seed", generator.seed())
    return generator


def gaussian_batches(nats, d, n, draws, g):
    "Batches of n pairs with the optimal critic."
    rho = gaussian_rho(nats, d)
    return split(gaussian_scores(*gaussian_pairs(rho, d, n, g, draws), rho))


def standard_error(values):
    return values.std().item() / len(values)**.5


# ---- each bound is its definition ----

def loops(pos, neg) -> dict:
    "All bounds by their textbook formulas, in plain Python."
    p, q = pos.tolist(), neg.tolist()
    n, k, flat = len(p), len(q[0]), [f for row in q for f in row]
    mean = lambda v: math.fsum(v) / len(v)
    but = lambda row, i: [f for j, f in enumerate(row) if j != i]
    joint = [mean([a - math.log(.5 * math.fsum(map(math.exp, [a, *but(row, i)])) / k + .5) for i in range(k)])
             for a, row in zip(p, q)]
    marginal = [math.exp(b) / (.5 * sum(map(math.exp, row)) / k + .5) for row in q for b in row]
    return dict(infonce=mean([math.log(k + 1) - math.log(math.fsum(math.exp(b - a) for b in [a, *row]))
                              for a, row in zip(p, q)]),
                dv=mean(p) - math.log(mean([math.exp(f) for f in flat])),
                nwj=mean(p) - mean([math.exp(f - 1) for f in flat]),
                tuba=1 + mean(p) - mean([math.exp(f) for f in flat]),
                plug_in=1 + mean(p) - mean([math.exp(f) for f in flat]),
                interpolated=1 + mean(joint) - mean(marginal), club=mean(p) - mean(flat),
                js=-mean([math.log1p(math.exp(-f)) for f in p]) - mean([math.log1p(math.exp(f)) for f in flat]))


@given(TABLES)
def test_bounds_are_their_definitions(table):
    pos, neg = halves(table)
    for name, expected in loops(pos, neg).items():
        got = (STEADY | WILD)[name](pos, neg)
        torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=1e-9,
                                   msg=lambda m, name=name: f"{name}: {m}")


@given(TABLES)
def test_leading_axes_are_batches(table):
    pos, neg = halves(table)
    for bound in (STEADY | WILD).values():
        close(bound(torch.stack([pos, pos + 1]), torch.stack([neg, neg - 1])),
              torch.stack([bound(pos, neg), bound(pos + 1, neg - 1)]))


@given(st.integers(2, 7), st.integers(0, 2))
def test_split_takes_a_matrix_apart(n, draws):
    scores = torch.arange(float(n * n)).view(n, n).expand(*[2] * draws, n, n)
    pos, neg = split(scores)
    one = scores[(0,) * draws]
    assert pos[(0,) * draws].tolist() == [one[i, i] for i in range(n)]
    assert neg[(0,) * draws].tolist() == [[one[i, j] for j in range(n) if j != i] for i in range(n)]


@given(TABLES)
def test_without_each_leaves_one_out(table):
    scores = torch.as_tensor(table)
    found = without_each(scores)
    for i, row in enumerate(scores):
        for j in range(len(row)):
            close(found[i, j], torch.cat([row[:j], row[j+1:]]).logsumexp(0))


@given(TABLES)
def test_the_ends_of_the_interpolation(table):
    pos, neg = halves(table)
    close(interpolated(pos, neg, 0.), tuba(pos, neg))
    close(interpolated(pos, neg, 0., 2.), tuba(pos, neg, 2.))
    if neg.shape[1] == 1:
        return close(interpolated(pos, neg, 1.), 0.)
    fewer = [torch.cat([neg[:, :i], neg[:, i+1:]], 1) for i in range(neg.shape[1])]
    close(interpolated(pos, neg, 1.), torch.stack([infonce_bound(pos, rest) for rest in fewer]).mean(0))


# ---- exact, for any critic ----

def drawn_table(counts):
    "Pairs whose empirical distribution is the table itself."
    if counts.sum() == 0:
        counts = counts + 1
    cells = [(x, y) for (x, y), n in np.ndenumerate(counts) for _ in range(n)]
    return torch.tensor(counts / counts.sum()), *map(torch.tensor, zip(*cells))


@given(SMALL, st.floats(-1, 1))
def test_in_the_population_each_is_a_bound_for_any_critic(small, baseline):
    joint, x, y = drawn_table(small[0])
    f, truth = torch.tensor(small[1]), discrete_nats(joint)
    pos, every = f[x, y], f[x[:, None], y]  # every x with every y: their product distribution
    for bound in (donsker_varadhan, nwj, tuba, plug_in):
        assert bound(pos, every) <= truth + 1e-9, bound.__name__
    assert tuba(pos, every, baseline + f.mean(1)[x]) <= truth + 1e-9


@given(SMALL)
def test_in_the_population_the_optimal_critic_attains(small):
    joint, x, y = drawn_table(small[0])
    f, truth = discrete_ratio(joint), discrete_nats(joint)
    pos, every = f[x, y], f[x[:, None], y]
    for bound in (donsker_varadhan, tuba, plug_in):
        close(bound(pos, every), truth)
    assert club(pos, every) >= truth - 1e-9  # inf where some x and y never meet


def over_all_draws(joint, k):
    "(x, positive, K negatives) with the probability of each."
    px, py = joint.sum(1), joint.sum(0)
    for x, y, *others in itertools.product(range(len(px)), *[range(len(py))] * (k + 1)):
        yield x, y, others, (joint[x, y] * py[others].prod()).item()


@settings(max_examples=25)
@given(SMALL, st.integers(1, 3), ALPHAS)
def test_with_k_negatives_the_expectation_is_a_bound_for_any_critic(small, k, alpha):
    joint, _, _ = drawn_table(small[0])
    f = torch.tensor(small[1])
    x, y, others, weight = (torch.tensor(part) for part in zip(*over_all_draws(joint, k)))
    pos, neg = f[x, y][:, None], f[x[:, None], others][:, None]
    for bound in (infonce_bound, lambda p, n: interpolated(p, n, alpha), tuba):
        assert (weight * bound(pos, neg)).sum() <= discrete_nats(joint) + 1e-9


# ---- any scores ----

@given(TABLES, ALPHAS.filter(bool))
def test_ceilings(table, alpha):
    pos, neg = halves(table)
    k = neg.shape[1]
    assert infonce_bound(pos, neg) <= math.log(k + 1) + 1e-12
    assert interpolated(pos, neg, alpha) <= 1 + math.log(k / alpha) + 1e-9
    assert jensen_shannon(pos, neg) <= 0


@given(TABLES, st.floats(-30, 30), st.data())
def test_shifts_where_the_bound_has_the_invariance(table, shift, data):
    pos, neg = halves(table)
    rows = torch.tensor(data.draw(hnp.arrays(np.float64, len(pos), elements=st.floats(-30, 30))))
    for bound in (donsker_varadhan, club, infonce_bound):
        close(bound(pos + shift, neg + shift), bound(pos, neg), 1e-8)
    for bound in (infonce_bound, lambda p, n: interpolated(p, n, 1.)):
        close(bound(pos + rows, neg + rows[:, None]), bound(pos, neg), 1e-8)
    close(tuba(pos + rows, neg + rows[:, None], rows), tuba(pos, neg), 1e-8)


@pytest.mark.parametrize("bound", [nwj, tuba, plug_in, jensen_shannon, interpolated], ids=lambda f: f.__name__)
def test_the_others_have_it_not(bound):
    pos, neg = torch.tensor([1.]), torch.tensor([[0., -1.]])
    assert abs(bound(pos + 1, neg + 1) - bound(pos, neg)) > .01


@given(TABLES, st.randoms(use_true_random=False))
def test_the_order_of_negatives_and_of_rows_does_not_count(table, random):
    pos, neg = halves(table)
    columns, rows = (random.sample(range(n), n) for n in (neg.shape[1], len(pos)))
    for bound in (STEADY | WILD).values():
        close(bound(pos[rows], neg[rows][:, columns]), bound(pos, neg), 1e-9)


@given(st.floats(-30, 30), st.floats(-30, 30))
def test_one_row_and_one_negative(p, n):
    pos, neg = torch.tensor([p], dtype=torch.float64), torch.tensor([[n]], dtype=torch.float64)
    close(infonce_bound(pos, neg), math.log(2) - torch.nn.functional.softplus(neg - pos, threshold=100)[0, 0])
    close(donsker_varadhan(pos, neg), p - n)
    close(club(pos, neg), p - n)
    close(interpolated(pos, neg, 1.), 0.)


@given(hnp.arrays(np.float32, (3, 5), elements=st.sampled_from([-1e30, -1e4, -1., 0., 1., 1e4, 1e30])))
def test_huge_scores(table):
    pos, neg = (part.clone().requires_grad_() for part in halves(table))
    for name, bound in STEADY.items():
        value = bound(pos, neg)
        value.backward()
        assert value.isfinite() and pos.grad.isfinite().all() and neg.grad.isfinite().all(), name
    for name, bound in WILD.items():  # the exp of a score is part of their value
        value = bound(*halves(table))
        assert not value.isnan() and (value.isfinite() or table[:, 1:].max() > 80), name
    rows = neg.detach().max(1).values
    assert not tuba(pos.detach(), neg.detach(), rows).isnan()


@given(TABLES)
def test_single_precision_agrees_with_double(table):
    pos, neg = halves(table)
    for bound in (STEADY | WILD).values():
        torch.testing.assert_close(bound(pos.float(), neg.float()).double(), bound(pos, neg), atol=1e-4, rtol=1e-4)


# ---- the truths ----

@given(st.floats(0, 12), st.integers(1, 64))
def test_gaussian_truth_there_and_back(nats, d):
    assert gaussian_nats(gaussian_rho(nats, d), d) == pytest.approx(nats, abs=1e-5)


@given(st.floats(-.999, .999), st.integers(1, 5))
def test_the_optimal_gaussian_critic_is_the_ratio_of_densities(rho, d):
    x, y = (torch.randn(n, d, dtype=torch.float64) for n in (3, 4))
    normal = torch.distributions.Normal
    expected = (normal(rho * x[:, None], (1 - rho**2)**.5).log_prob(y) - normal(0., 1.).log_prob(y)).sum(-1)
    torch.testing.assert_close(gaussian_scores(x, y, rho), expected, atol=1e-6, rtol=1e-6)


@given(SMALL)
def test_discrete_truth_is_a_loop(small):
    joint, _, _ = drawn_table(small[0])
    px, py = joint.sum(1), joint.sum(0)
    expected = math.fsum(p * math.log(p / px[i] / py[j]) for (i, j), p in np.ndenumerate(joint.numpy()) if p > 0)
    assert discrete_nats(joint) == pytest.approx(expected, abs=1e-9)
    assert -1e-9 <= discrete_nats(joint) <= math.log(min(joint.shape)) + 1e-9
    assert discrete_nats(joint.T) == pytest.approx(discrete_nats(joint), abs=1e-9)


@given(st.integers(2, 9), st.floats(0, 1))
def test_symmetric_channel(symbols, flip):
    joint = symmetric_channel(symbols, flip)
    close(joint.sum(0), torch.full((symbols,), 1 / symbols, dtype=torch.float64))
    close(joint.sum(1), torch.full((symbols,), 1 / symbols, dtype=torch.float64))
    assert joint.diagonal().sum().item() == pytest.approx(1 - flip)


def test_pairs_are_what_they_should_be(g):
    n, rho = 100_000, .7
    x, y = gaussian_pairs(rho, 2, n, g)
    for values, mean in ((x, 0), (y, 0), (x**2, 1), (y**2, 1), (x * y, rho), (x * y.flip(-1), 0)):
        assert (abs(values.mean(0) - mean) < 5 * values.std(0) / n**.5).all()
    joint = torch.tensor([[.1, .2, .3], [0., .35, .05]], dtype=torch.float64)
    a, b = discrete_pairs(joint, n // 2, g, 2)
    share = torch.bincount((3 * a + b).flatten(), minlength=6) / n
    assert a.shape == (2, n // 2) and (abs(share - joint.flatten()) <= 5 * (joint.flatten() / n)**.5).all()


@pytest.mark.parametrize("call", [lambda: gaussian_rho(-1.), lambda: gaussian_nats(1.), lambda: gaussian_nats(-1.5),
                                  lambda: symmetric_channel(1, .1), lambda: symmetric_channel(4, 1.1)])
def test_what_cannot_be_is_refused(call):
    with pytest.raises(InputError):
        call()


# ---- in the mean over fresh draws, with the optimal critic ----

@pytest.mark.parametrize("d", [1, 20])
@pytest.mark.parametrize("nats", [0., .5, 1., 2., 3., 4., 6., 8., 10.])
def test_infonce_is_below_the_truth_and_its_ceiling(nats, d, g):
    for k, draws in ((1, 2000), (7, 1000), (32, 300), (127, 100)):
        read = infonce_bound(*gaussian_batches(nats, d, k + 1, draws, g))
        assert (read <= math.log(k + 1) + 1e-12).all()
        assert read.mean() <= nats + 5 * standard_error(read) + 1e-9, f"K = {k}: {read.mean()}"


@pytest.mark.parametrize("d", [1, 5, 20])
def test_infonce_at_2_nats_comes_within_015_with_127_negatives(d, g):
    rho = gaussian_rho(2., d)
    x, y = gaussian_pairs(rho, d, 1, g, 20_000)
    others = gaussian_pairs(0., d, 127, g, 20_000)[0]
    rows = reading(infonce(gaussian_scores(x, y, rho)[:, 0, 0], gaussian_scores(x, others, rho)[:, 0]), 127)
    assert 2 - .15 < rows.mean() <= 2 + 5 * standard_error(rows)


@pytest.mark.parametrize("nats", [0., .5, 1., 2., 3., 4.])
def test_nwj_and_tuba_are_not_above_the_truth_up_to_4_nats(nats, g):
    # The mean of exp(f) over N independent negatives has the standard error ((e^2I - 1) / N)^.5 in closed form. A mean
    # of positive numbers is hardly ever far below its expectation, however heavy its upper tail: 5 of these errors
    # have a probability under e^(-25/2) (Maurer 2003). The sample's own standard error would be of no use here.
    n, rho = 2_000_000, gaussian_rho(nats)
    x, y = gaussian_pairs(rho, 1, 1, g, n)
    other = gaussian_pairs(0., 1, 1, g, n)[0]
    pos, neg = gaussian_scores(x, y, rho)[:, 0, 0], gaussian_scores(x, other, rho)[:, 0]
    allowed = 5 * ((math.expm1(2 * nats) + pos.var().item()) / n)**.5 + 1e-9
    row = torch.randn(n, generator=g, dtype=torch.float64)
    assert nwj(pos + 1, neg + 1) <= nats + allowed
    assert tuba(pos + row, neg + row[:, None], row) <= nats + allowed
    worse = tuba(pos, neg, .5)  # a baseline that is off by half a nat costs what it should
    assert worse <= nats + .5 - math.exp(-.5) + allowed


def test_nwj_is_unbiased_where_its_spread_is_small(g):
    read = nwj(*(s + 1 for s in gaussian_batches(1., 20, 33, 2000, g)))
    assert abs(read.mean() - 1) < 5 * standard_error(read)


@pytest.mark.parametrize("d", [1, 20])
@pytest.mark.parametrize("nats", [0., 1., 2., 4., 6., 10.])
def test_club_is_above_the_truth_and_is_what_theory_says(nats, d, g):
    read = club(*gaussian_batches(nats, d, 33, 400, g))
    error = 5 * standard_error(read) + 1e-9
    assert read.mean() >= nats - error
    assert abs(read.mean() - d * math.expm1(2 * nats / d)) < error


@pytest.mark.parametrize("nats", [2., 4., 6.])
def test_sampled_dv_is_above_the_truth(nats, g):
    read = donsker_varadhan(*gaussian_batches(nats, 20, 8, 10_000, g))
    assert read.mean() > nats + 5 * standard_error(read)


def test_dv_is_biased_and_nwj_is_not_where_all_is_finite(g):
    joint = symmetric_channel(8, .1)
    x, y = discrete_pairs(joint, 9, g, 20_000)
    pos, neg = split(discrete_ratio(joint)[x[..., :, None], y[..., None, :]])
    truth, dv, tangent = discrete_nats(joint), donsker_varadhan(pos, neg), plug_in(pos, neg)
    assert dv.mean() > truth + 5 * standard_error(dv)
    assert abs(tangent.mean() - truth) < 5 * standard_error(tangent)


@pytest.mark.parametrize("symbols", [8, 128, 2048])
def test_the_variance_of_nwj_grows_like_exp_of_the_information(symbols, g):
    # A noiseless channel: I = log S, and exp(score) of a negative is S with probability 1/S, else 0.
    k, batches, high = 64, 20_000, math.log(symbols)
    match = torch.rand(batches, 1, k, generator=g, dtype=torch.float64) < 1 / symbols
    hits = match.sum((1, 2)).double()
    pos = torch.full((batches, 1), high, dtype=torch.float64)
    neg = torch.where(match, pos[..., None], -1e4)
    close(plug_in(pos, neg), 1 + high - symbols * hits / k)
    variance = (symbols * hits / k).var().item()
    kurtosis = 3 + symbols / k  # of a binomial, at most
    assert variance == pytest.approx((symbols - 1) / k, rel=5 * (kurtosis / batches)**.5)


def test_nwj_explodes_on_gaussians_and_infonce_does_not(g):
    spread = {nats: [f(*gaussian_batches(nats, 20, 8, 4000, g)) for f in (plug_in, infonce_bound)]
              for nats in (1., 4., 8.)}
    sd = {nats: [v.std().item() for v in found] for nats, found in spread.items()}
    assert sd[4.][0] > 2 * sd[1.][0] and sd[4.][0] > 1
    assert all(steady < .6 for _, steady in sd.values())
    # The typical batch is above the truth, since what brings the mean down is rarer than one in 4000 * 56.
    assert spread[8.][0].median() > 8 and sd[8.][0] < (math.expm1(16) / 56)**.5


@pytest.mark.parametrize("kl", [.5, 2., 8.])
def test_negatives_from_elsewhere_read_kl_and_no_information(kl, g):
    n, k, delta = 20_000, 32, (2 * kl)**.5
    ratio = lambda v: delta**2 / 2 - delta * v  # log N(v; 0, 1) - log N(v; delta, 1)
    pos, neg = torch.randn(n, generator=g).double(), delta + torch.randn(n, k, generator=g).double()
    rows = reading(infonce(ratio(pos), ratio(neg)), k)
    assert rows.mean() <= min(kl, math.log(33)) + 5 * standard_error(rows)
    assert rows.mean() > .8 * min(kl, math.log(33)) - 5 * standard_error(rows)
    baked = given_away(0., k)[KLS.index(kl)]  # 4000 rows of a fixed generator
    assert abs(baked - rows.mean()) < 5 * rows.std() * (1 / n + 1 / 4000)**.5


# ---- critics ----

@pytest.mark.parametrize("critic", [inner_product, Bilinear(3, 3), Separable(3, 3), Concatenated(3, 3)],
                         ids=["inner", "bilinear", "separable", "concatenated"])
def test_a_critic_scores_each_pair_alone(critic):
    x, y = torch.randn(2, 4, 3), torch.randn(2, 5, 3)
    scores = critic(x, y)
    assert scores.shape == (2, 4, 5)
    for b, i, j in np.ndindex(2, 4, 5):
        torch.testing.assert_close(scores[b, i, j], critic(x[b, i:i+1], y[b, j:j+1])[0, 0], atol=1e-5, rtol=1e-4)


def test_widths_may_differ():
    x, y = torch.randn(4, 3), torch.randn(4, 7)
    assert {f(3, 7)(x, y).shape for f in (Bilinear, Separable, Concatenated)} == {(4, 4)}
    assert infonce_bound(*split(Bilinear(3, 7)(x, y))).item() == pytest.approx(0, abs=1e-6)


def test_a_trained_critic_reads_information_and_not_more(g):
    torch.manual_seed(g.initial_seed() % 2**31)
    found = climb(Separable(2, 2), infonce_bound, (0., 2.), 200, g, n=32, d=2, lr=5e-3)
    last = found.groupby("truth")["estimate"].agg(lambda e: e.tail(50).mean())
    assert found["step"].tolist() == list(range(400)) and (found["estimate"] <= math.log(32) + 1e-5).all()
    assert last[0.] < .1 and .8 < last[2.] < 2.1


def test_what_is_noted_need_not_be_what_is_trained(g):
    found = climb(Separable(2, 2), jensen_shannon, (1.,), 3, g, n=8, d=2, estimate=plug_in)
    untrained = climb(Separable(2, 2), jensen_shannon, (1.,), 3, g, n=8, d=2)
    assert (untrained["estimate"] <= 0).all() and (found["estimate"] > -1).all()


# ---- figures ----

def words(fig) -> list:
    "Sentence and description, with their numbers."
    return [told(fig.layout.meta[part], fig.layout.meta["numbers"]) for part in ("sentence", "about")]


SOME_BOUNDS = [dict(nats=n, k=k, bound=b, unit=u) for n, k, b, u in
               itertools.product((0., 4., 10.), (1, 32), BOUNDS, ("nats", "bits"))]
SOME_GIFTS = [dict(kl=kl, nats=n, k=k, unit=u) for kl, n, k, u in
              itertools.product((0., 8.), (0., 2.), (1, 127), ("nats", "bits"))]


@pytest.mark.parametrize("draw, states", [(fig_bounds, SOME_BOUNDS), (fig_giveaway, SOME_GIFTS)],
                         ids=["bounds", "giveaway"])
def test_figures_are_whole_in_every_state(draw, states):
    shapes = set()
    for state in states:
        fig = draw(**state)
        shapes.add(tuple((t.name, len(t.x), len(t.y)) for t in fig.data))
        assert not [w for text in words(fig) for w in ("{", "None", "nan", "–") if w in text], state
        assert state["unit"] in words(fig)[0] and fig == draw(**state)
    assert len(shapes) == 1


def test_bits_are_nats_in_another_unit():
    for draw in (fig_bounds, fig_giveaway):
        nats, bits = draw(unit="nats"), draw(unit="bits")
        for a, b in zip(nats.data, bits.data):
            if a.name not in ("positives", "negatives"):
                np.testing.assert_allclose(np.array(b.y, float), np.array(a.y, float) / math.log(2), rtol=2e-3)


def test_the_first_frames_show_the_phenomenon():
    ceiling, gift = (f().layout.meta["numbers"] for f in (fig_bounds, fig_giveaway))
    assert "ceiling" in words(fig_bounds())[0] and ceiling["mean"] < ceiling["cap"] < ceiling["truth"]
    assert gift["truth"] == 0 and gift["read"] > .9 * gift["cap"]


def test_the_figures_table_holds_what_the_bounds_promise():
    for nats, k in itertools.product(TRUTHS, NEGATIVES[:4]):
        found, draws = judged(nats, k), max(64, min(1024, 2**20 // (k + 1)**2))
        error = {name: 5 * row["sd"] / draws**.5 + 1e-5 for name, row in found.items()}
        for name in ("InfoNCE", "interpolated"):
            assert found[name]["mean"] <= nats + error[name]
        assert found["InfoNCE"]["high"] <= math.log(k + 1) + 1e-5
        assert found["CLUB"]["mean"] >= nats - error["CLUB"]
        assert found["Donsker-Varadhan"]["mean"] >= found["NWJ"]["mean"] - 1e-5
