"""The convergence statement: held on thousands of random problems, and caught where a constant is 1 % too good."""
import json
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from infoprompt.data.tasks import InputError
from infoprompt.method.losses import head_loss, rep_loss
from infoprompt.theory.convergence import (METHODS, curvature, descent, directions, example, fig_descent,
                                           fig_directions, needed, powers, problem, valley)

MANY = settings(max_examples=1000)
torch.set_num_threads(1)


def tensor(x):
    return torch.as_tensor(np.asarray(x), dtype=torch.float64)


@st.composite
def cases(draw, spread=6., ridge=(-2., 2.)):
    "A problem of any shape, rank, scale, conditioning (of AᵀA, up to 10^spread) and ridge, with a generator."
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.integers(2, 24)), draw(st.integers(1, 24))
    rank = draw(st.integers(1, min(n, d)))
    U, V = (np.linalg.qr(rng.normal(size=(m, rank)))[0] for m in (n, d))
    S = 10**(draw(st.floats(-3, 3)) - rng.uniform(0, draw(st.floats(0, spread)) / 2, size=rank))
    w = 10**(rng.uniform(*ridge, size=n) if draw(st.booleans()) else rng.uniform(*ridge))
    c = np.eye(n)[0] if draw(st.booleans()) else rng.dirichlet(np.ones(n))
    offset = draw(st.sampled_from([0., 1., 0., 30.]))
    A = U * S @ V.T + rng.normal(size=d) * (10**draw(st.floats(-3, 3)) if draw(st.booleans()) and rank == d else 0)
    return problem(A, c, w, offset * rng.normal(size=n)), rng


def somewhere(p, rng):
    "A point at which scores are between nearly equal and far apart."
    return tensor(rng.normal(size=p.A.shape[1]) * 10**rng.uniform(-2, 2) / p.constants()["sigma_max"])


def on_rows(p, matrix):
    V = p.factors[2]
    return V.T @ matrix @ V


# Each check is given the constants, so that it can be given wrong ones.
def curvature_holds(p, u, k, form="beta_s_D"):
    seen = torch.linalg.eigvalsh(on_rows(p, p.hessian(u)))
    slack = 1e-12 * seen[-1]
    return bool(k["l"] <= seen[0] + slack and seen[-1] <= k[form] + slack)


def change_holds(p, u, v, k, form="M_D"):
    change = torch.linalg.matrix_norm(on_rows(p, p.hessian(u) - p.hessian(v)), 2)
    rounding = 1e-14 * (torch.linalg.matrix_norm(p.hessian(u)) + torch.linalg.matrix_norm(p.hessian(v)))
    return bool(change <= k[form] * (u - v).norm() * (1 + 1e-9) + len(p.A) * rounding)


def rate(eta, k):
    return max(abs(1 - eta * k["l"]), abs(1 - eta * k["beta_s_D"]))


def step_holds(p, u, eta, k):
    star = p.minimiser(u)
    error, after = (u - star).norm(), (u - eta * p.grad(u) - star).norm()
    unsure = 2 * p.grad(star).norm() / p.constants()["l"] + 1e-12 * (u.norm() + star.norm())
    slopes = 1e-14 * eta * p.constants()["sigma_max"] * (1 + (p.w**2 * (p.A @ u)).norm())
    return bool(after <= rate(eta, k) * error * (1 + 1e-9) + (1 + rate(eta, k)) * unsure + len(p.A) * slopes)


def count(far, eps, eta, k):
    return math.ceil(math.log(far / eps) / -math.log(rate(eta, k)))


@given(cases())
def test_closed_forms_are_what_autograd_finds(case):
    p, rng = case
    u = somewhere(p, rng)
    size = p.constants()["sigma_max"] * (1 + (p.w**2 * (p.A @ u)).norm().item())
    torch.testing.assert_close(p.grad(u), torch.func.grad(p.value)(u), atol=1e-13 * size, rtol=1e-9)
    hessian = torch.func.hessian(p.value)(u)
    torch.testing.assert_close(p.hessian(u), hessian, atol=1e-12 * p.constants()["beta_s"], rtol=1e-9)


@MANY
@given(cases())
def test_curvature_lies_between_l_and_beta(case):
    p, rng = case
    k = p.constants()
    assert k["beta_s_D"] <= k["beta_s"] * (1 + 1e-12) and k["M_D"] <= k["M"] * (1 + 1e-12)
    assert curvature_holds(p, somewhere(p, rng), k) and curvature_holds(p, p.minimiser(), k)


