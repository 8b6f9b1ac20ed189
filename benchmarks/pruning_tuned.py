"""Pruned prompts whose learning rate was tuned: nano with 256 and 64 rows, MiniLM on real tasks.

python benchmarks/pruning_tuned.py [nano/sentiment 64/sentiment ... subj rte ...] [--seeds 20] [--minutes M]

Twenty tokens from random words, no information terms, batches of 8. Every arm is trained twice with one rate: first the
prompt, then what its arm makes of it. Each arm has the rate, of three, that gives it the best mean accuracy on
validation rows of three seeds, of two on MiniLM, which are not used again. Then twenty seeds are judged on test rows
that chose nothing. Three epochs, twice; ten, twice, where nano has 64 rows ("64/sentiment" and so on). On SUBJ, rows
have at most twelve words; on SST-2, there are 256 rows of at most twelve words; on CB, the last 16 words of a premise
are read. MiniLM has no head for masked words, so its head starts at a probe.

On SST-2, plain prompt tuning is tried first: with few and many tokens, rows and rates, judged on validation rows alone,
beside a logistic regression on the states without a prompt.

On five tasks of SuperGLUE, two things are compared with the most frequent label, to see which tasks can tell anything
here, with three seeds: a logistic regression on the states without a prompt, and one round of plain prompt tuning. It
has 64 rows and one rate, and 256 rows and each of the three rates ("256/rte" and so on); of COPA's 400 rows 200 can
train beside as many that validate, and CB has only 250.

Resumable: parts wait in results/checkpoints_pruning_tuned; --minutes ends it before a part that would begin later than
that. Reads ../shared/data for the real tasks. Writes benchmarks/results/pruning_tuned.json after each task. What the
file holds is kept and not run again: an arm that was added later is tuned and run alone, and the file says by what.
"""
import argparse
import json
import os
import sys
import time
from itertools import product
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict
from torch.nn.functional import cross_entropy

from infoprompt.base.files import write_whole
from infoprompt.core import InfoPromptModel, Task, load_data
from infoprompt.data.sources import read_splits
from infoprompt.data.tasks import get_task
from infoprompt.method.encoders import Encoder
from infoprompt.engine.masks import slopes, wear
from infoprompt.engine.population import Population, train_population
from infoprompt.show.weights import TASKS
from infoprompt.study.experiments import probe
from infoprompt.study.pruning import again, nats_without, shares, without
from infoprompt.theory.estimates import states_of
from pruning import ALONE, CUT, N, NATS, ROOT, SETTINGS, columns, first_stage, held_out, judged, path, rounded
from real_terms import short
from made import beside, made, use_threads

DATA = ROOT.parent / "shared/data"
SEEDS, STEP, RATES, KEEP, FEW = 20, 5, (.003, .01, .03), .7, .9  # KEEP and FEW: shares that are removed
NANO = dict(encoder="nano", shots=256, epochs=3, held=400, validation=128, tuning=3,
            more=("few", "random 1", "tokens", "pieces", "fresh"))
NANO_64 = NANO | dict(shots=64, epochs=10, validation=64)
REAL = dict(encoder="minilm", shots=64, epochs=3, held=128, validation=64, tuning=2, head_init="probe")
HARD = "rte", "cb", "wic", "wsc", "copa"
SUBJ = REAL | dict(held=185, looks=10, judge_on=["test"], more=("random 1",))
SST2 = REAL | dict(shots=256, held=200, looks=10, judge_on=["test"], more=("random 1",))
CB = REAL | dict(held=56, judge_on=["test"], more=("random 1",))
STUDIES = {f"nano/{t}": NANO for t in TASKS} | {f"64/{t}": NANO_64 for t in TASKS} | dict(subj=SUBJ, sst2=SST2)
STUDIES |= dict.fromkeys(HARD, REAL) | dict(cb=CB) | {f"256/{t}": REAL | dict(shots=200 if t == "copa" else 256)
                                                      for t in HARD if t != "cb"}
