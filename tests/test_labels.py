"""Labels mean one thing everywhere, whatever type, table, order or file they come in, and whatever is beside them."""
import copy
import json
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given, settings, strategies as st
from small import NANO
from test_cli import answers, call, refused
from test_tasks import fails

from infoprompt.base.checks import InputWarning
from infoprompt.command.runs import label_words
from infoprompt.core import InfoPromptModel, Task, load_data
from infoprompt.data.labels import ClassIndex, class_indices, label_values
from infoprompt.data.sources import read_splits
from infoprompt.data.tasks import as_rows, infer_task, scores
from infoprompt.method.encoders import Encoder

FIVE = "awful terrible bad good great".split()
STARS = Task("stars", verbalizer={i: w for i, w in enumerate(FIVE, 1)})
MOOD = Task("mood", verbalizer=dict(sad="bad", glad="good"))
TRUTH = Task("truth", verbalizer={True: "good", False: "bad"})
TURNED = Task("turned", verbalizer={"1": "good", "0": "bad"})


def words(n):
    "Different texts."
    return [f"the film was {('good', 'bad')[i % 2]} and number {i} ." for i in range(n)]



# --- one value


CASES = [
    (STARS, [1, 5, 3], [0, 4, 2]), (STARS, ["1", "5"], [0, 4]), (STARS, ["2.0", "3.0"], [1, 2]),
    (STARS, [1.0, 4.0], [0, 3]),
    (STARS, np.array([5, 1]), [4, 0]), (STARS, np.array([5., 1.], np.float32), [4, 0]),
    (STARS, pd.array([2, 1]), [1, 0]),
    (STARS, pd.Categorical([4, 2]), [3, 1]), (STARS, torch.tensor([2, 1]), [1, 0]), (STARS, [True, 2], [0, 1]),
    (MOOD, ["glad", "sad"], [1, 0]), (MOOD, [1, 0], [1, 0]), (MOOD, ["1", "0"], [1, 0]), (MOOD, [1.0, 0.0], [1, 0]),
    (MOOD, ["1.0", "0.0"], [1, 0]), (MOOD, [True, False], [1, 0]), (MOOD, ["True", "false"], [1, 0]),
    (MOOD, np.array([True, False]), [1, 0]), (MOOD, pd.Categorical(["glad", "sad"], ["sad", "glad"]), [1, 0]),
    (TRUTH, [True, False], [0, 1]), (TRUTH, ["true", "FALSE"], [0, 1]), (TRUTH, [1, 0], [0, 1]),
    (TRUTH, ["1", "0"], [0, 1]),
    (TURNED, [1, 0], [0, 1]), (TURNED, ["1", "0"], [0, 1]), (TURNED, [True, False], [0, 1]),
    (TURNED, [1.0, 0.0], [0, 1]),
    (Task("t", verbalizer={1.0: "good", 2.0: "bad"}), [2, "1", "2.0", 1.0], [1, 0, 1, 0]),
    (Task("t", verbalizer={0.5: "good", 1.5: "bad"}), [1.5, "0.50"], [1, 0]),
    (Task("t", verbalizer={"01": "good", "2": "bad"}), [1, "01"], [0, 0]),
    (Task("t", verbalizer={-1: "good", 1: "bad"}), [1, -1, "-1"], [1, 0, 0])]


@pytest.mark.parametrize("task, values, want", CASES)
def test_what_a_label_means(task, values, want):
    found = class_indices(task, values)
    assert found == want and all(type(c) is ClassIndex for c in found)
    assert class_indices(task, found) == want and all(a is b for a, b in zip(class_indices(task, found), found))


