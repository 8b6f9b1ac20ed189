"""Values that cannot be right are refused on entry, in one line that names them as the user typed them."""
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from infoprompt.base.checks import CHOICES, OPTIONAL, RANGES, RULES, brief, check, misfit, parse_json
from infoprompt.base.files import packed, read_whole
from infoprompt.command.cli import app
from infoprompt.command.options import as_typed
from infoprompt.core import InfoPromptModel, InputError, load_data
from infoprompt.data.tasks import batches
from infoprompt.engine.training import OPTIMIZERS
from infoprompt.method.encoders import Encoder
from infoprompt.method.peers import PEERS
from infoprompt.method.starts import many
from infoprompt.study.sweeps import plan, sweep
from small import NANO, bits, new, same
from test_cli import call, film_rows, refused, write

DATA = load_data("nano/sentiment", shots=16, seed=0)
QUICK = dict(epochs=1, lr=.01, progress=False)
DEEP = 100_000
NOT_COUNTS = 0, -1, 1.5, 2., "4", True, 2**70, 10**5000, np.float64(4), np.nan, [4], (), b"4"
NOT_SEEDS = -1, 2**53, 2**70, 1., "1", False, np.float32(0)
NOT_RATES = 0, -1., "1e-3", np.nan, np.inf, -np.inf, 10**400, 1e39, 1e-46, True, [.1], 1j
NOT_WEIGHTS = -.1, "0.1", np.nan, np.inf, None, True, np.array([.1])
NOT_SWITCHES = 0, 1, "no", None, np.int64(1)


def one_line(call, name):
    "The call is refused in a short line that names what was wrong."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as caught: call()
    text = str(caught.value)
    assert "\n" not in text and len(text) < 500 and name in text, text


# --- Python

SETTINGS = dict(n_prompt=(*NOT_COUNTS, None, 10**12), k=(*NOT_COUNTS, None, 10**8), seed=(*NOT_SEEDS, None),
                beta=NOT_WEIGHTS, gamma=NOT_WEIGHTS, bottleneck=NOT_SWITCHES,
                init=(3, "text:\0", "saved:\0", "text:\udcff", "informed:100000000000", "informed:1001",
                      "informed:²", "informed:" + "9" * 5000),
                **{k: ("", "no", None, 0, True, ["dot"]) for k in CHOICES if k in new().settings and k != "bottleneck"})
FIT = dict(epochs=(*NOT_COUNTS, None), batch_size=(*NOT_COUNTS, None), accumulate=(*NOT_COUNTS, None),
           checkpoint_every=NOT_COUNTS, lr=NOT_RATES, weight_decay=NOT_WEIGHTS, seed=(*NOT_SEEDS, None),
           order_seed=NOT_SEEDS, resume=NOT_SWITCHES, progress=NOT_SWITCHES, mixed_precision=("fp16", None, 16, True))
LOAD = dict(shots=NOT_COUNTS, seed=(*NOT_SEEDS, None), uneven=NOT_SWITCHES)
BATCHES = dict(batch_size=NOT_COUNTS, seed=NOT_SEEDS, epoch=(-1, 1.5, None), window=NOT_COUNTS)
PLAN = dict(betas=NOT_WEIGHTS, gammas=NOT_WEIGHTS, lrs=NOT_RATES, n_prompts=NOT_COUNTS, ks=NOT_COUNTS, seeds=NOT_SEEDS,
            inits=(None, 3, "\0"))
SWEEP = dict(shots=NOT_COUNTS, epochs=NOT_COUNTS, batch_size=NOT_COUNTS, progress=NOT_SWITCHES,
             mixed_precision=("fp16",), budget=(*NOT_RATES, 1e-9, 1e9, None))
