"""Prompts that travel: seventeen sources of nano's family on every target, as they are and as starts.

python benchmarks/transfer.py [--tasks topic tense-fact ...] [--targets topic ...] [--seeds 20]

64 rows, 6 epochs, learning rate 0.02, the head fixed at the label words; a seed draws rows, start, order and noise, so
equal seeds are twins. Every source is trained plainly, then with the information terms (beta 0.1, gamma 0.05), then
plainly with a head that learns too. Every plain prompt answers 64 test rows of every task, every other prompt those of
the chosen targets. On these, plain training starts from a source of the same type, from one of another type (both drawn
by the seed), and from the one whose states say most about the target's 64 rows; then from the next two, from the
average of these three, and from a prompt that was trained on the three tasks at once. Writes, in infoprompt/assets/:

transfer_real.parquet         numbers made from the real prompts in ../shared/data/prompt_transferability, where it is
transfer_prompts.safetensors  the plain sources, in half precision
transfer_matrix.parquet       zero-shot scores, and for the plain sources every indicator
transfer_starts.parquet       validation curves and test scores of the training runs
transfer_each.parquet         the same from every source, of a few seeds
transfer_sums.parquet         zero-shot scores of starts plus one or two task vectors
transfer_rates.parquet        validation losses by learning rate, of five other seeds, to judge the rate
transfer_early.parquet        how well the target's prompt finds a source, by the epoch in which it is asked

What is done waits in benchmarks/results/checkpoints_transfer/ and is not done again.
"""
import argparse
import random
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from tqdm.auto import tqdm

from infoprompt.base.files import packed, parquet, read_whole, write_whole
from infoprompt.command.library import weighted
from infoprompt.core import InfoPromptModel, load_data
from infoprompt.data.tasks import get_task
from infoprompt.engine.population import Population, train_population
from infoprompt.method.encoders import Encoder
from infoprompt.method.prompts import start_prompt
from infoprompt.nano.family import FAMILY
from infoprompt.show.travel import judged, others
from infoprompt.study.sweeps import Alone
from infoprompt.study.transfer import KINDS, mixture, similarity, summed, told, zero_shot
from made import made, use_threads

ROOT = Path(__file__).resolve().parent.parent
WAYS = dict(plain=dict(beta=0, gamma=0), terms=dict(beta=.1, gamma=.05),
            head=dict(beta=0, gamma=0, head="trained"))
SEEDS, EPOCHS, LR, SHOTS, JUDGED, LENGTH, FEW, BEST = 20, 6, .02, 64, 64, 4, 2, 3
RATES, OTHER_SEEDS = (.005, .01, .02, .04), range(20, 25)
SCALES = 0., .5, 1., 1.5, 2.
TARGETS = "topic", "fault-number", "entailment-made", "sentiment-food", "relation-firm", "tense-opinion"
MODELS = dict(roberta_base="RoBERTa-base", roberta_large="RoBERTa-large", t5_small="T5-small")


def rows(task: str, seed: int): return load_data(f"nano/{task}", SHOTS, seed)


def judged_rows(task: str): return rows(task, 0)["test"].select(range(JUDGED))


def scored(prompts, target: str, encoder: Encoder):
    "Test scores of prompts (..., 4, 64)."
    found = zero_shot(prompts.flatten(0, -3), f"nano/{target}", judged_rows(target), encoder)
    return torch.tensor(found).reshape(prompts.shape[:-2])