@pytest.mark.parametrize("task, value, said", [
    (STARS, 0, "'0' is not one of 1, 2, 3, 4, 5:"), (STARS, 1.5, "'1.5' is not"), (STARS, "bad", "'bad' is not one"),
    (STARS, False, "'False' is not"), (STARS, float("inf"), "'inf' is not one"), (STARS, [1], r"'\[1\]' is not one"),
    (MOOD, 2, r"'2' is not one of sad, glad \(nor a number from 0 to 1\)"), (MOOD, -1, "'-1' is not one"),
    (MOOD, "Glad", "'Glad' is not one"),
    (MOOD, 0.5, "'0.5' is not one"), (MOOD, "٠", "'٠' is not one"), (TRUTH, 2, "'2' is not one of True, False:"),
    (Task("t", verbalizer=dict(a="good", b="bad", c="dull")), True, "'True' is not one"),
    (Task("t", verbalizer=dict(a="good", b="bad", c="dull")), "true", "'true' is not one"),
    (Task("t", verbalizer={"1": "good", "01": "bad"}), 1.5, "'1.5' is not one"),
    (Task("t", verbalizer={"0": "good", "other": "bad"}), 1, "'1' is not one of 0, other:"),
    *((MOOD, none, "") for none in (None, "", " ", float("nan"), pd.NA, pd.NaT, np.nan))], ids=str)
def test_what_is_no_label(task, value, said):
    said = f"films row 2: label {said}" if said else "films row 2 has no label"
    fails(said, class_indices, task, [task.names[0], value], "films")


def test_a_number_that_two_names_share_finds_neither():
    task = Task("t", verbalizer={"1": "good", "01": "bad", "1.0": "dull"})
    assert class_indices(task, ["01", "1.0", "1", 1]) == [1, 2, 0, 0]
    fails("not one of 1, 01, 1.0", class_indices, task, ["1.00"])


def test_a_class_of_another_task_goes_by_its_name():
    other = Task("other", verbalizer=dict(glad="good", sad="bad"))
    found = class_indices(MOOD, class_indices(other, ["glad", "sad", 0]))
    assert found == [1, 0, 1]
    fails("label 'glad' is not one of 1, 0", class_indices, TURNED, class_indices(other, ["glad"]))


def test_a_class_survives_copies_and_json():
    one = class_indices(STARS, [5])[0]
    for twin in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert (twin, twin.names, twin.kind) == (4, STARS.names, "int") and type(twin) is ClassIndex
    assert json.dumps([one]) == "[4]" and Dataset.from_list([dict(label=one)])["label"][:] == [4]


@pytest.mark.parametrize("task, kind, want", [
    (STARS, "int", [1, 2, 3, 4, 5]), (STARS, "float", [1., 2., 3., 4., 5.]), (STARS, "bool", [*"12345"]),
    (MOOD, "int", [0, 1]), (MOOD, "bool", [False, True]), (MOOD, "str", ["sad", "glad"]),
    (TRUTH, "bool", [True, False]), (MOOD, "odd", ["sad", "glad"]),
    (TURNED, "bool", [True, False]), (Task("t", verbalizer={"0": "good", "other": "bad"}), "int", ["0", "other"]),
    (Task("t", verbalizer={1: "good", 1.5: "bad"}), "int", ["1", "1.5"]),
    (Task("t", verbalizer={2**70: "good", 1: "bad"}), "int", [str(2**70), "1"])])
def test_labels_of_one_kind(task, kind, want):
    found = label_values(task, kind)
    assert found == want and [*map(type, found)] == [*map(type, want)]
    assert class_indices(task, found) == list(range(len(want)))


# --- tasks


@pytest.mark.parametrize("said, words", [
    ("label 'a' has no label word, or an empty one", dict(a=["good", " "], b="bad")),
    ("labels 'a' and 'b' have one word, 'good'", dict(a="good", b="good")),
    ("two labels are called '1'", {1: "good", "1": "bad"}),
    ("label words stand alone", ["good", "bad"]), ("a label without a name", {None: "good", "b": "bad"}),
    ("a label without a name", {float("nan"): "good", "b": "bad"})])
def test_label_words_that_cannot_be(said, words):
    fails(said, Task, "t", verbalizer=words)


def test_label_names_are_plain_text():
    for label, name in [(1.0, "1"), (2, "2"), (np.int64(3), "3"), (True, "True"), (np.False_, "False"), (1.5, "1.5")]:
        assert Task("t", verbalizer={label: "good", "other": "bad"}).names == (name, "other")