LAYERS = dict(layers=(*NOT_COUNTS, 99, 10**9), trust_remote_code=NOT_SWITCHES)
DOORS = [(InfoPromptModel, (NANO, "nano/sentiment"), SETTINGS), (new().fit, (DATA["train"],), FIT),
         (load_data, ("nano/sentiment",), LOAD), (sweep, ("nano/sentiment", NANO), SWEEP),
         (lambda **kw: batches([1, 2, 3], **dict(batch_size=2) | kw), (), BATCHES), (Encoder, ("nano",), LAYERS)]


@pytest.mark.parametrize("door, given, name, values", [(d, g, k, v) for d, g, bad in DOORS for k, v in bad.items()],
                         ids=lambda x: x if isinstance(x, str) else "")
def test_wrong_types_and_ranges(door, given, name, values):
    for value in values:
        one_line(lambda: door(*given, **{name: value}), name)


@pytest.mark.parametrize("name", PLAN)
def test_lists_of_a_sweep(name):
    for value in PLAN[name]:
        one_line(lambda: plan(**{name: [value]}), name)
    for whole in (), 5, "0", None, (1 for _ in ()):
        one_line(lambda: plan(**{name: whole}), name)


def test_a_sweep_has_no_more_runs_than_its_table_can_hold():
    one_line(lambda: plan(seeds=range(10**20)), "seeds")
    one_line(lambda: plan(seeds=range(10**5)), "400000 runs")
    assert len(plan(seeds=range(10**4))) == 4 * 10**4


def test_numpys_numbers_are_numbers(tmp_path):
    plain, numpy = new(k=8, beta=.5, seed=3), new(k=np.int64(8), beta=np.float64(.5), seed=np.uint8(3))
    assert json.dumps(numpy.settings) == json.dumps(plain.settings)
    plain.fit(DATA["train"], epochs=2, lr=.25, batch_size=8, seed=1, progress=False)
    numpy.fit(DATA["train"], epochs=np.int32(2), lr=np.float32(.25), batch_size=np.int64(8), seed=np.int64(1),
              progress=np.bool_(False), checkpoint=tmp_path / "checkpoint")
    assert same(bits(plain), bits(numpy)) and json.dumps(plain.fitted) == json.dumps(numpy.fitted)
    numpy.save_pretrained(tmp_path / "saved")
    numpys = plan(seeds=np.arange(2), lrs=np.array([.5]), data_seed=np.int64(3))
    assert json.dumps(numpys) == json.dumps(plan(seeds=(0, 1), lrs=(.5,), data_seed=3))


def test_choices_are_those_that_are_there():
    assert CHOICES["optimizer"] == tuple(OPTIMIZERS)
    assert {*PEERS} < {*CHOICES["head_negatives"]} and {*PEERS} < {*CHOICES["rep_negatives"]}
    assert {*OPTIONAL} < RULES and not {*CHOICES} & {*RANGES}


def test_the_bounds_themselves_are_taken():
    for name, (least, most) in RANGES.items():
        assert check(**{name: least}) == {name: least} and check(**{name: most}) == {name: most}
    torch.Generator().manual_seed(2_000_000 + 1000 * RANGES["seed"][1] + many("informed:1000"))
    assert new(seed=2**53 - 1, init="informed:2").fit(DATA["train"], **QUICK)["value"].notna().all()
    with pytest.raises(InputError, match="lower n_prompt"): new(n_prompt=65_536)


def test_more_shots_than_rows_are_refused_at_once():
    one_line(lambda: load_data("nano/sentiment", shots=10**8), "use shots=1976 or fewer")
    one_line(lambda: load_data("nano/sentiment", shots=10**8, uneven=True), "use shots=2000 or fewer")


# --- validation rows

def test_validation_may_be_a_frame():
    frame = pd.DataFrame(dict(text=DATA["validation"]["text"], label=[DATA["validation"].features["label"].names[i]
                                                                      for i in DATA["validation"]["label"]]))
    fits = [new().fit(DATA["train"], rows, **QUICK) for rows in (DATA["validation"], frame, frame.to_dict("records"))]
    assert "val_accuracy" in {*fits[0]["quantity"]} and all(f.equals(fits[0]) for f in fits)


