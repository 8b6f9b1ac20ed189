"""Runs as each other's negatives: values of a loop, gradients where they belong, and never an unlike or lost run."""
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st

from infoprompt.data.tasks import InputError, load_data
from infoprompt.engine import training
from infoprompt.engine.feeds import Feed, Rows
from infoprompt.engine.population import Population, chunks, terms, train_population
from infoprompt.engine.training import OPTIMIZERS, adamw_sgd_step, adamw_step, sgd_step
from infoprompt.method.losses import squeeze
from infoprompt.method.peers import PEERS, circles, from_peers
from infoprompt.method.prompts import read
from infoprompt.study import sweeps
from infoprompt.study.sweeps import sweep
from small import NANO, bits, close, new, same

DATA = load_data("nano/sentiment", shots=16, seed=0)
OTHER = load_data("nano/sentiment", shots=16, seed=1)
BOTH = dict(beta=.5, gamma=.5, k=2, rep_negatives="population", head_negatives="population", init="random")


def like(n=4, **kw):
    "Models that differ in their seed alone."
    return [new(**BOTH | kw, seed=r) for r in range(n)]


def step_of(models):
    "A population that has met, its parameters, and a batch in which all runs read the same rows."
    together = Population(models)
    together.meet([(.01, 0, None)] * len(models))
    rows = Rows(together, DATA["train"])
    return together, together.stack(), Feed(together, rows, 5, [(0, r) for r in range(len(models))])(0, 0)


def infonce(pos, neg):
    return (torch.stack([pos, *neg]).logsumexp(0) - pos).item()


def by_hand(models, params, batch, r):
    "l_rep and l_head of a run, row by row, its negatives being the next k runs."
    one = lambda x, b: {k: v[x, b:b + 1] for k, v in batch.items() if "@" not in k}
    state = lambda x, b: NANO.states(read(NANO, one(x, b), params["prompt"][x][None]))[0, 0]
    p, s, mean = {k: v[r] for k, v in params.items()}, models[r].settings, params["prompt"].mean(1)
    peers = [(r + j) % len(models) for j in range(1, s["k"] + 1)]
    tube = {k.removeprefix("bottleneck_"): v[None] for k, v in p.items() if k.startswith("bottleneck_")}
    through = lambda z, noise: squeeze(tube, z[None, None], noise[None, None])[0][0, 0] if tube else z
    dot = lambda a, b, w: ((a if w is None else a @ w) * b).sum() / len(b)**.5
    w, w_head, theta = p.get("rep_critic", p.get("bottleneck_critic")), p.get("head_critic"), p["head"].mean(0)
    rep = []
    for b in range(batch["labels"].shape[1]):
        noise = [*batch["noise@0"][r, b]] if tube else [None] * s["k"]
        z = through(state(r, b), batch["latent@0"][r, b] if tube else None)
        others = [through(state(x, b), e) for x, e in zip(peers, noise)]
        rep.append(infonce(dot(mean[r], z, w), [dot(mean[r], x, w) for x in others]))
    return rep, infonce(dot(mean[r], theta, w_head), [dot(mean[x], theta, w_head) for x in peers])


@torch.no_grad()
@pytest.mark.parametrize("kw", [dict(), dict(rep_critic="dot", head_critic="bilinear", k=3),
                                dict(rep_critic="released"), dict(bottleneck=True, rep_critic="dot")], ids=str)
