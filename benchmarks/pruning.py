"""What pruning a prompt keeps, beside controls of as many steps; what its scores measure; one population or one by one.

python benchmarks/pruning.py [--tasks sentiment relation] [--seeds 20] [--scores] [--speed] [--threads 1]

nano, five tasks, 64 rows, 20 seeds: twenty tokens from random words, no information terms, learning rate 0.01, ten
epochs; then as many again for every arm. The last epoch counts; 400 test rows. Short prompts and fresh starts are
trained twice too, so all arms have the same number of steps. Resumable: parts wait in results/checkpoints_pruning.
Writes infoprompt/assets/pruning.json and pruning_scores.json after each task, with all tasks that are whole; the
files keep what they hold of other tasks. With --scores, only the second, which takes about ten minutes; with --speed,
benchmarks/results/pruning_speed.json instead, which takes one.
"""
import argparse
import base64
import cProfile
import json
import os
import pstats
import time
from itertools import product
from pathlib import Path

import torch

from infoprompt.base.files import write_whole
from infoprompt.core import InfoPromptModel, load_data
from infoprompt.engine.feeds import Rows
from infoprompt.engine.masks import slopes, wear
from infoprompt.engine.population import Population, all_logits, judge, train_population
from infoprompt.method.encoders import Encoder
from infoprompt.show.weights import TASKS, t_interval
from infoprompt.engine.instruments import gradient_of
from infoprompt.study.pruning import again, informed, removal, shares
from infoprompt.study.sweeps import Alone
from made import beside, made

ROOT = Path(__file__).resolve().parent.parent
SEEDS, STEP, EPOCHS, LR, N, CUT, HELD, LOOK = range(20), 5, 10, .01, 20, 16, 400, 128
TOLD, SHOWN, ASKED, SIZES, REPEATS = 200, ("sentiment", 2), 5, (1, 2, 5, 15, 45), 5
KERNELS = dict(backward="run_backward", matrices="_nn.linear", attention="scaled_dot_product_attention",
               norms="layer_norm", activation="gelu")
RATIOS, CONTROL = (.3, .5, .7, .9), .7
NATS = dict(nats=slice(None), nats_a=slice(0, None, 2), nats_b=slice(1, None, 2))
SETTINGS, ALONE = dict(beta=0., gamma=0., init="vocab"), Alone(torch.device("cpu"))


def path(out, params, weights):
    "A watch: how a step's cross-entropy answers to each token."
    push = gradient_of(out["ce"], dict(prompt=params["prompt"]))["prompt"] * params["prompt"].flatten(1)
    return {f"path_{i}": x.abs() for i, x in enumerate(push.unflatten(1, (N, -1)).sum(-1).unbind(1))}


def arms(model, start, train, seed: int) -> dict:
    "The models to train again: (arm, ratio) -> model."
    cut = lambda ratio, level="hierarchical", **how: model.prune(train, **shares(ratio, N, level, CUT), cut=CUT,
                                                                 seed=seed, **how)
    found = {("continued", 0.): cut(0.)}
    for r in RATIOS:
        found |= {(by, r): cut(r, by=by) for by in ("importance", "reversed", "random")}
    more = dict(tokens=cut(CONTROL, "tokens"), pieces=cut(CONTROL, "pieces"), signed=cut(CONTROL, by="signed"),
                norm=cut(CONTROL, by="norm"), fresh=start)
    wear(start, found["importance", CONTROL].prompt_mask)
    start.fitted = dict(model.fitted)
    return found | {(name, CONTROL): m for name, m in more.items()}


def held_out(gaps) -> dict:
    "Each token's mean change over held-out rows and its interval, from (row, n_prompt)."
    return dict(zip(("held", "held_low", "held_high"), torch.tensor([t_interval(x) for x in gaps.T.numpy()]).T))


def rounded(found: dict) -> dict:
    "Lists of numbers with three digits."
    return {k: [float(f"{v:.3g}") for v in x.tolist()] for k, x in found.items()}


def scores(models, which, splits) -> list[dict]:
    "Of each model: scores of its tokens, and what removing them does."
    on_train, on_test = (removal(models, splits[s], which) for s in ("train", "look"))
    out = []
    for model, w, exact, held in zip(models, which, on_train, on_test):
        each = slopes(model, splits["train"][w], CUT)
        token, steps = each.sum(-1), model.history.groupby("quantity")["value"].mean()
        nats = dict(zip(NATS, informed(model, splits["told"][w], NATS.values())))
        found = dict(first=token.abs().mean(0), first_a=token[::2].abs().mean(0), first_b=token[1::2].abs().mean(0),
                     signed=token.mean(0), signed_a=token[::2].mean(0), signed_b=token[1::2].mean(0),
                     path=torch.tensor([steps.get(f"path_{i}", float("nan")) for i in range(N)]),
                     norm=model.prompt.detach().norm(dim=1),
                     exact=exact.mean(0), exact_a=exact[::2].mean(0), exact_b=exact[1::2].mean(0),
                     **held_out(held), **nats)
        out.append(rounded(found)
                   | dict(pieces=[[float(f"{v:.2g}") for v in row] for row in each.abs().mean(0).tolist()]))
    return out