def trained(task, seeds: list[int], encoder: Encoder, way: str = "plain", starts=None, data=None,
            lrs=None) -> dict:
    """prompt (run, 4, 64), curve (run, epoch: cross-entropy on validation) and path (run, epoch, 4, 64), the start
    first, of runs from given prompts, or informed."""
    models, path, order = [], [], sorted(set(seeds))
    for i, seed in enumerate(seeds):
        models.append(InfoPromptModel(encoder, task, n_prompt=LENGTH, seed=seed, **dict(head="fixed") | WAYS[way],
                                      init="informed" if starts is None else "zero"))
        if starts is not None: models[-1].prompt.data.copy_(starts[i])

    def look(population, params):
        path.append(params["prompt"].detach().clone())
        return {}
    data = data or [rows(task.removeprefix("nano/"), s) for s in order]
    train_population(Population(models), [d["train"] for d in data], [d["validation"] for d in data], EPOCHS,
                     lrs or [LR] * len(models), 8, [(s, s) for s in seeds], which=[order.index(s) for s in seeds],
                     progress=False, look=look, accelerator=Alone(torch.device("cpu")))
    curve = lambda m: m.history.query("quantity == 'val_loss'").sort_values("step")["value"].to_numpy()
    return dict(prompt=torch.stack([m.prompt.detach() for m in models]),
                curve=torch.tensor(np.stack([curve(m) for m in models])), path=torch.stack(path, 1))


def on_target(target: str, prompts: dict, encoder: Encoder) -> dict:
    "score (seed, source) without training, untrained (seed,), and labels (seed, source): what the states say of them."
    whole = torch.stack([*prompts.values()], 1)
    blank = torch.stack([start_prompt("vocab", LENGTH, encoder, seed=s) for s in range(len(whole))])
    found = scored(torch.cat([whole, blank[:, None]], 1), target, encoder)
    labels = [told(one, f"nano/{target}", rows(target, s)["train"], encoder) for s, one in enumerate(whole)]
    return dict(score=found[:, :-1].contiguous(), untrained=found[:, -1].contiguous(), labels=torch.stack(labels))


def chosen(target: str, tasks: list[str], labels) -> dict:
    "Which source each seed starts from: one of the same type, one of another, and the one that the indicator likes."
    others = [t for t in tasks if t != target]
    same = [t for t in others if FAMILY[t]["type"] == FAMILY[target]["type"]] or others
    away = [t for t in others if t not in same] or others
    drawn = lambda pool: [random.Random(f"{target} {s}").choice(pool) for s in range(len(labels))]
    best = lambda values: max(others, key=lambda t: values[tasks.index(t)])
    return {"same type": drawn(same), "other type": drawn(away), "labels": [best(values.tolist()) for values in labels]}


def started(target: str, starts: list, seeds: list[int], encoder: Encoder) -> dict:
    "score (start, seed) and curve (start, seed, epoch) of plain training on a target from given prompts, 20 a start."
    found = trained(f"nano/{target}", seeds * len(starts), encoder, starts=torch.cat(starts))
    return dict(score=scored(found["prompt"], target, encoder).reshape(len(starts), -1),
                curve=found["curve"].unflatten(0, (len(starts), -1)).contiguous())


def from_chosen(target: str, prompts: dict, labels, encoder: Encoder) -> dict:
    "Plain training on a target from one source a seed."
    starts = [torch.stack([prompts[t][s] for s, t in enumerate(names)])
              for names in chosen(target, list(prompts), labels).values()]
    return started(target, starts, list(range(len(labels))), encoder)


def best_three(target: str, tasks: list[str], labels) -> list:
    "The sources with the target's template whose states say most of its labels, the best first, for each seed."
    own = get_task(f"nano/{target}").template
    pool = [t for t in tasks if t != target and get_task(f"nano/{t}").template == own]
    return [sorted(pool, key=lambda t: -values[tasks.index(t)])[:BEST] for values in labels.tolist()]


def mixed(sets: list, encoder: Encoder):
    "Prompts (seed, 4, 64), each trained on several tasks at once; seeds with the same tasks are trained together."
    found = torch.zeros(len(sets), LENGTH, encoder.d_in)
    for names in set(map(frozenset, sets)):
        seeds, names = [s for s, one in enumerate(sets) if set(one) == names], sorted(names)
        data = []
        for s in seeds:
            own = [rows(t, s) for t in names]
            parts = {k: [d[k] for d in own] for k in ("train", "validation")}
            task, *both = mixture([f"nano/{t}" for t in names], *parts.values())
            data.append(dict(zip(parts, both)))
        found[seeds] = trained(task, seeds, encoder, data=data)["prompt"]
    return found