def test_terms_are_a_loop_over_the_next_runs(kw):
    models = like(**kw)
    together, params, batch = step_of(models)
    got = terms(together, params, batch)
    for r in range(4):
        rep, head = by_hand(models, params, batch, r)
        torch.testing.assert_close(got["l_rep"][r], torch.tensor(rep), atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(got["l_head"][r], torch.full((5,), head), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("term", ["l_rep", "l_head"])
def test_a_loss_pushes_its_negatives_unless_they_are_stopped(term):
    reach, values = {}, {}
    for kind in PEERS:
        together, params, batch = step_of(like(rep_negatives=kind, head_negatives=kind))
        prompt = params["prompt"].requires_grad_()
        out = terms(together, params, batch)
        grad, = torch.autograd.grad(out[term][0].sum(), prompt, retain_graph=True)
        reach[kind], values[kind] = grad.abs().flatten(1).amax(1), out["loss"].detach()
    assert (reach["population"][:3] > 1e-4).all() and reach["population"][3] == 0, "k = 2: runs 1 and 2 alone"
    assert reach["population_stopped"][0] > 1e-4 and (reach["population_stopped"][1:] == 0).all()
    assert torch.equal(values["population"], values["population_stopped"])


# --- who is whose

@given(st.lists(st.tuples(st.sampled_from([.1, .5]), st.sampled_from([1e-3, 1e-2])), min_size=1, max_size=14))
def test_a_circle_holds_what_differs_in_its_seed_alone(runs):
    own = [BOTH | dict(beta=b, k=1, seed=r) for r, (b, _) in enumerate(runs)]
    members = {run: [r for r, x in enumerate(runs) if x == run] for run in runs}
    if min(map(len, members.values())) < 2:
        with pytest.raises(InputError, match="k=1 need 2 runs that differ in their seed alone"):
            circles(own, [lr for _, lr in runs])
        return
    peers = circles(own, [lr for _, lr in runs])[:, 0].tolist()
    for group in members.values():
        assert [peers[r] for r in group] == group[1:] + group[:1]


@pytest.mark.parametrize("apart", [dict(lrs=[.01, .02, .01, .02]), dict(which=[0, 1, 0, 1]),
                                   dict(seeds=[(0, 0), (1, 1), (0, 2), (1, 3)])], ids=lambda a: next(iter(a)))
def test_other_rates_rows_and_orders_do_not_mix(apart):
    kw = dict(epochs=1, batch_size=8, lrs=[.01] * 4, seeds=[(0, r) for r in range(4)], progress=False) | apart
    data = [DATA["train"], OTHER["train"]] if "which" in apart else DATA["train"]
    together = Population(like(k=1))
    train_population(together, data, None, **kw)
    assert together.peers[0].tolist() == [[2], [3], [0], [1]]
    with pytest.raises(InputError, match="k=2 need 3 runs .* here 2: lower k to 1, or add seeds"):
        train_population(Population(like(k=2)), data, None, **kw)


def test_a_grid_of_betas_does_not_mix():
    models = [new(**BOTH | dict(beta=b, k=1), seed=s) for b in (.1, .5) for s in range(2)]
    assert step_of(models)[0].peers[0].tolist() == [[1], [0], [3], [2]]


@pytest.mark.parametrize("part", ["rep", "head"])
def test_a_run_alone_has_no_negatives(part):
    model = new(**{f"{part}_negatives": "population", "k": 1})
    batch = model.collate_fn(model.rows(DATA["train"].select(range(3))))
    with pytest.raises(InputError, match="train several models of one configuration"): model(**batch)
    assert model(**{k: x for k, x in batch.items() if k != "labels"}).logits.shape == (3, 2)
    with pytest.raises(InputError, match="k=1 need 2 runs .* here 1: add seeds"):
        model.fit(DATA["train"], epochs=1, progress=False)
    off = new(**{f"{part}_negatives": "population"}, **{dict(rep="beta", head="gamma")[part]: 0})
    assert off(**batch).loss.isfinite(), "a term that is off needs nobody"


# --- training

def go(models, folder=None, data=DATA["train"], epochs=3, lr=.01, **kw):
    train_population(Population(models), data, DATA["validation"], epochs, [lr] * len(models), 6,
                     [(0, m.settings["seed"]) for m in models], checkpoint=folder, progress=False, **kw)
    return models


@pytest.mark.parametrize("kind", PEERS)
def test_a_lost_run_takes_nobody_with_it(kind):
    models = like(k=3, rep_negatives=kind, head_negatives=kind)
    with torch.no_grad(): models[1].prompt[0, 0] = torch.nan
    rest = [new(**m.settings | dict(k=2)) for m in (models[0], *models[2:])]
    with torch.no_grad(): out, without = (terms(*step_of(m)) for m in (models, rest))
    assert out["loss"][1].isnan().all() and out["loss"][[0, 2, 3]].isfinite().all()
    torch.testing.assert_close(out["l_head"][[0, 2, 3]], without["l_head"])
    before = [bits(m) for m in models]
    go(models, epochs=4)
    assert models[1].fitted["diverged"] == 1 and models[1].history["step"].max() == 0
    for r in (0, 2, 3):
        loss = models[r].history.query("quantity == 'loss'").groupby("epoch")["value"].mean()
        assert loss.iloc[-3:].mean() < loss.iloc[:3].mean() and "diverged" not in models[r].fitted
        assert all(p.isfinite().all() for p in bits(models[r]).values()) and not same(bits(models[r]), before[r])


def test_no_gradient_flows_out_of_a_lost_run():
    values = torch.randn(3, 2, 4).index_fill(0, torch.tensor([0]), torch.inf).requires_grad_()
    negatives, keep = from_peers(values, torch.tensor([[1], [2], [0]]), False)
    (negatives.sum() * torch.tensor(torch.nan)).backward()
    assert keep[:, 0, 0].tolist() == [True, True, False]
    assert values.grad[1].eq(0).all(), "1 is a negative of the lost run alone"


def test_stopped_and_resumed_is_straight_through(tmp_path, monkeypatch):
    whole, keep = go(like(3), tmp_path / "whole"), training.keep_state

    def kill(state, *rest):
        keep(state, *rest)
        if state.step == 3: raise RuntimeError("killed")
    monkeypatch.setattr(training, "keep_state", kill)
    with pytest.raises(RuntimeError, match="killed"): go(like(3), tmp_path / "cut")
    monkeypatch.undo()
    for one, other in zip(whole, go(like(3), tmp_path / "cut", resume=True)):
        assert same(bits(one), bits(other)) and one.history.equals(other.history)


def test_pieces_of_a_batch_see_the_same_negatives():
    together, params, batch = step_of(like())
    step = lambda p, b: terms(together, p, b)
    (one, means), (two, parts) = (training.gradients(step, params, batch, Accelerator(), n) for n in (1, 3))
    assert close(one, two, 1e-6) and close(means, parts, 1e-6) and one["prompt"].abs().max() > 1e-3


def test_who_needs_nobody_is_as_if_alone():
    others = lambda: [new(seed=7), new(seed=8, beta=0, gamma=0, init="mask")]
    circle = lambda: like(3, k=2)
    mixed, together, alone = go([*others()[:1], *circle(), *others()[1:]], lr=1e-3), go(circle(), lr=1e-3), others()
    for m in alone: go([m], lr=1e-3)
    for one, two in zip(mixed, [alone[0], *together, alone[1]]):
        assert close(bits(one), bits(two), 1e-5) and not close(bits(one), bits(new(**one.settings)), 1e-4)
    apart = go([new(**m.settings | dict(rep_negatives="null", head_negatives="context")) for m in together], lr=1e-3)
    assert not any(close({"p": a.prompt}, {"p": b.prompt}, 1e-4) for a, b in zip(apart, together))


# --- sweeps

@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 10**7), st.floats(1e-6, 4))
@settings(max_examples=200)
def test_every_circle_lies_in_one_part(circle, circles_in_all, row_bytes, budget):
    runs = circle * circles_in_all
    parts = chunks(runs, row_bytes, 8, budget, circle)
    assert [r for part in parts for r in part] == list(range(runs))
    assert all(part[0] % circle == 0 and len(part) % circle == 0 for part in parts)
    room = max(1, int(budget * 2**30 // (8 * row_bytes)) // circle) * circle
    assert max(map(len, parts)) <= room


def test_a_sweep_in_parts_keeps_circles_together(monkeypatch):
    parts, real = [], sweeps.run_part
    monkeypatch.setattr(sweeps, "run_part", lambda runs, *a, **kw: (parts.append(runs), real(runs, *a, **kw))[1])
    kw = dict(encoder=NANO, shots=16, epochs=1, progress=False, betas=(.1, 1.), gammas=(0,), seeds=(3, 5), ks=(1,),
              rep_negatives="population")
    table, best = sweep(**kw, data_seed=0, budget=1e-6)
    assert [[(r["beta"], r["seed"]) for r in part] for part in parts] == [[(b, s) for s in (3, 5)] for b in (.1, 1.)]
    assert (table["diverged"] == 0).all() and best.settings["rep_negatives"] == "population"
    with pytest.raises(InputError, match="here 1: add seeds, and give all one data_seed"): sweep(**kw)


# --- the optimizer of a population

def test_a_step_of_descent_is_pytorchs_with_decay_by_hand():
    g, rates = torch.Generator().manual_seed(0), torch.tensor([1e-3, .1, .5])
    normal = lambda: dict(a=torch.randn(3, 4, 5, generator=g), b=torch.randn(3, 6, generator=g))
    params, moments = normal(), normal()
    theirs = [{k: x[r].clone().requires_grad_() for k, x in params.items()} for r in range(3)]
    for step in range(1, 9):
        grads, before = normal(), {k: x.clone() for k, x in params.items()}
        new_params, m, v = sgd_step(params, grads, moments, moments, rates, step, .3)
        assert same(params, before) and m is moments and v is moments, "nothing is changed in place"
        params = new_params
        for r, run in enumerate(theirs):
            for k, x in run.items(): x.grad = grads[k][r]
            with torch.no_grad(): [x.mul_(1 - rates[r] * .3) for x in run.values()]
            torch.optim.SGD(run.values(), lr=rates[r].item()).step()
    for k, x in params.items():
        torch.testing.assert_close(x, torch.stack([run[k].detach() for run in theirs]), atol=1e-6, rtol=1e-6)


def test_the_optimizer_is_chosen_by_name_and_kept_with_the_checkpoint(tmp_path):
    with pytest.raises(InputError, match="optimizer is 'adam': choose 'adamw' or 'sgd' or 'adamw_sgd'"):
        go(like(3), optimizer="adam")
    descent = go(like(3), tmp_path, epochs=1, optimizer="sgd")
    assert not close(bits(descent[0]), bits(go(like(3), epochs=1)[0]), 1e-4)
    assert {m.fitted["optimizer"] for m in descent} == {"sgd"} and set(OPTIMIZERS) == {"adamw", "sgd", "adamw_sgd"}
    with pytest.raises(InputError, match="optimizer: 'sgd' there, 'adamw' here"):
        go(like(3), tmp_path, epochs=1, resume=True)
    assert same(bits(go(like(3), tmp_path, epochs=1, resume=True, optimizer="sgd")[0]), bits(descent[0]))


def test_terms_beside_cross_entropy_step_at_their_own_size():
    g, rates = torch.Generator().manual_seed(0), torch.tensor([1e-3, .1, .5])
    normal = lambda: dict(a=torch.randn(3, 4, 5, generator=g), critic=torch.randn(3, 6, generator=g))
    params, m, v, whole, ce = normal(), normal(), {k: x.abs() for k, x in normal().items()}, normal(), normal()
    ce["critic"].zero_()
    found, *moments = adamw_sgd_step(params, whole | {f"ce/{k}": x for k, x in ce.items()}, m, v, rates, 3, .3)
    adam, *want = adamw_step(params, ce | dict(critic=whole["critic"]), m, v, rates, 3, .3)
    assert same(found, adam | dict(a=adam["a"] - rates[:, None, None] * (whole["a"] - ce["a"])))
    assert all(map(same, moments, want)), "the moments know of cross-entropy only, but for the critic's"


def test_without_terms_the_two_steps_are_adamw():
    run = lambda optimizer, **kw: go([new(seed=s, gamma=0, **kw) for s in range(2)], epochs=2, optimizer=optimizer)
    none, some = dict(beta=0), dict(beta=1.)
    for one, other in zip(run("adamw", **none), run("adamw_sgd", **none)): assert same(bits(one), bits(other))
    apart, plain, joint = (run(o, **kw)[0] for o, kw in (("adamw_sgd", some), ("adamw", none), ("adamw", some)))
    far = lambda a, b: (a.prompt - b.prompt).norm().item()
    assert 0 < far(apart, plain) < .2 * far(joint, plain), "a soft push stays soft"
    assert not torch.equal(apart.rep_critic, new(beta=1.).rep_critic)
