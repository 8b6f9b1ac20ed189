"""Where the prompt goes, what pushes it, and the landscape that it crosses: small files for two figures.

python benchmarks/landscape.py [--tasks sentiment acceptability]

nano, 64 rows, 30 epochs, a start at random words, learning rate 1e-2, as in grid.py; a seed draws rows, start, order
and noise. Seeds are not chosen by eye: of the stored runs of plain prompt tuning from that start (weights_TASK_0.01),
the first that is stuck and the first that is not. From each, three training runs as one population: see WEIGHTS.

Writes infoprompt/assets/word_plane.json and infoprompt/assets/landscape_TASK.safetensors, which
`infoprompt.show.landscape` draws; some five minutes of one core in all. A task whose file is there is not run again,
and a seed that is done waits in benchmarks/results/checkpoints_landscape/ until its task is whole.
"""
import argparse
import json
from pathlib import Path

import torch
from torch.nn.functional import cosine_similarity, normalize
from tqdm.auto import tqdm

from grid import by_epoch
from infoprompt.base.files import packed, read_whole, write_whole
from infoprompt.core import InfoPromptModel, load_data
from infoprompt.engine.feeds import Rows, mine
from infoprompt.engine.population import Population, train_population
from infoprompt.engine.training import OPTIMIZERS
from infoprompt.method.encoders import Encoder
from infoprompt.method.settings import named_source
from infoprompt.show.landscape import KINDS, TASKS, WEIGHTS, corner_weights
from infoprompt.show.weights import is_stuck, stored_weights
from infoprompt.engine.instruments import gradient_of
from made import made, use_threads

ROOT = Path(__file__).resolve().parent.parent
SHOTS, EPOCHS, LR, SIDE, MARGIN, REACH = 64, 30, .01, 17, .3, 2.
STEPS, RATES = 30, dict(sgd=.3, adamw=.07)  # of the descents in two numbers, whose rates do not change
PUSH, TERMS = ("ce", "rep", "head", "cos_rep", "cos_head"), ("ce", "l_rep", "l_head")
FULL = WEIGHTS["published"]


def seeds(task: str) -> dict:
    "The first stored seed whose plain run is stuck, and the first whose plain run is not."
    runs = stored_weights(task, LR).query("init == 'vocab' and beta == 0 and gamma == 0").sort_values("seed")
    stuck = is_stuck(runs)
    return dict(zip(KINDS, (int(runs["seed"][stuck].iloc[0]), int(runs["seed"][~stuck].iloc[0]))))


def word_plane(encoder: Encoder) -> dict:
    "The two directions along which the words' directions differ most, and each word's place on them."
    words = normalize(encoder.words.double(), dim=1)
    mean = words.mean(0)
    _, size, axes = torch.linalg.svd(words - mean, full_matrices=False)
    axes = axes[:2] * axes[:2].sum(1, keepdim=True).sign()  # a singular vector's sign is arbitrary
    names = [encoder.tokenizer.convert_ids_to_tokens(i).lstrip("Ġ") for i in range(len(words))]
    places = ((words - mean) @ axes.T).tolist()
    return dict(axes=axes.tolist(), mean=mean.tolist(), variance=(size[:2].square().sum() / size.square().sum()).item(),
                words=[[name, *place] for name, place in zip(names, places)])


def push(out: dict, params: dict, weights: dict) -> dict:
    "Norm of each weighted term's gradient on the prompt, and its cosine with cross-entropy's."
    leaf = dict(prompt=params["prompt"])
    ce = gradient_of(out["ce"], leaf)["prompt"]
    notes = dict(push_ce=ce.norm(dim=1))
    for name, weight in dict(rep="beta", head="gamma").items():
        if f"l_{name}" not in out: continue
        own = weights[weight] * gradient_of(out[f"l_{name}"], leaf)["prompt"]
        notes |= {f"push_{name}": own.norm(dim=1), f"push_cos_{name}": cosine_similarity(own, ce, dim=1)}
    return notes


def trained(task: str, seed: int, encoder: Encoder) -> tuple:
    "Data, models, and their parameters at the start and after each epoch: name -> (epoch, run, ...)."
    data, seen = load_data(f"nano/{task}", SHOTS, seed), []
    models = [InfoPromptModel(encoder, f"nano/{task}", beta=b, gamma=g, init="vocab", seed=seed)
              for b, g in WEIGHTS.values()]
    def look(_, params):
        seen.append({k: p.clone() for k, p in params.items()})
        return {}
    train_population(Population(models), data["train"], data["validation"], EPOCHS, [LR] * len(models), 8,
                     [(seed, seed)] * len(models), watch=push, look=look, progress=False)
    return data, models, {k: torch.stack([params[k] for params in seen]) for k in seen[0]}


