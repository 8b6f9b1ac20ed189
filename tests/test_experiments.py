"""Each method trains what it says and nothing else, on a copy of the encoder."""
import copy
import json
import sys

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from infoprompt.core import InfoPromptModel, InputError, load_data
from infoprompt.data.tasks import SINGLE, get_task
from infoprompt.data.templates import collate, encode
from infoprompt.method.encoders import Encoder
from infoprompt.method.prompts import read
from infoprompt.study import experiments
from infoprompt.study.experiments import METHODS, adapted, biases_of, lora_of, run_jobs, stored, weights_of
from small import NANO
from tiny import save

TASK, DATA = get_task("nano/sentiment"), load_data("nano/sentiment", shots=16, seed=0)


@pytest.mark.parametrize("part", [weights_of, biases_of, lora_of])
def test_only_the_named_part_moves(part):
    before = {k: p.detach().clone() for k, p in NANO.named_parameters()}
    model = adapted(DATA, TASK, NANO, part, 0, 1e-2, 1, 8)
    assert all(torch.equal(p, before[k]) and p.grad is None and not p.requires_grad
               for k, p in NANO.named_parameters())
    same = lambda k, p: "lora_" not in k and torch.equal(p, before[k.replace("base_layer.", "")])
    moved = {k for k, p in model.encoder.named_parameters() if not same(k, p)}
    fresh = copy.deepcopy(NANO)
    chosen = {id(p) for p in part(fresh)}
    assert moved and moved <= {k for k, p in fresh.named_parameters() if id(p) in chosen}
    if part is biases_of: assert all(k.endswith("bias") for k in moved) and len(moved) > 20
    if part is lora_of: assert all("lora_" in k for k in moved) and len(moved) == 2 * 2 * 4
    start = InfoPromptModel(NANO, TASK, seed=0)
    assert torch.equal(model.prompt, start.prompt) and not torch.equal(model.head, start.head)


def test_adapters_start_without_effect():
    encoder = copy.deepcopy(NANO)
    lora_of(encoder)
    batch = collate(encode([dict(text="the actor likes the film .")], SINGLE, NANO, 0), NANO)
    assert torch.equal(read(encoder, batch), read(NANO, batch))


def test_adapters_follow_their_seed_and_leave_the_stream_alone():
    state = torch.get_rng_state()
    one, two, other = (lora_of(copy.deepcopy(NANO), seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, one, two)) and not all(map(torch.equal, one, other))


def test_lora_without_peft_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match="pip install peft"): METHODS["LoRA"](DATA, TASK, NANO, epochs=1)


def test_lora_without_its_layers_is_refused(tmp_path):
    with pytest.raises(InputError, match="named query and value"):
        lora_of(Encoder(save(tmp_path, "distilbert")))


def test_the_best_epoch_is_kept(monkeypatch):
    scores, evaluate = [], InfoPromptModel.evaluate
    def noting(model, rows):
        assert rows is DATA["validation"], "test rows choose no epoch"
        scores.append(evaluate(model, rows)["accuracy"])
        return dict(accuracy=scores[-1])
    monkeypatch.setattr(InfoPromptModel, "evaluate", noting)
    model = adapted(DATA, TASK, NANO, weights_of, 0, 3e-3, 6, 8)
    assert len(scores) == 6 and len({*scores}) > 1 and evaluate(model, DATA["validation"])["accuracy"] == max(scores)


class Scored:
    "A model whose scores depend on its rate alone; the rate that is best on the test rows is the worst elsewhere."
    task, scores = TASK, {.1: dict(train=.4, validation=.4, test=.9), .2: dict(train=.5, validation=.8, test=.1),
                          .3: dict(train=.9, validation=.6, test=.5)}

    def __init__(self, *_, lr=None, **__): self.lr, self.read = lr, []

    def fit(self, train, validation, epochs, lr, *_, **__):
        assert (train, validation) == ("train", "validation")
        self.lr = lr

    def evaluate(self, rows): return dict(accuracy=self.scores[self.lr][rows])


SPLITS = {name: name for name in ("train", "validation", "test")}


@pytest.mark.parametrize("lrs", [(.1, .2, .3), (.3, .2, .1)], ids=str)
@pytest.mark.parametrize("method", ["plain", "fine-tuning"])
def test_validation_rows_choose_the_rate(method, lrs, monkeypatch):
    monkeypatch.setattr(experiments, "InfoPromptModel", Scored)
    monkeypatch.setattr(Scored, "history", None, raising=False)
    monkeypatch.setattr(experiments, "by_epoch", lambda *_: dict(ce=[0.]))
    monkeypatch.setattr(experiments, "adapted", lambda *a: Scored(lr=a[5]))
    found = METHODS[method](SPLITS, TASK, NANO, lrs=lrs)
    assert (found["lr"], found["validation"], found["test"]) == (.2, dict(accuracy=.8), dict(accuracy=.1))