def judged(models, which, splits) -> list[dict]:
    "Score and loss of each model on validation and test rows, or on those of the two that are given."
    one, names, out = Population(models), dict(validation="val", test="test"), [{} for _ in models]
    for split, name in names.items():
        if split not in splits: continue
        found = judge(one, one.stack(), Rows(one, splits[split], which, losses=False))
        for r, own in enumerate(out):
            own |= {name: round(float(found["score"][r]), 4), f"{name}_loss": round(float(found["val_loss"][r]), 4)}
    return out


def first_stage(models, seeds, train, epochs=None, lr=None, **more):
    "Prompt tuning, as every arm begins."
    train_population(Population(models), train, None, epochs or EPOCHS, [lr or LR] * len(models), 8,
                     [(s, s) for s in seeds], progress=False, which=list(range(len(seeds))), accelerator=ALONE, **more)


def first(task: str, seeds, encoder, **more) -> tuple:
    "Splits, a list over the seeds each, and trained models."
    data = [load_data(f"nano/{task}", 64, s) for s in seeds]
    splits = {s: [d[s] for d in data] for s in ("train", "validation")}
    test = data[0]["test"]
    for name, rows in dict(test=range(HELD), look=range(LOOK), told=range(HELD, HELD + TOLD)).items():
        splits[name] = [test.select(rows)] * len(data)
    models = [InfoPromptModel(encoder, f"nano/{task}", n_prompt=N, seed=s, **SETTINGS) for s in seeds]
    first_stage(models, seeds, splits["train"], **more)
    return splits, models


def scored(task: str, seeds, encoder) -> dict:
    "Of one task and some seeds: the scores of each token, and the prompt of the seed that the page lets readers prune."
    splits, models = first(task, seeds, encoder, watch=path)
    found = [dict(seed=s, **x) for s, x in zip(seeds, scores(models, range(len(seeds)), splits))]
    return dict(scores=found, prompts=[dict(seed=s, **shown(m, splits)) for m, s in zip(models, seeds)
                                       if (task, s) == SHOWN])


def shown(model, splits) -> dict:
    "A trained prompt as a page takes it, 32-bit numbers in base64, and its answers to some sentences."
    packed = lambda x: base64.b64encode(x.detach().numpy().astype("<f4").tobytes()).decode()
    rows, one = splits["look"][0].select(range(ASKED)), Population([model])
    chances = all_logits(one, one.stack(), Rows(one, rows, losses=False))[0].softmax(-1)
    return dict(prompt=packed(model.prompt), head=packed(model.head), asked=[*rows["text"]], labels=[*rows["label"]],
                chances=[[round(p, 4) for p in own] for own in chances.tolist()])