def whole_batch(model, rows, seed: int) -> dict:
    "All rows as one batch, with negatives and noise that are drawn once: (1, row, ...)."
    rows = Rows(Population([model]), rows)
    batch = mine(rows.take([range(len(rows))]), 0, [0], True)
    return batch | model.draw(batch, [named_source(seed)])


def judged(model, batch: dict, prompt, head, critic) -> dict:
    "Means over rows of each term at several prompts, (run,) each; head and critic (run, ...) or one for all."
    params = dict(prompt=prompt, head=head, rep_critic=critic)
    params = {k: p.expand(len(prompt), *p.shape[1:]) for k, p in params.items()}
    out = model.terms(params, {k: x.expand(len(prompt), *x.shape[1:]) for k, x in batch.items()})
    return {k: x.mean(1) for k, x in out.items()}


@torch.no_grad()
def terms_at(model, data, seed: int, where) -> dict:
    "Cross-entropy on validation rows and every term on training rows, at prompts, heads and critics: (run,) each."
    of = lambda split: judged(model, whole_batch(model, data[split], seed), *where)
    train = of("train")
    return dict(val_loss=of("validation")["ce"]) | {k: train[k] for k in TERMS}


def surfaces(model, data, seed: int, at, us, vs) -> dict:
    "Every term over a grid, (v, u) each; `at` gives prompt, head and critic of some (u, v)."
    rows = [terms_at(model, data, seed, at(torch.stack([us, v.expand(len(us))], 1)))
            for v in tqdm(vs, desc="surface", leave=False)]
    return {k: torch.stack([row[k] for row in rows]) for k in rows[0]}


def four_vectors(models, data, seed: int, seen: dict) -> dict:
    "The plane through the start and the ends of plain prompt tuning and of InfoPrompt, and both paths on it."
    prompts = torch.stack([seen["prompt"][0, 0], seen["prompt"][-1, 0], seen["prompt"][-1, 1]])
    heads = torch.stack([seen["head"][0, 0], seen["head"][-1, 0], seen["head"][-1, 1]])
    critic, flat = seen["rep_critic"][-1, 1], prompts.flatten(1)
    axes = torch.linalg.qr((flat[1:] - flat[0]).double().T)[0].T
    axes = (axes * (axes @ (flat[1:] - flat[0]).double().T).diagonal().sign()[:, None]).float()
    corners = (flat - flat[0]) @ axes.T
    low, high = corners.amin(0), corners.amax(0)
    us, vs = (torch.linspace(a - MARGIN * (b - a), b + MARGIN * (b - a), SIDE) for a, b in zip(low, high))
    def at(uv):
        share = torch.tensor(corner_weights(uv.numpy(), corners.numpy()))
        mix = lambda x: torch.einsum("rc,c...->r...", share, x)
        return mix(prompts), mix(heads), critic[None]
    way = seen["prompt"][:, :2].flatten(2) - flat[0]
    paths, spread = way @ axes.T, way - way.mean(0)
    inside = (spread @ axes.T).square().sum((0, 2)) / spread.square().sum((0, 2))
    return surfaces(models[1], data, seed, at, us, vs) | dict(
        prompts=prompts, heads=heads, critic=critic, corners=corners, us=us, vs=vs, paths=paths.transpose(0, 1),
        inside=inside, ends=torch.stack([*terms_at(models[1], data, seed, at(corners)).values()], 1))


def descents(model, batch: dict, at, rate: float, update) -> dict:
    "Descents of one kind with each pair of weights, by two numbers alone: places and terms, (weighting, step, ...)."
    weights = torch.tensor([*WEIGHTS.values()])
    params = dict(uv=torch.zeros(len(weights), 2))
    m, v, places, terms = dict(uv=params["uv"] * 0), dict(uv=params["uv"] * 0), [], []
    for step in range(STEPS + 1):
        uv = params["uv"].requires_grad_()
        out = judged(model, batch, *at(uv))
        loss = out["ce"] + (weights * torch.stack([out["l_rep"], out["l_head"]], 1)).sum(1)
        places.append(uv.detach())
        terms.append(torch.stack([loss, *(out[k] for k in TERMS)], 1).detach())
        grads = dict(uv=torch.autograd.grad(loss.sum(), uv)[0])
        params, m, v = update(dict(uv=uv.detach()), grads, m, v, torch.full((len(weights),), rate), step + 1, 0.)
    return dict(places=torch.stack(places, 1), terms=torch.stack(terms, 1))


