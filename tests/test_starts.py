"""Informed starts: the probe is leave-one-out ridge regression, and the choice is made once, the same each time."""
import copy
from itertools import product

import pandas as pd
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainingArguments

from infoprompt.core import InfoPromptModel, InputError, load_data
from infoprompt.data.templates import collate
from infoprompt.engine import population, training
from infoprompt.engine.population import Population, train_population
from infoprompt.method import starts
from infoprompt.method.encoders import Encoder
from infoprompt.method.prompts import read, start_prompt
from infoprompt.method.settings import many
from infoprompt.method.starts import PENALTIES, RIDGES, decoder, evenly, explained, inform, probe_head
from small import NANO, bits, new, same

DATA = load_data("nano/sentiment", shots=16, seed=0)
FIT = dict(epochs=2, batch_size=6, lr=.01, progress=False)
QUICK = settings(max_examples=40)
SHAPES = dict(seed=st.integers(0, 999), rows=st.integers(5, 14), d=st.integers(2, 12), classes=st.integers(2, 3))


def example(seed, rows, d, classes):
    "States that say a little about their labels."
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % classes
    centres = torch.randn(classes, d, generator=g)
    return .7 * centres[labels] + torch.randn(rows, d, generator=g), labels[torch.randperm(rows, generator=g)] \
        if seed % 2 else labels


def slow(states, labels):
    "Each row predicted by a ridge regression that has never seen it."
    x, y = states.double(), torch.nn.functional.one_hot(labels).double()
    x = (x - x.mean(0)) / (x - x.mean(0)).std()
    found = []
    for ridge in RIDGES:
        missed = 0.
        for i in range(len(x)):
            others = torch.arange(len(x)) != i
            at, mean = x[others].mean(0), y[others].mean(0)
            xs, ys = x[others] - at, y[others] - mean
            w = torch.linalg.solve(xs.T @ xs + ridge * x.shape[1] * torch.eye(x.shape[1]).double(), xs.T @ ys)
            missed += (y[i] - mean - (x[i] - at) @ w).square().sum().item()
        found.append(1 - missed / (y - y.mean(0)).square().sum().item())
    return max(found)


@given(**SHAPES)
@QUICK
def test_the_probe_is_a_ridge_regression_with_each_row_left_out(seed, rows, d, classes):
    states, labels = example(seed, rows, d, classes)
    assert explained(states, labels).item() == pytest.approx(slow(states, labels), abs=2e-3)


@given(**SHAPES, scale=st.floats(.01, 100), shift=st.floats(-10, 10, allow_subnormal=False))
@QUICK
def test_neither_place_nor_scale_of_the_states_counts(seed, rows, d, classes, scale, shift):
    states, labels = example(seed, rows, d, classes)
    moved = scale * (states + shift * torch.arange(1., d + 1))
    torch.testing.assert_close(explained(moved, labels), explained(states, labels), atol=5e-3, rtol=1e-3)


def test_many_candidates_are_each_judged_alone():
    labels = torch.arange(12) % 3
    states = torch.randn(2, 4, 12, 5, generator=torch.Generator().manual_seed(0))
    each = torch.tensor([[explained(x, labels) for x in part] for part in states])
    torch.testing.assert_close(explained(states, labels), each)


def test_what_is_said_is_a_share_and_noise_says_nothing():
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 3
    noise = explained(torch.randn(50, 24, 8, generator=g), labels)
    clear = explained(torch.nn.functional.one_hot(labels).float() + .01 * torch.randn(50, 24, 3, generator=g), labels)
    assert noise.mean() + 3 * noise.std() / 50**.5 < 0 < .99 < clear.min() <= clear.max() <= 1
    half = torch.randn(50, 2000, 1, generator=g)  # y = sign of x: a line explains 2/π of its variance
    share = explained(half[:1, :500], (half[0, :500, 0] > 0).long()).item()
    assert share == pytest.approx(2 / torch.pi, abs=.06)


# --- the choice

