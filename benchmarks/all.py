"""Makes every stored file of results anew: runs one script of this folder after another.

python benchmarks/all.py [training_run nano_table ...]      (default: all)
python benchmarks/all.py --list

Interrupt it and start it again: it continues with the script that it was in, and a finished script does not run again
until all the requested ones are done. Old files wait in results/checkpoints_all/before/ until the new ones are
there. What each script cost goes to results/times.json, in minutes of one core, which other work on the machine
changes little; --list shows it, with what each script writes. A script that has not run as a whole here is judged by
a part of its runs, and its cost stands beside an "about".
"""
import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from infoprompt.base.files import write_whole
from made import made

ROOT = Path(__file__).resolve().parent.parent
WRITES = dict(training_run=["infoprompt/assets/training_run.json"],
              nano_table=["benchmarks/results/nano_table.jsonl"],
              grid=["infoprompt/assets/weights_*.parquet"],
              prompts=["infoprompt/assets/playground.json", "infoprompt/assets/prompts.json"],
              landscape=["infoprompt/assets/word_plane.json", "infoprompt/assets/landscape_*.safetensors"],
              label_information=["infoprompt/assets/label_information.json",
                                 "benchmarks/results/label_information.json"],
              optimizers=["benchmarks/results/optimizers.json"],
              gaussian_bottleneck=["benchmarks/results/bottleneck.json"],
              evidence=["benchmarks/results/evidence_*.parquet"],
              ladder=["benchmarks/results/ladder.parquet"],
              ladder_256=["benchmarks/results/ladder_256.parquet"],
              starts=["benchmarks/results/starts.parquet"],
              control=["benchmarks/results/control/*"],
              starts_control=["benchmarks/results/starts_control.parquet"],
              starts_again=["benchmarks/results/starts_again.parquet"],
              real_terms=["benchmarks/results/real_terms.parquet"],
              real_terms_16=["benchmarks/results/real_terms_16.parquet"],
              pruning=["infoprompt/assets/pruning*.json"],
              pruning_speed=["benchmarks/results/pruning_speed.json"],
              pruning_transfer=["benchmarks/results/pruning_transfer.json"],
              pruning_harmful=["benchmarks/results/pruning_harmful.json"],
              pruning_tuned=["benchmarks/results/pruning_tuned.json"],
              real_input=["benchmarks/results/real_input.jsonl"],
              population=["benchmarks/results/population.json"],
              transfer=["infoprompt/assets/transfer_*.parquet", "infoprompt/assets/transfer_prompts.safetensors"],
              minilm_travel=["infoprompt/assets/minilm_*.parquet"],
              projectors=["infoprompt/assets/carried*"],
              relations_entities=["benchmarks/results/relations_entities.jsonl"],
              nano_js=["benchmarks/results/nano_js.json"],
              gpu=["benchmarks/results/gpu.jsonl"],
              step_vs_peft=["benchmarks/results/step_vs_peft.json"],
              step_vs_peft_2_threads=["benchmarks/results/step_vs_peft_2_threads.json"])
COMMANDS = dict(step_vs_peft_2_threads=f"step_vs_peft.py --threads 2 --out {WRITES['step_vs_peft_2_threads'][0]}",
                pruning_speed="pruning.py --speed", ladder_256="ladder.py --shots 256",
                starts_control="starts.py --encoder control", starts_again="starts.py --again",
                real_terms_16="real_terms.py --vectors 16")
DATA = ROOT.parent / "shared/data"
NEEDS = dict.fromkeys(("minilm_travel", "pruning_tuned", "real_input", "real_terms", "real_terms_16",
                       "relations_entities"), DATA)
NEEDS |= dict(gpu=Path("/dev/nvidia0"))


def files(name: str, folder: Path) -> list[Path]:
    "What a script has written, under a folder."
    return [path for pattern in WRITES[name] for path in sorted(folder.glob(pattern))]


def moved(name: str, start: Path, end: Path):
    "Take a script's files from one folder to another."
    for path in files(name, start):
        (to := end / path.relative_to(start)).parent.mkdir(parents=True, exist_ok=True)
        path.replace(to)


def used() -> float:
    "Seconds of processor time that ended scripts have used."
    return os.times().children_user + os.times().children_system


def remade(name: str, state: Path) -> float:
    "Run a script until its files are there; gives its seconds of processor time, of several calls together."
    before, notes = state / "before", state / f"{name}.json"
    spent = json.loads(notes.read_text())["seconds"] if notes.is_file() else 0.
    if not notes.is_file(): moved(name, ROOT, before)
    begun = used()
    script, *options = COMMANDS.get(name, f"{name}.py").split()
    try: subprocess.run([sys.executable, f"benchmarks/{script}", *options], cwd=ROOT, check=True)
    finally:
        spent += used() - begun
        write_whole({notes: json.dumps(dict(seconds=spent, done=False)).encode()})
    for path in files(name, before): path.unlink()
    write_whole({notes: json.dumps(dict(seconds=spent, done=True)).encode()})
    return spent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help=", ".join(WRITES))
    parser.add_argument("--list", action="store_true", help="show what each script writes and what it cost")
    options = parser.parse_args()
    if unknown := set(options.scripts) - set(WRITES): parser.error(f"unknown: {', '.join(sorted(unknown))}")
    record = ROOT / "benchmarks/results/times.json"
    held = json.loads(record.read_text()) if record.is_file() else {}
    times, judged = (held.get(key, {}) for key in ("core_minutes", "judged_by_a_part"))
    known = {name: f"about {part['core_minutes']:.0f} core-minutes" for name, part in judged.items()}
    known |= {name: f"{cost:.1f} core-minutes" for name, cost in times.items()}
    if options.list:
        for name, patterns in WRITES.items(): print(f"{name:24}{known.get(name, 'not timed'):24}{', '.join(patterns)}")
        return
    state, asked = ROOT / "benchmarks/results/checkpoints_all", options.scripts or list(WRITES)
    state.mkdir(parents=True, exist_ok=True)
    for name in asked:
        notes = state / f"{name}.json"
        if notes.is_file() and json.loads(notes.read_text())["done"]: continue
        if name in NEEDS and not NEEDS[name].exists():
            print(f"{name}: left out, for there is no {NEEDS[name]}")
            continue
        print(f"{name}: {known.get(name, 'not timed')}", flush=True)
        times[name] = round(remade(name, state) / 60, 1)
        judged.pop(name, None)
        write_whole({record: json.dumps(dict(made=made(), core_minutes=times, judged_by_a_part=judged)).encode()})
    for name in asked: (state / f"{name}.json").unlink(missing_ok=True)


if __name__ == "__main__":
    try: main()
    except KeyboardInterrupt: sys.exit("stopped; the same command goes on from here")
    except subprocess.CalledProcessError as stop:
        name = " ".join(stop.cmd[1:])
        sys.exit(f"{name} ended with code {stop.returncode}; fix the cause and run the same command again to go on")
