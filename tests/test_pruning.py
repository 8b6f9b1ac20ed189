"""Pruned prompts: masks that training keeps exactly, runs that do not feel each other's masks, honest scores."""
import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from infoprompt.core import InfoPromptModel, InputError, load_data
from infoprompt.engine.feeds import Rows
from infoprompt.engine.masks import SCORES, cut_off, kept, slopes, wear
from infoprompt.engine.population import Population, judge, train_population
from infoprompt.study.pruning import LEVELS, again, informed, removal, search, shares
from small import bits, new, resealed, same

DATA = load_data("nano/sentiment", shots=16, seed=0)
FIT = dict(epochs=2, batch_size=6, lr=.01, progress=False)


@pytest.fixture(scope="module")
def trained():
    model = new(n_prompt=4)
    model.fit(DATA["train"], **FIT)
    return model


def blank(model):
    "Where a prompt must be zero."
    mask = model.prompt_mask.repeat_interleave(model.prompt.shape[1] // model.prompt_mask.shape[1], 1)
    return mask == 0


@pytest.mark.parametrize("terms", [dict(), dict(beta=.1, gamma=.05)], ids=str)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "adamw_sgd"])
def test_training_keeps_what_is_pruned_exactly_zero(terms, optimizer):
    model = new(n_prompt=4, **terms)
    wear(model, torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]]))
    before, hole = bits(model), blank(model)
    train_population(Population([model]), DATA["train"], DATA["validation"], 2, [.05], 6, [(0, 0)], progress=False,
                     weight_decay=.5, optimizer=optimizer)
    assert hole.sum() == 8 * 16 and (model.prompt[hole] == 0).all() and model.prompt[~hole].all()
    assert torch.equal(model.prompt_mask, before["prompt_mask"]) and not torch.equal(model.prompt, before["prompt"])


def test_what_is_pruned_can_be_anything():
    model = new(n_prompt=3, beta=0, gamma=0)
    wear(model, torch.tensor([[1, 0], [1, 1], [0, 0]]))
    answer = model.predict_proba(DATA["test"]["text"][:5])
    with torch.no_grad(): model.prompt[blank(model)] = 7.
    assert answer.equals(model.predict_proba(DATA["test"]["text"][:5]))


def test_a_mask_of_ones_changes_nothing():
    plain, whole = new(), new()
    wear(whole, torch.ones(4, 16))
    for model in (plain, whole): model.fit(DATA["train"], DATA["validation"], **FIT)
    found = bits(whole)
    found.pop("prompt_mask")
    assert same(found, bits(plain))


def three(model, second):
    "Three runs from one model, the middle one with another mask."
    masks = [torch.tensor([[1, 0], [1, 1], [0, 1], [1, 1]]), second, torch.tensor([[0, 0], [1, 1], [1, 0], [0, 1]])]
    models = [copy.deepcopy(model, {id(model.encoder): model.encoder}) for _ in masks]
    for m, mask in zip(models, masks): wear(m, mask)
    again(models, DATA["train"], DATA["validation"], progress=False)
    return models


def test_runs_do_not_feel_each_others_masks(trained):
    one = three(trained, torch.ones(4, 2))
    other = three(trained, torch.tensor([[0, 0], [0, 1], [0, 0], [0, 0]]))
    for i in (0, 2): assert same(bits(one[i]), bits(other[i])), "bit for bit"
    assert not torch.equal(one[1].prompt, other[1].prompt)


def test_a_masked_run_in_a_population_is_the_run_alone(trained):
    together = three(trained, torch.ones(4, 2))
    alone = copy.deepcopy(trained, {id(trained.encoder): trained.encoder})
    wear(alone, together[0].prompt_mask)
    again([alone], DATA["train"], DATA["validation"], progress=False)
    for k, p in bits(alone).items(): assert torch.allclose(p, bits(together[0])[k], atol=1e-5, rtol=0)
    assert torch.equal(alone.prompt == 0, together[0].prompt == 0)


def test_masks_of_several_widths_train_together(trained):
    models = [trained.prune(DATA["train"], pieces=.5, cut=cut) for cut in (2, 8, 64)]
    again(models, DATA["train"], progress=False)
    for m in models: assert (m.prompt[blank(m)] == 0).all() and kept(m)["numbers"] == 128


def test_masked_and_unmasked_runs_are_trained_apart(trained):
    with pytest.raises(InputError, match="train them apart"):
        Population([new(n_prompt=4), trained.prune(DATA["train"], .5)])