def retrieved(target: str, prompts: dict, labels, encoder: Encoder) -> dict:
    "Training from each of the three most promising sources, from their average, and from one prompt for all three."
    tasks = list(prompts)
    sets = best_three(target, tasks, labels)
    each = torch.stack([torch.stack([prompts[t][s] for t in names]) for s, names in enumerate(sets)])
    weights = [[labels[s, tasks.index(t)].item() for t in names] for s, names in enumerate(sets)]
    average = torch.stack([weighted(p, w) if max(w) > 0 else p.mean(0) for p, w in zip(each, weights)])
    found = started(target, [*each.unbind(1), average, mixed(sets, encoder)], list(range(len(sets))), encoder)
    return found | dict(picks=torch.tensor([[tasks.index(t) for t in names] for names in sets]))


def from_every(target: str, prompts: dict, encoder: Encoder) -> dict:
    "Plain training on a target from every source, a few seeds."
    seeds = list(range(min(FEW, len(next(iter(prompts.values()))))))
    return started(target, [p[seeds] for p in prompts.values()], seeds, encoder)


def sums(target: str, sources: dict, encoder: Encoder) -> dict:
    """Scores of one or two task vectors: own (scale, seed) from the start that it was trained from, other (scale,
    seed) from another start, and with each source (source, seed): added, half of each added, and the mean prompt."""
    start, end = ({t: one["path"][:, 0] if part == "start" else one["prompt"] for t, one in sources.items()}
                  for part in ("start", "end"))
    base = torch.stack([start_prompt("vocab", LENGTH, encoder, seed=1000 + s) for s in range(len(end[target]))])
    one = lambda at, scale: summed(at, [end[target]], [start[target]], scale)
    two = lambda t, scale: summed(base, [end[target], end[t]], [start[target], start[t]], scale)
    ways = dict(own=[one(start[target], a) for a in SCALES], other=[one(base, a) for a in SCALES],
                added=[two(t, 1.) for t in end], halves=[two(t, .5) for t in end],
                mean=[(end[target] + end[t]) / 2 for t in end])
    return {k: scored(torch.stack(p), target, encoder) for k, p in ways.items()}


def rated(task: str, encoder: Encoder) -> dict:
    "val_loss (rate, seed): the lowest cross-entropy on validation by learning rate, of seeds that are not used again."
    lrs = [lr for lr in RATES for _ in OTHER_SEEDS]
    found = trained(f"nano/{task}", [*OTHER_SEEDS] * len(RATES), encoder, lrs=lrs)
    return dict(val_loss=found["curve"][:, 1:].amin(1).reshape(len(RATES), -1))


def real(folder: Path) -> pd.DataFrame:
    "Similarities and stored scores of the real prompts, one row a source and target."
    tables = []
    for file, name in MODELS.items():
        scores = pd.read_csv(folder / f"{file}_scores.csv")[["source", "target", "score"]]
        found = similarity(load_file(folder / f"{file}.safetensors"), [k for k in KINDS if k not in ("on", "labels")])
        wide = found.pivot(index=["source", "target"], columns="kind", values="value").reset_index()
        tables.append(scores.merge(wide).assign(model=name))
    return pd.concat(tables, ignore_index=True)


def matrix(found: dict, tasks: list[str]) -> pd.DataFrame:
    "One row a prompt and target: seed, source, target, score, and labels, what its states say of the target's."
    lines = []
    for target, one in found.items():
        for s, untrained in enumerate(one["untrained"].tolist()):
            lines += [dict(seed=s, source="untrained", target=target, score=untrained),
                      *(dict(seed=s, source=name, target=target, score=score, labels=labels) for name, score, labels in
                        zip(tasks, one["score"][s].tolist(), one["labels"][s].tolist()))]
    return pd.DataFrame(lines).astype(dict(score="float32", seed="int8"))


