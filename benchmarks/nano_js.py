"""Training steps a second of nano in JavaScript under Node: the blocked matrix product against a plain one.

    python benchmarks/nano_js.py                 # a table, and benchmarks/results/nano_js.json

nano/sentiment, 64 rows, batch 8, both information losses on with K = 32: what a page's worker does. The two products
take turns, a few steps each, in one process, so that whatever else the machine does falls on both alike; steps are also
counted by processor time, which other jobs touch less.
"""
import argparse
import json
import shutil
import statistics
import subprocess
from pathlib import Path

from infoprompt.base.files import write_whole
from infoprompt.core import load_data
from made import made

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
const fs = require("fs"), [, folder, rounds, steps] = process.argv, api = require(`${folder}/nano.js`);
const file = fs.readFileSync(`${folder}/nano.bin`), rows = JSON.parse(fs.readFileSync(0, "utf8"));
const nano = api.readNano(file.buffer.slice(file.byteOffset, file.byteOffset + file.length));
const plain = (y, x, w, bias, rows, inner, outer) => {
  for (let r = 0; r < rows; r++) for (let o = 0; o < outer; o++) {
    let sum = bias[o];
    for (let i = 0; i < inner; i++) sum += x[r * inner + i] * w[o * inner + i];
    y[r * outer + o] = sum;
  }
};
const made = {blocked: api.kernels.multiply, plain}, found = {};
const run = api.newRun(nano, {negative: "terrible", positive: "great"}), ready = api.prepare(nano, run, rows);
const feed = (function* () { for (;;) yield* api.training(nano, run, ready, {epochs: 100}); })();
for (let round = -2; round < Number(rounds); round++) for (const [name, multiply] of Object.entries(made)) {
  api.kernels.multiply = multiply;
  const begun = performance.now(), spent = process.cpuUsage();
  for (let i = 0; i < Number(steps); i++) feed.next();
  const {user, system} = process.cpuUsage(spent), wall = performance.now() - begun;
  if (round < 0) continue; // until the compiler has seen it
  (found[name] ??= []).push({wall: steps / wall * 1e3, cpu: steps / (user + system) * 1e6});
}
console.log(JSON.stringify(found));
"""


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rounds", type=int, default=20)
    p.add_argument("--steps", type=int, default=10, help="of a turn")
    a = p.parse_args()
    node, folder = shutil.which("node") or p.error("no node: install nodejs"), ROOT / "infoprompt/show"
    rows = [dict(text=r["text"], label=r["label"]) for r in load_data("nano/sentiment", shots=64, seed=0)["train"]]
    command = [node, "-e", PROGRAM, str(folder), str(a.rounds), str(a.steps)]
    done = subprocess.run(command, input=json.dumps(rows), capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    table = {name: {f"{clock}_{what}": round(of([r[clock] for r in turns]), 2) for clock in ("wall", "cpu")
                    for what, of in dict(median=statistics.median, best=max).items()} for name, turns in found.items()}
    ratio = statistics.median(b["cpu"] / p["cpu"] for b, p in zip(found["blocked"], found["plain"]))
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip()
    note = dict(made=made(), node=version, settings=vars(a), table=table, ratio_cpu=round(ratio, 2))
    print(f"training steps a second, {a.rounds} turns of {a.steps}; blocked over plain: {ratio:.2f}")
    for name, row in table.items():
        print(f"{name:8}", ", ".join(f"{k.replace('_', ' ')} {x:.1f}" for k, x in row.items()))
    write_whole({ROOT / "benchmarks/results/nano_js.json": (json.dumps(note, indent=1) + "\n").encode()})


if __name__ == "__main__":
    main()