def test_label_words_that_the_encoder_knows_in_part(tmp_path):
    encoder = Encoder(str(tiny.save(tmp_path / "e")))
    with pytest.warns(InputWarning, match="only 'good' of the label word 'good grief' has tokens"):
        InfoPromptModel(encoder, Task("t", verbalizer=dict(a="good grief", b="bad")))
    with pytest.warns(InputWarning) as told:
        InfoPromptModel(encoder, Task("t", verbalizer=dict(a="good xx", b="good yy")))
    assert "'good xx' and 'good yy' are the same tokens" in str(told[-1].message) and len(told) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        InfoPromptModel(encoder, Task("t", verbalizer=dict(a="good", b="not good")))


@pytest.mark.parametrize("labels, names", [
    ([3, 1, 10], ("1", "3", "10")), ([3.0, 1.0, None], ("1", "3")), (["2.0", "10.0"], ("2", "10")),
    (["01", "1"], ("01", "1")),
    ([True, False], ("False", "True")), (["b", "a"], ("a", "b")), ([.5, 1.5, -2], ("-2", "0.5", "1.5")),
    (pd.Categorical(["b", "a"]), ("a", "b")), (["10", "9", "x"], ("10", "9", "x"))], ids=str)
def test_names_are_found_in_data(labels, names):
    frame = pd.DataFrame(dict(text=words(len(labels)), label=labels))
    task = infer_task(frame)
    assert task.names == names and {*class_indices(task, frame["label"].dropna())} == {*range(len(names))}


def test_a_data_set_keeps_the_order_of_its_classes(tmp_path):
    kind = Features(text=Value("string"), label=ClassLabel(names=["pos", "neg", "never"]))
    data = Dataset.from_dict(dict(text=words(6), label=[0, 1] * 3), kind)
    data.to_parquet(tmp_path / "a.parquet")
    for source in (data, DatasetDict(train=data), tmp_path / "a.parquet"):
        task = infer_task(source)
        assert task.names == ("pos", "neg", "never")
        assert as_rows(task, data) == as_rows(task, data.to_pandas()) == as_rows(task, list(data))


# --- the same rows on every road


TASKS, CELLS = dict(stars=STARS, mood=MOOD, turned=TURNED), dict(int=int, float=float, numpy=np.int16, category=int)


@pytest.fixture(scope="module")
def models():
    "A model of each task; what it says does not matter here, but it says several things."
    return {name: InfoPromptModel(NANO, task, init="random", seed=3) for name, task in TASKS.items()}


def frame_of(task, labels, kind="int", idx=None):
    "A frame with these classes in one kind of value, and perhaps with a column idx of the user's."
    values = [task.names[y] if kind == "str" else CELLS[kind](label_values(task, "int")[y]) for y in labels]
    n, frame = len(labels), pd.DataFrame(dict(text=words(len(labels)), label=values))
    if kind in ("numpy", "category"): frame["label"] = frame["label"].astype("int16" if kind == "numpy" else "category")
    ids = dict(number=range(7, 7 + n), text=[f"r{i}" for i in range(n)], gap=[None, *map(float, range(1, n))])
    return frame.assign(idx=ids[idx]) if idx else frame


def written(frame, path):
    "The frame as a file, by its ending."
    kind, path = path.suffix[1:], str(path)
    if kind in ("csv", "tsv"): frame.to_csv(path, index=False, sep=dict(csv=",", tsv="\t")[kind])
    elif kind == "parquet": frame.to_parquet(path)
    else: frame.to_json(path, orient="records", lines=kind == "jsonl")
    return path


def read(path): return pd.DataFrame(read_splits(path)["train"])


IDX, FILES = st.sampled_from([None, "number", "text", "gap"]), st.sampled_from("csv tsv json jsonl parquet".split())