def test_a_slope_is_the_derivative_of_the_loss_by_the_mask(trained):
    model, e = trained.prune(DATA["train"], cut=4), 1e-2
    found = slopes(trained, DATA["train"], 4)

    def losses(change):
        with torch.no_grad():
            params = {k: p[None] for k, p in model.trained().items()}
            params["prompt_mask"] = params["prompt_mask"] + change
            rows = model.rows(DATA["train"])
            batch = {k: x[None] for k, x in model.collate_fn(rows).items()}
            return cross_entropy(model.answer(params, batch)["logits"][0], batch["labels"][0], reduction="none")
    for at in ((0, 0), (1, 3), (3, 2)):
        step = torch.zeros(4, 4)
        step[at] = e
        slope = (losses(step) - losses(-step)) / (2 * e)
        assert torch.allclose(found[:, *at], slope, atol=2e-3 + .02 * slope.abs().max().item(), rtol=.05)


def test_removal_is_what_a_model_without_the_token_loses(trained):
    found = removal([trained], DATA["validation"])[0]
    hole = torch.ones(4, 1)
    hole[2] = 0
    without = copy.deepcopy(trained, {id(trained.encoder): trained.encoder})
    wear(without, hole)

    def losses(model):
        logits, rows = model._logits(DATA["validation"])
        return cross_entropy(logits, torch.tensor([r["label"] for r in rows]), reduction="none")
    assert torch.allclose(found[:, 2], losses(without) - losses(trained), atol=1e-4)
    assert removal([trained] * 2, [DATA["train"], DATA["validation"]], [0, 1]).shape == (2, 16, 4)


def test_removal_keeps_what_was_already_pruned(trained):
    model = trained.prune(DATA["train"], tokens=.5)
    gone = [i for i in range(4) if i not in kept(model)["tokens"]]
    assert len(gone) == 2 and not removal([model], DATA["train"])[0][:, gone].any()


@pytest.mark.parametrize("by", SCORES)
def test_every_score_prunes_by_the_same_count(trained, by):
    before = bits(trained)
    model = trained.prune(DATA["train"], tokens=.25, pieces=.5, by=by)
    found = kept(model)
    assert len(found["tokens"]) <= 3 and sum(found["pieces"]) == 24 and found["numbers"] == 96
    assert same(bits(trained), before), "the old model is left alone"
    assert torch.equal(model.prompt, trained.prompt.where(~blank(model), torch.zeros(())))
    assert torch.equal(model.head, trained.head) and model.encoder is trained.encoder


def test_importance_and_reversed_disagree_about_everything(trained):
    one, other = (trained.prune(DATA["train"], tokens=.5, by=by) for by in ("importance", "reversed"))
    assert {*kept(one)["tokens"]} | {*kept(other)["tokens"]} == {0, 1, 2, 3}


def test_random_draws_go_by_the_seed(trained):
    draw = lambda seed: trained.prune(DATA["train"], pieces=.5, by="random", seed=seed).prompt_mask
    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))


def test_pruning_again_goes_on_from_what_is_left(trained):
    once = trained.prune(DATA["train"], tokens=.5, pieces=.5, cut=8)
    twice = once.prune(DATA["train"], pieces=.5, cut=16)
    assert (twice.prompt_mask <= once.prompt_mask.repeat_interleave(2, 1)).all()
    assert kept(twice)["numbers"] == kept(once)["numbers"] // 2


@given(st.floats(0, .999), st.integers(1, 40), st.sampled_from(LEVELS), st.sampled_from([1, 2, 16, 64]))
def test_shares_leave_the_numbers_that_the_ratio_promises(ratio, n, level, cut):
    found = shares(ratio, n, level, cut)
    stay = n - round(found["tokens"] * n)
    left = stay * cut - round(found["pieces"] * stay * cut)
    assert 1 <= stay <= n and 1 <= left
    if level == "tokens": assert stay == max(1, round(n * (1 - ratio)))
    else: assert left == max(1, round(n * cut * (1 - ratio)))


@given(st.lists(st.sampled_from([.1, .2, .3]), min_size=2, max_size=8), st.floats(0, .49))
def test_the_lowest_go_first_and_ties_by_place(scores, share):
    scores = torch.tensor(scores)
    stay = cut_off(scores, torch.ones(len(scores)), share, "tokens") > 0
    assert (~stay).sum() == round(share * len(scores))
    if (~stay).any(): assert scores[~stay].max() <= scores[stay].min()


def test_search_chooses_on_validation_alone(trained):
    table, best = search(trained, DATA["train"], DATA["validation"], (.3, .6), progress=False)
    assert table["ratio"].tolist() == [0., .3, .6] and table["numbers"].tolist() == [256, 180, 104]
    top = table.iloc[1:].sort_values(["val_accuracy", "val_loss"], ascending=[False, True]).iloc[0]
    assert kept(best)["numbers"] == top["numbers"]
    assert best.evaluate(DATA["validation"])["accuracy"] == pytest.approx(top["val_accuracy"])
    assert best.fitted["steps"] == trained.fitted["steps"] and best.fitted["lr"] == trained.fitted["lr"]


