"""InfoPromptModel as its users meet it: fit, predict, save, load, push, and transformers' own Trainer."""
import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, Trainer, TrainingArguments

from infoprompt import core
from infoprompt.core import InfoPromptModel, InputError, Task, load_data
from infoprompt.data.tasks import get_task
from infoprompt.engine import population
from infoprompt.engine.feeds import Feed, Rows
from infoprompt.engine.population import Population, judge
from infoprompt.method.encoders import Encoder, resolve
from infoprompt.method.objective import FIELDS
from infoprompt.method.prompts import frozen
from small import NANO, bits, new, resealed, same

DATA = load_data("nano/sentiment", shots=24, seed=0)
QUICK = dict(epochs=2, batch_size=8, lr=.02, progress=False)
TASK = Task("mood", verbalizer=dict(bad="bad", good="good"))
KINDS = [dict(), dict(prompt="instance"), dict(rep_critic="released"), dict(head_critic="bilinear"),
         dict(beta=0, gamma=0)]


@pytest.fixture
def folder(tmp_path):
    return tiny.save(tmp_path / "encoder")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    "A small encoder and a prompt that was trained on it."
    path = tmp_path_factory.mktemp("saved")
    tiny.save(path / "encoder")
    model = InfoPromptModel(str(path / "encoder"), TASK, n_prompt=3, k=4)
    rows = [dict(text="the film was very good", label="good"), dict(text="so dull and bad", label="bad")] * 4
    model.fit(rows, **QUICK)
    model.scores = dict(validation=dict(accuracy=.75))
    model.save_pretrained(path / "prompt")
    return path


# --- fit and predict

def test_fit_learns_what_it_is_shown():
    model = new()
    history = model.fit(DATA["train"], DATA["train"], **QUICK | dict(epochs=20, lr=.03))
    loss = history.query("quantity == 'ce'")["value"]
    assert loss.iloc[-6:].mean() < .7 * loss.iloc[:6].mean()
    accuracy = model.evaluate(DATA["train"])["accuracy"]
    assert accuracy == pytest.approx(history.query("quantity == 'val_accuracy'")["value"].max()) and accuracy > .8
    assert {"loss", "ce", "l_rep", "l_head", "grad_norm", "val_accuracy", "val_loss"} == set(history["quantity"])


def everything(encoder):
    "All weights of an encoder, bit by bit."
    tensors = encoder.state_dict()
    parts = (k.encode() + t.contiguous().numpy().tobytes() for k, t in sorted(tensors.items()))
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize("kw", KINDS + [dict(rep_negatives="reference", k=3)], ids=str)
def test_fit_trains_all_of_the_prompt_and_nothing_of_the_encoder(kw):
    model, before = new(**kw), everything(NANO)
    start = bits(model)
    model.fit(DATA["train"], **QUICK)
    assert everything(NANO) == before and frozen(NANO)
    assert all(not torch.equal(p, start[k]) for k, p in bits(model).items())


@pytest.mark.parametrize("kw", KINDS, ids=str)
def test_state_dict_holds_only_what_is_trained(kw):
    model = new(**kw)
    assert set(model.state_dict()) == set(model.trained()) and "head" in model.trained()
    assert not any(p is q for p in model.parameters() for q in NANO.parameters())
    assert sum(p.numel() for p in model.parameters()) < 40_000


def test_what_is_frozen_stays():
    model = new()
    start = bits(model)
    model.prompt.requires_grad_(False)  # "head only"
    model.fit(DATA["train"], DATA["validation"], **QUICK)
    assert torch.equal(model.prompt, start["prompt"]) and not torch.equal(model.head, start["head"])


def test_a_second_fit_goes_on():
    once, twice = new(), new()
    once.fit(DATA["train"], **QUICK)
    middle = bits(once)
    twice.load_state_dict(middle)
    once.fit(DATA["train"], **QUICK | dict(seed=1))
    twice.fit(DATA["train"], **QUICK | dict(seed=1))
    assert same(bits(once), bits(twice)) and not same(bits(once), middle)


@pytest.mark.parametrize("change, differs", [({}, False), (dict(seed=1), True), (dict(order_seed=1), True)])
def test_a_fit_is_a_function_of_its_seeds(change, differs):
    one, two = new(), new()
    torch.manual_seed(1)
    one.fit(DATA["train"], **QUICK)
    torch.manual_seed(2)
    two.fit(DATA["train"], **QUICK | change)
    assert same(bits(one), bits(two)) != differs