@pytest.mark.parametrize("validation, says", [
    ([], "no rows"), ((), "no rows"), ("", "empty"), ({}, "no rows|'text'"), (0, "list of texts"),
    (False, "list of texts"), (torch.nn.Linear(2, 2), "list of texts"), (["good"], "no labels"), ([""], "empty"),
    (pd.DataFrame(), "no rows|text"),
    (pd.DataFrame(dict(text=[])), "no rows"), (pd.DataFrame(dict(words=["a"] * 99, label=["positive"] * 99)), "text"),
    (pd.DataFrame(dict(text=["a"] * 99)), "no labels"),
    (pd.DataFrame(dict(text=["a"] * 99, label=["x"] * 99)), "not one of"),
    (pd.DataFrame(dict(text=[3.5] * 99, label=["positive"] * 99)), "string")], ids=lambda x: type(x).__name__)
def test_odd_validation_is_one_line(validation, says):
    with pytest.raises(InputError, match=says) as caught: new().fit(DATA["train"], validation, **QUICK)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["\ud800", "good \udcff film", b"good".decode() + "\udfff"])
def test_half_a_character_is_no_text(text):
    for rows in [text], [dict(text=text, label="positive")] * 2:
        one_line(lambda: new().predict(rows), "row 1")
    one_line(lambda: new().fit([dict(text=text, label="positive")] * 2, **QUICK), "row 1")


# --- what is said

def test_nothing_floods_a_message():
    frame = pd.DataFrame(np.zeros((10**4, 30)))
    for value in frame, np.zeros(10**6), "a" * 10**6, 10**5000, [["a" * 99] * 99] * 99, torch.nn.Linear(2, 2):
        assert len(brief(value)) < 250 and "\n" not in brief(value), brief(value)
    one_line(lambda: new(k=frame), "k is")
    one_line(lambda: load_data("nano/sentiment", data=[frame]), "data")


OPTION_NAMES = "shots", "uneven", "n_prompt", "k", "beta", "seed", "data", "text", "resume", "negatives"


@pytest.mark.parametrize("python, typed", [
    ("k is 0: give 1", "--k is 0: give 1"), ("ks holds 0", "--k holds 0"),
    ("n_prompt in 'n_prompt=3' is x", "--n-prompt in 'n_prompt=3' is x"),
    ("use shots=12 or fewer, shots=None or uneven=True", "use --shots 12 or fewer, --shots 0 or --uneven"),
    ("give data=...", "give --data ..."), ("or seed=None", "or no --seed"), ("lower n_prompt", "lower --n-prompt"),
    ("rep_negatives is 'x'", "--negatives is 'x'"), ("lower k to 2", "lower k to 2"),
    ("column 'k=3' of the data", "column 'k=3' of the data"),
    ("the task's k=3 isn't", "the task's --k 3 isn't"), ("already --seed 3", "already --seed 3"), ("weak=3", "weak=3"),
    ("row 1: 'text' is empty", "row 1: 'text' is empty")])
def test_names_as_the_user_typed_them(python, typed):
    assert as_typed(python, OPTION_NAMES) == typed


# --- the command line

HUGE = 10**8, 2**70, -1
TRAIN = [*[(o, v) for o in ("--k", "--batch-size", "--epochs", "--n-prompt") for v in (*HUGE[1:], 0, "1.5", "x", "")],
         *[(o, v) for o in ("--seed", "--data-seed", "--order-seed") for v in (*HUGE[1:], "1.5", "none")],
         *[(o, v) for o in ("--lr", "--beta", "--gamma") for v in ("nan", "inf", "-1", "1e400", "x", "1,2")],
         *[(o, v) for o in ("--encoder", "--data", "--out", "--task", "--template", "--label", "--text", "--word")
           for v in ("a\0b=c", "\udcff=c")],
         ("--k", HUGE[0]), ("--shots", HUGE[0]), ("--shots", -1), ("--n-prompt", 10**12), ("--lr", 0),
         ("--shots", "1.5"),
         ("--init", "informed:100000000000"), ("--init", "saved:\0"), ("--nothing", 1)]