@pytest.mark.filterwarnings("ignore::infoprompt.base.checks.InputWarning")
@settings(deadline=None, max_examples=40)
@given(st.data(), st.sampled_from([*TASKS]), st.sampled_from(["str", *CELLS]), IDX, FILES)
def test_the_same_rows_give_the_same_answer(tmp_path_factory, models, data, name, kind, idx, file):
    task, model, path = TASKS[name], models[name], tmp_path_factory.mktemp("rows") / f"a.{file}"
    labels = data.draw(st.lists(st.integers(0, len(task.names) - 1), min_size=6, max_size=9))
    frame = frame_of(task, labels, kind, idx)
    table = read(written(frame, path))
    classes = lambda road: [row["label"] for row in as_rows(task, road)]
    said = [task.names.index(label) for label in model.predict(words(len(labels)))]
    score = {"accuracy": np.mean(np.equal(labels, said))}
    for road in (frame, frame.to_dict("records"), Dataset.from_pandas(frame), table, table.to_dict("records")):
        assert classes(road) == labels and model.evaluate(road) == score
        assert model.predict(road) == [task.names[y] for y in said]
    assert scores(task, frame["label"], [task.names[y] for y in said]) == score
    assert scores(task, table["label"], frame["label"]) == {"accuracy": 1.0}
    for source in (path, frame, Dataset.from_pandas(frame)):
        for part in load_data(task, data=source).values():
            again = read(written(part.to_pandas(), path.with_stem("part")))
            want = [labels[i] for i in part["idx"]]
            assert all(classes(road) == want for road in (part, list(part), part.to_pandas(), again))
            assert class_indices(task, part["label"]) == want


@pytest.mark.parametrize("classes", [["sad", "glad"], ["glad", "sad"], ["glad", "unused", "sad"]])
def test_the_order_of_a_data_sets_classes(models, classes):
    kind = Features(text=Value("string"), label=ClassLabel(names=classes), idx=Value("int64"))
    data = Dataset.from_dict(dict(text=words(4), label=[classes.index(n) for n in ("sad", "glad", "sad", "sad")],
                                  idx=[3, 2, 1, 0]), kind)
    assert [row["label"] for row in as_rows(MOOD, data)] == [0, 1, 0, 0]
    assert models["mood"].evaluate(data) == models["mood"].evaluate(frame_of(MOOD, [0, 1, 0, 0], "str"))


# --- what training saw comes out


@pytest.mark.parametrize("task, kind, want", [
    (STARS, "int", {1, 2, 3, 4, 5}), (STARS, "float", {1., 2., 3., 4., 5.}), (STARS, "str", {*"12345"}),
    (STARS, "category", {1, 2, 3, 4, 5}), (MOOD, "str", {"sad", "glad"}), (MOOD, "int", {0, 1}),
    (TRUTH, "bool", {True, False})], ids=lambda part: getattr(part, "name", part if isinstance(part, str) else ""))
def test_labels_come_out_as_they_went_in(tmp_path, task, kind, want):
    labels = [i % len(task.names) for i in range(10)]
    frame = frame_of(task, labels, "int" if kind == "bool" else kind, "text")
    if kind == "bool": frame["label"] = frame["label"].astype(bool)
    model = InfoPromptModel(NANO, task, beta=0, gamma=0)
    assert {*map(type, model.predict(["good"]))} == {str}
    model.fit(frame, epochs=1, progress=False)
    model.save_pretrained(tmp_path)
    for one in (model, InfoPromptModel.from_pretrained(tmp_path, encoder=NANO)):
        found, table = one.predict(words(6)), one.predict_proba(words(6))
        assert {*found} <= want and {*map(type, found)} == {*map(type, want)}
        assert [*table.columns] == label_values(task, kind.replace("category", "int")) and {*table.columns} == want
        assert all(table.loc[i].argmax() == table.columns.get_loc(y) for i, y in enumerate(found))
    row, = answers(call("predict", tmp_path, "good"))
    assert row["label"] in want and type(row["label"]) in {*map(type, want)}
    assert {*row["probabilities"]} == {json.dumps(label).strip('"') for label in want}


def test_load_data_keeps_what_labels_are():
    kinds = dict(int="int64", float="float64", str="string", category="int64")
    for kind, stored in kinds.items():
        data = load_data(STARS, data=frame_of(STARS, [0, 1, 2, 3, 4] * 2, kind))
        assert data["train"].features["label"] == Value(stored)
    assert load_data(MOOD, data=frame_of(MOOD, [0, 1] * 5, "str"))["test"].features["label"].names == ["sad", "glad"]
    data = load_data(MOOD, data=frame_of(MOOD, [0, 1] * 5, "int"))
    assert data["train"].features["label"] == Value("int64") and {*data["train"]["label"]} <= {0, 1}