def test_validation_chooses_the_epoch(monkeypatch):
    scores, seen = iter([.9, .2, .7, .7, .5]), []  # before the first epoch, then after each of four

    def fake(runs, params, data, accelerator=None):
        seen.append({k: p[0].clone() for k, p in params.items()})
        return dict(score=torch.tensor([next(scores)]), val_loss=torch.tensor([1. - .1 * len(seen)]))
    monkeypatch.setattr(population, "judge", fake)
    model = new()
    history = model.fit(DATA["train"], DATA["validation"], **QUICK | dict(epochs=4))
    assert same(bits(model), seen[3])  # .7 twice; the later one has the lower loss; the untrained start does not count
    assert history.query("quantity == 'val_accuracy'")["value"].round(1).tolist() == [.9, .2, .7, .7, .5]


def test_without_validation_the_last_epoch_stays():
    model = new()
    model.fit(DATA["train"], **QUICK)
    judged = new()
    history = judged.fit(DATA["train"], DATA["validation"], **QUICK)
    notes = [history.query("quantity == @name")["value"].tolist()[1:] for name in ("val_accuracy", "val_loss")]
    last_is_best = max(zip(notes[0], [-x for x in notes[1]])) == (notes[0][-1], -notes[1][-1])
    assert same(bits(model), bits(judged)) == last_is_best


def test_judge_is_the_tasks_first_metric_and_the_cross_entropy():
    model = InfoPromptModel(NANO, "nano/acceptability")
    data = load_data("nano/acceptability", shots=30, seed=1)["train"]
    model.fit(data, **QUICK)
    alone = Population([model])
    judged = judge(alone, alone.stack(), Rows(alone, data))
    assert judged["score"].item() == pytest.approx(model.evaluate(data)[model.task.metrics[0]])
    proba = model.predict_proba(data).to_numpy()
    assert judged["val_loss"].item() == pytest.approx(-np.log(proba[np.arange(30), data["label"]]).mean(), abs=1e-5)
    right = np.mean([p == model.task.names[y] for p, y in zip(model.predict(data), data["label"])])
    assert model.evaluate(data)["accuracy"] == pytest.approx(right)


@pytest.mark.parametrize("kw", KINDS[:3], ids=str)
def test_a_prediction_does_not_hang_on_its_neighbours(kw):
    model = new(**kw)
    model.fit(DATA["train"], **QUICK)
    texts = DATA["test"]["text"][:70]
    together = model.predict_proba(texts)
    alone = np.concatenate([model.predict_proba([t]).to_numpy() for t in texts])
    np.testing.assert_allclose(together.to_numpy(), alone, atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(texts[::-1]).to_numpy()[::-1], together, atol=1e-5)
    assert together.to_numpy().std() > .01 and list(together) == list(model.task.names)
    assert np.allclose(together.sum(axis=1), 1, atol=1e-5)


def test_predictions_need_no_labels_and_no_information_states(monkeypatch):
    model = new(rep_negatives="reference", k=4)
    monkeypatch.setattr(InfoPromptModel, "references", lambda *a: pytest.fail("encoder rows for nothing"))
    assert model.predict(["good film"])[0] in model.task.names
    assert model.predict([dict(text="good film")]) == model.predict(["good film"]) == model.predict("good film")
    model.evaluate(DATA["test"].select(range(4)))