@MANY
@given(cases(), st.floats(-3, 1))
def test_hessian_changes_at_most_by_M(case, way):
    p, rng = case
    u = somewhere(p, rng)
    assert change_holds(p, u, u + 10**way * somewhere(p, rng), p.constants())


@MANY
@given(cases(), st.floats(0, 3))
def test_each_step_shrinks_the_error_by_q(case, step):
    p, rng = case
    u, k = somewhere(p, rng), p.constants()
    for _ in range(3):
        assert step_holds(p, u, step / k["beta_s_D"], k)
        u = u - step / k["beta_s_D"] * p.grad(u)


@MANY
@given(cases(spread=1.5, ridge=(-.4, 1.)), st.booleans())
def test_T_steps_are_enough(case, best):
    p, rng = case
    u, k = somewhere(p, rng), p.constants()
    kappa = k["beta_s_D"] / k["l"]
    eta = 2 / (k["l"] + k["beta_s_D"]) if best else None
    star, start = p.minimiser(u), u
    share = max(.03, math.exp(-600 / kappa))  # asks less of a problem that would need thousands of steps
    eps = share * (u - star).norm().item()
    T = p.bound(eps, eta, start)
    assert T <= math.ceil(kappa * math.log(1 / share)) + 1
    for _ in range(T): u = u - (eta or 1 / k["beta_s_D"]) * p.grad(u)
    assert (u - star).norm() <= eps * (1 + 1e-9)


@MANY
@given(cases())
def test_the_gradient_bounds_the_distance(case):
    p, rng = case
    u = somewhere(p, rng)
    star, l = p.minimiser(u), p.constants()["l"]
    assert (u - star).norm() <= (p.grad(u).norm() + p.grad(star).norm()) / l * (1 + 1e-9) + 1e-12 * u.norm()


@settings(max_examples=300)
@given(cases(spread=3., ridge=(-1., 1.)))
def test_damped_newton_needs_no_more_than_its_bound(case):
    p, rng = case
    u = somewhere(p, rng)
    star = p.minimiser(u)
    far = (p.A @ (u - star)).norm().item()
    if not far: return
    taken, bound = 0, p.newton_bound(1e-4 * far, u)
    while (p.A @ (u - star)).norm() > 1e-4 * far: u, taken = METHODS["damped"](p, u), taken + 1
    assert taken <= bound


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1))
def test_a_damped_step_keeps_what_it_promises_from_far_away(seed):
    rng = np.random.default_rng(seed)
    p, u = problem(rng.normal(size=(3, 2)), [1, 0, 0], .03), tensor(30 * rng.normal(size=2))
    for _ in range(8):
        new = METHODS["damped"](p, u)
        if p.steepness(u) < 1e-12: break
        share = ((new - u).norm() / p.direction(u).norm()).item()
        assert p.steepness(new) <= (1 - share / 2 + 1e-6) * p.steepness(u)
        u = new


@given(cases(spread=2., ridge=(-.5, 1.)))
def test_near_the_minimiser_newton_is_quadratic(case):
    p, rng = case
    k, star = p.constants(), p.minimiser()
    V = p.factors[2]
    e = 1e-2 / k["sigma_max"] * V @ torch.nn.functional.normalize(tensor(rng.normal(size=V.shape[1])), dim=0)
    after = (METHODS["newton"](p, star + e, None, None) - star).norm()
    assert after <= k["M_D"] / (2 * k["l"]) * e.norm()**2 * (1 + 1e-6) + 1e-10 * (e.norm() + star.norm())


@given(cases(spread=2., ridge=(-.5, .5)), st.sampled_from(["gd", "damped"]))
def test_a_run_stays_in_its_start_plus_the_rows_of_A(case, method):
    p, rng = case
    start = somewhere(p, rng)
    V, points = p.factors[2], p.path(method=method, steps=5, start=start)
    outside = points - points @ V @ V.T
    size = 1e-10 * points.norm(dim=1).max()
    assert (outside - outside[0]).norm(dim=1).max() <= size
    moved = p.minimiser(start) - start
    assert (moved - V @ (V.T @ moved)).norm() <= 1e-10 * (moved.norm() + start.norm())


@given(cases(spread=2., ridge=(-.5, .5)))
def test_every_start_leads_to_the_same_value(case):
    p, rng = case
    u, v = p.minimiser(somewhere(p, rng)), p.minimiser(somewhere(p, rng))
    scale = 1 + p.value(u).abs()
    assert abs(p.value(u) - p.value(v)) <= 1e-9 * scale
    inside = p.factors[2].T @ (u - v)
    assert inside.norm() <= 1e-7 * (u.norm() + v.norm())


