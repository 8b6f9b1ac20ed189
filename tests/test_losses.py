"""InfoNCE and the two information losses: properties on any scores, and equality with loops that are slow and plain."""
import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from infoprompt.core import InfoPromptModel, InputError
from infoprompt.data.templates import collate, encode
from infoprompt.engine.feeds import Feed, Prepared, Rows, mine
from infoprompt.engine.population import Population
from infoprompt.method.encoders import Encoder
from infoprompt.method.losses import (bottleneck_params, clamp_curves, fig_clamp, head_loss, null_states, rep_loss,
                                      score, squeeze)
from infoprompt.method.mi import infonce, reading
from infoprompt.method.objective import KL_WEIGHT
from infoprompt.method.prompts import read, start_prompt
from infoprompt.method.settings import named_source
from infoprompt.show.figures import told

NUMBERS = st.floats(-50, 50, width=32)
TABLES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9).flatmap(
    lambda shape: hnp.arrays(np.float64, (shape[0], shape[1] + 1), elements=NUMBERS))


def split(table):
    "Scores as positive and negatives."
    t = torch.tensor(table)
    return t[:, 0], t[:, 1:]


def by_hand(pos, neg) -> float:
    "The definition, with exact sums."
    return -math.log(math.exp(pos - pos) / math.fsum([1, *(math.exp(n - pos) for n in neg)]))


@given(TABLES)
def test_infonce_is_its_definition(table):
    pos, neg = split(table)
    expected = [by_hand(p.item(), n.tolist()) for p, n in zip(pos, neg)]
    torch.testing.assert_close(infonce(pos, neg), torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=1e-9)


@given(TABLES)
def test_infonce_is_never_negative_and_the_reading_never_above_its_ceiling(table):
    pos, neg = split(table)
    loss = infonce(pos, neg)
    assert (loss >= 0).all() and (reading(loss, neg.shape[1]) <= math.log(neg.shape[1] + 1)).all()


@given(NUMBERS, NUMBERS)
def test_with_one_negative_infonce_is_the_logistic_loss(p, n):
    got = infonce(torch.tensor(p, dtype=torch.float64), torch.tensor([n], dtype=torch.float64))
    gap = torch.tensor(n - p, dtype=torch.float64)
    torch.testing.assert_close(got, torch.nn.functional.softplus(gap, threshold=100))