@pytest.mark.parametrize("option, value", TRAIN, ids=lambda x: ascii(x)[:20])
def test_options_of_train(option, value, tmp_path):
    refused(call("train", "--out", tmp_path / "run", f"{option}={value}"), option)
    assert not [*tmp_path.iterdir()]


SWEPT = [("--budget", "nan"), ("--budget", "inf"), ("--budget", 0), ("--budget", -1), ("--k", HUGE[0]), ("--k", "1.5"),
         ("--lr", "1e-3,x"), ("--beta", ""), ("--gamma", "nan"), ("--n-prompt", "1,0"), ("--seeds", -1), ("--seeds", 0),
         ("--seeds", HUGE[0]), ("--seeds", HUGE[1]), ("--negatives", "none"), ("--init", "informed:1"), ("--epochs", 0),
         ("--shots", HUGE[0]), ("--shots", -1), ("--encoder", "\0"), ("--task", "\udcff"), ("--batch-size", "x")]


@pytest.mark.parametrize("option, value", SWEPT, ids=lambda x: ascii(x)[:20])
def test_options_of_sweep(option, value, tmp_path):
    refused(call("sweep", "--out", tmp_path / "run", f"{option}={value}"), option)
    assert not [*tmp_path.iterdir()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "The folder of a quick run."
    folder = tmp_path_factory.mktemp("runs") / "quick"
    assert call("train", "--epochs", "1", "--shots", "8", "--out", folder).exit_code == 0
    return folder


def test_words_that_no_command_takes(trained):
    refused(call("--nothing"), "--nothing")
    refused(call("learn"), "learn")
    refused(call("predict"), "folder")
    refused(call("train", "--init", "", "--out", "run"), "unknown start")
    assert "Usage" in call().output and "Usage" in call("train", "--help").stdout


def test_texts_and_paths_of_predict(trained, tmp_path):
    for words in (["\udcff"], ["a\0b"], ["--file", "\0"], ["--file", "\udcff"], ["--encoder", "\0"]):
        refused(call("predict", trained, *words), "is '")
    for command in "predict", "evaluate", "info":
        refused(call(command, "\0"), "folder")
    for name in "deep.json", "deep.jsonl", "deep.txt":
        file = write(tmp_path / name, '{"text": ' * DEEP)
        refused(call("predict", trained, "--file", file))
        if name != "deep.txt":
            refused(call("evaluate", trained, "--data", file), name)
            refused(call("train", "--data", file, "--out", tmp_path / "run"), name)
    surrogate = write(tmp_path / "half.jsonl", r'{"text": "a \ud800 b"}')
    refused(call("predict", trained, "--file", surrogate), "row 1")


@pytest.mark.parametrize("letters", ["ascii", "latin-1", "utf-8"])
def test_terminals_of_few_letters(letters, trained, tmp_path):
    say = lambda *words: CliRunner(charset=letters).invoke(app, [str(w) for w in words])
    texts = write(tmp_path / "texts.txt", "schön 電影 😀")
    done = say("predict", trained, "--file", texts)
    assert done.exit_code == 0 and json.loads(done.stdout)["text"] == "schön 電影 😀"
    rows = [row.replace("yes", "schön").replace("no", "電影") for row in film_rows(60)[1:]]
    names = write(tmp_path / "own.csv", "text,läbel", *rows)
    done = say("train", "--data", names, "--label", "läbel", "--word", "schön=good", "--word", "電影=bad",
               "--epochs", "1", "--shots", "8", "--out", tmp_path / "ö")
    assert done.exit_code == 0 and "use it with" in done.stdout, done.output
    assert say("info", tmp_path / "ö").exit_code == say("info", tmp_path / "ö", "--json").exit_code == 0
    refused(say("train", "--data", names, "--label", "x", "--out", tmp_path / "no"))


OTHER = dict(k=("x", None, 10**8), text=(5, "a", [1]), uneven=("yes", 1), shots=(2.5, None), label=([1],),
             word=("a", {}), task=(5, []), encoder=(None, 3), data=(7, {}), template=({},), lr=("x", -1),
             seed=(-1, 2**70), init=(3, "\0"), order_seed=("a",), beta=("", None))


@pytest.mark.parametrize("name", OTHER)
def test_options_that_a_run_remembers(name, trained):
    file = trained / "run.json"
    before, options = file.read_text(), read_whole(file)[0]
    for value in OTHER[name]:
        file.write_bytes(packed(options | {name: value}))
        refused(call("train", "--resume", "--out", trained), "--" + name.replace("_", "-"), "run.json")
    file.write_text(before)


NO_SETTINGS = "[]", "null", "3", '"a"', "{", "", "\0", "[" * DEEP, '{"a": ' * DEEP, "\xff", "[[1, 2]]"


@pytest.mark.parametrize("name", ["run.json", "config.json"])
def test_settings_that_are_none(name, trained):
    file, command = trained / name, ("train", "--resume", "--out") if name == "run.json" else ("info",)
    before = file.read_text()
    for text in NO_SETTINGS:
        file.write_text(text, encoding="latin-1")
        done = call(*command, trained)
        if name == "run.json": refused(done, name)
        else: assert done.exit_code == 0 and "only a copy" in done.stderr, done.output
    file.write_text(before)
    assert call("info", trained).exit_code == 0


CONFIG = dict(k=("x", None), task=([], None, "x", 3, {}), fingerprint=([], None, {"a": 1}), fitted=([], {"a": []}),
              scores=({"a": 1}, None, {"a": {"b": "c"}}), init=(None, 3), seed=(-1, "0"), n_prompt=(10**12, "4"),
              bottleneck=(1,), encoder=("no/such",), more=(1,))


@pytest.mark.parametrize("name", CONFIG)
def test_a_config_of_other_types(name, trained):
    file = trained / "prompt.safetensors"
    before, (config, tensors) = file.read_bytes(), read_whole(file)
    for value in CONFIG[name]:
        file.write_bytes(packed(config | {name: value}, tensors))
        (trained / "config.json").write_text(json.dumps(config | {name: value}, indent=2))
        one_line(lambda: InfoPromptModel.from_pretrained(trained), "")
    file.write_bytes(before)
    (trained / "config.json").write_text(json.dumps(config, indent=2))


def test_a_sweep_that_remembers_something_else(tmp_path):
    small = ("sweep", "--shots", "8", "--epochs", "1", "--seeds", "1", "--beta", "0", "--gamma", "0",
             "--out", tmp_path / "s")
    assert call(*small).exit_code == 0
    for name in "sweep.json", "part-0.json":
        file = tmp_path / "s" / name
        before = file.read_text()
        for text in ("null", "3", "{", "[" * DEEP, "\xff", '[1]' if name[0] == "p" else "[]"):
            file.write_text(text, encoding="latin-1")
            refused(call(*small), name)
        file.write_text(before)
    assert call(*small).exit_code == 0


def test_shapes_of_json():
    shape = dict(a=int, b=[str], c={str: (int, None.__class__)})
    assert not misfit(dict(a=1, b=[], c=dict(x=None), d=0), shape)
    wrong = [dict(a=True, b=[], c={}), dict(a=1, b="x", c={}), dict(a=1, b=[1], c={}), dict(a=1, b=[], c=dict(x="")),
             dict(a=1, b=["\udcff"], c={}), [], None, {}]
    assert all(misfit(value, shape) for value in wrong)
    with pytest.raises(InputError, match=r"it\['c'\]\['x'\] is ''"):
        parse_json('{"a": 1, "b": [], "c": {"x": ""}}', "it", shape)