P_STEEP = .5 - 1 / (2 * 3**.5)


def two(p=.5, w=0., rest=3):
    "Two opposite rows with weights p and 1 − p and, without weight, some rows of 0: ½ and M are attained."
    A = [[.5**.5], [-.5**.5]] + [[0.]] * rest
    return problem(A, np.eye(2 + rest)[0], [w, w] + [w / 2] * rest, [math.log(p / (1 - p)), 0.] + [-800.] * rest)


def wider(p=.5, w=0.):
    "Rows that share a long part, which softmax does not see: the forms by D are attained, those by ‖A‖ are not."
    return problem([[5., 1.], [5., -1.]], [1, 0], w, [math.log(p / (1 - p)), 0.])


def level(w=.3):
    "Equal rows: the ridge is all the curvature there is."
    return problem([[1.]] * 4, np.eye(4)[0], w)


def ruled(w=100.):
    "A flat direction without softmax and a steep one, both ruled by the ridge; u* = 0."
    return problem([[.1, 1.], [.1, -1.]], [.5, .5], w)


def off(k, name):
    "The constants with one of them 1 % too good."
    return k | {name: k[name] * (1.01 if name == "l" else .99)}


@pytest.mark.parametrize("make, form", [(two, "beta_s"), (two, "beta_s_D"), (wider, "beta_s_D"),
                                        (lambda: two(w=3.), "beta_s"), (lambda: two(w=100.), "beta_s"),
                                        (lambda: two(w=100.), "beta_s_D")])
def test_a_beta_that_is_1_percent_too_small_is_caught(make, form):
    p = make()
    k, zero = p.constants(), torch.zeros(p.A.shape[1], dtype=torch.float64)
    assert curvature_holds(p, zero, k, form) and not curvature_holds(p, zero, off(k, form), form)


def test_an_l_that_is_1_percent_too_large_is_caught():
    p = level()
    k, zero = p.constants(), tensor([0.])
    assert curvature_holds(p, zero, k) and not curvature_holds(p, zero, off(k, "l"))


@pytest.mark.parametrize("make, form", [(two, "M"), (two, "M_D"), (wider, "M_D")])
def test_an_M_that_is_1_percent_too_small_is_caught(make, form):
    p = make(P_STEEP)
    k, u = p.constants(), 1e-3 * torch.eye(p.A.shape[1], dtype=torch.float64)[-1]
    assert change_holds(p, u, -u, k, form) and not change_holds(p, u, -u, off(k, form), form)


@pytest.mark.parametrize("name, at, step", [("l", [1., 0.], .5), ("l", [1., 0.], 1.), ("beta_s_D", [0., 1e-3], 1.99)])
def test_a_q_of_a_constant_1_percent_too_good_is_caught(name, at, step):
    p, u = ruled(), tensor(at)
    k = p.constants()
    assert step_holds(p, u, step / k["beta_s_D"], k) and not step_holds(p, u, step / k["beta_s_D"], off(k, name))


@pytest.mark.parametrize("w", [1., 100.])
def test_T_is_met_exactly_and_a_T_of_a_wrong_l_is_caught(w):
    p, start = ruled(w), tensor([1., 0.])
    k, eps = p.constants(), 1e-3
    T = p.bound(eps, start=start)
    taken = needed(p.run(steps=T, start=start)["error"], eps)
    assert taken == T == count(1., eps, 1 / k["beta_s_D"], k)
    assert count(1., eps, 1 / k["beta_s_D"], off(k, "l")) < taken


def test_half_is_attained_and_never_passed():
    assert math.isclose(two().hessian(tensor([0.])).item(), .5)
    assert math.isclose(two(P_STEEP).constants()["M"], 6**.5 / 9)


def test_the_best_step_promises_most():
    p = example()
    k = p.constants()
    best = 2 / (k["l"] + k["beta_s_D"])
    assert p.margin(best) > max(p.margin(best * x) for x in (.5, .99, 1.01))
    assert p.margin(2.0001 / k["beta_s_D"]) < 0 and p.bound(1e-3, 2.0001 / k["beta_s_D"]) == math.inf


def test_bound_at_the_ends():
    p = example()
    assert p.bound(1e9) == 0 and p.bound(1e-9, start=p.minimiser()) == 0
    assert level().bound(1e-9, start=tensor([50.])) == 1
    bare = problem(torch.eye(3), [1, 0, 0], 0.)
    assert bare.bound(1e-3) == bare.newton_bound(1e-3) == math.inf