def alike(prompts: dict, targets: dict, seed: int, kinds, encoder=None) -> pd.DataFrame:
    """One row a source and target, one column a kind: sources of a seed against targets' prompts of the next one,
    because prompts of one seed may have started at the same words."""
    both, other = {t: p[seed] for t, p in prompts.items()}, (seed + 1) % len(next(iter(targets.values())))
    found = similarity(both | {f"target {t}": p[other] for t, p in targets.items()}, kinds, encoder)
    found = found[~found["source"].str.startswith("target ") & found["target"].str.startswith("target ")]
    wide = found.assign(target=found["target"].str.removeprefix("target "), seed=seed)
    return wide.pivot(index=["seed", "source", "target"], columns="kind", values="value").reset_index()


def tidy(table: pd.DataFrame) -> pd.DataFrame:
    "Runs with short numbers."
    short = lambda curve: np.round(np.asarray(curve, "float32"), 4)
    return table.assign(curve=table["curve"].map(short)).astype(dict(score="float32", seed="int8"))


def runs(target: str, own: dict, found: dict, one: dict, tasks: list[str], labels, more: dict | None) -> pd.DataFrame:
    "One row a training run on a target: start, source, seed, score, curve; the usual start is the target's own run."
    pick = tasks.index(target)
    table = [dict(start="usual", source="", seed=s, score=found["score"][s, pick].item(), curve=own["curve"][s])
             for s in range(len(found["score"]))]
    named = list(chosen(target, tasks, labels).items())
    if more:
        names = [[tasks[i] for i in one] for one in more["picks"].T.tolist()]
        named += [(f"choice {i + 1}", n) for i, n in enumerate(names)] + [(k, [""] * len(names[0])) for k in
                                                                         ("average", "mixture")]
        one = {k: torch.cat([one[k], more[k]]) for k in ("score", "curve")}
    for i, (start, names) in enumerate(named):
        table += [dict(start=start, source=name, seed=s, score=one["score"][i, s].item(), curve=one["curve"][i, s])
                  for s, name in enumerate(names)]
    return tidy(pd.DataFrame(table).assign(target=target))


def each(target: str, own: dict, found: dict, one: dict, tasks: list[str]) -> pd.DataFrame:
    "One row a run of `from_every`, and of the usual start: source, seed, score, curve."
    pick, few = tasks.index(target), one["score"].shape[1]
    scores = [found["score"][:few, pick], *one["score"]]
    curves = [own["curve"][:few], *one["curve"]]
    return tidy(pd.DataFrame([dict(source=name, target=target, seed=s, score=score[s].item(), curve=curve[s])
                              for name, score, curve in zip(["usual", *tasks], scores, curves) for s in range(few)]))


def sum_table(target: str, one: dict, tasks: list[str]) -> pd.DataFrame:
    "One row a score of `sums`."
    lines = [dict(way=way, other="" if way in ("own", "other") else tasks[i], seed=s, score=score.item(),
                  scale=dict(added=1., halves=.5).get(way, SCALES[i] if way in ("own", "other") else float("nan")))
             for way, values in one.items() for i, line in enumerate(values) for s, score in enumerate(line)
             if way in ("own", "other") or tasks[i] != target]
    return pd.DataFrame(lines).assign(target=target).astype(dict(score="float32", scale="float32", seed="int8"))


