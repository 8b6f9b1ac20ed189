"""Rows are never lost: what is in a file, a folder or a pipe is in the answer, or one line says why not."""
import csv
import io
import json
import warnings

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings, strategies as st
from small import NANO
from test_cli import answers, call, refused, says
from test_tasks import fails, table

from infoprompt.base.checks import InputWarning
from infoprompt.core import InfoPromptModel, InputError, Task, load_data
from infoprompt.data.sources import read_splits
from infoprompt.data.tables import columns_of
from infoprompt.data.tasks import as_rows, infer_task

MOOD = Task("mood", verbalizer=dict(sad="bad", glad="good"))
ENDS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"  # what `str.splitlines` takes for ends of lines, and no editor does


@pytest.fixture(scope="module")
def model():
    return InfoPromptModel(NANO, MOOD, init="random", seed=3)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    "The folder of an untrained model."
    model.save_pretrained(folder := tmp_path_factory.mktemp("saved"))
    return folder


def content(kind, texts, labels):
    "What a file of that kind holds, as text."
    if kind == "tsv": return "\n".join(["text\tlabel", *map("\t".join, zip(texts, labels))]) + "\n"
    rows = [json.dumps(dict(text=t, label=y), ensure_ascii=False) for t, y in zip(texts, labels)]
    if kind == "jsonl": return "\n".join(rows) + "\n"
    if kind == "json": return f"[{', '.join(rows)}]"
    csv.writer(out := io.StringIO(newline="")).writerows([("text", "label"), *zip(texts, labels)])
    return out.getvalue()


def moods(n): return [("sad", "glad")[i % 2] for i in range(n)]


# --- files


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl"])
@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_text_comes_back(tmp_path_factory, kind, data):
    none = "\0" if kind == "csv" else "\0\t\n\r" if kind == "tsv" else ""
    letters = st.characters(exclude_categories=["Cs"], exclude_characters=none) | st.sampled_from('",\'[{' + ENDS)
    texts = data.draw(st.lists(st.text(letters, min_size=1).filter(str.strip), min_size=1))
    path = tmp_path_factory.mktemp("rows") / f"a.{kind}"
    path.write_bytes(content(kind, texts, labels := moods(len(texts))).encode())
    assert read_splits(path) == dict(train=dict(text=texts, label=labels))


def test_quotation_marks_in_a_tsv_are_letters(tmp_path, saved):
    texts = [f'"{i} good things' if i % 3 else f'say "{i}" twice' for i in range(80)]
    path = tmp_path / "a.tsv"
    path.write_text(content("tsv", texts, moods(80)))
    data = load_data(MOOD, data=path)
    assert sum(d.num_rows for d in data.values()) == 80 and {t for d in data.values() for t in d["text"]} == {*texts}
    assert [row["text"] for row in answers(call("predict", saved, "--file", path))] == texts
    assert json.loads(call("evaluate", saved, "--file", path, "--json").stdout)[0]["rows"] == 80


@pytest.mark.parametrize("said, kind, text", [
    ("line 3: ',' expected after '\"'", "csv", 'text,label\n"good,sad\n"bad,glad\n'),
    ("line 3: unexpected end of data.*write quotation marks", "csv", 'text,label\ngood,sad\n"bad,glad\n'),
    ("line 2: 1 values for 2 columns", "csv", "text,label\ngood\n"),
    ("line 3: 3 values", "tsv", "text\tlabel\na\tsad\nb\tc\tglad\n"),
    ("line 2: 3 values for 2 columns", "csv", "text,label\na,1,\nb,0,\n"),
    ("more than one column 'text'", "csv", "text,text\na,b\n"),
    ("more than one column 'text'", "tsv", "text\ttext\na\tb\n"),
    ("line 1 has more than one column 'text'", "jsonl", '{"text": "a", "text": "b"}'),
    ("more than one column 'label'", "json", '[{"text": "a", "label": 1, "label": 0}]'),
    ("is empty: give it a line that names the columns", "tsv", ""), ("line 1 is not JSON", "jsonl", "a,b"),
    ("is not JSON", "json", '[{"text": "a"}], "b": 1'), ("is not JSON", "json", "[" * 100_000)])