@pytest.mark.parametrize("bad, says", [
    (dict(A=[[0., 0.], [0., 0.]]), "not all 0"), (dict(A=[1., 2.]), "table"), (dict(A=[[math.nan], [1.]]), "finite"),
    (dict(c=[.5, .6]), "sum to 1"), (dict(c=[1.5, -.5]), "0 or more"), (dict(c=[1.]), "2 numbers"),
    (dict(w=-1.), "w must be"), (dict(w=[1.] * 3), "w must be"), (dict(b=[math.inf, 0.]), "b must be")])
def test_what_the_theorem_does_not_speak_about_is_refused(bad, says):
    with pytest.raises(InputError, match=says):
        problem(**dict(A=[[1., 0.], [0., 1.]], c=[1., 0.], w=1.) | bad)


def test_without_a_ridge_no_minimiser_is_claimed():
    with pytest.raises(InputError, match="above 0"): problem(torch.eye(2), [1, 0], [1., 0.]).minimiser()


def test_an_unknown_method_is_named():
    with pytest.raises(InputError, match="'gd'"): example().path(method="sgd")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_arrives(method):
    run = example(ridge=.5).run(method=method, steps=400)
    assert list(run) == ["step", "value", "gradient", "error"] and len(run) == 401
    assert run["error"].iloc[-1] < 1e-3 * run["error"].iloc[0] and run["value"].iloc[-1] < run["value"].iloc[0]


def test_adamw_is_that_of_torch():
    p = example()
    u = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.AdamW([u], lr=.1, weight_decay=0)
    for _ in range(20):
        optimiser.zero_grad()
        p.value(u).backward()
        optimiser.step()
    torch.testing.assert_close(p.path(.1, "adamw", 20)[-1], u.detach())


def test_two_runs_at_once_do_not_share_moments():
    p = example()
    assert torch.equal(p.path(.1, "adamw", 5), p.path(.1, "adamw", 5))


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 5), st.integers(1, 4))
def test_head_loss_is_a_problem_in_either_factor(seed, k, n_prompt, classes):
    g = torch.Generator().manual_seed(seed)
    randn = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    P, head, others = randn(1, 1, n_prompt, 6), randn(1, classes, 6), randn(1, 1, k, 6)
    theta, first = head[0].mean(0), torch.eye(k + 1)[0]
    loss = head_loss(P, head, others)[0, 0]
    rows = torch.cat([P.mean(2)[0], others[0, 0]]) / 6**.5
    torch.testing.assert_close(problem(rows, first, 0.).value(theta), loss)
    one = torch.cat([(theta / n_prompt / 6**.5).repeat(n_prompt)[None], torch.zeros(k, 6 * n_prompt)])
    constant = torch.cat([torch.zeros(1), others[0, 0] @ theta / 6**.5])
    in_p = problem(one, first, 0., constant)
    torch.testing.assert_close(in_p.value(P.flatten()), loss)
    by_autograd = torch.func.grad(lambda p: head_loss(p, head, others).sum())(P)
    torch.testing.assert_close(in_p.grad(P.flatten()), by_autograd.flatten())


def test_rep_loss_is_a_problem_in_its_critic():
    g = torch.Generator().manual_seed(0)
    randn = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    P, z, others, W = randn(1, 1, 4, 6), randn(1, 1, 5), randn(1, 1, 7, 5), randn(1, 6, 5)
    states = torch.cat([z[0], others[0, 0]])
    rows = torch.einsum("i,kj->kij", P[0, 0].mean(0), states).flatten(1) / 5**.5
    torch.testing.assert_close(problem(rows, torch.eye(8)[0], 0.).value(W.flatten()), rep_loss(P, z, others, W)[0, 0])


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_curvature_comes_from_inside_and_is_exact_with_enough_products(seed, size):
    rng = np.random.default_rng(seed)
    S = tensor(rng.normal(size=(size, size)))
    S = S + S.T
    ends = torch.linalg.eigvalsh(S)[[0, -1]].tolist()
    loss, at = (lambda x: x @ S @ x / 2), tensor(rng.normal(size=size))
    slack = 1e-9 * max(map(abs, ends))
    some, all_ = curvature(loss, at, 5), curvature(loss, at, size)
    assert ends[0] - slack <= some[0] <= some[1] <= ends[1] + slack
    assert np.allclose(all_, ends, atol=1e3 * slack)