@given(TABLES, NUMBERS, st.randoms(use_true_random=False))
def test_only_differences_count_and_order_does_not(table, shift, random):
    pos, neg = split(table)
    order = random.sample(range(neg.shape[1]), neg.shape[1])
    torch.testing.assert_close(infonce(pos + shift, neg[:, order] + shift), infonce(pos, neg), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("pos, neg, loss",
                         [(1e30, -1e30, 0), (-1e30, 1e30, 2e30), (3e38, 3e38, math.log(2)), (1e4, 0, 0), (0, 1e4, 1e4)])
def test_huge_scores_stay_right(pos, neg, loss):
    pos, neg = torch.tensor(float(pos), requires_grad=True), torch.tensor([float(neg)])
    got = infonce(pos, neg)
    got.backward()
    assert got.item() == pytest.approx(loss) and pos.grad.isfinite()


@given(TABLES)
def test_single_precision_agrees_with_double(table):
    pos, neg = split(table)
    torch.testing.assert_close(infonce(pos.float(), neg.float()).double(), infonce(pos, neg), atol=1e-5, rtol=1e-5)


@given(TABLES, st.data())
def test_negatives_that_are_not_kept_are_not_there(table, data):
    pos, neg = split(table)
    keep = torch.tensor(data.draw(hnp.arrays(bool, tuple(neg.shape))))
    neg = neg.requires_grad_()
    loss = infonce(pos, neg, keep)
    expected = torch.tensor([by_hand(p.item(), n[k].tolist()) for p, n, k in zip(pos, neg, keep)], dtype=torch.float64)
    torch.testing.assert_close(loss, expected, atol=1e-12, rtol=1e-9)
    loss.sum().backward()
    assert neg.grad.isfinite().all() and not neg.grad[~keep].any()


def test_no_clamp_so_the_start_has_a_gradient():
    pos = torch.tensor(-5., requires_grad=True)  # the positive's probability is far below e^-2
    infonce(pos, torch.zeros(32)).backward()
    assert pos.grad < -.9


def clamped(pos, neg, floor=-2.):
    "The loss with its log-probability cut off below, as the released code has it."
    return -(-infonce(pos, neg)).clamp(min=floor)


@given(TABLES, st.sampled_from([-1., -2., -4., -math.inf]))
def test_clamp_curves_are_loss_and_slope(table, floor):
    pos, neg = split(table)
    pos = pos.requires_grad_()
    loss = clamped(pos, neg, floor)
    loss.sum().backward()
    values, slopes = clamp_curves((pos - neg.logsumexp(-1)).tolist(), floor)
    expected = torch.tensor([values, slopes], dtype=torch.float64)
    edge = (loss.detach() + floor).abs() < 1e-9
    torch.testing.assert_close(loss.detach(), expected[0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(pos.grad[~edge], expected[1][~edge], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("k", [1, 6, 7, 32, 1000])
def test_the_clamp_kills_a_start_of_equal_scores_from_seven_negatives_on(k):
    pos = torch.zeros(3, requires_grad=True)
    clamped(pos, torch.zeros(3, k)).sum().backward()
    (_, (slope,)) = clamp_curves([-math.log(k)])
    assert (pos.grad == 0).all() == (slope == 0) == (k >= 7) == (1 / (k + 1) < math.exp(-2))


def test_the_clamps_figure_is_whole_in_every_state():
    shapes = set()
    for k in (1, 6, 7, 32, 127):
        for floor in ("-1", "-2", "-4", "none"):
            fig = fig_clamp(k, floor)
            meta = fig.layout.meta
            shapes.add(tuple((t.name, len(t.x), len(t.y)) for t in fig.data))
            dead = floor != "none" and -math.log(k + 1) <= float(floor)
            assert ("flat" in told(meta["sentence"], meta["numbers"])) == dead
            assert [t.y[0] for t in fig.data if t.name == "start, this K"][1] == pytest.approx(
                0 if dead else -k / (k + 1), rel=1e-3)
    assert len(shapes) == 1
    assert "flat" in fig_clamp().layout.title.text and "K = 32" in fig_clamp().layout.title.text


@pytest.fixture
def parts():
    "Random parts of three runs, two rows."
    g = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    return dict(prompt=normal(3, 2, 4, 6), head=normal(3, 5, 6), negatives=normal(3, 2, 7, 6), z=normal(3, 2, 6),
                weight=normal(3, 6, 6), keep=torch.rand(3, 2, 7, generator=g) < .7)


def dot(a, b, weight=None) -> float:
    "The score of two vectors, number by number."
    inner = lambda x, y: math.fsum(p * q for p, q in zip(x, y))
    a = a.tolist() if weight is None else [inner(a.tolist(), column) for column in weight.T.tolist()]
    return inner(a, b.tolist()) / math.sqrt(len(b))


@pytest.mark.parametrize("bilinear", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_head_loss_is_a_loop(parts, bilinear, masked):
    weight, keep = parts["weight"] if bilinear else None, parts["keep"] if masked else None
    got = head_loss(parts["prompt"], parts["head"], parts["negatives"], keep, weight)
    for r in range(3):
        theta, w = parts["head"][r].mean(0), None if weight is None else weight[r]
        for b in range(2):
            pos = dot(parts["prompt"][r, b].mean(0), theta, w)
            neg = [dot(n, theta, w) for k, n in enumerate(parts["negatives"][r, b]) if keep is None or keep[r, b, k]]
            assert got[r, b].item() == pytest.approx(by_hand(pos, neg), abs=1e-12)


def test_rep_loss_is_a_loop(parts):
    got = rep_loss(parts["prompt"], parts["z"], parts["negatives"], parts["weight"])
    for r in range(3):
        for b in range(2):
            p, w = parts["prompt"][r, b].mean(0), parts["weight"][r]
            assert got[r, b].item() == pytest.approx(
                by_hand(dot(p, parts["z"][r, b], w), [dot(p, n, w) for n in parts["negatives"][r, b]]), abs=1e-12)


def test_score_takes_two_widths():
    a, b, w = torch.randn(2, 3, 4), torch.randn(2, 3, 6), torch.randn(2, 4, 6)
    got = score(a, b, w)
    for r in range(2):
        for i in range(3):
            assert got[r, i].item() == pytest.approx(dot(a[r, i], b[r, i], w[r]), abs=1e-5)


def test_null_states_spread_with_their_own_state():
    z0 = torch.stack([torch.randn(64), 5 + 3 * torch.randn(64)])[None]
    drawn = null_states(z0, torch.randn(1, 2, 4000, 64), .5)
    torch.testing.assert_close(drawn.mean(2), z0, atol=.2, rtol=0)
    torch.testing.assert_close(drawn.std((2, 3), unbiased=False) ** 2 - z0.var(-1, unbiased=False), .25 * z0.var(-1),
                               rtol=.05, atol=0)


def test_bottleneck_is_a_loop():
    p = {k: torch.stack([v, 2 * v]) for k, v in bottleneck_params(6, 6, torch.Generator().manual_seed(0), 3).items()}
    p["sigma"] *= 40  # so that both ends of the clamp are reached
    z, noise = torch.randn(2, 2, 5, 6), torch.randn(2, 2, 5, 3)
    out, kl = squeeze(p, z, noise)
    sigmas = []
    for r, b, k in np.ndindex(2, 2, 5):
        mu = p["mu"][r] @ z[r, b, k]
        log_sigma = (p["sigma"][r] @ z[r, b, k]).clamp(-2, 10)
        torch.testing.assert_close(out[r, b, k], p["out"][r] @ (mu + log_sigma.exp() * noise[r, b, k]),
                                   rtol=1e-4, atol=1e-4)
        normal = torch.distributions.Normal(mu, log_sigma.exp())
        expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0, 1)).sum()
        torch.testing.assert_close(kl[r, b], kl[r, b])
        torch.testing.assert_close(kl[r, b, k], expected, rtol=1e-4, atol=1e-4)
        sigmas += log_sigma.tolist()
    assert -2 in sigmas and max(sigmas) > 0


ROWS = [dict(text="the film was very good and not dull", label=1, idx=0), dict(text="so bad", label=0, idx=1),
        dict(text="it was not a good film , it was long and the plot was dull", label=0, idx=2)]
NANO = Encoder("nano")


def what_is_drawn(model, rows, seed=0):
    "What one run draws for some rows."
    batch = {k: x[None] for k, x in model.collate_fn(rows).items()}
    return {k: x[0] for k, x in model.draw(batch, [named_source(seed)]).items()}


def step_of(model, rows=ROWS):
    "One batch of a fit, with all of its noise."
    one = Population([model])
    return mine(Feed(one, Rows(one, rows), len(rows), [(0, 0)])(0, 0), 0, [0], True)


def slow(model, batch):
    "All terms of every row of a population of one, by loops over rows and negatives."
    p, e, s = model.trained(), model.encoder, model.settings
    tube = {k.removeprefix("bottleneck_"): v for k, v in p.items() if k.startswith("bottleneck_")}
    through = lambda z, noise: squeeze({k: v[None] for k, v in tube.items()}, z[None, None], noise[None, None])
    rows = []
    for b in range(len(batch["labels"][0])):
        one = {k: x[0, b:b + 1] for k, x in batch.items()}
        z = e.states(read(e, one, p["prompt"][None]))[0, 0]
        out, prompt, terms = z, p["prompt"].mean(0), {}
        if tube:
            (out,), (kl,) = (x[0] for x in through(z, one["latent"][0]))
            terms["kl"] = kl.item()
        logits = torch.stack([out @ c for c in p["head"]]) + model.label_bias
        terms["ce"] = -logits.log_softmax(0)[one["labels"][0]].item()
        if s["beta"]:
            if s["rep_negatives"] == "reference":
                states = list(one["reference"][0])
            elif tube:
                states = [one["z0"][0]] * s["k"]
            else:
                states = [one["z0"][0] + one["z0"][0].std() * n for n in one["noise"][0]]
            if tube:
                states = [through(x, n)[0][0, 0] for x, n in zip(states, one["noise"][0])]
            critic = tube["critic"] if tube else p["rep_critic"]
            terms["l_rep"] = by_hand(dot(prompt, out, critic), [dot(prompt, x, critic) for x in states])
        if s["gamma"]:
            theta, w = p["head"].mean(0), p.get("head_critic")
            words = [e.words[i] for i in one["negative_ids"][0].tolist() if i >= 0]
            terms["l_head"] = by_hand(dot(prompt, theta, w), [dot(x, theta, w) for x in words])
        weights = dict(ce=1, l_rep=s["beta"], l_head=s["gamma"], kl=KL_WEIGHT)
        rows.append(terms | dict(loss=sum(weights[k] * v for k, v in terms.items())))
    return {k: [r[k] for r in rows] for k in rows[0]}


SETTINGS = [dict(), dict(beta=0), dict(gamma=0), dict(beta=0, gamma=0), dict(head_negatives="vocab"),
            dict(head_critic="bilinear"), dict(rep_negatives="reference", k=5), dict(rep_critic="released"),
            dict(rep_critic="released", rep_negatives="reference", k=5),
            dict(head_critic="bilinear", head_negatives="vocab", k=1)]


@pytest.mark.parametrize("kw", SETTINGS, ids=str)
def test_terms_are_a_slow_loop(kw):
    model = InfoPromptModel(NANO, "nano/sentiment", **{"init": "random", **kw})
    batch = step_of(model)
    got = model.terms({k: v[None] for k, v in model.trained().items()}, batch)
    expected = slow(model, batch)
    assert set(got) == set(expected)
    for k, values in expected.items():
        torch.testing.assert_close(got[k][0].detach(), torch.tensor(values), atol=2e-5, rtol=1e-5,
                                   msg=lambda m, k=k: f"{k}: {m}")


@pytest.mark.parametrize("kw", SETTINGS + [dict(prompt="instance")], ids=str)
def test_a_population_of_three_is_three_singles(kw):
    models = [InfoPromptModel(NANO, "nano/sentiment", **kw, init="random", seed=i) for i in range(3)]
    ones = [Population([m]) for m in models]
    batches = [mine(Feed(p, Rows(p, ROWS), 3, [(0, i)])(0, 0), 0, [0], True) for i, p in enumerate(ones)]
    params = {k: torch.stack([m.trained()[k].detach() for m in models]).requires_grad_() for k in models[0].trained()}
    together = models[0].terms(params, {k: torch.cat([b[k] for b in batches]) for k in batches[0]})
    together["loss"].sum().backward()
    for r, (model, batch) in enumerate(zip(models, batches)):
        alone = model.terms({k: v[None] for k, v in model.trained().items()}, batch)
        alone["loss"].sum().backward()
        for k in alone:
            torch.testing.assert_close(together[k][r], alone[k][0], atol=1e-5, rtol=1e-5)
        for k, v in model.trained().items():
            largest = v.grad.abs().max().item()
            torch.testing.assert_close(params[k].grad[r], v.grad, atol=1e-5 * max(1, largest), rtol=1e-4)
    assert len({round(x, 4) for x in together["ce"][:, 0].tolist()}) == 3


def test_context_with_fewer_words_than_k():
    model = InfoPromptModel(NANO, "nano/sentiment", k=32)
    ids = what_is_drawn(model, model.rows(ROWS))["negative_ids"]
    for row, drawn in zip(ROWS, ids):
        words = NANO.tokenizer(row["text"], add_special_tokens=False)["input_ids"]
        words = [w for w in words if w not in NANO.tokenizer.all_special_ids]
        # all of them, each once, though k asks for more
        assert sorted(i for i in drawn.tolist() if i >= 0) == sorted(words)


@given(st.lists(st.sampled_from("the film was good bad not very dull".split()), min_size=1, max_size=30),
       st.integers(1, 40), st.integers(0, 12), st.integers(0, 99))
def test_context_takes_neither_special_nor_prompt_tokens_and_padding_does_not_count(words, k, more, seed):
    model = InfoPromptModel(NANO, "nano/sentiment", k=k, beta=0)
    rows = model.rows([" ".join(words)])
    longer = model.rows([" ".join(["film"] * (len(words) + more))])
    draw = lambda rows: what_is_drawn(model, rows, seed)["negative_ids"][0]
    ids = [i for i in draw(rows).tolist() if i >= 0]
    own = NANO.tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
    assert len(ids) == min(k, len(own)) and not set(ids) & set(NANO.tokenizer.all_special_ids)
    assert all(ids.count(i) <= own.count(i) for i in ids)
    assert [i for i in draw(rows + longer).tolist() if i >= 0] == ids


@pytest.mark.parametrize("kw", [dict(), dict(rep_critic="released"), dict(head_negatives="vocab")], ids=str)
def test_noise_does_not_depend_on_padding(kw):
    model = InfoPromptModel(NANO, "nano/sentiment", **kw)
    short, long = model.rows(ROWS[:1]), model.rows(ROWS[2:])
    draw = lambda rows: what_is_drawn(model, rows)
    assert len(long[0]["input_ids"]) > len(short[0]["input_ids"])
    narrow, wide = draw(short + short), draw(short + long)
    if "head_negatives" not in kw:  # `context` draws as many words as there are: the test above
        narrow.pop("negative_ids")
    for k in narrow:
        assert torch.equal(narrow[k][0], wide[k][0])


def test_reference_states_are_those_of_other_prompts_in_the_same_slots():
    model = InfoPromptModel(NANO, "nano/sentiment", rep_negatives="reference", k=3, n_prompt=2)
    prepared, prompts = Prepared(model, ROWS), model.references(3)
    for i in range(3):
        batch = collate([prepared.rows[i]], NANO)
        for j in range(3):
            z = NANO.states(read(NANO, batch, prompts[j:j + 1]))[0, 0]
            torch.testing.assert_close(prepared.states["reference"][i, j], z, atol=1e-4, rtol=0)  # z is of order 10
    own = start_prompt("vocab", 2, NANO)
    assert all((p - own).abs().max() > .01 for p in prompts)


def test_reference_rows_are_capped_and_said_so(monkeypatch):
    monkeypatch.setattr("infoprompt.method.objective.REFERENCE_ROWS", 6)
    model = InfoPromptModel(NANO, "nano/sentiment", rep_negatives="reference", k=5)
    with pytest.warns(UserWarning, match="3 rows times k=5.*2 of the 5"):
        assert len(model.references(3)) == 2


def test_un_prompted_states_are_those_of_rows_without_slots():
    model = InfoPromptModel(NANO, "nano/sentiment", prompt="instance")
    states = Prepared(model, ROWS).states
    batch = collate(encode(ROWS, model.task.template.replace("[P]", ""), NANO, 0), NANO)
    rows = torch.stack([batch["mask_pos"], torch.zeros(3, dtype=torch.long)], 1)
    hidden = read(NANO, batch, rows=rows)
    torch.testing.assert_close(states["z0"], NANO.states(hidden[:, :1])[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(states["cls"], hidden[:, 1], atol=1e-5, rtol=0)


def test_a_template_that_starts_with_a_slot_still_reads_cls():
    from dataclasses import replace
    from infoprompt.data.tasks import get_task
    front = replace(get_task("nano/sentiment"), template="[P] [CLS] {text} [MASK] [SEP]")
    behind = replace(front, template="[CLS] {text} [MASK] [SEP] [P]")
    states = [Prepared(InfoPromptModel(NANO, t, prompt="instance"), ROWS).states["cls"] for t in (front, behind)]
    torch.testing.assert_close(*states, atol=1e-5, rtol=0)


def test_released_critic_does_not_move_the_prompt():
    model = InfoPromptModel(NANO, "nano/sentiment", rep_critic="released", gamma=0)
    out = model.terms({k: v[None] for k, v in model.trained().items()}, step_of(model))
    out["l_rep"].sum().backward(retain_graph=True)
    through_z = model.prompt.grad.clone()
    assert model.bottleneck_critic.grad.abs().sum() > 0
    # What is left comes through z alone: with z's road cut, nothing reaches the prompt.
    batch = step_of(model)
    params = {k: v[None] for k, v in model.trained().items()}
    out = model.answer(params, batch)
    cut = model._rep_term(params, batch, out | dict(z=out["z"].detach()))
    assert torch.autograd.grad(cut.sum(), model.prompt, allow_unused=True)[0] is None and through_z.abs().sum() > 0


@pytest.mark.parametrize("k", [1, 3])
def test_vocab_negatives_come_from_the_whole_vocabulary(k):
    model = InfoPromptModel(NANO, "nano/sentiment", head_negatives="vocab", k=k)
    ids = what_is_drawn(model, model.rows(ROWS * 400))["negative_ids"]
    assert ids.shape == (1200, k) and 0 <= ids.min() and ids.max() < len(NANO.tokenizer)
    assert len(ids.unique()) > .8 * len(NANO.tokenizer) * (1 - math.exp(-1200 * k / len(NANO.tokenizer)))


def test_dot_critic_has_no_parameters_and_is_a_loop():
    model = InfoPromptModel(NANO, "nano/sentiment", rep_critic="dot", init="random", k=5, seed=2)
    assert set(model.trained()) == {"prompt", "head"}
    batch = step_of(model)
    got = model.terms({k: v[None] for k, v in model.trained().items()}, batch)["l_rep"][0]
    for b in range(3):
        one = {k: x[0, b:b + 1] for k, x in batch.items()}
        p, z = model.prompt.mean(0), NANO.states(read(NANO, one, model.prompt[None]))[0, 0]
        negatives = [one["z0"][0] + one["z0"][0].std() * n for n in one["noise"][0]]
        assert got[b].item() == pytest.approx(by_hand(dot(p, z), [dot(p, n) for n in negatives]), abs=2e-5)


def test_dot_critics_need_one_width(tmp_path):
    import tiny
    narrow = Encoder(tiny.save(tmp_path, "electra", head=False))
    task = dict(name="films", verbalizer=dict(bad="bad", good="good"))
    assert narrow.d_in != narrow.d_out
    with pytest.raises(InputError, match="rep_critic='dot' needs .* one width, here 24 and 32: use 'bilinear'"):
        InfoPromptModel(narrow, task, rep_critic="dot", gamma=0)
    with pytest.raises(InputError, match="head_critic='dot' needs .* one width, here 24 and 32: use 'bilinear'"):
        InfoPromptModel(narrow, task)
    for kw in dict(rep_critic="dot", beta=0, gamma=0), dict(head_critic="bilinear"):
        assert InfoPromptModel(narrow, task, **kw).predict(["the film"])[0] in ("bad", "good")


def test_the_bottleneck_stands_by_itself():
    model = InfoPromptModel(NANO, "nano/sentiment", beta=0, gamma=0, bottleneck=True)
    assert set(model.trained()) == {"prompt", "head", "bottleneck_mu", "bottleneck_sigma", "bottleneck_out"}
    batch = step_of(model)
    got, want = model.terms({k: v[None] for k, v in model.trained().items()}, batch), slow(model, batch)
    assert set(got) == set(want) == {"loss", "ce", "kl"} and min(want["kl"]) > 0
    for k, values in want.items():
        torch.testing.assert_close(got[k][0].detach(), torch.tensor(values), atol=2e-5, rtol=1e-5)
    got["kl"].sum().backward()
    assert model.bottleneck_mu.grad.abs().sum() > 0 and model.prompt.grad.abs().sum() > 0


def test_the_bottleneck_draws_in_training_alone():
    model = InfoPromptModel(NANO, "nano/sentiment", beta=0, gamma=0, bottleneck=True, init="vocab")
    batch = model.collate_fn(model.rows(ROWS))
    ask = lambda: model(**batch).logits
    torch.manual_seed(0)
    assert not torch.equal(model.train() and ask(), ask())
    assert torch.equal(model.eval() and ask(), ask())
    torch.testing.assert_close(torch.tensor(model.predict_proba(ROWS).to_numpy()), ask().softmax(-1), atol=1e-6, rtol=0)
    z = NANO.states(read(NANO, batch, model.prompt.expand(3, -1, -1)))[:, 0]
    mean = (z @ model.bottleneck_mu.T) @ model.bottleneck_out.T @ model.head.T + model.label_bias
    torch.testing.assert_close(ask(), mean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kw, critic", [(dict(), "rep_critic"), (dict(rep_critic="dot"), None),
                                        (dict(rep_critic="released"), "bottleneck_critic")], ids=str)
def test_each_critic_in_the_bottleneck_has_its_own_parameters(kw, critic):
    model = InfoPromptModel(NANO, "nano/sentiment", gamma=0, bottleneck=True, **kw)
    assert {k for k in model.trained() if "critic" in k} == ({critic} if critic else set())
    got = model.terms({k: v[None] for k, v in model.trained().items()}, step_of(model))
    assert {"l_rep", "kl"} <= set(got) and got["loss"].isfinite().all()