def test_the_head_starts_as_the_language_models_own_answer():
    model = new(n_prompt=1, init="mask")
    texts = DATA["test"]["text"][:5]
    batch = model.collate_fn(model.rows(texts))
    mlm = AutoModelForMaskedLM.from_pretrained(resolve("nano")).eval()
    with torch.no_grad():
        # a [MASK] stands in each slot
        logits = mlm(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    words = [NANO.word_ids(w) for w in model.task.verbalizer.values()]
    assert all(len(w) == 1 for w in words)
    theirs = logits[torch.arange(5), batch["mask_pos"]][:, [w[0] for w in words]]
    torch.testing.assert_close(model(**batch).logits.detach(), theirs, atol=1e-5, rtol=0)


def test_a_label_of_several_words_starts_at_their_mean():
    model = InfoPromptModel(NANO, replace(get_task("nano/sentiment"), verbalizer=dict(a="good", b="good bad")))
    good, bad = (NANO.decoder[NANO.word_ids(w)[0]] for w in ("good", "bad"))
    torch.testing.assert_close(model.head.detach(), torch.stack([good, (good + bad) / 2]))
    torch.testing.assert_close(model.label_bias[1], NANO.bias[NANO.word_ids("good bad")].mean())


@pytest.mark.parametrize("kw", KINDS, ids=str)
def test_forward_gives_the_terms_of_the_loss(kw):
    model = new(**kw)
    batch = model.collate_fn(model.rows(DATA["train"].select(range(6))))
    out = model(**batch)
    parts = dict(ce=1, l_rep=model.settings["beta"], l_head=model.settings["gamma"], kl=.1)
    total = sum(w * out[k].item() for k, w in parts.items() if out.get(k) is not None)
    assert out.loss.item() == pytest.approx(total, rel=1e-5)
    assert (out.l_rep is None) == (not model.settings["beta"]) and (out.l_head is None) == (not model.settings["gamma"])
    assert out.logits.shape == (6, 2) and model(**{k: batch[k] for k in FIELDS}).loss is None
    out.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_runs_with_their_own_order_fit_into_one_batch():
    three = Population([new(seed=r) for r in range(3)])
    rows = Rows(three, DATA["train"].select(range(21)))  # batches of 8, 8 and 5
    feed = Feed(three, rows, 8, [(0, 0), (1, 1), (2, 2)])
    seen = [feed(0, i) for i in range(len(feed))]
    assert [b["labels"].shape for b in seen] == [(3, 8), (3, 8), (3, 5)]
    texts = lambda b, r: [ids[seen.bool()].tolist() for ids, seen in zip(b["input_ids"][r], b["attention_mask"][r])]
    for r in range(3):
        assert sorted(t for b in seen for t in texts(b, r)) == sorted(x["input_ids"] for x in rows.of[r].rows)
    assert texts(seen[0], 0) != texts(seen[0], 1)


def test_entropy_of_the_start_is_not_the_process(monkeypatch):
    torch.manual_seed(0)
    kw = dict(init="random", prompt="instance", rep_critic="released", head_critic="bilinear", seed=4)
    one = new(**kw)
    torch.manual_seed(1)
    assert same(bits(one), bits(new(**kw)))


# --- save and load

@pytest.mark.parametrize("kw", KINDS + [dict(n_prompt=2, init="random"), dict(rep_negatives="reference", k=2)], ids=str)
def test_what_is_saved_comes_back(kw, tmp_path):
    model = new(**kw)
    model.fit(DATA["train"], **QUICK)
    model.scores = dict(test=dict(accuracy=.5))
    model.save_pretrained(tmp_path / "prompt")
    assert sorted(p.name for p in (tmp_path / "prompt").iterdir()) == ["README.md", "config.json", "prompt.safetensors"]
    back = InfoPromptModel.from_pretrained(tmp_path / "prompt")
    assert same(bits(model), bits(back)) and back.settings == model.settings and back.task == model.task
    assert back.fitted == model.fitted and back.scores == model.scores
    texts = DATA["test"]["text"][:9]
    assert np.array_equal(back.predict_proba(texts), model.predict_proba(texts))
    assert set(load_file(tmp_path / "prompt/prompt.safetensors")) == set(model.trained())


def test_the_card_says_what_it_is(saved):
    text = (saved / "prompt/README.md").read_text()
    fingerprint = json.loads((saved / "prompt/config.json").read_text())["fingerprint"]
    assert text.startswith("---\n") and "mood" in text and "| validation accuracy | 0.7500 |" in text
    assert all(x in text for x in (*fingerprint.values(), "transformers", "from_pretrained"))


def test_the_same_encoder_from_another_place(saved, tmp_path):
    shutil.copytree(saved / "encoder", tmp_path / "copy")
    model = InfoPromptModel.from_pretrained(saved / "prompt", encoder=str(tmp_path / "copy"))
    assert model.encoder.name == str(tmp_path / "copy")
    shared = InfoPromptModel.from_pretrained(saved / "prompt", encoder=model.encoder)
    assert shared.encoder is model.encoder and same(bits(shared), bits(model))
    assert model.predict(["good film"]) == InfoPromptModel.from_pretrained(saved / "prompt").predict(["good film"])


@pytest.mark.parametrize("change, says", [
    (dict(num_attention_heads=2), "architecture .*4 heads.* there, .*2 heads"),
    (dict(words=[*tiny.WORDS[1:], "a"]), "vocabulary"),
    (dict(num_hidden_layers=1), "weights")])
def test_another_encoder_is_refused(change, says, saved, tmp_path):
    other = tiny.save(tmp_path / "other", **change)
    with pytest.raises(InputError, match=f"another encoder.*{says}.*pass encoder="):
        InfoPromptModel.from_pretrained(saved / "prompt", encoder=str(other))


def test_the_saved_encoder_is_gone(saved, tmp_path):
    shutil.copytree(saved / "prompt", tmp_path / "prompt")
    resealed(tmp_path / "prompt", encoder="/no/such/encoder")
    with pytest.raises(InputError, match="cannot load the encoder.*/no/such/encoder"):
        InfoPromptModel.from_pretrained(tmp_path / "prompt")


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved / "prompt", tmp_path / "prompt")