def probes(states, data):
    "C -> accuracy by five-fold cross-validation on the training rows, and of the probe on both other splits, slowly."
    y, found = {s: np.array(data[s]["label"]) for s in data}, {}

    def guesses(x, labels, C, *others):
        scaler = StandardScaler().fit(x)
        model = LogisticRegression(C=C, max_iter=2000).fit(scaler.transform(x), labels)
        return [model.predict(scaler.transform(other)) for other in others]
    for C in np.logspace(-4, 2, 7):
        folds = StratifiedKFold(5, shuffle=True, random_state=0).split(states["train"], y["train"])
        seen = [np.mean(guesses(states["train"][fit], y["train"][fit], C, states["train"][out])[0] == y["train"][out])
                for fit, out in folds]
        on = guesses(states["train"], y["train"], C, states["validation"], states["test"])
        found[C] = [np.mean(seen), *(np.mean(g == y[s]) for g, s in zip(on, ("validation", "test")))]
    return found


def test_training_rows_choose_the_probe(monkeypatch):
    data, rng = load_data("nano/sentiment", shots=32, seed=0), np.random.default_rng(0)
    # in training one direction is clear and many are noise; in the others the noise tells, so that they like another C
    weights = dict(train=(.7, 0.), validation=(.7, .6), test=(.0, .9))
    way = rng.normal(size=60)
    states = {s: rng.normal(size=(len(data[s]), 61)) + np.outer(2 * np.array(data[s]["label"]) - 1, [a, *(b * way)])
              for s, (a, b) in weights.items()}
    asked = iter(data)
    monkeypatch.setattr(experiments, "frozen_states", lambda *_: [*torch.as_tensor(states[next(asked)])[:, None]])
    found, each = METHODS["probe"](data, TASK, NANO), probes(states, data)
    _, validation, test = max(each.values(), key=lambda scores: scores[0])
    assert [found[s]["accuracy"] for s in ("validation", "test")] == pytest.approx([validation, test])
    best = [max(scores[i] for scores in each.values()) for i in (1, 2)]
    assert best[0] > validation and best[1] > test, "a test in which all rows agree shows nothing"


def test_methods_are_settings_of_tuned(monkeypatch):
    seen = []
    monkeypatch.setattr("infoprompt.study.experiments.tuned", lambda *a, **kw: seen.append(kw))
    METHODS["WARP"](DATA, TASK, NANO, seed=1); METHODS["IDPG"](DATA, TASK, NANO, seed=1)
    assert seen == [dict(seed=1, init="mask", beta=0, gamma=0), dict(seed=1, prompt="instance", beta=0, gamma=0)]


@pytest.mark.parametrize("method", ["WARP", "IDPG", "BitFit", "LoRA", "fine-tuning"])
def test_methods_give_scores_of_both_splits(method):
    found = METHODS[method](DATA, TASK, NANO, seed=0, lrs=[1e-2], epochs=1, batch_size=8)
    assert found["lr"] == 1e-2 and {*found["validation"]} == {*found["test"]} == {"accuracy"}


def test_jobs_on_disk_say_what_made_them_and_are_not_run_again(tmp_path, monkeypatch):
    file, job = tmp_path / "jobs.jsonl", dict(task=TASK.name, encoder="nano", method="majority", shots=8)
    jobs = [job | dict(seed=s) for s in range(3)]
    first = run_jobs(jobs[:2], file, progress=False, made=dict(commit="a"))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[0] == dict(made=dict(commit="a")) and [line["job"] for line in lines[1:]] == jobs[:2]
    assert all(not set(line) & set(job) for line in lines[1:]), "nothing is written twice"
    assert run_jobs(jobs[:2], file, progress=False, made=dict(commit="b")) == first == stored(file)
    monkeypatch.setattr(experiments, "run_job", lambda job, encoder: job | dict(test=dict(accuracy=.5)))
    run_jobs(jobs, file, progress=False, made=dict(commit="b"))
    assert [line.get("made") for line in map(json.loads, file.read_text().splitlines())] == [
        dict(commit="a"), None, None, dict(commit="b"), None]
    assert stored(file)[:2] == first and stored(file)[2]["seed"] == 2 and stored(file)[2]["test"] == dict(accuracy=.5)
