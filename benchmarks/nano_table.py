"""The table of nano's tasks: every method on the same rows, five seeds.

python benchmarks/nano_table.py [base|more|peers ...]      (default: all)

base   majority, zero-shot, untrained, probe, plain prompt tuning and fine-tuning
more   head only and InfoPrompt
peers  WARP, IDPG, BitFit and LoRA

Appends to benchmarks/results/nano_table.jsonl; what that file holds is not run again.
"""
import sys
from pathlib import Path

from infoprompt.study.experiments import run_jobs, summary
from made import made, use_threads

HERE = Path(__file__).resolve().parent
TASKS = [f"nano/{t}" for t in ("sentiment", "acceptability", "paraphrase", "entailment", "relation")]
TUNED = dict(shots=64, n_prompt=4, lrs=[1e-3, 1e-2], epochs=30, batch_size=8)
BASE = {"majority": dict(shots=64), "zero-shot": dict(shots=64), "untrained": dict(shots=64, n_prompt=4),
        "probe": dict(shots=64), "plain": TUNED, "fine-tuning": dict(shots=None, lrs=[1e-3], epochs=10, batch_size=32)}
SEEDS = range(5)
MORE = {"head only": TUNED, "InfoPrompt": TUNED}
MOVED = {k: v for k, v in TUNED.items() if k != "n_prompt"}
PEERS = {"WARP": TUNED, "IDPG": TUNED, "BitFit": MOVED, "LoRA": MOVED}


def jobs(methods):
    return [dict(task=task, encoder="nano", seed=seed, method=m, **kw)
            for seed in SEEDS for task in TASKS for m, kw in methods.items()]


def main():
    parts = dict(base=BASE, more=MORE, peers=PEERS)
    names = sys.argv[1:] or list(parts)
    if unknown := set(names) - set(parts): sys.exit(__doc__ + f"\nunknown: {', '.join(unknown)}")
    use_threads()
    for name in names:
        print(summary(run_jobs(jobs(parts[name]), HERE/"results/nano_table.jsonl", made=made())).to_string())


if __name__ == "__main__":
    main()