LOOKED_AT = {*HARD} | {task for task in STUDIES if task.startswith("256/")}
PRUNED = *(f"{rows}/{t}" for rows in ("nano", 64) for t in TASKS), "subj", "sst2", "cb"
REACH = [(64, 1), (64, 4), (64, N), (256, N)]  # SST-2: rows to learn from, and tokens; each at all rates
REACHED, REACH_RATES, REACH_EPOCHS, LAST_WORDS = ("sst2",), (.001, .003, .01), {64: 5, 256: 3}, 16
FILE = ROOT / "benchmarks/results/pruning_tuned.json"
BOTH, LIMIT = ("validation", "test"), [float("inf")]
LOOKED = 128  # test rows on which MiniLM's tokens are removed one by one
YES = dict(false="no", true="yes")
WORDS = dict(rte=dict(entailment="yes", not_entailment="no"), wic=YES, wsc=YES,
             copa=dict(choice1="first", choice2="second"),
             cb=dict(entailment="yes", contradiction="no", neutral="maybe"))
ASKED = dict(rte=lambda r: (r["sentence1"], r["sentence2"]),
             cb=lambda r: (" ".join(r["premise"].split()[-LAST_WORDS:]), r["hypothesis"]),
             wic=lambda r: (f"{r['word']}: {r['sentence1']}", r["sentence2"]),
             wsc=lambda r: (r["text"], f"{r['span2_text']} means {r['span1_text']}"),
             copa=lambda r: (f"{r['premise']} What is its {r['question']}?", f"{r['choice1']} or {r['choice2']}"))


def of_superglue(name: str) -> tuple:
    "A task and its splits as pairs of texts."
    raw = read_splits(DATA / name)
    rows = lambda split: [dict(zip(split, values)) for values in zip(*split.values())]
    made_pair = lambda row: dict(zip(("text", "pair"), ASKED[name](row)), label=WORDS[name][str(row["label"]).lower()])
    splits = {s: Dataset.from_list([made_pair(r) for r in rows(own)]) for s, own in raw.items()}
    names = dict.fromkeys(WORDS[name].values())
    return Task(name, ("text", "pair"), verbalizer={n: n for n in names}), DatasetDict(splits)


def splits_of(task: str, seeds, how: dict) -> dict:
    "train, validation: one data set a seed; test: the same rows for all."
    source = None
    task = task.replace("64/", "nano/").removeprefix("256/")
    if task in HARD: task, source = of_superglue(task)
    elif how["encoder"] != "nano": source = short(task)
    data = [load_data(task, how["shots"], s, data=source, uneven=True) for s in seeds]
    test = data[0]["test"].shuffle(seed=0)
    test = test.select(range(min(how["held"], len(test))))
    return dict(task=task, train=[d["train"] for d in data], test=[test] * len(data),
                validation=[d["validation"].select(range(how["validation"])) for d in data])


def majority(task: str, how: dict) -> float:
    "The share of the most frequent label among the test rows."
    labels = splits_of(task, [0], how)["test"][0]["label"]
    return max(map(labels.count, {*labels})) / len(labels)


def arms(how: dict) -> dict:
    "arm -> share removed, and how: what every study has, and what only some have."
    draw = lambda i: (KEEP, dict(by="random", draw=i))
    found = dict(continued=(0., {}), importance=(KEEP, {}), reversed=(KEEP, dict(by="reversed")))
    some = {"few": (FEW, {}), "random 1": draw(1), "fresh": (KEEP, dict(fresh=True))}
    some |= {level: (KEEP, dict(level=level)) for level in ("tokens", "pieces")}
    return found | {"random 0": draw(0)} | {k: v for k, v in some.items() if k in how.get("more", ())}


def looked(model, train, held) -> dict:
    "Of one model: its tokens' scores, and what removing each does to the loss and to what the states know."
    many, params, rows = without(model, held)
    steps, halves = model.history.groupby("quantity")["value"].mean(), dict(a=slice(0, None, 2), b=slice(1, None, 2))
    z, y, each = states_of(many, params, rows), rows.labels()[0], slopes(model, train, CUT).sum(-1)
    said = model.conclude(params, {}, params["prompt"][:, None], z)["logits"].detach()
    loss = cross_entropy(said.movedim(-1, 1), y.expand(len(z), -1), reduction="none")
    nats = nats_without(z.numpy(), y.numpy(), NATS.values())
    gaps = (loss[1:] - loss[:1]).T
    found = {f"{k}_{half}": x[at].mean(0) for half, at in halves.items()
             for k, x in dict(first=each.abs(), signed=each, held=gaps).items()}
    if "path_0" in steps: found |= dict(path=torch.tensor([steps[f"path_{i}"] for i in range(N)]))
    return rounded(dict(first=each.abs().mean(0), signed=each.mean(0), norm=model.prompt.detach().norm(dim=1),
                        **held_out(gaps), **dict(zip(NATS, nats)), **found))