def test_files_that_cannot_be_read(tmp_path, saved, said, kind, text):
    path = tmp_path / f"a.{kind}"
    path.write_text(text)
    fails(said, load_data, MOOD, data=path)
    refused(call("predict", saved, "--file", path), str(path))


def test_a_blank_line_is_no_row_where_rows_have_two_values(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n\na,sad\n\nb,glad\n\n")
    assert read_splits(path)["train"] == dict(text=["a", "b"], label=["sad", "glad"])
    path.write_text("text\na\n\nb\n")
    assert read_splits(path)["train"] == dict(text=["a", "", "b"])


def test_long_values_are_read_and_the_limit_is_left_as_it_was(tmp_path):
    path, limit = tmp_path / "a.csv", csv.field_size_limit()
    path.write_text(content("csv", texts := ["good " * 100_000, "bad"], ["glad", "sad"]))
    assert read_splits(path)["train"]["text"] == texts and csv.field_size_limit() == limit


def test_two_columns_of_one_name_in_tables(tmp_path):
    frame = pd.DataFrame([["a", "b", "sad"]], columns=["text", "text", "label"])
    fails("more than one column 'text'", as_rows, MOOD, frame)
    fails("more than one column 'text'", load_data, MOOD, data=frame)
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), tmp_path / "a.parquet")
    fails("more than one column 'text'", load_data, MOOD, data=tmp_path / "a.parquet")


def test_a_parquet_file_is_that_file_alone(tmp_path):
    (tmp_path / "label=1").mkdir()
    frame = pd.DataFrame(dict(text=["a", "b"], label=pd.Categorical(["glad", "sad"])))
    frame.to_parquet(path := tmp_path / "label=1" / "a.parquet")
    assert read_splits(path)["train"] == dict(text=["a", "b"], label=["glad", "sad"])


# --- encodings and ends of lines


ROADS = ["csv", "tsv", "jsonl", "json", "txt", "stdin"]


def both(saved, path, data, texts):
    "Say what --file (or stdin) and --data do with those bytes; a plain text has no labels, so nothing for --data."
    path.write_bytes(data)
    if path.suffix == ".stdin": return [call("predict", saved, stdin=data)]
    evaluate = [call("evaluate", saved, "--data", path, "--json")] if path.suffix != ".txt" else []
    return [call("predict", saved, "--file", path), *evaluate]


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be with mark"])
def test_encodings_that_are_read(tmp_path, saved, road, code):
    texts = [f"schön {i} – 好" for i in range(20)]
    text = "\n".join(texts) + "\n" if road in ("txt", "stdin") else content(road, texts, moods(20))
    data = ("\ufeff" + text).encode("utf-16-be") if "mark" in code else text.encode(code)
    predicted, *judged = both(saved, tmp_path / f"a.{road}", data, texts)
    assert [row["text"] for row in answers(predicted)] == texts
    assert all(json.loads(done.stdout)[0]["rows"] == 4 for done in judged)


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("code, said", [("latin-1", "not UTF-8 text"), ("utf-16-le", "zero bytes"),
                                        ("utf-16-be", "zero bytes")])
def test_encodings_that_are_refused(tmp_path, saved, road, code, said):
    text = "a text\nschön\n" if road in ("txt", "stdin") else content(road, ["a text", "schön"], moods(2))
    text = text if code == "latin-1" else text.replace("ö", "o")
    for done in both(saved, tmp_path / f"a.{road}", text.encode(code), None): refused(done, said, "save it as UTF-8")