def test_curvature_of_a_constant_is_0_and_of_a_single_direction_is_found():
    at = torch.ones(2, 3, dtype=torch.float64)
    assert np.allclose(curvature(lambda x: (x * 0).sum() + 0 * (x**2).sum(), at), 0)
    assert np.allclose(curvature(lambda x: x[0, 0]**2, at), (0, 2), atol=1e-9)


@pytest.mark.parametrize("ridge", [.1, .3, 1., 3.])
@pytest.mark.parametrize("step", [.1, .5, 1., 1.1, 2., 8.])
def test_the_figure_draws_no_run_above_its_bound(step, ridge):
    found = descent(step, 10., ridge)
    assert all(run <= bound * (1 + 1e-9) + 1e-12 for run, bound in zip(found["gd"], found["bound"]))
    assert (step < found["limit"]) == (found["T"] < math.inf) == (found["bound"][-1] < 1)


def test_a_valley_is_lowest_at_the_best_step_and_has_a_wall():
    at, count = valley(.1, 1.)
    assert at == sorted(at) and math.isclose(at[count.index(min(count))], 2 / 1.1)
    assert at[-1] < 2 and count[-1] > 1e4


@pytest.mark.parametrize("state, says", [
    (dict(), "1 × the best step: the run needs 35 steps"), (dict(step=1.5), "above 2/β_s: nothing is promised"),
    (dict(step=8.), "moved away"), (dict(ridge=.1), "still has 17.2%"),
    (dict(step=1.1), "nothing is promised, and the run needs")])
def test_the_sentence_follows_the_case(state, says):
    assert says in fig_descent(**state).layout.title.text


@pytest.mark.parametrize("draw, states", [
    (fig_descent, [dict(), dict(step=8., conditioning=100., ridge=3.), dict(step=.1, conditioning=1., ridge=.1)]),
    (fig_directions, [dict(), dict(step=4., k=15, steps=50), dict(k=1, steps=0)])])
def test_figures_are_alike_in_all_states_and_plain_json(draw, states):
    figures = [json.loads(draw(**state).to_json()) for state in states]
    shape = lambda fig: [(trace["name"], len(trace["x"]), len(trace["y"])) for trace in fig["data"]]
    assert all(shape(fig) == shape(figures[0]) for fig in figures)
    assert "NaN" not in json.dumps(figures) and "Infinity" not in json.dumps(figures)


def test_directions_without_curvature_do_not_move():
    values, run, twin = directions(k=3, steps=50)
    assert values[:4] == sorted(values[:4], reverse=True) and max(map(abs, values[4:])) < 1e-12
    assert all(math.isclose(x, 1, rel_tol=1e-9) for x in run[4:] + twin[4:]) and max(run[:4]) < .1


@pytest.mark.parametrize("k", [1, 3, 5])
def test_not_even_rounding_in_a_run_far_away_moves_them(k):
    _, run, _ = directions(step=4., k=k, steps=50)
    assert run[0] > 1e30 and run[k + 1:] == [1.] * (7 - k)
    assert directions(k=k, steps=0)[1] == [1.] * 8, "a run that has not begun"


@pytest.mark.parametrize("w, u", [(.5, 0.), (.5, 3.), (.3, 2.), (2., 1.)])
def test_the_bound_of_newton_by_hand(w, u):
    p = problem([[1.], [-1.]], [1, 0], w)
    m, M = w**2, 2 * 2**.5 / (6 * 3**.5)
    slope = 2**.5 * abs(1 / (1 + math.exp(-2 * u)) - 1 + m * u)  # along (1, −1)/√2, the scores being u and −u
    far = max(0, math.ceil(4 * M * slope / m**2 - 4))
    for eps in (1e-2, 1e-9):
        assert p.newton_bound(eps, tensor([u])) == far + math.ceil(max(0, math.log2(math.log2(2 * m / (M * eps)))))


def test_near_enough_the_twin_is_the_run():
    p, k = example(), example().constants()
    star = p.minimiser()
    values, Q = torch.linalg.eigh(p.hessian(star))
    points = p.path(1 / k["beta_s_D"], steps=10, start=star + 1e-6 * Q.sum(1))
    left = Q.T @ (points[-1] - star) / 1e-6
    torch.testing.assert_close(left, (1 - values / k["beta_s_D"])**10, atol=1e-5, rtol=1e-3)


def test_powers_leave_out_what_a_log_scale_cannot_draw():
    assert powers([1., .01, 1e-16, 0., 1e4, math.nan]) == [0., -2., None, None, None, None]


def test_needed_is_the_first_step_or_inf():
    assert needed([4, 2, 1, .5, 1], 1) == 2 and needed([4, 2], 1) == math.inf