def untrained(pruned, start):
    "A model that was never trained, under the mask of a pruned one, to be trained with its settings."
    wear(start, pruned.prompt_mask)
    start.fitted = dict(pruned.fitted)
    return start


def measured(task: str, seeds, lr: float, wanted, encoder, look: bool = False, judge_on=BOTH) -> dict:
    "Rows of some arms at one rate, and the scores of the tokens after the first training run."
    how = STUDIES[task]
    splits, one, quiet = splits_of(task, seeds, how), list(range(len(seeds))), dict(progress=False, accelerator=ALONE)
    own = SETTINGS | {k: how[k] for k in ("head_init",) if k in how}
    new = lambda n: [InfoPromptModel(encoder, splits["task"], n_prompt=n, seed=s, **own) for s in seeds]
    parts = {s: splits[s] for s in judge_on}
    rows, found = [], []
    def note(arm, which, models):
        for i, m, x in zip(which, models, judged(models, which, parts)):
            numbers = int(m.prompt_mask.sum()) * encoder.d_in // CUT if hasattr(m, "prompt_mask") else m.prompt.numel()
            rows.append(dict(seed=seeds[i], arm=arm, lr=lr, numbers=numbers, **x))
    cuts = {a: c for a, c in arms(how).items() if a in wanted}
    if cuts or look or "stage one" in wanted:
        models = new(N)
        first_stage(models, seeds, splits["train"], how["epochs"], lr, **dict(watch=path) if look else {})
        if "stage one" in wanted: note("stage one", one, models)
        if look: found = [dict(seed=s, **looked(m, splits["train"][i], splits["test"][i].select(range(LOOKED))))
                          for i, (s, m) in enumerate(zip(seeds, models))]
        every = [(arm, i, m.prune(d, **shares(ratio, N, by.get("level", "hierarchical"), CUT), cut=CUT,
                                  by=by.get("by", "importance"), seed=s + 1000 * by.get("draw", 0)))
                 for arm, (ratio, by) in cuts.items()
                 for i, (m, d, s) in enumerate(zip(models, splits["train"], seeds))]
        every = [(arm, i, untrained(m, new(N)[i]) if "fresh" in cuts[arm][1] else m) for arm, i, m in every]
        train = lambda some: again([m for *_, m in some], splits["train"], None, which=[i for _, i, _ in some], **quiet)
        if every: train(every)
        if twice := [x for x in every if "fresh" in cuts[x[0]][1]]: train(twice)
        for arm in cuts: note(arm, *zip(*((i, m) for name, i, m in every if name == arm)))
    if "short" in wanted:
        short_ones = new(round(N * (1 - KEEP)))
        first_stage(short_ones, seeds, splits["train"], how["epochs"], lr)
        again(short_ones, splits["train"], None, which=one, **quiet)
        note("short", one, short_ones)
    return dict(rows=rows, scores=found)


def stored(part: str) -> dict:
    "task -> what the file holds in one of its parts; what is there is not run again."
    return json.loads(FILE.read_text()).get(part, {}) if FILE.is_file() else {}


def tuning_seeds(how: dict) -> list:
    "Seeds that choose the rates, and nothing else."
    return list(range(100, 100 + how["tuning"]))


def kept_at(file: Path, make) -> dict:
    "What a file holds; if there is none, it is made, unless it is too late to begin."
    if not file.is_file():
        if time.process_time() > LIMIT[0]:
            sys.exit("no time is left for another part; the same command goes on from here")
        begun = time.process_time()
        found = make()
        write_whole({file: json.dumps(found | dict(made=made())).encode()})
        print(file.stem, f"{time.process_time() - begun:.0f} s of the processor", flush=True)
    return json.loads(file.read_text())


def tuned(rows) -> dict:
    "arm -> rate: the best mean accuracy on validation rows, then the lowest loss there."
    best = {}
    for arm in dict.fromkeys(r["arm"] for r in rows):
        own = lambda lr, k: [r[k] for r in rows if (r["arm"], r["lr"]) == (arm, lr)]
        best[arm] = max(sorted({r["lr"] for r in rows}),
                        key=lambda lr: (round(sum(own(lr, "val")), 6), -sum(own(lr, "val_loss"))))
    return best