def early(sources: dict, scores: pd.DataFrame) -> pd.DataFrame:
    "What `judged` says of each kind, by seed and by the epoch at which the target's prompt is compared with sources."
    kinds, tables = ("e", "cos", "cos_tokens", "cos_mean"), []
    prompts = {t: one["prompt"] for t, one in sources.items()}
    for seed, part in scores[scores["source"] != "untrained"].drop(columns=[*KINDS]).groupby("seed"):
        for epoch in range(EPOCHS + 1):
            now = alike(prompts, {t: one["path"][:, epoch] for t, one in sources.items()}, seed, kinds)
            found = judged(others(part.merge(now)), kinds)
            tables.append(found.rename_axis("kind").reset_index().assign(seed=seed, epoch=epoch))
    return pd.concat(tables, ignore_index=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(FAMILY), default=list(FAMILY), help="sources (default: all)")
    parser.add_argument("--targets", nargs="+", choices=list(FAMILY), default=TARGETS, help="targets to train on")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    use_threads()
    waiting, assets = ROOT / "benchmarks/results/checkpoints_transfer", ROOT / "infoprompt/assets"
    waiting.mkdir(parents=True, exist_ok=True)
    encoder, tasks, targets = Encoder("nano"), options.tasks, [t for t in options.targets if t in options.tasks]
    about = lambda: made() | dict(seeds=options.seeds, epochs=EPOCHS, lr=LR, shots=SHOTS, judged=JUDGED)

    def stored(name: str, make, *more) -> dict:
        file = waiting / f"{name}.safetensors"
        if not file.is_file(): write_whole({file: packed(dict(made=about()), make(*more))})
        bar.update()
        return read_whole(file)[1]

    def write(name: str, tables: list):
        table = pd.concat(tables, ignore_index=True)
        table.attrs = about()
        write_whole({assets / f"transfer_{name}.parquet": parquet(table)})

    bar = tqdm(total=(len(WAYS) + 1) * len(tasks) + 8 * len(targets), unit="piece")
    folder = ROOT.parent / "shared/data/prompt_transferability"
    if folder.is_dir(): write("real", [real(folder)])
    matrices, starts, seeds, every = [], [], list(range(options.seeds)), {}
    for way in WAYS:
        every[way] = {t: stored(f"source_{t}_{way}", trained, f"nano/{t}", seeds, encoder, way) for t in tasks}
        prompts = {t: one["prompt"] for t, one in every[way].items()}
        if way == "plain":
            losses = {t: one["curve"][:, 1:].amin(1).tolist() for t, one in every[way].items()}
            write_whole({assets / "transfer_prompts.safetensors": packed(
                dict(made=about(), val_loss=losses), {t: p.half() for t, p in prompts.items()})})
        where = tasks if way == "plain" else targets
        found = {t: stored(f"target_{t}_{way}", on_target, t, prompts, encoder) for t in where}
        table = matrix(found, tasks).assign(terms=way)
        if way == "plain":
            found_alike = [alike(prompts, prompts, s, [k for k in KINDS if k != "labels"], encoder) for s in seeds]
            table = table.merge(pd.concat(found_alike), "left", ["seed", "source", "target"])
        else: table["labels"] = np.nan
        numbers = [c for c in table if c in KINDS]
        matrices.append(table.assign(**table[numbers].round(3).astype("float32")))
        write("matrix", matrices)
        if way == "head": continue
        if way == "plain": first = found
        for t in targets:
            one = stored(f"start_{t}_{way}", from_chosen, t, prompts, found[t]["labels"], encoder)
            more = None
            if way == "plain": more = stored(f"retrieved_{t}", retrieved, t, prompts, found[t]["labels"], encoder)
            table = runs(t, every["plain"][t], first[t], one, tasks, found[t]["labels"], more)
            starts.append(table.assign(terms=way))
            write("starts", starts)
        if way == "terms": continue
        losses = {t: stored(f"rates_{t}", rated, t, encoder)["val_loss"].tolist() for t in targets}
        write("rates", [pd.DataFrame([dict(target=t, lr=lr, seed=s, val_loss=loss) for lr, line in zip(RATES, one)
                                      for s, loss in zip(OTHER_SEEDS, line)]) for t, one in losses.items()])
        write("early", [early(every[way], matrices[0])])
        write("sums", [sum_table(t, stored(f"sums_{t}", sums, t, every[way], encoder), tasks) for t in targets])
        write("each", [each(t, every[way][t], first[t], stored(f"every_{t}", from_every, t, prompts, encoder), tasks)
                       for t in targets])


if __name__ == "__main__":
    main()
