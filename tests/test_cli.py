"""The command line: what it writes, what it prints for people and for scripts, and how it ends on a mistake."""
import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pandas as pd
import pytest
import tiny
from safetensors.torch import load_file
from typer.testing import CliRunner

from infoprompt.command.cli import app
from infoprompt.command.runs import WRITTEN
from small import resealed, same

QUICK = "--epochs", "2", "--shots", "16"
LONG = "--epochs", "60", "--shots", "16", "--seed", "1"  # long enough to be stopped half-way
PROGRAM = Path(sysconfig.get_path("scripts")) / "infoprompt"


def call(*arguments, stdin=None):
    "Run a command in this process."
    return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)


def says(done) -> list[str]:
    "Its lines on stderr, progress bars left out."
    lines = done.stderr.replace("\r", "\n").splitlines()
    return [line for line in lines if line.startswith("infoprompt:") or "Traceback" in line]


def refused(done, *words: str, code: int = 2):
    "It ended with one line that holds the words, and no traceback."
    assert done.exit_code == code, (done.exit_code, done.output, done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    lines = done.stderr.strip().split("\n")
    assert len(lines) == 1 and lines[0].startswith("infoprompt: ") and "Traceback" not in done.output, done.stderr
    assert all(word in lines[0] for word in words), lines[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    "The folder of a quick run."
    folder = tmp_path_factory.mktemp("runs") / "quick"
    done = call("train", *QUICK, "--out", folder)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    "A copy of that folder, to be damaged."
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def test_train_writes_prompt_history_figure(trained):
    assert {p.name for p in trained.iterdir()} == {*WRITTEN}
    history = pd.read_parquet(trained / "history.parquet")
    assert set(history.columns) == {"run", "step", "epoch", "quantity", "value"} and history["step"].max() == 4
    card = (trained / "README.md").read_text()
    assert all(f"| {name} accuracy |" in card for name in ("validation", "test", "majority", "untrained"))


def test_train_prints_majority_untrained_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("train", *QUICK)
    rows = [line.split()[0] for line in done.stdout.splitlines()]
    assert done.exit_code == 0 and rows[:4] == ["prompt", "majority", "untrained", "trained"]
    assert (tmp_path / "infoprompt-runs/nano-sentiment/prompt.safetensors").is_file()


def test_train_json(tmp_path):
    done = call("train", *QUICK, "--out", tmp_path / "run", "--json")
    told = json.loads(done.stdout)
    assert set(told["scores"]) == {"validation", "test"}
    assert set(told["scores"]["test"]) == {"majority", "untrained", "trained"}
    assert told["options"]["shots"] == 16 and told["scores"]["test"]["trained"]["accuracy"] <= 1


def test_same_options_same_prompt(trained, tmp_path):
    call("train", *QUICK, "--out", tmp_path / "again")
    assert (tmp_path / "again/prompt.safetensors").read_bytes() == (trained / "prompt.safetensors").read_bytes()


@pytest.mark.parametrize("options", ["--beta 0", "--gamma 0", "--seed 1", "--data-seed 1", "--order-seed 1", "--lr 0.1",
                                     "--k 4", "--batch-size 4", "--init label"])
def test_each_option_changes_the_prompt(trained, tmp_path, options):
    assert call("train", *QUICK, *options.split(), "--out", tmp_path / "other").exit_code == 0
    assert not same(*(load_file(f / "prompt.safetensors") for f in (tmp_path / "other", trained)))


def test_learning_rate_of_nano_and_others(trained, tmp_path):
    encoder = tiny.save(tmp_path / "encoder")
    write(tmp_path / "rows.csv", *film_rows(60))
    data = "--data", tmp_path / "rows.csv"
    done = call("train", "--encoder", encoder, *data, *QUICK, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    rate = lambda folder: json.loads((folder / "config.json").read_text())["fitted"]["lr"]
    assert (rate(tmp_path / "run"), rate(trained)) == (1e-3, 1e-2)


# data of one's own

def film_rows(n: int) -> list[str]:
    "A csv of n films with two labels."
    words = [word for word in tiny.WORDS if word.isalpha()]
    text = [f"the film was {('good', 'bad')[i % 2]} and very {words[i % len(words)]}" for i in range(n)]
    return ["text,label"] + [f"{t},{('yes', 'no')[i % 2]}" for i, t in enumerate(text)]


def write(path: Path, *lines: str) -> Path:
    "Write lines."
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_own_csv_becomes_a_task(tmp_path):
    path = write(tmp_path / "films.csv", "review,stars", *film_rows(60)[1:])
    names = "--text", "review", "--label", "stars"
    done = call("train", "--data", path, *names, *QUICK, "--out", tmp_path / "run", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["task"] == "films", done.output
    done = call("evaluate", tmp_path / "run", "--json")
    assert [row["rows"] for row in json.loads(done.stdout)] == [12, 12]  # the fifth that training never reads


def test_own_pairs_words_and_template(tmp_path):
    rows = [json.dumps(dict(q=f"is it {w} ?", a="yes it is", ok=i % 2 == 0)) for i, w in enumerate(2 * tiny.WORDS)]
    path = write(tmp_path / "pairs.jsonl", *rows)
    done = call("train", "--data", path, "--text", "q", "--text", "a", "--label", "ok", "--word", "True=great",
                "--word", "False=terrible", "--template", "[CLS] [P] {text} [MASK] {pair} [SEP]", *QUICK,
                "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["task"]["verbalizer"] == {"True": "great", "False": "terrible"}
    assert config["task"]["columns"] == ["q", "a"]
    lines = "is it a ?\tyes it is", '{"q": "is it so ?", "a": "no"}', '{"text": "is it ?", "pair": "no"}'
    done = call("predict", tmp_path / "run", stdin="\n".join(lines))
    assert done.exit_code == 0 and len(done.stdout.splitlines()) == 3, done.output


# predict, evaluate, tasks, info

def answers(done) -> list[dict]:
    "What predict prints."
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.removesuffix("\n").split("\n")]  # not at U+2028


def test_predict_from_arguments_files_and_stdin(trained, tmp_path):
    texts = ["the meal was good .", "the meal was not good ."]
    want = answers(call("predict", trained, *texts))
    assert [row["text"] for row in want] == texts and all(row["label"] in row["probabilities"] for row in want)
    lines = write(tmp_path / "t.txt", *texts)
    objects = write(tmp_path / "t.jsonl", *[json.dumps(dict(text=t, label="odd")) for t in texts])
    table = write(tmp_path / "t.csv", "id,text", *[f"1,{t}" for t in texts])
    assert answers(call("predict", trained, stdin="\n".join(texts))) == want
    assert answers(call("predict", trained, "--file", "-", stdin="\r\n".join(texts) + "\r\n")) == want
    assert all(answers(call("predict", trained, "--file", file)) == want for file in (lines, objects, table))


def test_evaluate_judges_all_rows_of_a_file(trained, tmp_path):
    path = write(tmp_path / "rows.csv", "text,label", "good food .,positive", "bad food .,negative", "great .,positive")
    rows = json.loads(call("evaluate", trained, "--file", path, "--json").stdout)
    assert [(row["prompt"], row["rows"]) for row in rows] == [("majority", 3), ("trained", 3)]
    assert rows[0]["accuracy"] == pytest.approx(2 / 3)


def test_evaluate_gives_the_saved_score(trained):
    rows = json.loads(call("evaluate", trained, "--json").stdout)
    assert rows[1]["accuracy"] == json.loads((trained / "config.json").read_text())["scores"]["test"]["accuracy"]


def test_tasks(trained):
    from infoprompt.data.tasks import TASKS
    assert [row["task"] for row in json.loads(call("tasks", "--json").stdout)] == list(TASKS)
    assert all(name in call("tasks").stdout for name in TASKS)


def test_info(trained):
    told = json.loads(call("info", trained, "--json").stdout)
    assert told["task"] == "nano/sentiment" and len(told["nearest"]) == 4 and told["scores"]["majority"]
    assert "fingerprint" in call("info", trained).stdout


def test_prune(trained, tmp_path):
    out, before = tmp_path / "small", (trained / "prompt.safetensors").read_bytes()
    told = json.loads(call("prune", trained, "--ratios", "0.5,0.75", "--beta", "0.3", "--out", out,
                           "--json").stdout)
    assert [row["ratio"] for row in told["ratios"]] == [0, .5, .75] and told["kept"]["numbers"] in (64, 128)
    assert told["kept"] == json.loads(call("info", out, "--json").stdout)["pruned"]
    assert (trained / "prompt.safetensors").read_bytes() == before and (out / "convergence.html").is_file()
    assert json.loads((out / "config.json").read_text())["beta"] == .3
    found = load_file(out / "prompt.safetensors")
    assert int((found["prompt"] != 0).sum()) == told["kept"]["numbers"] == int(found["prompt_mask"].sum()) * 4
    assert json.loads(call("predict", out, "good").stdout)["label"] in ("negative", "positive")
    refused(call("prune", trained, "--out", out), "holds prompt.safetensors")
    refused(call("prune", out, "--out", tmp_path / "more"), "holds no run.json", "model.prune(data)")
    assert json.loads(call("info", trained, "--json").stdout)["pruned"] == {}


@pytest.mark.parametrize("options, words", [
    (["--ratios", "0.3,1.5"], "--ratios holds 1.5"), (["--ratios", "-0.1"], "--ratios holds -0.1"),
    (["--ratios", "half"], "--ratios holds 'half'"), (["--ratios", "1"], "leaves nothing"),
    (["--cut", "7"], "--cut is 7, which does not divide"), (["--by", "luck"], "--by is 'luck'"),
    (["--level", "words"], "--level is 'words'"), (["--beta", "-1"], "--beta is -1")], ids=str)
def test_pruning_that_cannot_be(trained, tmp_path, options, words):
    refused(call("prune", trained, *options, "--out", tmp_path / "small", "--json"), words)
    assert not (tmp_path / "small").exists()


def test_a_word_without_its_option():
    refused(call("train", "reviews.csv"), "put an option before it, such as --task or --data", "train --help")
    refused(done := call("info", "one", "two"), "extra argument", "info --help")
    assert "option before it" not in done.stderr


@pytest.mark.parametrize("command", ["train", "prune", "predict", "evaluate", "tasks", "info"])
def test_help_has_examples(command):
    done = call(command, "--help")
    assert done.exit_code == 0 and f"infoprompt {command}" in done.stdout.split("Examples:")[1]


def test_help_loads_no_torch():
    heavy = "'torch', 'transformers', 'datasets', 'plotly'"
    code = f"import sys; from infoprompt.command.cli import app; print([m for m in ({heavy}) if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


# runs that are stopped

def begin(*arguments, cwd: Path) -> subprocess.Popen:
    "Start the program as a shell would in the foreground."
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background job's children would ignore it
    return subprocess.Popen([PROGRAM, *map(str, arguments)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, preexec_fn=heed, env=os.environ | {"OMP_NUM_THREADS": "1"})


def finish(process: subprocess.Popen) -> tuple[int, str]:
    "Wait for its end."
    _, err = process.communicate()
    return process.returncode, err


def stop_half_way(folder: Path, sign: int) -> tuple[int, str]:
    "Start a long run and send it a signal once a checkpoint is there."
    process = begin("train", *LONG, "--out", folder, cwd=folder.parent)
    while process.poll() is None and not (folder / "checkpoint/state.safetensors").exists():
        time.sleep(.01)
    process.send_signal(sign)
    return finish(process)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    "The folder of a long run that nothing stopped."
    folder = tmp_path_factory.mktemp("whole") / "run"
    code, err = finish(begin("train", *LONG, "--out", folder, cwd=folder.parent))
    assert code == 0, err
    return folder


def resumed(folder: Path, whole: Path):
    "Go on with a run, and find it as if it had never been stopped."
    code, err = finish(begin("train", "--resume", "--out", folder, cwd=folder.parent))
    assert code == 0, err
    assert (folder / "prompt.safetensors").read_bytes() == (whole / "prompt.safetensors").read_bytes()
    pd.testing.assert_frame_equal(*(pd.read_parquet(f / "history.parquet") for f in (folder, whole)))


def test_ctrl_c_saves_and_resumes_bit_for_bit(tmp_path, whole):
    folder = tmp_path / "run"
    code, err = stop_half_way(folder, signal.SIGINT)
    line = err.replace("\r", "\n").strip().splitlines()[-1]
    assert code == 130 and "Traceback" not in err, err
    assert line.startswith("infoprompt: stopped at step") and f"infoprompt train --resume --out {folder}" in line
    steps = [pd.read_parquet(f / "history.parquet")["step"].max() for f in (folder, whole)]
    assert steps[0] < steps[1]
    assert load_file(folder / "prompt.safetensors").keys() == load_file(whole / "prompt.safetensors").keys()
    assert (folder / "convergence.html").is_file()
    resumed(folder, whole)


def test_kill_resumes_bit_for_bit(tmp_path, whole):
    folder = tmp_path / "run"
    code, _ = stop_half_way(folder, signal.SIGKILL)
    assert code == -signal.SIGKILL and not (folder / "prompt.safetensors").exists()
    resumed(folder, whole)


def test_resume_of_a_finished_run_changes_nothing(copy):
    before = (copy / "prompt.safetensors").read_bytes()
    assert call("train", "--resume", "--out", copy).exit_code == 0
    assert (copy / "prompt.safetensors").read_bytes() == before


def test_resume_without_a_run_starts_one(tmp_path):
    assert call("train", *QUICK, "--resume", "--out", tmp_path / "new").exit_code == 0


def test_resume_refuses_other_settings(copy):
    refused(call("train", "--resume", "--beta", "0.5", "--out", copy), "--beta is 0.1 there", "another --out")


def test_diverged_run_is_saved(tmp_path):
    done = call("train", *QUICK, "--lr", "1e38", "--out", tmp_path / "run")
    line, = says(done)
    assert done.exit_code == 1 and "not finite at step" in line and "lower lr" in line
    assert all(t.isfinite().all() for t in load_file(tmp_path / "run/prompt.safetensors").values())
    assert (tmp_path / "run/convergence.html").is_file()


# bad input: one line that names the fix, exit code 2

def test_folder_with_another_run(trained):
    refused(call("train", "--out", trained), "another run", "--resume", "another --out")


def test_folder_with_other_work(tmp_path):
    write(tmp_path / "README.md", "mine")
    refused(call("train", *QUICK, "--out", tmp_path), "README.md", "another --out")
    assert (tmp_path / "README.md").read_text() == "mine\n"


def test_out_is_a_file(tmp_path):
    refused(call("train", *QUICK, "--out", write(tmp_path / "file", "mine")), "file")


BAD_OPTIONS = {
    "unknown task": (["--task", "sentimental"], "did you mean nano/sentiment"),
    "unknown encoder": (["--encoder", "no/such-encoder"], "cannot load the encoder"),
    "unknown file": (["--data", "nowhere.csv"], "check the path"),
    "no mask": (["--template", "[CLS] {text} [P] [SEP]"], "[MASK]"),
    "two masks": (["--template", "[CLS] {text} [P] [MASK] [MASK] [SEP]"], "2 [MASK]"),
    "n_prompt": (["--n-prompt", "0"], "--n-prompt is 0"), "k": (["--k", "0"], "--k is 0"),
    "beta negative": (["--beta", "-1"], "beta is -1"), "beta nan": (["--beta", "nan"], "beta is nan"),
    "gamma negative": (["--gamma", "-0.1"], "gamma is -0.1"), "gamma nan": (["--gamma", "nan"], "gamma is nan"),
    "slots too long": (["--n-prompt", "1000"], "--n-prompt 1000"), "epochs": (["--epochs", "0"], "--epochs is 0"),
    "learning rate": (["--lr", "0"], "--lr is 0"), "batch": (["--batch-size", "0"], "--batch-size is 0"),
    "shots": (["--shots", "1"], "2 (one row a class)"), "more shots than rows": (["--shots", "100000"], "--shots"),
    "data seed": (["--data-seed", "-1"], "--data-seed is -1"), "start": (["--init", "nothing"], "unknown start"),
    "head": (["--head-init", "words"], "choose 'label' or 'probe'"),
    "word": (["--word", "great"], "LABEL=WORD"), "label word without a label": (["--word", "positive=great"], "label"),
    "resume nothing known": (["--text", "a", "--text", "b", "--text", "c"], "reads 1 text column, not 3"),
    "kind of a named task": (["--kind", "pair"], "kind 'pair' reads 2 text columns")}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_option(name, tmp_path):
    options, word = BAD_OPTIONS[name]
    refused(call("train", *options, "--out", tmp_path / "run"), word)
    assert not (tmp_path / "run").exists()


BAD_DATA = {
    "no such column": (["body,label", "a film,yes", "a plot,no"], "choose among"),
    "no label column": (["text,kind", "a film,yes"], "label"),
    "empty": (["text,label"], ""), "empty text": ([*film_rows(40), " ,yes"], "empty"),
    "missing label": ([*film_rows(40), "a film,"], "label"),
    "one class": (["text,label", "a film,yes", "a plot,yes"], "label"),
    "class with few rows": (["text,label", *["the film,yes"] * 40, "a plot,no", "a plot,no"], "--uneven")}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data(name, tmp_path):
    lines, word = BAD_DATA[name]
    refused(call("train", "--data", write(tmp_path / "rows.csv", *lines), *QUICK, "--out", tmp_path / "run"), word)
    assert not (tmp_path / "run").exists()


def test_uneven_lets_a_small_class_give_what_it_has(tmp_path):
    path = write(tmp_path / "rows.csv", *film_rows(60)[:1], *["the film,yes"] * 60, *["a plot,no"] * 8)
    done = call("train", "--data", path, *QUICK, "--uneven", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output


def test_text_that_is_no_string(tmp_path):
    path = write(tmp_path / "rows.jsonl", *[json.dumps(dict(text=i, label=i % 2)) for i in range(40)])
    refused(call("train", "--data", path, *QUICK, "--out", tmp_path / "run"), "not a string")


def test_label_outside_the_names(tmp_path):
    path = write(tmp_path / "rows.csv", *film_rows(40))
    done = call("train", "--task", "sst2", "--data", path, "--text", "text", *QUICK, "--out", tmp_path / "run")
    refused(done, "not one of negative, positive")


def test_folder_without_the_columns(tmp_path):
    write(tmp_path / "data/train.csv", *film_rows(40))
    done = call("train", "--task", "rte", "--data", tmp_path / "data", *QUICK, "--out", tmp_path / "run")
    refused(done, "sentence1", "choose among")


def test_folder_without_data(tmp_path):
    refused(call("train", "--task", "rte", "--data", tmp_path, *QUICK, "--out", tmp_path / "run"), "holds no data set")


def test_encoder_without_a_mask_token(tmp_path):
    encoder = tiny.save(tmp_path / "encoder", mask=False)
    refused(call("train", "--encoder", encoder, *QUICK, "--out", tmp_path / "run"), "no mask token")


def test_label_word_of_no_tokens(tmp_path):
    done = call("train", *QUICK, "--word", "negative=\u200b", "--word", "positive=great", "--out", tmp_path / "run")
    refused(done, "label word")


@pytest.mark.parametrize("command", [["predict", "PLACE", "a text"], ["evaluate", "PLACE"], ["info", "PLACE"]], ids=str)
class TestBadPrompt:
    "Saved prompts that cannot be used, with every command that reads one."

    def fails(self, command, place, *words):
        refused(call(*[str(place) if c == "PLACE" else c for c in command]), *words)

    def test_missing(self, command, tmp_path): self.fails(command, tmp_path / "nowhere", "no folder")

    def test_empty_folder(self, command, tmp_path): self.fails(command, tmp_path, "saved by infoprompt")

    def test_truncated(self, command, copy):
        (copy / "prompt.safetensors").write_bytes((copy / "prompt.safetensors").read_bytes()[:-100])
        self.fails(command, copy, "cut off")

    def test_pickle(self, command, copy):
        (copy / "prompt.safetensors").write_bytes(pickle.dumps(dict(prompt=[1.0])))
        self.fails(command, copy, "pickle")

    def test_other_shapes(self, command, copy):
        resealed(copy, lambda tensors: tensors | dict(prompt=tensors["prompt"][:2].clone()))
        self.fails(command, copy, "do not fit its config")

    def test_another_encoder(self, command, copy, tmp_path):
        encoder = tiny.save(tmp_path / "encoder", words=[*tiny.WORDS, "great", "terrible"], hidden_size=64)
        self.fails([*command, "--encoder", str(encoder)], copy, "another encoder")


def test_a_broken_table_in_a_folder_gives_one_line_too(tmp_path):
    write(tmp_path / "data/train.csv", "text,label", "a,yes", "a,no", "a,b,c,d")
    process = begin("train", "--data", "data", *QUICK, cwd=tmp_path)
    code, err = finish(process)
    assert code == 2 and len(err.splitlines()) == 1 and "line 4: 4 values for 2 columns" in err, err


def test_predict_without_text(trained): refused(call("predict", trained, stdin=""), "no rows")


def test_predict_with_both(trained, tmp_path):
    refused(call("predict", trained, "text", "--file", write(tmp_path / "t.txt", "text")), "not both")


def test_predict_empty_line(trained): refused(call("predict", trained, stdin="good\n\nbad\n"), "row 2", "is empty")


def test_predict_broken_json(trained): refused(call("predict", trained, stdin='good\n{"text": \n'), "line 2")


def test_predict_missing_file(trained): refused(call("predict", trained, "--file", "nowhere.txt"), "nowhere.txt")


def test_predict_other_encoding(trained, tmp_path):
    (tmp_path / "t.txt").write_bytes("schön".encode("latin-1"))
    refused(call("predict", trained, "--file", tmp_path / "t.txt"), "UTF-8")


def test_evaluate_without_labels(trained, tmp_path):
    refused(call("evaluate", trained, "--file", write(tmp_path / "t.csv", "text", "good")), "no labels")


def test_evaluate_with_other_labels(trained, tmp_path):
    refused(call("evaluate", trained, "--file", write(tmp_path / "t.csv", *film_rows(4))), "not one of")


def test_disk_full_leaves_the_old_prompt(copy, monkeypatch):
    def full(_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    before = {p.name: p.read_bytes() for p in copy.iterdir() if p.is_file()}
    monkeypatch.setattr(os, "fsync", full)
    done = call("train", "--resume", "--out", copy)
    lines = [line for line in says(done) if "careful" not in line]
    assert done.exit_code == 2 and len(lines) == 1 and "free some space" in lines[0], done.output
    assert {p.name: p.read_bytes() for p in copy.iterdir() if p.is_file()} == before


SWEEP = "sweep", "--shots", "16", "--epochs", "2", "--seeds", "2", "--beta", "0,0.1", "--gamma", "0"


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    "The folder of a quick sweep."
    folder = tmp_path_factory.mktemp("runs") / "sweep"
    done = call(*SWEEP, "--out", folder)
    assert done.exit_code == 0, done.output
    assert [line.split()[:2] for line in done.stdout.splitlines()[-3:-1]] == [["0", "2"], ["0.1", "2"]]
    return folder


def test_sweep_writes_and_goes_on(swept):
    assert {"results.parquet", "sweep.html", "best"} <= {p.name for p in swept.iterdir()}
    told = json.loads(call(*SWEEP, "--out", swept, "--json").stdout)
    assert len(told["rows"]) == 4 and told["best"]["beta"] in (0, .1)
    assert call("predict", swept / "best", "the film was good").exit_code == 0


@pytest.mark.parametrize("change, words", [
    (("--beta", "x"), "--beta holds 'x'"), (("--seeds", "3"), "another sweep"), (("--k", "0"), "--k holds 0"),
    (("--seeds", "0"), "--seeds is 0"), (("--task", "no"), "unknown task")])
def test_sweep_refuses(swept, tmp_path, change, words):
    refused(call(*SWEEP, *change, "--out", swept if words == "another sweep" else tmp_path / "other"), words)


def test_sweep_whose_runs_are_each_others_negatives(tmp_path):
    options = *SWEEP, "--seeds", "3", "--negatives", "population"
    done = call(*options, "--k", "2", "--out", tmp_path / "sweep", "--json")
    rows = json.loads(done.stdout)["rows"]
    assert [(r["beta"], r["seed"]) for r in rows] == [(b, s) for b in (0, .1) for s in range(3)]
    assert {(r["rep_negatives"], r["data_seed"], r["diverged"]) for r in rows} == {("population", 0, 0)}
    assert call("predict", tmp_path / "sweep/best", "the film was good").exit_code == 0
    refused(call(*options, "--out", tmp_path / "other"), "here 3", "lower k to 2, or add seeds")
    refused(call(*options, "--negatives", "peers", "--out", tmp_path / "third"), "population", "reference")


def test_informed_start(trained, tmp_path):
    done = call("train", *QUICK, "--init", "informed:4", "--head-init", "probe", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "run/config.json").read_text())
    assert (written["init"], written["head_init"]) == ("informed:4", "probe")
    assert json.loads((trained / "config.json").read_text())["init"] == "informed", "the default"
    assert call("train", *QUICK, "--init", "vocab", "--out", tmp_path / "luck").exit_code == 0
    assert not same(*(load_file(f / "prompt.safetensors") for f in (tmp_path / "luck", trained)))
    assert call("predict", tmp_path / "run", "the film was good").exit_code == 0
    swept = call(*SWEEP, "--beta", "0", "--init", "vocab,informed:2", "--out", tmp_path / "sweep", "--json")
    assert {r["init"] for r in json.loads(swept.stdout)["rows"]} == {"vocab", "informed:2"}
    for command in ("train", *QUICK), SWEEP:
        refused(call(*command, "--init", "informed:1", "--out", tmp_path / "bad" / command[0]), "informed:64")