def cut_off(folder):
    data = (folder / "prompt.safetensors").read_bytes()
    (folder / "prompt.safetensors").write_bytes(data[:-50])


def pickled(folder):
    torch.save(dict(prompt=torch.zeros(3, 32)), folder / "prompt.safetensors")


def only_a_pickle(folder):
    (folder / "prompt.safetensors").unlink()
    torch.save(dict(prompt=torch.zeros(3, 32)), folder / "pytorch_model.bin")


def other_shapes(folder):
    resealed(folder, lambda tensors: tensors | dict(prompt=torch.zeros(5, 32)))


def one_less(folder):
    resealed(folder, lambda tensors: {k: t for k, t in tensors.items() if k != "head"})


def one_more(folder):
    resealed(folder, lambda tensors: tensors | dict(extra=torch.zeros(1)))


def without_checksum(folder):
    save_file(load_file(folder / "prompt.safetensors"), folder / "prompt.safetensors")


def config_without(key):
    def harm(folder):
        resealed(folder, **{key: None})
    harm.__name__ = f"config_without_{key}"
    return harm


@pytest.mark.parametrize("harm, says", [
    (cut_off, "cut off"), (pickled, "pickles are never read"), (only_a_pickle, "not there"),
    (other_shapes, r"prompt \(5, 32\) there, \(3, 32\) needed"), (one_less, "head None there"),
    (one_more, r"extra \(1,\) there, None"),
    (without_checksum, "no checksum"),
    (lambda f: (f / "prompt.safetensors").unlink(), "not there"), (config_without("task"), "give"),
    (config_without("init"), "give"),
    (config_without("fitted"), "give")])
def test_a_saved_prompt_that_cannot_be_read(harm, says, copy):
    harm(copy)
    with pytest.raises(InputError, match=says) as e:
        InfoPromptModel.from_pretrained(copy)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("where", ["/no/such/prompt", "nobody/nothing"])
def test_a_saved_prompt_that_is_not_there(where):
    with pytest.raises(InputError, match="save_pretrained wrote"):
        InfoPromptModel.from_pretrained(where)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(InputError, match="save_pretrained wrote"):
        InfoPromptModel.from_pretrained(tmp_path / "file")


def test_room_for_a_mask_and_a_source(copy):
    mask = torch.ones(3, 32)
    resealed(copy, lambda tensors: tensors | dict(prompt_mask=mask))
    model = InfoPromptModel.from_pretrained(copy)
    model.save_pretrained(copy.parent / "again")
    assert torch.equal(load_file(copy.parent / "again/prompt.safetensors")["prompt_mask"], mask)


def test_a_prompt_that_started_from_a_saved_one(saved, tmp_path):
    encoder = Encoder(str(saved / "encoder"))
    model = InfoPromptModel(encoder, TASK, n_prompt=3, init=f"saved:{saved / 'prompt'}")
    assert torch.equal(model.prompt, load_file(saved / "prompt/prompt.safetensors")["prompt"])
    model.save_pretrained(tmp_path / "next")
    resealed(tmp_path / "next", init="saved:/gone")
    assert same(bits(InfoPromptModel.from_pretrained(tmp_path / "next", encoder=encoder)), bits(model))


class Hub:
    "Stands for huggingface_hub's client and keeps what is sent."
    sent = {}

    def __init__(self, *args, **kwargs): pass

    def create_repo(self, repo_id, **kwargs):
        return type("Url", (), dict(repo_id=repo_id))

    def upload_folder(self, repo_id, folder_path, **kwargs):
        Hub.sent[repo_id] = {p.name: p.read_bytes() for p in core.Path(folder_path).iterdir()}
        return "done"