def measured(task: str, seeds, encoder) -> dict:
    "Rows of one task and some seeds, and the masks and pieces of the first seed."
    splits, models = first(task, seeds, encoder)
    new = lambda n, s: InfoPromptModel(encoder, f"nano/{task}", n_prompt=n, seed=s, **SETTINGS)
    quiet = dict(progress=False, accelerator=ALONE)
    pieces = slopes(models[0], splits["train"][0], CUT).abs().mean(0)
    rows = [dict(seed=s, arm="stage one", ratio=0., **x)
            for s, x in zip(seeds, judged(models, list(range(len(seeds))), splits))]
    runs = [(i, key, m) for i, (s, model) in enumerate(zip(seeds, models))
            for key, m in arms(model, new(N, s), splits["train"][i], s).items()]
    masks = {str(key[1]): m.prompt_mask.int().tolist() for i, key, m in runs if i == 0 and key[0] == "importance"}
    numbers = [int(m.prompt_mask.sum()) * encoder.d_in // CUT for _, _, m in runs]
    which, before = [i for i, *_ in runs], [m for *_, m in runs]
    raw = judged(before, which, dict(validation=splits["validation"], test=splits["look"]))
    again(before, splits["train"], None, which=which, **quiet)
    fresh = [(i, m) for i, key, m in runs if key[0] == "fresh"]
    again([m for _, m in fresh], splits["train"], None, which=[i for i, _ in fresh], **quiet)
    short = [new(round(N * (1 - CONTROL)), s) for s in seeds]
    first_stage(short, seeds, splits["train"])
    again(short, splits["train"], None, which=list(range(len(seeds))), **quiet)
    for (i, (arm, ratio), _), n, x, r in zip(runs, numbers, judged(before, which, splits), raw):
        rows.append(dict(seed=seeds[i], arm=arm, ratio=ratio, numbers=n, **x, raw_test=r["test"]))
    rows += [dict(seed=s, arm="short", ratio=CONTROL, numbers=m.prompt.numel(), **x)
             for s, m, x in zip(seeds, short, judged(short, list(range(len(seeds))), splits))]
    return dict(task=task, rows=rows, masks=masks, pieces=[[float(f"{v:.2g}") for v in row] for row in pieces.tolist()])


def some(models, data, runs: int) -> list:
    "Pruned models, as many as asked for; of fewer than nine ratios where there are few models."
    return [m.prune(data, **shares((1 + i // len(models)) / 10, N)) for i, m in zip(range(runs), models * 9)]


def clock(models, data, runs: int, threads: int) -> dict:
    "Seconds for a run, as one of so many: on the clock, and of the processor."
    torch.set_num_threads(threads)
    part, begun, used = some(models, data, runs), time.perf_counter(), time.process_time()
    again(part, data, progress=False, accelerator=ALONE)
    wall, processor = time.perf_counter() - begun, time.process_time() - used
    return dict(runs=runs, threads=threads, seconds=wall / runs, processor=processor / runs)


def profiled(models, data, runs: int) -> dict:
    "Milliseconds for a run in the functions of torch that compute, and in all the rest, under a profiler."
    part, watch = some(models, data, runs), cProfile.Profile(time.process_time)
    watch.runcall(again, part, data, progress=False, accelerator=ALONE)
    spent = {name: own for (_, _, name), (_, _, own, *_) in pstats.Stats(watch).stats.items()}
    found = {k: 1000 / runs * sum(own for name, own in spent.items() if part in name) for k, part in KERNELS.items()}
    return found | dict(rest=1000 / runs * sum(spent.values()) - sum(found.values()))


def speed(encoder, all_threads: int) -> dict:
    "What a run of three epochs costs in populations of several sizes, and where the time goes."
    data = load_data("nano/sentiment", 64, 0)["train"]
    models = [InfoPromptModel(encoder, "nano/sentiment", n_prompt=N, seed=s, **SETTINGS) for s in SEEDS[:5]]
    first_stage(models, SEEDS[:5], [data] * len(models), min(3, EPOCHS))
    keys = [*product(SIZES, sorted({1, all_threads}))]  # the first round warms up, and is left out
    timed = [clock(models, data, *key) for _ in range(1 + REPEATS) for key in keys][len(keys):]
    torch.set_num_threads(1)
    return dict(made=made(), timed=timed,
                profile={runs: profiled(models, data, runs) for runs in (SIZES[0], SIZES[-1])})


def columns(rows: list[dict]) -> dict:
    "A list for each column."
    return {k: [r.get(k) for r in rows] for k in dict.fromkeys(k for r in rows for k in r)}


def written(state: Path, seeds, names):
    "Put the parts of all whole tasks into the files, beside what these hold of other tasks."
    def parts(name):
        files = {t: [state / f"{name}-{t}-{seeds[at]}.json" for at in range(0, len(seeds), STEP)] for t in TASKS}
        return {t: [json.loads(f.read_text()) for f in fs] for t, fs in files.items() if all(f.is_file() for f in fs)}
    def line(task):
        labels = load_data(f"nano/{task}", 64, 0)["test"].select(range(HELD))["label"]
        return max(map(labels.count, set(labels))) / HELD
    one = lambda p: dict(majority=line(p[0]["task"]), rows=columns([r for x in p for r in x["rows"]]),
                         masks=p[0]["masks"], seed=p[0]["rows"][0]["seed"], pieces=p[0]["pieces"])
    score = lambda p: columns([{k: v for k, v in s.items() if k != "pieces"} for x in p for s in x["scores"]])
    for name in names:
        whole, of = parts(name), dict(pruning=one, pruning_scores=score)[name]
        file, makers = ROOT / f"infoprompt/assets/{name}.json", {t: p[0]["made"] for t, p in whole.items()}
        prompts = [x for p in whole.values() for part in p for x in part.get("prompts", ())]
        found = beside(file, {t: of(p) for t, p in whole.items()}, makers, TASKS) | dict(made=[*makers.values()][-1])
        write_whole({file: json.dumps(
            found | dict(shown=prompts[0]) if prompts else found, separators=(",", ":")).encode()})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="default: all five")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help=f"default: {len(SEEDS)}; in steps of {STEP}")
    parser.add_argument("--scores", action="store_true", help="only what the scores say of each token")
    parser.add_argument("--speed", action="store_true", help="only time populations of several sizes")
    parser.add_argument("--threads", type=int, help="default: one; for --speed one, and as many as there are cores")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or 1)
    encoder, state = Encoder("nano"), ROOT / "benchmarks/results/checkpoints_pruning"
    if options.speed:
        return write_whole({ROOT / "benchmarks/results/pruning_speed.json": json.dumps(
            speed(encoder, options.threads or os.cpu_count())).encode()})
    seeds, makes = SEEDS[:options.seeds], dict(pruning_scores=scored)
    if not options.scores: makes["pruning"] = measured
    for task in options.tasks:
        for at in range(0, len(seeds), STEP):
            for name, make in makes.items():
                file = state / f"{name}-{task}-{seeds[at]}.json"
                if file.is_file(): continue
                begun = time.process_time()
                part = make(task, list(seeds[at:at + STEP]), encoder)
                write_whole({file: json.dumps(part | dict(made=made())).encode()})
                print(file.stem, f"{time.process_time() - begun:.0f} s of the processor", flush=True)
        if all((state / f"{name}-{task}-{seeds[at]}.json").is_file() for name in makes): written(state, seeds, makes)


if __name__ == "__main__":
    main()