def by_hand(model, rows, size=32):
    "The candidates, and what the states of each say."
    used = evenly(rows)[:size]
    batch, seed = collate(used, NANO), model.settings["seed"]
    seeds = [seed] + [2_000_000 + 1000 * seed + i for i in range(many(model.settings["init"]) - 1)]
    prompts = [start_prompt("vocab", model.settings["n_prompt"], NANO, seed=s) for s in seeds]
    states = [NANO.states(read(NANO, batch, p.expand(len(used), -1, -1)))[:, 0] for p in prompts]
    return prompts, [slow(x, batch["labels"]) for x in states]


@pytest.mark.parametrize("kw", [dict(init="informed:5"), dict(init="informed:8", seed=3, n_prompt=1)], ids=str)
def test_the_start_is_the_candidate_that_says_most(kw):
    model, again = new(**kw), new(**kw)
    own, rows = model.prompt.detach().clone(), model.rows(DATA["train"])
    shares = inform(model, rows)
    prompts, expected = by_hand(model, rows)
    torch.testing.assert_close(shares, torch.tensor(expected), atol=2e-3, rtol=0)
    best = max(range(len(expected)), key=expected.__getitem__)
    assert torch.equal(model.prompt, prompts[best]) and torch.equal(own, prompts[0])
    torch.manual_seed(99)  # nothing may depend on the state of the process
    assert torch.equal(inform(again, rows), shares) and torch.equal(again.prompt, model.prompt)
    assert shares[0] < shares.max(), "a test in which the own start wins shows nothing"


def test_rows_that_come_sorted_by_label_choose_as_well():
    model, rows = new(init="informed:3"), new().rows(load_data("nano/sentiment", shots=80, seed=0)["train"])
    by_label = sorted(rows, key=lambda row: row["label"])
    assert len({row["label"] for row in by_label[:32]}) == 1, "the first rows are of one class"
    torch.testing.assert_close(inform(model, by_label), inform(model, rows), atol=1e-4, rtol=0)


def test_only_the_first_rows_are_looked_at():
    model = new(init="informed:3")
    rows = model.rows(load_data("nano/sentiment", shots=40, seed=0)["train"])
    assert torch.equal(inform(model, rows), inform(model, evenly(rows)[:32]))
    assert not torch.equal(inform(model, rows), inform(model, rows, 20))


def test_seeds_have_candidates_of_their_own():
    rows = new().rows(DATA["train"])
    shares = torch.cat([inform(new(init="informed:6", seed=s), rows) for s in range(3)])
    assert len(shares.unique()) == 18


def test_three_classes():
    data = load_data("nano/relation", shots=32, seed=0)
    model = InfoPromptModel(NANO, "nano/relation", init="informed:3")
    assert len(model.task.names) >= 3 and inform(model, model.rows(data["train"])).isfinite().all()


@pytest.mark.parametrize("init", ["informed:1", "informed:0", "informed:x", "informed:-4", "informed:2.5"])
def test_a_number_that_is_none_names_the_fix(init):
    with pytest.raises(InputError, match=f"{init}'?: write informed or, .* informed:64"):
        new(init=init).fit(DATA["train"], **FIT)
    assert (many("informed"), many("informed:64")) == (16, 64)


@pytest.mark.parametrize("kw", [dict(init="informed"), dict(head_init="probe")], ids=str)
def test_instance_prompts_have_nothing_to_choose(kw):
    with pytest.raises(InputError, match="use prompt='free'"):
        new(prompt="instance", **kw).fit(DATA["train"], **FIT)


def test_rows_without_labels_are_refused():
    with pytest.raises(InputError, match="no labels"):
        new(init="informed:2").fit(["the film was good", "the film was bad"], **FIT)


# --- the head