def table(columns: dict) -> list:
    "A row for each entry of the columns."
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def missing(task: str, seeds: int) -> list:
    "The arms of a task that the file lacks, or has with fewer seeds."
    held = stored("tasks").get(task, {}).get("rows", {}).get("arm", [])
    return [arm for arm in (*arms(STUDIES[task]), "short", "stage one") if held.count(arm) < seeds]


def studied(task: str, seeds: int, state: Path, encoder):
    "Tune the arms that a task lacks, run them, and remove tokens one by one where the task asks for more of it."
    name, how, held, lacks = task.replace("/", "_"), STUDIES[task], stored("tasks").get(task, {}), missing(task, seeds)
    steps = lambda many: [list(range(at, min(at + STEP, many))) for at in range(0, many, STEP)]
    tries = [kept_at(state / f"{name}-tuning-{lr}.json", lambda: measured(
        task, tuning_seeds(how), lr, lacks, encoder, judge_on=["validation"])) for lr in (RATES if lacks else ())]
    best = tuned([r for p in tries for r in p["rows"]])
    for some, lr in product(steps(seeds), sorted({*best.values()})):
        wanted = [a for a in best if best[a] == lr]
        kept_at(state / f"{name}-{some[0]}-{lr}.json", lambda: measured(
            task, some, lr, wanted, encoder, judge_on=how.get("judge_on", BOTH)))
    looks = min(seeds, how.get("looks", 0))
    if len(held.get("scores", {}).get("seed", ())) < looks:
        lr = (tuned(table(held["tuning"])) if held else best)["stage one"]
        for some in steps(looks):
            kept_at(state / f"{name}-look-{some[0]}.json", lambda: measured(task, some, lr, [], encoder, True))


def looked_at(task: str, state: Path, encoder):
    "Of a task of SuperGLUE and three seeds: a probe without a prompt, and plain prompt tuning in one round."
    name, rates = task.replace("/", "_"), RATES if task.startswith("256/") else RATES[1:2]
    def probed(seed):
        own = splits_of(task, [seed], STUDIES[task])
        one, labels = {s: own[s][0] for s in ("train", "validation", "test")}, list(own["validation"][0]["label"])
        found = probe(one, own["task"], encoder)
        return dict(seed=seed, val=found["validation"]["accuracy"], test=found["test"]["accuracy"],
                    line=max(map(labels.count, {*labels})) / len(labels))
    kept_at(state / f"{name}-probe.json", lambda: dict(rows=[probed(seed) for seed in range(3)]))
    for lr in rates:
        kept_at(state / f"{name}-plain-{lr}.json", lambda: measured(task, [0, 1, 2], lr, ["stage one"], encoder))


def reached(task: str, state: Path, encoder):
    "Whether plain prompt tuning learns a task: by rows, tokens and rate, judged on validation rows."
    name = task.replace("/", "_")
    def learned(shots, n):
        how = STUDIES[task] | dict(shots=shots, validation=shots)
        seeds = tuning_seeds(how | dict(tuning=3))
        splits, runs = splits_of(task, seeds, how), [(i, lr) for lr in REACH_RATES for i in range(len(seeds))]
        own = SETTINGS | {k: how[k] for k in ("head_init",) if k in how}
        models = [InfoPromptModel(encoder, splits["task"], n_prompt=n, seed=seeds[i], **own) for i, _ in runs]
        which, on = [i for i, _ in runs], dict(validation=splits["validation"], test=splits["train"])
        for i, m in zip(which, models): m.begin(splits["train"][i])
        before = judged(models, which, on)
        train_population(Population(models), splits["train"], None, REACH_EPOCHS[shots], [lr for _, lr in runs], 8,
                         [(seeds[i],) * 2 for i in which], progress=False, which=which, accelerator=ALONE)
        return [dict(seed=seeds[i], shots=shots, n_prompt=n, lr=lr, val=x["val"], val_loss=x["val_loss"],
                     train=x["test"], val_before=b["val"], train_before=b["test"])
                for (i, lr), b, x in zip(runs, before, judged(models, which, on))]
    def probed(shots):
        how = STUDIES[task] | dict(shots=shots, validation=shots, held=1)
        own = splits_of(task, seeds := tuning_seeds(how | dict(tuning=3)), how)
        one = lambda i: {s: own[s][i] for s in ("train", "validation", "test")}
        without_prompt = lambda data: probe(data, get_task(own["task"]), encoder)["validation"]["accuracy"]
        return [dict(seed=s, shots=shots, n_prompt=0, val=without_prompt(one(i)))
                for i, s in enumerate(seeds)]
    for shots, n in REACH:
        kept_at(state / f"{name}-reach-{shots}-{n}.json", lambda: dict(rows=learned(shots, n)))
    for shots in dict.fromkeys(shots for shots, *_ in REACH):
        kept_at(state / f"{name}-reach-{shots}-0.json", lambda: dict(rows=probed(shots)))