def test_push_sends_the_three_files(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    model = InfoPromptModel.from_pretrained(saved / "prompt")
    model.push_to_hub("someone/mood")
    model.save_pretrained(tmp_path / "mine", push_to_hub=True)
    for name in ("someone/mood", "mine"):
        assert set(Hub.sent[name]) == {"README.md", "config.json", "prompt.safetensors"}
        assert Hub.sent[name]["prompt.safetensors"] == (saved / "prompt/prompt.safetensors").read_bytes()


def test_pull_takes_them_from_the_hub(saved, monkeypatch):
    def download(repo_id, filename, **kwargs):
        assert repo_id == "someone/mood"
        return str(saved / "prompt" / filename)
    monkeypatch.setattr(core, "hf_hub_download", download)
    back = InfoPromptModel.from_pretrained("someone/mood", revision="main")
    assert same(bits(back), load_file(saved / "prompt/prompt.safetensors"))


# --- transformers' Trainer

def arguments(path, **kw):
    return TrainingArguments(str(path), num_train_epochs=6, per_device_train_batch_size=8, learning_rate=.02,
                             report_to=[], save_strategy="epoch", eval_strategy="epoch", logging_steps=1,
                             disable_tqdm=True, use_cpu=True, remove_unused_columns=True, save_total_limit=2, **kw)


@pytest.mark.parametrize("kw", [dict(), dict(prompt="instance", rep_critic="released")], ids=str)
def test_trainer_trains_saves_and_evaluates(kw, tmp_path):
    model = new(**kw)
    start = bits(model)
    rows = [Dataset.from_list([r | dict(note="a column of no use") for r in model.rows(DATA[s])])
            for s in ("train", "validation")]
    accuracy = lambda p: dict(accuracy=float(((p.predictions[0] if isinstance(p.predictions, tuple) else p.predictions)
                                              .argmax(-1) == p.label_ids).mean()))
    trainer = Trainer(model, arguments(tmp_path), train_dataset=rows[0], eval_dataset=rows[1],
                      data_collator=model.collate_fn, compute_metrics=accuracy)
    done = trainer.train()
    losses = [h["loss"] for h in trainer.state.log_history if "loss" in h]
    assert kw or np.mean(losses[-3:]) < np.mean(losses[:3])
    assert np.isfinite(done.training_loss)
    assert all(not torch.equal(p, start[k]) for k, p in bits(model).items()) and frozen(NANO)
    measured = trainer.evaluate()
    assert measured["eval_accuracy"] == pytest.approx(model.evaluate(DATA["validation"])["accuracy"])
    files = sorted(tmp_path.glob("checkpoint-*/model.safetensors"))
    assert len(files) == 2 and not list(tmp_path.glob("checkpoint-*/pytorch_model.bin"))
    newest = max(files, key=lambda f: int(f.parent.name.split("-")[1]))
    other = new(**kw)
    other.load_state_dict(load_file(newest))
    assert same(bits(other), bits(model))
    trainer.predict(rows[1].remove_columns("label"))


def test_trainer_resumes_its_own_checkpoint(tmp_path):
    model = new()
    rows = Dataset.from_list(model.rows(DATA["train"]))
    trainer = Trainer(model, arguments(tmp_path, load_best_model_at_end=True), train_dataset=rows, eval_dataset=rows,
                      data_collator=model.collate_fn)
    trainer.train()
    best = min((h for h in trainer.state.log_history if "eval_loss" in h), key=lambda h: h["eval_loss"])
    assert trainer.state.best_global_step == best["step"]
    assert same(bits(model), load_file(tmp_path / f"checkpoint-{best['step']}/model.safetensors"))


# --- bad input

BAD_SETTINGS = [
    (dict(task="no-such-task"), "unknown task"), (dict(encoder="/no/such/folder"), "cannot load the encoder"),
    (dict(n_prompt=0), "n_prompt is 0"), (dict(n_prompt=-3), "n_prompt is -3"),
    (dict(n_prompt=10**4), "lower n_prompt"),
    (dict(beta=-.1), "beta is -0.1"), (dict(gamma=-1), "gamma is -1"), (dict(beta=float("nan")), "beta is nan"),
    (dict(gamma=float("nan")), "gamma is nan"), (dict(beta=float("inf")), "beta is inf"),
    (dict(beta="much"), "beta is 'much'"),
    (dict(k=0), "k is 0"), (dict(init="nought"), "unknown start"), (dict(prompt="deep"), "'free' or 'instance'"),
    (dict(head_critic="dots"), "'dot' or 'bilinear'"), (dict(rep_negatives="nil"), "'null' or 'reference'"),
    (dict(task=replace(TASK, template="[CLS] [P] {text} [SEP]")), "0 \\[MASK\\]"),
    (dict(task=replace(TASK, template="[P] {text} [MASK] [MASK]")), "2 \\[MASK\\]"),
    (dict(task=replace(TASK, template="{text} [MASK]")), "no slot"),
    (dict(task=replace(TASK, verbalizer=dict(bad="bad", good="xyzzy"))), "'xyzzy' has no token")]


@pytest.mark.parametrize("kw, says", BAD_SETTINGS, ids=lambda x: "" if isinstance(x, str) else str(x)[:40])
def test_settings_that_cannot_work(kw, says):
    kw = {"encoder": NANO, "task": "nano/sentiment"} | kw
    with pytest.raises(InputError, match=says) as e:
        InfoPromptModel(**kw)
    assert "\n" not in str(e.value)


def test_a_head_of_another_width_needs_a_matrix(tmp_path):
    encoder = Encoder(tiny.save(tmp_path, "albert", head=False))
    assert encoder.d_in != encoder.d_out == encoder.d_hidden
    with pytest.raises(InputError, match="use 'bilinear'"):
        InfoPromptModel(encoder, TASK)
    model = InfoPromptModel(encoder, TASK, head_critic="bilinear", prompt="instance", n_prompt=2, k=3)
    history = model.fit([dict(text="good film", label="good"), dict(text="bad plot", label="bad")], epochs=2,
                        progress=False)
    assert history["value"].notna().all() and len(model.predict(["good"])) == 1


@pytest.mark.parametrize("data, says", [
    ([], "no rows"), ([""], "empty|text"), ([None], "text"), ([3], "text|string"), ([("a", "b")], "one text"),
    ([dict(words="a")], "text"), (5, "list of texts")], ids=str)
def test_texts_that_cannot_be_read(data, says):
    for call in (new().predict, new().predict_proba):
        with pytest.raises(InputError, match=says):
            call(data)


def test_pairs_are_tuples():
    model = InfoPromptModel(NANO, "nano/entailment")
    assert len(model.predict([("the film was good", "the film was bad")])) == 1
    with pytest.raises(InputError, match="two texts"):
        model.predict(["the film was good"])


@pytest.mark.parametrize("data, says", [
    (["good film"], "no labels"), ([dict(text="good film", label="fine")], "not one of"), ([], "no rows"),
    ([dict(text="good", label=None)], "label")], ids=str)
def test_rows_that_cannot_be_trained_on(data, says):
    for call in (new().fit, new().evaluate):
        with pytest.raises(InputError, match=says):
            call(data)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_precisions_that_are_not_offered(precision):
    with pytest.raises(InputError, match="'no' or 'bf16'"):
        new().fit(DATA["train"], mixed_precision=precision)


def test_nothing_is_written_without_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new().fit(DATA["train"], **QUICK)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("template", ["[CLS] [P] {text} [P] [MASK] [P] [P] [SEP]",
                                      "[P:a] [CLS] {text} it was [MASK] . [P:b] [SEP]"])
def test_long_texts_keep_their_mask(template):
    model = InfoPromptModel(NANO, replace(get_task("nano/sentiment"), template=template))
    long = " ".join(["the film was good"] * 200)
    row, = model.rows([long])
    assert len(row["input_ids"]) == NANO.max_length
    assert row["input_ids"][row["mask_pos"]] == NANO.tokenizer.mask_token_id
    np.testing.assert_allclose(model.predict_proba([long, "good"]).to_numpy()[0],
                               model.predict_proba([long]).to_numpy()[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["roberta", "mpnet", "modernbert", "deberta-v2", "distilbert"])
def test_other_encoders_train(kind, tmp_path):
    model = InfoPromptModel(tiny.save(tmp_path, kind), TASK, k=3)
    history = model.fit([dict(text="the film was very good", label="good"), dict(text="so dull", label="bad")],
                        epochs=8, lr=.02, progress=False)
    ce = history.query("quantity == 'ce'")["value"]
    assert ce.iloc[-1] < ce.iloc[0] and frozen(model.encoder)