def test_predict_reads_no_labels(models):
    texts = words(3)
    want = models["stars"].predict(texts)
    for labels in ([None] * 3, [1, None, 2], ["x", "y", "z"], [99, -1, 0], [[1], {}, "a"]):
        rows = [dict(text=t, label=y, idx="a") for t, y in zip(texts, labels)]
        assert models["stars"].predict(rows) == want == models["stars"].predict(pd.DataFrame(rows))
    kind = Features(text=Value("string"), label=ClassLabel(names=["x", "y"]))
    assert models["stars"].predict(Dataset.from_dict(dict(text=texts, label=[1, 0, -1]), kind)) == want


# --- cases of issue 12 that were wrong


@pytest.fixture(scope="module")
def saved(tmp_path_factory, models):
    "Folders of the models."
    folders = {name: tmp_path_factory.mktemp(name) for name in models}
    for name, folder in folders.items(): models[name].save_pretrained(folder)
    return folders


def judged(done):
    "What `evaluate --json` prints of the prompt."
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)[1]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("file", "csv tsv json jsonl parquet".split())
def test_evaluate_says_the_same_of_a_file_and_of_data(tmp_path, models, saved, name, file):
    task, model = TASKS[name], models[name]
    said = [task.names.index(label) for label in model.predict(words(8))]
    labels = [*said[:6], (said[6] + 1) % len(task.names), (said[7] + 1) % len(task.names)]
    for idx in (None, "number", "text"):
        frame = frame_of(task, labels, "int", idx)
        (folder := tmp_path / f"{idx}").mkdir()
        test = written(frame, folder / f"test.{file}")
        written(frame.assign(text=[f"{t} so" for t in frame["text"]]), folder / f"train.{file}")
        for road in (["--file", test], ["--data", folder]):
            assert judged(call("evaluate", saved[name], *road, "--json"))["accuracy"] == 6 / 8, (road, idx)


def test_numbers_with_words_train_and_are_judged_alike(tmp_path):
    frame = frame_of(TURNED, [0, 1] * 20, "int", "number")
    path = written(frame, tmp_path / "rows.parquet")
    done = call("train", "--data", path, "--word", "1=good", "--word", "0=bad", "--epochs", 1, "--shots", 8, "--out",
                tmp_path / "run", "--json")
    score = json.loads(done.stdout)["scores"]["test"]["trained"]["accuracy"]
    test = load_data(Task("t", verbalizer={"1": "good", "0": "bad"}), shots=8, data=path)["test"]
    written(test.to_pandas(), tmp_path / "test.csv")
    assert judged(call("evaluate", tmp_path / "run", "--file", tmp_path / "test.csv", "--json"))["accuracy"] == score
    assert judged(call("evaluate", tmp_path / "run", "--json"))["accuracy"] == score
    found = answers(call("predict", tmp_path / "run", "--file", tmp_path / "test.csv"))
    assert {row["label"] for row in found} <= {0, 1} and len(found) == len(test)


def test_fit_reads_the_same_labels_with_and_without_idx(models):
    for idx in (None, "number", "text", "gap"):
        found = [row["label"] for row in models["stars"].rows(frame_of(STARS, [0, 4, 2], "int", idx))]
        assert found == [0, 4, 2]


def test_names_from_1_to_5_are_names_in_scores():
    assert scores(STARS, [1, 2, 3, 4, 5], ["1", "2", "3", "4", "5"]) == {"accuracy": 1.0}
    assert scores(STARS, [1, 2], np.array([1., 3.])) == {"accuracy": .5}


def test_a_label_may_be_given_several_words():
    found = label_words(["negative=bad", "negative=dull", "positive=good"])
    assert found == dict(negative=("bad", "dull"), positive=("good",))
    assert Task("t", verbalizer=found).verbalizer == dict(negative=("bad", "dull"), positive="good")
