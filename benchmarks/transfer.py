"""Prompts that travel: seventeen sources of nano's family on every target, as they are and as starts.

python benchmarks/transfer.py [--tasks topic tense-fact ...] [--targets topic ...] [--seeds 20]

64 rows, 10 epochs, learning rate 1e-2, the head fixed at the label words; a seed draws rows, start, order and noise, so
equal seeds are twins. Every source is trained plainly and with the information terms (beta 0.1, gamma 0.05). Then every
prompt answers 128 test rows of every target, and on each target plain training starts from a source of the same type,
from one of another type (both drawn by the seed), and from the one whose states say most about the target's 64 rows.
About half an hour of one core. Writes, in infoprompt/assets/:

transfer_real.parquet         numbers made from the real prompts in ../shared/data/prompt_transferability, where it is
transfer_prompts.safetensors  the plain sources, in half precision
transfer_matrix.parquet       zero-shot scores, and the two indicators that need the encoder
transfer_starts.parquet       validation curves and test scores of the training runs

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
from infoprompt.core import InfoPromptModel, load_data
from infoprompt.engine.population import Population, train_population
from infoprompt.method.encoders import Encoder
from infoprompt.method.prompts import start_prompt
from infoprompt.nano.family import FAMILY
from infoprompt.study.sweeps import Alone
from infoprompt.study.transfer import KINDS, neurons, similarity, told, zero_shot
from made import made, use_threads

ROOT = Path(__file__).resolve().parent.parent
TERMS = dict(plain=(0., 0.), terms=(.1, .05))
SEEDS, EPOCHS, LR, SHOTS, JUDGED, LENGTH = 20, 10, .01, 64, 128, 4
TARGETS = ("topic", "fault-number", "entailment-made", "sentiment-food", "relation-place", "tense-fact",
           "paraphrase-nature", "fault-order", "sentiment-shop", "relation-thing", "tense-opinion", "fault-form",
           "entailment-nature", "sentiment-film", "relation-firm", "paraphrase-made", "sentiment-travel")
MODELS = dict(roberta_base="RoBERTa-base", roberta_large="RoBERTa-large", t5_small="T5-small")


def rows(task: str, seed: int): return load_data(f"nano/{task}", SHOTS, seed)


def judged_rows(task: str): return rows(task, 0)["test"].select(range(JUDGED))


def trained(task: str, starts, seeds: list[int], encoder: Encoder, weights=((0., 0.),)) -> tuple:
    "Prompts (run, 4, 64) and validation cross-entropy (run, epoch) of runs that start somewhere (None: informed)."
    models, which = [], [s for _ in weights for s in seeds] if starts is None else seeds
    for i, seed in enumerate(which):
        beta, gamma = weights[i // len(seeds)] if starts is None else (0., 0.)
        models.append(InfoPromptModel(encoder, f"nano/{task}", n_prompt=LENGTH, beta=beta, gamma=gamma, seed=seed,
                                      head="fixed", init="informed" if starts is None else "zero"))
        if starts is not None: models[-1].prompt.data.copy_(starts[i])
    order = sorted(set(which))
    data, at = [rows(task, s) for s in order], [order.index(s) for s in which]
    train_population(Population(models), [d["train"] for d in data], [d["validation"] for d in data], EPOCHS,
                     [LR] * len(models), 8, [(s, s) for s in which], which=at, progress=False,
                     accelerator=Alone(torch.device("cpu")))
    curve = lambda m: m.history.query("quantity == 'val_loss'").sort_values("step")["value"].to_numpy()
    return torch.stack([m.prompt.detach() for m in models]), torch.tensor(np.stack([curve(m) for m in models]))


def source(task: str, seeds: int, encoder: Encoder) -> dict:
    "All runs of one source: prompt (terms, seed, 4, 64), curve (terms, seed, epoch)."
    found = trained(task, None, list(range(seeds)), encoder, list(TERMS.values()))
    return {k: x.unflatten(0, (len(TERMS), seeds)).contiguous() for k, x in zip(("prompt", "curve"), found)}


def on_target(target: str, prompts: dict, encoder: Encoder) -> dict:
    "Zero-shot scores (terms, seed, source), untrained ones (seed,), and what the states say of the labels."
    whole = torch.stack([*prompts.values()], 2)
    terms, seeds = whole.shape[:2]
    blank = torch.stack([start_prompt("vocab", LENGTH, encoder, seed=s) for s in range(seeds)])
    every = torch.cat([whole.flatten(0, 2), blank])
    found = torch.tensor(zero_shot(every, f"nano/{target}", judged_rows(target), encoder))
    labels = [told(whole[0, s], f"nano/{target}", rows(target, s)["train"], encoder) for s in range(seeds)]
    return dict(score=found[:-seeds].reshape(terms, seeds, -1), untrained=found[-seeds:], labels=torch.stack(labels))


def chosen(target: str, tasks: list[str], labels) -> dict:
    "Which source each seed starts from: one of the same type, one of another, and the one that the indicator likes."
    others = [t for t in tasks if t != target]
    same = [t for t in others if FAMILY[t]["type"] == FAMILY[target]["type"]] or others
    away = [t for t in others if t not in same] or others
    pick = lambda pool, seed: random.Random(f"{target} {seed}").choice(pool)
    best = lambda values: max(others, key=lambda t: values[tasks.index(t)])
    drawn = lambda pool: [pick(pool, s) for s in range(len(labels))]
    return {"same type": drawn(same), "other type": drawn(away), "labels": [best(values.tolist()) for values in labels]}


def started(target: str, term: int, prompts: dict, labels, encoder: Encoder) -> dict:
    "Plain training on a target from the chosen sources: score (start, seed), curve (start, seed, epoch)."
    picks = chosen(target, list(prompts), labels)
    seeds = list(range(len(labels)))
    starts = [prompts[t][term, s] for names in picks.values() for s, t in zip(seeds, names)]
    found, curve = trained(target, starts, seeds * len(picks), encoder)
    score = torch.tensor(zero_shot(found, f"nano/{target}", judged_rows(target), encoder))
    return dict(score=score.reshape(len(picks), -1), curve=curve.unflatten(0, (len(picks), -1)).contiguous())


def real(folder: Path) -> pd.DataFrame:
    "Similarities and stored scores of the real prompts, one row a source and target."
    tables = []
    for file, name in MODELS.items():
        scores = pd.read_csv(folder / f"{file}_scores.csv")[["source", "target", "score"]]
        found = similarity(load_file(folder / f"{file}.safetensors"), [k for k in KINDS if k not in ("on", "labels")])
        wide = found.pivot(index=["source", "target"], columns="kind", values="value").reset_index()
        tables.append(scores.merge(wide).assign(model=name))
    return pd.concat(tables, ignore_index=True)


def matrix(found: dict, prompts: dict, encoder: Encoder) -> pd.DataFrame:
    "All zero-shot scores, long: terms, seed, source, target, score; labels and on for plain sources."
    tasks, lines = list(prompts), []
    seeds = len(next(iter(found.values()))["untrained"])
    on = torch.stack([torch.stack([neurons(prompts[t][0, s], encoder) for t in tasks]) for s in range(seeds)]).float()
    on = torch.nn.functional.normalize(on, dim=-1) @ torch.nn.functional.normalize(on, dim=-1).mT
    for target, one in found.items():
        lines += [dict(terms="plain", seed=s, source="untrained", target=target, score=x)
                  for s, x in enumerate(one["untrained"].tolist())]
        for (i, terms), (j, name) in ((a, b) for a in enumerate(TERMS) for b in enumerate(tasks)):
            for s in range(seeds):
                line = dict(terms=terms, seed=s, source=name, target=target, score=one["score"][i, s, j].item())
                if not i: line |= dict(labels=one["labels"][s, j].item(), on=on[s, j, tasks.index(target)].item())
                lines.append(line)
    return pd.DataFrame(lines).astype(dict(score="float32", labels="float32", on="float32", seed="int8"))


def runs(targets: dict, found: dict, sources: dict) -> pd.DataFrame:
    "All training runs, long: target, terms of the source, start, source, seed, score, curve."
    tasks, lines = list(sources), []
    for target in dict.fromkeys(t for t, _ in targets):
        usual, own = sources[target]["curve"][0], found[target]["score"][0, :, tasks.index(target)]
        lines += [dict(target=target, terms="none", start="usual", source="", seed=s, score=own[s].item(),
                       curve=usual[s].tolist()) for s in range(len(own))]
    for (target, terms), one in targets.items():
        for i, (start, names) in enumerate(chosen(target, tasks, found[target]["labels"]).items()):
            lines += [dict(target=target, terms=terms, start=start, source=names[s], seed=s,
                           score=one["score"][i, s].item(), curve=one["curve"][i, s].tolist())
                      for s in range(len(names))]
    table = pd.DataFrame(lines)
    table["curve"] = [np.round(np.asarray(c, np.float32), 4) for c in table["curve"]]
    return table.astype(dict(score="float32", seed="int8"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(FAMILY), default=list(FAMILY), help="sources (default: all)")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS, help="targets to train on, in order")
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

    def write(name: str, table: pd.DataFrame):
        table.attrs = dict(made=about())
        write_whole({assets / f"transfer_{name}.parquet": parquet(table)})

    bar = tqdm(total=2 * len(tasks) + len(TERMS) * len(targets), unit="piece")
    folder = ROOT.parent / "shared/data/prompt_transferability"
    if folder.is_dir(): write("real", real(folder))
    sources = {t: stored(f"source_{t}", source, t, options.seeds, encoder) for t in tasks}
    prompts = {t: one["prompt"] for t, one in sources.items()}
    scores = {t: one["curve"][0, :, 1:].amin(1).tolist() for t, one in sources.items()}
    facts = dict(made=about(), val_loss=scores, template="SINGLE or PAIR", head="fixed")
    write_whole({assets / "transfer_prompts.safetensors": packed(facts, {t: p[0].half() for t, p in prompts.items()})})
    found = {t: stored(f"target_{t}", on_target, t, prompts, encoder) for t in tasks}
    write("matrix", matrix(found, prompts, encoder))
    done = {}
    for i, terms in enumerate(TERMS):
        for t in targets:
            done[t, terms] = stored(f"start_{t}_{terms}", started, t, i, prompts, found[t]["labels"], encoder)
            write("starts", runs(done, found, sources))


if __name__ == "__main__":
    main()