def one_vector(task: str, data, seed: int, plane: dict, encoder: Encoder) -> tuple:
    "The model with one vector, and what gives prompt, head and critic of (u, v): all but two numbers stay as begun."
    b, g = FULL
    model = InfoPromptModel(encoder, f"nano/{task}", n_prompt=1, beta=b, gamma=g, init="vocab", seed=seed)
    start, axes = {k: p.detach() for k, p in model.trained().items()}, torch.tensor(plane["axes"])
    return model, lambda uv: (start["prompt"] + (uv @ axes)[:, None], start["head"][None], start["rep_critic"][None])


def two_numbers(task: str, data, seed: int, plane: dict, encoder: Encoder) -> dict:
    "The landscape of one vector that moves in the words' plane, and real descents in it."
    model, at = one_vector(task, data, seed, plane, encoder)
    us = vs = torch.linspace(-REACH, REACH, SIDE)
    found, batch = surfaces(model, data, seed, at, us, vs) | dict(us=us, vs=vs), whole_batch(model, data["train"], seed)
    for name, rate in RATES.items():
        found |= {f"{name}_{k}": x for k, x in descents(model, batch, at, rate, OPTIMIZERS[name]).items()}
        last = terms_at(model, data, seed, at(found[f"{name}_places"][:, -1]))
        found[f"{name}_ends"] = torch.stack([*last.values()], 1)
    return found


def journey(models, seen: dict, plane: dict, encoder: Encoder) -> dict:
    "Each vector's direction on the words' plane, its turn, its nearest word, and the push: (weighting, epoch, ...)."
    way, words = normalize(seen["prompt"], dim=-1).transpose(0, 1), normalize(encoder.words, dim=1)
    flat = (way - torch.tensor(plane["mean"])) @ torch.tensor(plane["axes"]).T
    best, spread = (way @ words.T).max(-1), way - way.mean(1, keepdim=True)
    inside = (spread @ torch.tensor(plane["axes"]).T).square().sum((1, 2, 3)) / spread.square().sum((1, 2, 3))
    curve = lambda q, first: torch.tensor([by_epoch(m.history, q, first) for m in models])
    score = f"val_{models[0].task.metrics[0]}"
    return dict(xy=flat, turn=(way * way[:, :1]).sum(-1), nearest=best.indices.short(), cosine=best.values,
                inside=inside, val_loss=curve("val_loss", 0), score=curve(score, 0),
                push=torch.stack([curve(f"push_{k}", 1) for k in PUSH], -1))


def piece(task: str, seed: int, plane: dict, encoder: Encoder) -> dict:
    "All that is stored of a seed."
    data, models, seen = trained(task, seed, encoder)
    parts = dict(path=journey(models, seen, plane, encoder), four=four_vectors(models, data, seed, seen),
                 one=two_numbers(task, data, seed, plane, encoder))
    return {f"{part}/{k}": x.clone() for part, found in parts.items() for k, x in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    options, encoder, waiting = parser.parse_args(), Encoder("nano"), ROOT/"benchmarks/results/checkpoints_landscape"
    use_threads()
    waiting.mkdir(parents=True, exist_ok=True)
    plane, assets = word_plane(encoder), ROOT/"infoprompt/assets"
    write_whole({assets/"word_plane.json": json.dumps(dict(made=made()) | plane).encode()})
    for task in options.tasks:
        if (whole := assets/f"landscape_{task}.safetensors").is_file(): continue
        parts = {kind: waiting/f"{task}_{seed}.safetensors" for kind, seed in seeds(task).items()}
        for kind, seed in seeds(task).items():
            if not parts[kind].is_file(): write_whole({parts[kind]: packed({}, piece(task, seed, plane, encoder))})
        facts = dict(task=task, seeds=seeds(task), weights=WEIGHTS, lr=LR, epochs=EPOCHS, steps=STEPS, rates=RATES,
                     made=made())
        tensors = {f"{kind}/{k}": x for kind, part in parts.items() for k, x in read_whole(part)[1].items()}
        write_whole({whole: packed(facts, tensors)})
        for part in parts.values(): part.unlink()


if __name__ == "__main__":
    main()