@pytest.mark.parametrize("road", ROADS)
def test_strange_ends_of_lines_end_no_line(tmp_path, saved, road):
    texts = [f"good {end} and bad {i}" for i, end in enumerate(ENDS * 2)]
    text = "\n".join(texts) + "\n" if road in ("txt", "stdin") else content(road, texts, moods(len(texts)))
    for data in (text.encode(), text.replace("\r\n", "\n").replace("\n", "\r\n").encode()):
        predicted, *judged = both(saved, tmp_path / f"a.{road}", data, texts)
        assert [row["text"] for row in answers(predicted)] == texts
        assert all(json.loads(done.stdout)[0]["rows"] == 3 for done in judged)


# --- folders


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_a_folder_is_read_as_its_files(tmp_path, kind):
    frame = pd.DataFrame(dict(text=["NA", "12", '"quoted', "null", "1.0", "true"], label=[*"112212"]))
    for name in ("train", "test"):
        path = tmp_path / f"{name}.{kind}"
        if kind == "parquet": frame.to_parquet(path)
        else: path.write_bytes(content(kind, frame["text"], frame["label"]).encode())
    assert read_splits(tmp_path) == dict(train=read_splits(path)["train"], test=frame.to_dict("list"))


@pytest.mark.parametrize("names, want", [
    (["train-00000-of-00002.csv", "train-00001-of-00002.csv", "dev.csv"], dict(train=[0, 1], validation=[2])),
    (["reviews.csv"], dict(train=[0])), (["a.csv", "b.csv"], dict(train=[0, 1])),
    (["my_test.csv", "my_train.csv"], dict(train=[1], test=[0])),
    (["train/a.csv", "valid/a.csv", "test/a.csv"], dict(train=[0], validation=[1], test=[2])),
    (["train.csv", "notes.csv", ".test.csv", "dataset_infos.json"], dict(train=[0])), (["test.csv"], dict(test=[0]))])
def test_which_file_is_which_split(tmp_path, names, want):
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"text,label\ntext {i},sad\n")
    found = {s: c["text"] for s, c in read_splits(tmp_path).items()}
    assert found == {s: [f"text {i}" for i in at] for s, at in want.items()}