@pytest.mark.parametrize("first", [dict(beta=0., gamma=0.), dict(beta=.1, gamma=.05, head_critic="bilinear")], ids=str)
def test_each_training_run_may_have_its_own_terms(first, tmp_path):
    model = new(n_prompt=4, **first)
    model.fit(DATA["train"], **FIT)
    on = lambda m: {*m.history["quantity"]} & {"l_rep", "l_head"}
    asked = dict(beta=.2) if not first["beta"] else dict(beta=0., gamma=0.)
    table, best = search(model, DATA["train"], DATA["validation"], (.5,), progress=False, **asked)
    assert on(model) == ({"l_rep", "l_head"} if first["beta"] else set())
    assert on(best) == (set() if first["beta"] else {"l_rep"})
    assert best.settings == model.settings | asked and (best.prompt[blank(best)] == 0).all()
    assert {"rep_critic", "head_critic"} & {*best.trained()} == ({"rep_critic"} if not first["beta"] else set())
    best.save_pretrained(tmp_path)
    assert same(bits(InfoPromptModel.from_pretrained(tmp_path, encoder=best.encoder)), bits(best))
    kept_on, = search(model, DATA["train"], DATA["validation"], (.5,), progress=False)[1:]
    assert on(kept_on) == on(model) and kept_on.settings == model.settings