def written(state: Path, task: str, seeds: int):
    "Put a task into the file, if it is whole, beside what this holds of other tasks."
    name, how, file = task.replace("/", "_"), STUDIES[task], FILE
    read = lambda pattern: [json.loads(f.read_text()) for f in sorted(state.glob(pattern))]
    if task in REACHED and (tries := read(f"{name}-reach-*.json")):
        found = beside(file, {}, {}, STUDIES)
        own = dict(made=tries[0]["made"], rows=columns([r for p in tries for r in p["rows"]]))
        write_whole({file: json.dumps(found | dict(reach=found.get("reach", {}) | {task: own})).encode()})
    looks = {k: own for k in ("probe", "plain") if (own := [r for p in read(f"{name}-{k}*.json") for r in p["rows"]])}
    if task in LOOKED_AT and looks:
        found = beside(file, {}, {}, STUDIES)
        old = found.get("superglue", {})
        own = dict(majority=majority(task, how), **{k: columns(rows) for k, rows in looks.items()})
        write_whole({file: json.dumps(found | dict(superglue=old | {task: old.get(task, {}) | own})).encode()})
    if task in PRUNED:
        held, makers = stored("tasks").get(task, {}), stored("made_of")
        parts = [p for at in range(0, seeds, STEP) for p in read(f"{name}-{at}-*.json")]
        score = [p for at in range(0, seeds, STEP) for p in read(f"{name}-look-{at}.json")]
        tries, new = read(f"{name}-tuning-*"), {r["arm"] for p in parts for r in p["rows"]}
        own, later = dict(majority=majority(task, how), numbers_of=N * Encoder(how["encoder"]).d_in), {}
        for k, of in dict(rows=parts, tuning=tries).items():
            kept = [r for r in table(held.get(k, {})) if r["arm"] not in new]
            own[k] = columns(kept + [r for p in of for r in p["rows"]])
            if kept and of: later |= dict.fromkeys(sorted(new), of[0]["made"])
        if score:
            own["scores"] = columns([x for p in score for x in p["scores"]])
            if held: held, later["scores"] = held | dict(scored={}), score[0]["made"]
        own = {k: held[k] for k in ("scores", "scored", "later") if held.get(k)} | own
        if later: own["later"] = own.get("later", {}) | later
        maker = makers.get(task) or parts[0]["made"]
        write_whole({file: json.dumps(beside(file, {task: own}, {task: maker}, STUDIES)).encode()})
    found = json.loads(file.read_text())
    write_whole({file: json.dumps(found | dict(made=made()), separators=(",", ":")).encode()})
    for part in state.glob(f"{name}-*.json"): part.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(STUDIES))
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"at most; default: {SEEDS}; in steps of {STEP}")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of the processor; begin no part later")
    options = parser.parse_args()
    LIMIT[0] = time.process_time() + 60 * options.minutes
    if unknown := {*options.tasks} - {*STUDIES}: parser.error(f"unknown: {', '.join(sorted(unknown))}")
    use_threads()
    os.chdir(ROOT)
    state = ROOT / "benchmarks/results/checkpoints_pruning_tuned"
    for task in options.tasks or STUDIES:
        encoder = Encoder(STUDIES[task]["encoder"])
        seeds = min(options.seeds, STUDIES[task].get("seeds", SEEDS))
        if task in REACHED and task not in stored("reach"): reached(task, state, encoder)
        if task in LOOKED_AT and not {"probe", "plain"} <= {*stored("superglue").get(task, ())}:
            looked_at(task, state, encoder)
        if task in PRUNED: studied(task, seeds, state, encoder)
        written(state, task, seeds)


if __name__ == "__main__":
    main()