def test_folders_that_are_not_clear(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,sad\n")
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": "sad"}\n')
    fails("train rows as .csv and as .jsonl: leave one kind", read_splits, tmp_path)
    (tmp_path / "train.jsonl").unlink()
    (tmp_path / "train-2.csv").write_text("text,stars\nb,1\n")
    fails("'.*train.csv' has other columns than '.*train-2.csv'", read_splits, tmp_path)


def test_a_folder_with_a_card_is_read_by_it(tmp_path):
    (tmp_path / "one.csv").write_text("text,label\na,sad\nb,glad\n")
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: one.csv\n---\n"
    (tmp_path / "README.md").write_text(card)
    assert read_splits(tmp_path) == dict(test=dict(text=["a", "b"], label=["sad", "glad"]))


# --- texts that are not there


EMPTY = ["", " ", "\u2003", None, float("nan"), pd.NA]


@pytest.mark.parametrize("text", EMPTY, ids=repr)
def test_an_empty_text_is_refused_or_answered_with_nothing(model, text):
    rows = [dict(text="good", label="glad"), dict(text=text, label="sad"), dict(text="bad", label="sad")]
    for data in (rows, pd.DataFrame(rows)):
        fails("row 2: 'text' is empty", model.predict, data)
        fails("row 2: 'text' is empty", model.evaluate, data)
        fails("row 2: 'text' is empty", model.fit, data, progress=False)
        first, none, last = model.predict(data, skip_empty=True)
        assert none is None and [first, last] == model.predict(["good", "bad"])
        table = model.predict_proba(data, skip_empty=True)
        assert table.loc[1].isna().all() and table.loc[[0, 2]].notna().all(axis=None)
    fails("row 2: 'text' is empty", load_data, MOOD, data=pd.DataFrame(rows))


def test_nothing_but_empty_texts(model):
    assert model.predict(["", None], skip_empty=True) == [None, None]
    fails("row 1: 'text' is not a string but 3", model.predict, [3], skip_empty=True)
    fails("no rows", model.predict, [], skip_empty=True)


def test_one_empty_text_of_a_pair():
    pairs = InfoPromptModel(NANO, "nano/entailment", init="random")
    found = pairs.predict([("the film was good .", ""), ("the film was good .", "the film was bad .")], skip_empty=True)
    assert found[0] is None and found[1] in pairs.task.names


def test_empty_texts_on_the_command_line(tmp_path, saved):
    path = tmp_path / "a.csv"
    path.write_text('text,label\ngood,sad\n,glad\nbad,sad\n')
    refused(call("predict", saved, "--file", path), "row 2: 'text' is empty")
    for options in (["--file", path], ["--file", "-"]):
        first, none, last = answers(call("predict", saved, *options, "--skip-empty", stdin="good\n\nbad\n"))
        assert none == dict(text=None, label=None, probabilities=None)
        assert (first["text"], last["text"]) == ("good", "bad") and {first["label"], last["label"]} <= {"sad", "glad"}


# --- test rows that were trained on


def test_test_rows_among_the_training_rows_are_counted(tmp_path):
    train, test = table(20), table(8)  # the texts "row 0" to "row 7" stand in both
    with pytest.warns(InputWarning, match="^7 of 8 test rows") as told:
        load_data(infer_task(train), data=DatasetDict(train=train, test=test), seed=1)
    assert told[0].filename == __file__
    frame = pd.DataFrame(dict(text=[f"the film was {i}" for i in range(30)] * 2, label=["bad", "good"] * 30))
    frame.to_csv(tmp_path / "a.csv", index=False)
    done = call("train", "--data", tmp_path / "a.csv", "--shots", 16, "--epochs", 1, "--out", tmp_path / "run")
    assert done.exit_code == 0 and sum("of 12 test rows" in line for line in says(done)) == 1, done.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        load_data("nano/sentiment", shots=16)
        load_data(infer_task(train), data=table(60))


def test_pairs_are_repeated_only_together():
    part = lambda *pairs: Dataset.from_list([dict(text=a, pair=b, label=i % 2) for i, (a, b) in enumerate(pairs)])
    task = Task("t", ("text", "pair"), verbalizer=MOOD.verbalizer)
    data = DatasetDict(train=part(*["ab", "cd"] * 9), test=part("ad", "ba"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        load_data(task, data=data)


# --- tables at hand


def test_frames_are_taken_where_data_sets_are():
    frame = table(30).to_pandas()
    task = infer_task(frame)
    assert task == infer_task(table(30))
    assert {k: d.to_dict() for k, d in load_data(task, data=frame).items()} == {
        k: d.to_dict() for k, d in load_data(task, data=table(30)).items()}
    assert columns_of(frame) == columns_of(table(30))


def test_messages_never_hold_a_whole_table(model):
    frame = pd.DataFrame(dict(text=["x" * 500] * 50, label=["?" * 500] * 50))
    for act in (lambda: model.evaluate(frame), lambda: load_data(MOOD, data=frame), lambda: model.predict([frame])):
        with pytest.raises(InputError) as caught: act()
        assert len(str(caught.value)) < 250 and "\n" not in str(caught.value)


def test_whole_data_sets_are_no_rows(model):
    rows = Dataset.from_dict(dict(text=["well", "ill"], label=moods(2)))
    frame = rows.to_pandas()
    for data in (DatasetDict(train=rows, test=rows), dict(train=frame, test=frame)):
        for call_it in (model.fit, model.predict, model.evaluate):
            fails(r"several sets of rows, 'train', 'test': give one, such as data\['train'\]", call_it, data)
    fails("the rows have no 'text': they hold 'label'", model.fit, rows.remove_columns("text"))