@pytest.mark.parametrize("wrong", [dict(beta=-1.), dict(gamma=float("nan"))], ids=str)
def test_terms_that_cannot_be(trained, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        search(trained, DATA["train"], DATA["validation"], (.5,), progress=False, **wrong)


def test_saved_and_loaded(trained, tmp_path):
    model = trained.prune(DATA["train"], tokens=.5, pieces=.25)
    again([model], DATA["train"], progress=False)
    model.save_pretrained(tmp_path / "one")
    there = load_file(tmp_path / "one/prompt.safetensors")
    assert torch.equal(there["prompt_mask"], model.prompt_mask) and (there["prompt"][blank(model)] == 0).all()
    back = InfoPromptModel.from_pretrained(tmp_path / "one", encoder=model.encoder)
    assert same(bits(back), bits(model)) and kept(back) == kept(model) and back.fitted == model.fitted
    for m in (model, back): m.fit(DATA["train"], **FIT)
    assert same(bits(back), bits(model)) and (back.prompt[blank(back)] == 0).all()


def test_a_start_that_waits_is_chosen_before_the_cut():
    model = new(n_prompt=4, init="informed:3")
    cut = model.prune(DATA["train"], tokens=.25)
    assert not cut.waits and model.waits
    model.begin(DATA["train"])
    assert torch.equal(cut.prompt, model.prompt.where(~blank(cut), torch.zeros(())))


# bad input


@pytest.mark.parametrize("shape", [(3, 16), (4, 7), (4, 0), (4,), (4, 16, 1), (4, 65)], ids=str)
def test_a_mask_of_another_shape(shape):
    with pytest.raises(InputError, match=r"this prompt needs \(4, pieces\)"): wear(new(n_prompt=4), torch.ones(shape))


@pytest.mark.parametrize("fill", [0., .5, float("nan"), 2.])
def test_a_mask_that_is_none(fill):
    with pytest.raises(InputError, match="zeros and ones"): wear(new(n_prompt=4), torch.full((4, 2), fill))


def test_a_saved_mask_of_another_shape(trained, tmp_path):
    trained.prune(DATA["train"], .5).save_pretrained(tmp_path)
    resealed(tmp_path, lambda tensors: tensors | dict(prompt_mask=torch.ones(5, 16)))
    with pytest.raises(InputError, match="the mask has shape"): InfoPromptModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("wrong, words", [
    (dict(tokens=1.2), "tokens is 1.2"), (dict(pieces=-.1), "pieces is -0.1"),
    (dict(tokens=float("nan")), "tokens is nan"), (dict(tokens="half"), "tokens is 'half'"),
    (dict(tokens=1.), "leaves none of 4"), (dict(tokens=.9), "leaves none of 4"),
    (dict(pieces=.999), "leaves none of 64"), (dict(tokens=.5, cut=7), "does not divide"),
    (dict(pieces=.5, cut=128), "does not divide"), (dict(pieces=.5, cut=0), "cut is 0"),
    (dict(tokens=.5, by="luck"), "'importance' or 'reversed'")], ids=str)
def test_shares_that_cannot_be(trained, wrong, words):
    with pytest.raises(InputError, match=words): trained.prune(DATA["train"], **wrong)


def test_pieces_of_an_older_cut(trained):
    with pytest.raises(InputError, match="give cut=8"):
        trained.prune(DATA["train"], pieces=.5, cut=8).prune(DATA["train"], pieces=.5, cut=4)


def test_an_instance_prompt():
    with pytest.raises(InputError, match="an instance prompt cannot be pruned"):
        new(prompt="instance").prune(DATA["train"], tokens=.5)


@pytest.mark.parametrize("rows", [None, [], DATA["test"]["text"][:4]], ids=["none", "empty", "no labels"])
def test_without_training_rows(trained, rows):
    with pytest.raises(InputError, match="give (the )?rows"): trained.prune(rows, tokens=.5)


def test_search_that_cannot_be(trained):
    go = lambda **more: search(trained, DATA["train"], **dict(validation=DATA["validation"]) | more)
    with pytest.raises(InputError, match="ratios holds 1.5"): go(ratios=(.3, 1.5))
    with pytest.raises(InputError, match="leaves nothing of the prompt"): go(ratios=(1.,))
    with pytest.raises(InputError, match="give a list of values"): go(ratios=())
    with pytest.raises(InputError, match="validation rows"): go(validation=None)
    with pytest.raises(InputError, match="no models to train again"): again([], DATA["train"])
    with pytest.raises(InputError, match="choose hierarchical"): go(level="words")
    with pytest.raises(InputError, match="call fit before"): search(new(), DATA["train"], DATA["validation"])


def test_a_prompt_for_entities_can_be_pruned(tmp_path):
    data = load_data("nano/entities", shots=12, seed=0)
    model = InfoPromptModel("nano", "nano/entities", n_prompt=4, beta=0., gamma=0.)
    model.fit(data["train"], epochs=1, progress=False)
    slope, e = slopes(model, data["train"], 4), 1e-2
    def loss(scale):
        moved = copy.deepcopy(model, {id(model.encoder): model.encoder})
        with torch.no_grad(): moved.prompt[2, 16:32] *= scale
        one = Population([moved])
        rows = Rows(one, data["train"], losses=False)
        return judge(one, one.stack(), rows)["val_loss"].item()
    assert slope.shape == (len(data["train"]), 4, 4)
    assert slope[:, 2, 1].mean().item() == pytest.approx((loss(1 + e) - loss(1 - e)) / (2 * e), abs=1e-3, rel=.05)
    gone = removal([model], data["train"])[0]
    assert gone.shape == (len(data["train"]), 4) and gone.isfinite().all()
    small = model.prune(data["train"], tokens=.5, pieces=.5, cut=4)
    small.fit(data["train"], epochs=1, progress=False)
    small.save_pretrained(tmp_path)
    again_read = InfoPromptModel.from_pretrained(tmp_path)
    assert int(small.prompt_mask.sum()) == 4 and torch.equal(again_read.prompt_mask, small.prompt_mask)
    assert torch.equal(again_read.prompt, small.prompt) and int((small.prompt != 0).sum()) == 4 * 16
    assert again_read.predict(data["test"].select(range(3))) == small.predict(data["test"].select(range(3)))


@pytest.mark.parametrize("said, call", [
    ("give a tensor of zeros and ones", lambda m: wear(m, None)), ("give a tensor", lambda m: wear(m, ["a", "b"])),
    ("holds zeros and ones", lambda m: wear(m, [[.5], [1], [1], [1]])),
    ("cut is 7, which does not divide", lambda m: slopes(m, DATA["train"], 7)),
    ("cut is 0", lambda m: search(m, DATA["train"], DATA["validation"], cut=0, progress=False)),
    ("level is 'words'", lambda m: shares(.5, 4, "words")), ("n_prompt is 0", lambda m: shares(.5, 0)),
    ("cut is 0", lambda m: shares(.5, 4, cut=0)), ("there are no models", lambda m: removal([], DATA["test"]))])
def test_what_cannot_be_a_mask_or_a_cut_is_said_in_one_line(trained, said, call):
    with pytest.raises(InputError, match=said) as error: call(copy.deepcopy(trained))
    assert "\n" not in str(error.value)


def test_a_mask_may_be_bools_or_lists():
    for mask in torch.tensor([[True], [False], [True], [True]]), [[1], [0], [1], [1]]:
        wear(model := new(n_prompt=4), mask)
        assert kept(model)["tokens"] == [0, 2, 3]


@pytest.mark.parametrize("look", [lambda m: slopes(m, DATA["train"]), lambda m: removal([m], DATA["test"]),
                                  lambda m: informed(m, DATA["test"])])
def test_tokens_of_an_instance_prompt_cannot_be_looked_at(look):
    with pytest.raises(InputError, match="an instance prompt cannot be pruned"): look(new(prompt="instance"))