@given(**SHAPES | dict(classes=st.just(3)), penalty=st.sampled_from(PENALTIES))
@QUICK
def test_from_a_head_of_zeros_the_decoder_is_scikit_learns(seed, rows, d, classes, penalty):
    x, y = example(seed, rows, d, classes)
    change = decoder(x, torch.zeros(rows, classes), y, penalty)
    spread = (x - x.mean(0)).square().sum(1).mean().item()
    theirs = LogisticRegression(C=1 / (rows * penalty * spread), fit_intercept=False, tol=1e-8, max_iter=5000).fit(x, y)
    logits = x @ torch.as_tensor(theirs.coef_, dtype=torch.float32).T
    torch.testing.assert_close((x @ change.T).softmax(1), logits.softmax(1), atol=2e-3, rtol=0)


def held_out(model, rows, folds=8):
    "The cross-entropy of rows that a probe has never seen, the slow way: one decoder a part and penalty."
    batch = collate(rows, NANO)
    with torch.no_grad(): out = model.answer({k: p[None] for k, p in bits(model).items()},
                                             {k: x[None] for k, x in batch.items()})
    x, logits, y = out["z"][0], out["logits"][0], batch["labels"]
    missed = [cross_entropy(logits, y).item()]
    for penalty in PENALTIES:
        losses = []
        for fold in range(folds):
            out = [i for i in range(len(y)) if i * folds // len(y) == fold]
            seen = [i for i in range(len(y)) if i not in out]
            assert len({*y[out].tolist()}) == len({*y.tolist()}), "each part holds all classes"
            head = model.head.detach() + decoder(x[seen], logits[seen], y[seen], penalty)
            losses += [cross_entropy(x[i] @ head.T + model.label_bias, y[i]).item() for i in out]
        missed.append(sum(losses) / len(y))
    return missed, x, logits, y


def test_the_head_that_says_most_about_unseen_rows_is_taken():
    model, many_rows = new(), load_data("nano/sentiment", shots=64, seed=1)["train"]
    rows, before = evenly(model.rows(many_rows)), model.head.detach().clone()
    expected, x, logits, y = held_out(model, rows)
    missed = probe_head(model, rows)
    torch.testing.assert_close(missed, torch.tensor(expected), atol=1e-3, rtol=0)
    best = int(missed.argmin())
    assert best, "a test in which the label words stay shows nothing"
    change = decoder(x, logits, y, PENALTIES[best - 1])
    torch.testing.assert_close(model.head.detach(), before + change, atol=1e-5, rtol=0)
    again = new()
    torch.manual_seed(99)
    assert torch.equal(probe_head(again, rows), missed) and torch.equal(again.head, model.head)


def test_label_words_stay_where_the_states_say_no_more():
    model = new()
    rows, before = model.rows(load_data("nano/sentiment", shots=256, seed=0)["train"]), model.head.detach().clone()
    batch = collate(rows, NANO)
    with torch.no_grad():
        logits = model.answer({k: p[None] for k, p in bits(model).items()},
                              {k: x[None] for k, x in batch.items()})["logits"][0]
    drawn = torch.distributions.Categorical(logits=logits)
    torch.manual_seed(0)
    told = [row | dict(label=int(y)) for row, y in zip(rows, drawn.sample())]  # nobody can know better than the head
    missed = probe_head(model, told)
    assert missed[0] <= missed[1:].min() + .02
    assert torch.equal(model.head, before) == (int(missed.argmin()) == 0)


def test_the_head_reads_what_it_will_be_given():
    model = new(bottleneck=True)
    held, x, logits, y = held_out(model, evenly(model.rows(DATA["train"])))
    torch.testing.assert_close(probe_head(model, model.rows(DATA["train"])), torch.tensor(held), atol=1e-3, rtol=0)


# --- in training

def started(model):
    "The parameters with which its first step begins."
    seen, real = [], population.train

    def watching(step, whole, *rest, **kw):
        seen.append({k: x[0].clone() for k, x in whole.items()})
        return real(step, whole, *rest, **kw)
    population.train = watching
    try: model.fit(DATA["train"], **FIT)
    finally: population.train = real
    return seen[0]


def test_fit_starts_there_and_a_second_fit_goes_on(monkeypatch):
    twice = lambda model, rows: probe_head(model, rows * 2, folds=7)  # no row is unseen
    monkeypatch.setattr(starts, "probe_head", twice)
    model, chosen = new(init="informed:5", head_init="probe"), new(init="informed:5")
    inform(chosen, chosen.rows(DATA["train"]))
    prompt = chosen.prompt.detach().clone()
    starts.probe_head(chosen, chosen.rows(DATA["train"]))
    first = started(model)
    assert torch.equal(first["prompt"], prompt) and torch.equal(chosen.prompt, prompt)
    assert torch.equal(first["head"], chosen.head)
    assert not torch.equal(prompt, new().prompt) and not torch.equal(chosen.head, new().head)
    after = bits(model)
    assert same(started(model), after)


def test_each_run_of_a_population_chooses_for_itself():
    models, rest = [new(init="informed:8", seed=s) for s in range(2)], new(seed=2)
    alone = [new(init="informed:8", seed=s) for s in range(2)]
    for m in alone: inform(m, m.rows(DATA["train"]))
    others, before = load_data("nano/sentiment", shots=16, seed=1)["train"], alone[1].prompt.detach().clone()
    inform(alone[1], alone[1].rows(others))
    assert not torch.equal(alone[1].prompt, before), "on other rows another start says most"
    train_population(Population([*models, rest]), [DATA["train"], others], None, 1, [1e-12] * 3, 16,
                     [(0, 0)] * 3, which=[0, 1, 0], progress=False)
    for m, want in zip([*models, rest], [*alone, new(seed=2)]):
        torch.testing.assert_close(m.prompt, want.prompt, atol=1e-9, rtol=0)


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh model", "the same model"])
def test_stopped_and_resumed_is_straight_through(fresh, tmp_path, monkeypatch):
    go = lambda model, **kw: model.fit(DATA["train"], DATA["validation"], **FIT, **kw)
    whole, model, keep = new(init="informed:4"), new(init="informed:4"), training.keep_state
    history = go(whole)

    def stop(state, *rest):
        keep(state, *rest)
        if state.step == 3: raise KeyboardInterrupt
    monkeypatch.setattr(training, "keep_state", stop)
    with pytest.raises(KeyboardInterrupt): go(model, checkpoint=tmp_path)
    monkeypatch.undo()
    again = new(init="informed:4") if fresh else model
    assert go(again, checkpoint=tmp_path, resume=True).equals(history) and same(bits(whole), bits(again))
    with pytest.raises(InputError, match="model_init: 'informed:4' there, 'informed:5' here"):
        go(new(init="informed:5"), checkpoint=tmp_path, resume=True)


def test_saved_and_loaded_it_predicts_the_same_and_does_not_choose_again(tmp_path):
    model = new(init="informed:4")
    model.fit(DATA["train"], **FIT)
    model.save_pretrained(tmp_path)
    back = InfoPromptModel.from_pretrained(tmp_path, encoder=NANO)
    assert back.settings["init"] == "informed:4" and same(bits(back), bits(model))
    assert back.predict_proba(DATA["test"]).equals(model.predict_proba(DATA["test"]))
    assert torch.equal(started(back)["prompt"], model.prompt)


# --- outside fit, and after it

WAITING = [dict(init="informed:4"), dict(head_init="probe"), dict(init="informed:4", head_init="probe")]
ROWS = Dataset.from_list(new().rows(DATA["train"]))


def batch(model):
    return model.collate_fn(model.rows(DATA["train"])[:4])


def by_trainer(model, folder):
    "Train with transformers' Trainer."
    options = TrainingArguments(str(folder), max_steps=3, report_to=[], save_strategy="no", disable_tqdm=True,
                                use_cpu=True)
    Trainer(model, options, train_dataset=ROWS, data_collator=model.collate_fn).train()


def by_hand_of_ones_own(model, folder=None):
    "Train in a loop of one's own."
    optim = torch.optim.SGD(model.parameters(), lr=.1)
    for _ in range(2):
        optim.zero_grad()
        model(**batch(model)).loss.backward()
        optim.step()


@pytest.mark.parametrize("kw", [*WAITING, dict(weighting="fading"), dict(weighting="rising")], ids=str)
@pytest.mark.parametrize("train", [by_trainer, by_hand_of_ones_own])
def test_what_only_fit_can_do_is_refused_outside(kw, train, tmp_path):
    model = new(**kw)
    start = bits(model)
    with pytest.raises(InputError, match="train with fit") as caught: train(model, tmp_path)
    assert "\n" not in str(caught.value) and all(f"{k}={v!r}" in str(caught.value) for k, v in kw.items())
    assert same(bits(model), start)
    with torch.no_grad(): assert model(**batch(model)).loss.isfinite()
    assert model.eval()(**batch(model)).loss.isfinite() and len(model.predict(["the film was good"])) == 1


named = lambda x: getattr(x, "__name__", str(x))


@pytest.mark.parametrize("kw, train", [*product(WAITING, [by_trainer]), (WAITING[0], by_hand_of_ones_own)], ids=named)
def test_begin_chooses_as_fit_does_and_then_anybody_may_train(kw, train, tmp_path):
    model, want = new(**kw), started(new(**kw))
    model.begin(DATA["train"])
    begun = bits(model)
    assert same(begun, want) and not same(begun, bits(new()))
    model.begin(load_data("nano/sentiment", shots=16, seed=7)["train"])
    assert same(bits(model), begun), "once is enough"
    train(model, tmp_path)
    assert not same(bits(model), begun)


def test_begin_reads_what_fit_reads():
    names, wants = DATA["train"].features["label"].names, started(new(**WAITING[0]))
    rows = [dict(text=r["text"], label=names[r["label"]]) for r in DATA["train"]]
    for data in DATA["train"], rows, pd.DataFrame(rows):
        model = new(**WAITING[0])
        model.begin(data)
        assert same(bits(model), wants)
    for wrong, says in ((["the film was good"], "no labels"), ([], "no rows"), (5, "list of texts")):
        with pytest.raises(InputError, match=says): new(**WAITING[0]).begin(wrong)
    plain = new()
    plain.begin(DATA["train"])
    assert same(bits(plain), bits(new())), "nothing waits"


def loaded(model, folder): model.load_state_dict(bits(new(seed=9)))
def loaded_as_it_was(model, folder): model.load_state_dict(bits(model))
def set_by_hand(model, folder): model.prompt.data[0, 0] += 1
def fitted(model, folder): model.fit(DATA["train"], **FIT)
def begun(model, folder): model.begin(DATA["train"])


def begun_and_trained(model, folder):
    model.begin(DATA["train"])
    by_trainer(model, folder)


def begun_and_stepped(model, folder):
    model.begin(DATA["train"])
    by_hand_of_ones_own(model)


def head_alone(model, folder):
    with torch.no_grad(): model.head.add_(.01)


BEFORE = loaded, loaded_as_it_was, set_by_hand, head_alone, fitted, begun, begun_and_trained, begun_and_stepped


CASES = *product(WAITING[:1], BEFORE), *product([dict(), WAITING[1]], [loaded, fitted])


@pytest.mark.parametrize("kw, before", CASES, ids=named)
def test_fit_goes_on_from_the_weights_that_are_there(kw, before, tmp_path):
    model = new(**kw)
    before(model, tmp_path)
    here = bits(model)
    assert same(started(model), here)


def test_fit_goes_on_from_what_was_saved(tmp_path):
    for name, trained in ("trained", True), ("untrained", False):
        model = new(**WAITING[2])
        if trained: model.fit(DATA["train"], **FIT)
        model.save_pretrained(tmp_path / name)
        back = InfoPromptModel.from_pretrained(tmp_path / name, encoder=NANO)
        assert same(bits(back), bits(model)) and same(started(back), bits(model))


def test_a_model_that_is_moved_or_copied_still_waits():
    assert copy.deepcopy(new(**WAITING[0])).waits and not new().waits
    assert InfoPromptModel(Encoder("nano"), "nano/sentiment", **WAITING[0]).bfloat16().waits
