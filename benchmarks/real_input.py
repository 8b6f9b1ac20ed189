"""Real text on a real encoder: MiniLM, frozen, against a probe on its own [MASK] states.

python benchmarks/real_input.py [few|full|hard|terms ...]      (default: all, in this order)

few    SUBJ and SST-2, 64 shots, 5 seeds
full   SUBJ and SST-2 (8,000 rows), batch 32, 10 epochs, 2 seeds, from checkpoints where there are any
hard   RTE, MRPC and CoLA, 64 shots, 5 seeds, beside the majority line
terms  the rows of few with both information losses

Reads ../shared/data and appends to benchmarks/results/real_input.jsonl; what that file holds is not run again.
"""
import os
import sys
from pathlib import Path

from infoprompt.study.experiments import run_jobs, summary
from made import made, use_threads

HERE = Path(__file__).resolve().parent


def job(task, method, seed, shots=64, **more):
    source = f"../shared/data/{task}"
    return dict(task=task, encoder="minilm", source=source, method=method, seed=seed, shots=shots, **more)


FEW = dict(n_prompt=16, lrs=[1e-3], epochs=30, batch_size=8)


def few():
    for task in ("subj", "sst2"):
        for seed in range(5):
            yield from (job(task, m, seed) for m in ("majority", "untrained", "probe"))
            yield job(task, "plain", seed, **FEW)


def terms():
    for task in ("subj", "sst2"):
        yield from (job(task, "InfoPrompt", seed, **FEW) for seed in range(5))


def full():
    tuned = dict(n_prompt=16, lrs=[1e-3], epochs=10, batch_size=32)
    for seed in range(2):
        for task in ("sst2", "subj"):
            yield from (job(task, m, seed, shots=None, rows=8000) for m in ("majority", "probe"))
            yield job(task, "plain", seed, shots=None, rows=8000, **tuned)


def hard():
    for seed in range(5):
        for task in ("rte", "mrpc", "cola"):
            yield from (job(task, m, seed) for m in ("majority", "probe"))
            yield job(task, "plain", seed, **FEW)


def main():
    names = sys.argv[1:] or ["few", "full", "hard", "terms"]
    parts = dict(few=few, full=full, hard=hard, terms=terms)
    if unknown := set(names) - set(parts): sys.exit(__doc__ + f"\nunknown: {', '.join(unknown)}")
    os.chdir(HERE.parent)
    use_threads()
    for name in names:
        results = run_jobs(list(parts[name]()), HERE/"results/real_input.jsonl", checkpoints=HERE/"results/checkpoints",
                           made=made())
        print(summary(results).to_string())


if __name__ == "__main__":
    main()
