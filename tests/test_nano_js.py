"""nano in JavaScript against PyTorch: the same rows, batches and noise give the same states, losses, gradients."""
import base64
import json
import random
import shutil
import subprocess

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from conftest import ROOT
from infoprompt.core import InfoPromptModel, InputError, load_data
from infoprompt.data.tasks import PAIR, PREFIX, SINGLE
from infoprompt.data.templates import collate, encode, parse, slot_counts
from infoprompt.engine.feeds import Feed, Rows
from infoprompt.engine.population import Population, terms
from infoprompt.engine.training import schedule, train
from infoprompt.method.encoders import Encoder
from infoprompt.method.prompts import unprompted
from infoprompt.nano.grammar import NANO_TASKS, sentences
from infoprompt.nano.pretrain import nano_path
from infoprompt.nano import page as packing
from infoprompt.nano.page import pack_nano

NODE, SCRIPT, ASSET = shutil.which("node"), ROOT / "infoprompt/show/nano.js", ROOT / "infoprompt/show/nano.bin"
needs_node = pytest.mark.skipif(NODE is None, reason="no node: install nodejs to run nano.js outside a browser")

# Arrays travel as base64 of doubles: {"$": ...} one way, and back by `told`.
HARNESS = """
const fs = require("fs"), api = require(process.argv[1]), file = fs.readFileSync(process.argv[2]);
const asset = file.buffer.slice(file.byteOffset, file.byteOffset + file.length);
const given = JSON.parse(fs.readFileSync(0, "utf8"), (_, x) => {
  if (x === null || typeof x !== "object" || !x.$) return x;
  const bytes = Buffer.from(x.$, "base64");
  return new Float64Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
});
const told = (_, x) => ArrayBuffer.isView(x)
  ? {$: Buffer.from(new Float64Array(x).buffer).toString("base64")} : x;
const nano = api.readNano(asset);
"""


def node(body: str, asset=ASSET, script=SCRIPT, **data):
    "What a function body in JavaScript returns; it sees `api`, `nano` and `given`."
    pack = lambda x: {"$": base64.b64encode(x.detach().double().numpy().astype("<f8").tobytes()).decode()}
    unpack = lambda d: np.frombuffer(base64.b64decode(d["$"]), "<f8") if set(d) == {"$"} else d
    program = f"{HARNESS}\nprocess.stdout.write(JSON.stringify((() => {{ {body} }})(), told) ?? 'null');"
    done = subprocess.run([NODE, "-e", program, str(script), str(asset)], input=json.dumps(data, default=pack),
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout, object_hook=unpack)


def off(found, true) -> float:
    "The largest difference, in parts of the largest true number."
    true = np.asarray(true.detach() if hasattr(true, "detach") else true, float).ravel()
    return np.abs(np.asarray(found, float) - true).max() / np.abs(true).max()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    "nano as it is trained, in full precision."
    return Encoder("nano")


@pytest.fixture(scope="module")
def rounded(tmp_path_factory) -> Encoder:
    "nano with the asset's weights: rounded to sixteen bits, computed in full precision."
    folder = tmp_path_factory.mktemp("rounded")
    shutil.copytree(nano_path(), folder, dirs_exist_ok=True)
    weights = {k: x.half().float() for k, x in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata=dict(format="pt"))
    return Encoder(folder)


# The asset and the script as files.

def test_the_shipped_asset_holds_the_shipped_weights():
    assert ASSET.read_bytes() == pack_nano(nano_path()), "run python -m infoprompt.nano.page"


def test_asset_and_script_are_small():
    assert ASSET.stat().st_size <= 400_000
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 600 and max(map(len, lines)) <= 120


def test_the_command_writes_the_asset(tmp_path):
    packing.main(["--out", str(tmp_path / "nano.bin")])
    assert (tmp_path / "nano.bin").read_bytes() == ASSET.read_bytes()


@pytest.mark.parametrize("file, old, new, says", [
    ("config.json", '"gelu"', '"relu"', "hidden_act is 'relu'"),
    ("config.json", '"type_vocab_size": 1', '"type_vocab_size": 2', "type_vocab_size is 2"),
    ("tokenizer.json", '"Lowercase"', '"NFC"', "normalizer is"),
    ("tokenizer.json", "[.,?!]", "[.,?]", "pre_tokenizer is")])
def test_a_model_that_the_script_cannot_compute_is_refused(tmp_path, file, old, new, says):
    shutil.copytree(nano_path(), tmp_path, dirs_exist_ok=True)
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=says): pack_nano(tmp_path)


@needs_node
def test_the_script_stands_beside_explore_js_and_needs_no_module(tmp_path):
    both = [(ROOT / "infoprompt/show" / name).read_text(encoding="utf-8") for name in ("explore.js", "nano.js")]
    (tmp_path / "both.js").write_text("\n".join(both), encoding="utf-8")
    subprocess.run([NODE, "--check", str(tmp_path / "both.js")], check=True)
    (tmp_path / "plain.js").write_text(f"(() => {{ const module = undefined;\n{both[1]}\nif (!readNano) throw 0; }})()",
                                       encoding="utf-8")
    subprocess.run([NODE, str(tmp_path / "plain.js")], check=True)


@needs_node
def test_every_sixteen_bit_number_is_read_exactly():
    bits = [b for b in range(2**16) if b >> 10 & 31 < 31]
    true = np.array(bits, "<u2").view("<f2").astype(float)
    assert (node("return Float64Array.from(given.bits, api.half);", bits=bits) == true).all()


# Text to rows.

TEXTS = ["Peter WILL locate the garment.", "  the glove , the hat ?!", "zebra the Qwertz .",
         "<mask> the </s> <s>. <unk>", "", " \t\n ",
         "the\u00a0hat\u2003the\u0085glove", "İstanbul ΟΔΟΣ ﬁlm Straße", "the...hat!?", "don't e.g. 3.14",
         "\u212aitchen \ufeffthe", "constructor __proto__ toString"]


@needs_node
def test_tokens_are_those_of_the_tokenizer(encoder):
    r = random.Random(0)
    texts = TEXTS + [d[k] for task in NANO_TASKS for d in sentences(task, 40, 0) for k in ("text", "pair") if k in d]
    texts += [" ".join(r.choice(encoder.tokenizer.convert_ids_to_tokens([r.randrange(len(encoder.tokenizer))])
                                + [",", "?Foo", "Bar."]) for _ in range(9)).title() for _ in range(20)]
    found = node("return given.texts.map(text => api.tokenize(nano, text));", texts=texts)
    assert found == encoder.tokens(texts)
    plain = [i for i, t in enumerate(texts) if "<" not in t]  # special names stay text with us
    theirs = encoder.tokenizer([texts[i] for i in plain], add_special_tokens=False)["input_ids"]
    assert [found[i] for i in plain] == theirs


TEMPLATES = [SINGLE, PAIR, PREFIX, "[CLS] {text} overall it was [P:a] [MASK] . [SEP]",
             "[CLS] [P] [P:x] {text} is [P:y] [PAIR] {pair} [P] [MASK] Zebra[SEP]", "[P] {text} [MASK]"]


@needs_node
@pytest.mark.parametrize("template", TEMPLATES)
def test_rows_and_batches_are_laid_out_as_in_python(encoder, template):
    rows = [dict(text=d["text"], pair=d["pair"], label=i % 2) for i, d in enumerate(sentences("entailment", 6, 1))]
    rows += [dict(text="the hat . " * n, pair="the glove " * m, label=1) for n, m in ((30, 2), (2, 60), (40, 40))]
    counts = [1, 2, 3, 4, 5, 11]
    found = node("""return given.counts.map(n => {
        const rows = api.encodeRows(nano, given.rows, given.template, n);
        return [rows, rows.map(api.unprompted)].map(some => api.collateRows(nano, some)); });""",
                 rows=rows, template=template, counts=counts)
    for n, (batch, bare) in zip(counts, found):
        true = collate(encode(rows, template, encoder, n), encoder)
        for k in ("input_ids", "slot", "attention_mask", "position_ids", "mask_pos", "labels"):
            assert (batch[k] == true[k].flatten().numpy()).all(), (n, k)
        true, seen = unprompted(true, encoder.offset), bare["length"]
        for k in ("input_ids", "slot", "attention_mask", "position_ids"):
            own = true[k] * true["attention_mask"], bare[k].reshape(-1, seen) * bare["attention_mask"].reshape(-1, seen)
            assert (own[0][:, :seen].numpy() == own[1]).all() and not own[0][:, seen:].any(), (n, k)
        assert (bare["mask_pos"] == true["mask_pos"].numpy()).all(), n


@needs_node
def test_slots_share_the_prompt_as_in_python():
    templates = ["[P] " * before + "{text} [MASK]" + " [P]" * after for before in range(4) for after in range(5)][1:]
    found = node("""return given.templates.map(template => given.counts.map(n =>
        api.slotCounts(api.parseTemplate(template), n)));""", templates=templates, counts=list(range(12)))
    assert found == [[slot_counts(parse(t), n) for n in range(12)] for t in templates]


@needs_node
def test_what_cannot_be_laid_out_is_refused():
    said = node("""return given.templates.map(([template, n]) => {
        try { api.encodeRows(nano, [{text: "the hat", pair: "a"}], template, n); return ""; }
        catch (error) { return error.message; } });""", templates=[
            ["{text}", 1], ["{text} [MASK] [MASK]", 1], ["[MASK]", 1], ["{pair} {text} [MASK]", 1],
            ["{text} [MASK]", 1], [SINGLE, 77], [SINGLE, 76]])
    wanted = ["one [MASK]", "one [MASK]", "{text}", "{text}", "no slot", "lower n_prompt", ""]
    assert all(w in s and bool(w) == bool(s) for w, s in zip(wanted, said)), said


# Forward, backward, training.

def population(encoder, task="nano/sentiment", **settings) -> tuple:
    "A model on its own, its feed of 24 rows, and these rows."
    model = InfoPromptModel(encoder, task, **dict(init="vocab") | settings)
    data = [*load_data(task, shots=24, seed=0)["train"]]
    one = Population([model])
    return one, Feed(one, Rows(one, data), 8, [(0, 0)], 10), data


def as_run(model, **more) -> dict:
    "What nano.js needs to begin where a model stands."
    s = model.settings
    return dict(labels=model.task.verbalizer, params=dict(model.trained()), template=model.task.template,
                n_prompt=s["n_prompt"], beta=s["beta"], gamma=s["gamma"], k=s["k"], **more)


RUN = """
const begin = ({params, labels, ...settings}) => {
  const run = api.newRun(nano, labels, {...settings, prompt: params.prompt});
  for (const [name, x] of Object.entries(params)) run.params[name] = x;
  return run;
};
const data = given.rows.map(({text, pair, label}) => ({text, pair, label}));
const drawn = ({noise, ids, width}, k) => { // Python may give fewer columns than k
  const rows = ids.length / width, negative_ids = new Int32Array(rows * k).fill(-1);
  for (let i = 0; i < ids.length; i++) negative_ids[Math.floor(i / width) * k + i % width] = ids[i];
  return {noise, negative_ids};
};
"""


def as_drawn(batch) -> dict:
    "A step's noise and negatives."
    return dict(noise=batch["noise@0"], ids=batch["negative_ids@0"], width=batch["negative_ids@0"].shape[-1])


SETTINGS = [dict(), dict(n_prompt=1, k=5), dict(n_prompt=7, seed=3)]
TASKS = ["nano/sentiment", "nano/entailment", "nano/relation"]


@needs_node
@pytest.mark.parametrize("task", TASKS)
def test_logits_are_those_of_pytorch(encoder, rounded, task):
    for settings in SETTINGS:
        one, feed, data = population(rounded, task, **settings)
        model = one.models[0]
        batch = model.collate_fn(model.rows(data))
        fields = {k: x for k, x in batch.items() if k != "labels"}
        found = node(RUN + """const run = begin(given.run);
            const batch = api.collateRows(nano, api.encodeRows(nano, data, run.template, run.n_prompt));
            return api.logitsOf(nano, run, api.encoderForth(nano, batch, run.params.prompt).z);""",
                     run=as_run(model), rows=data)
        with torch.no_grad(): same = model(**fields).logits
        assert off(found, same) < 1e-5
        full = InfoPromptModel(encoder, task, **dict(init="vocab") | settings)
        with torch.no_grad():
            for name, p in full.named_parameters(): p.copy_(model.trained()[name])
            whole = full(**fields).logits
        assert off(found, whole) * whole.abs().max() < 1e-3, "logits, in their own unit"


@needs_node
def test_states_without_a_prompt_are_those_of_pytorch(rounded):
    one, feed, data = population(rounded, "nano/entailment")
    found = node(RUN + "return api.prepare(nano, begin(given.run), data).map(row => row.z0);",
                 run=as_run(one.models[0]), rows=data)
    assert off(np.concatenate(found), feed.rows.of[0].states["z0"]) < 1e-5


def split_terms(one, params, batch) -> dict:
    "Means of the terms, and the gradients of each alone."
    leaves = {k: p.clone().requires_grad_() for k, p in params.items()}
    found, out = {k: x.mean() for k, x in terms(one, leaves, batch).items()}, {}
    for name, x in found.items():
        grads = torch.autograd.grad(x, list(leaves.values()), retain_graph=True, allow_unused=True)
        out[name] = dict(value=x.item(), **{k: g for k, g in zip(leaves, grads) if g is not None})
    return out


@needs_node
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_losses_and_gradients_are_those_of_pytorch(rounded, task, settings):
    one, feed, data = population(rounded, task, **settings)
    model, batch = one.models[0], feed(0, 0)
    true = split_terms(one, one.stack(), batch)
    found = node(RUN + """
        const run = begin(given.run), rows = api.prepare(nano, run, data);
        const batch = api.collateRows(nano, given.at.map(i => rows[i])), noise = drawn(given.drawn, run.k);
        const alone = {ce: 1, l_rep: 0, l_head: 0};
        const out = {loss: api.gradients(nano, run, batch, noise)};
        for (const name of Object.keys(alone)) out[name] = api.gradients(nano, run, batch, noise,
          {ce: 0, l_rep: 0, l_head: 0, [name]: 1});
        return out;""", run=as_run(model), rows=data, at=feed.order(0, 0)[0].tolist(), drawn=as_drawn(batch))
    for name, one_true in true.items():
        got = found[name]
        assert got["terms"][name] == pytest.approx(one_true["value"], rel=1e-5, abs=1e-6), name
        for k in ("prompt", "head", "rep_critic"):
            if k in one_true: assert off(got["grads"][k], one_true[k]) < 1e-4, (name, k)
            else: assert not got["grads"][k].any(), (name, k)


@needs_node
@pytest.mark.parametrize("settings", [dict(), dict(beta=0, gamma=0), dict(beta=1., gamma=1., n_prompt=2)], ids=str)
def test_thirty_steps_are_those_of_pytorch(rounded, settings):
    one, feed, data = population(rounded, **settings)
    seen = []

    def watched(epoch, i):
        batch = feed(epoch, i)
        more = dict(drawn=as_drawn(batch)) if "noise@0" in batch else {}
        seen.append(dict(at=feed.order(0, epoch)[i].tolist(), **more))
        return batch
    watched_feed = type("", (), dict(__call__=lambda self, *at: watched(*at), __len__=lambda self: len(feed)))()
    start = as_run(one.models[0], lr=1e-2, steps=len(feed) * 10)
    state = train(lambda p, b: terms(one, p, b), one.stack(), watched_feed, Accelerator(), 10, 1e-2, progress=False)
    assert state.step == 30 == len(seen)
    curves = {k: np.array([x[0].item() for _, x in notes]) for k, notes in state.history.rows.items()}
    found = node(RUN + """
        const run = begin(given.run), rows = api.prepare(nano, run, data);
        const steps = given.steps.map(({at, drawn: what}) => api.trainStep(nano, run,
          api.collateRows(nano, at.map(i => rows[i])), what ? drawn(what, run.k) : {}));
        return {steps, params: run.params};""", run=start, rows=data, steps=seen)
    for k, true in curves.items():
        got = np.array([step[k] for step in found["steps"]])
        assert (off(got, true) if k == "grad_norm" else np.abs(got - true).max()) < 1e-3, k
    for k, p in state.params.items(): assert off(found["params"][k], p) < 1e-3, k
    assert curves["loss"][-1] < curves["loss"][0]


@needs_node
def test_the_schedule_is_that_of_python():
    cases = [(step, total, w) for total in [*range(1, 30), 75, 125, 240] for w in (.06, .1, .5, 0)
             for step in range(total)]
    assert node("return given.cases.map(([...at]) => api.schedule(...at));", cases=cases) == \
        pytest.approx([schedule(*at) for at in cases], rel=1e-12)


# What a page calls.

LABELS = dict(negative="terrible", positive="great")


@needs_node
def test_a_page_trains_from_texts_and_python_reads_its_prompt(rounded):
    rows = [*load_data("nano/sentiment", shots=64, seed=0)["train"]]
    texts = ["Peter will LOVE the film .", "the soup was awful", "zebra"]
    runs = node("""return [0, 0, 1].map(seed => {
        const run = api.newRun(nano, given.labels, {seed}), rows = api.prepare(nano, run, given.rows), losses = [];
        for (const {loss, step, epoch} of api.training(nano, run, rows, {epochs: 4})) losses.push([step, epoch, loss]);
        return {losses, run, judged: api.judge(nano, run, rows), said: api.predict(nano, run, given.texts)};
      });""", rows=rows, labels=LABELS, texts=texts)
    first, again, other = runs
    assert first["losses"] == again["losses"] != other["losses"]
    assert [at[:2] for at in first["losses"]] == [[i + 1, i // 8] for i in range(32)]
    loss = np.array(first["losses"])[:, 2]
    assert loss[-8:].mean() < loss[:8].mean()
    model = InfoPromptModel(rounded, "nano/sentiment", init="vocab")
    for k, p in model.trained().items(): p.data.copy_(torch.tensor(first["run"]["params"][k]).view_as(p))
    for (name, chance), own in zip(first["said"], model.predict_proba(texts).to_dict("records")):
        assert own[name] == max(own.values()) == pytest.approx(chance, abs=1e-5)
    assert first["judged"]["accuracy"] == model.evaluate(rows)["accuracy"]


@needs_node
def test_a_step_that_gives_no_number_leaves_the_run_as_it_was():
    found = node("""const run = api.newRun(nano, given.labels), rows = api.prepare(nano, run, given.rows);
        run.params.head[3] = NaN;
        const before = JSON.stringify(run);
        try { api.trainStep(nano, run, api.collateRows(nano, rows)); } catch (error) {
          return [error.message, JSON.stringify(run) === before]; }""", labels=LABELS,
                 rows=[dict(text="the hat", label=0), dict(text="the glove", label=1)])
    assert found == ["loss or gradient not finite at step 1", True]


@needs_node
def test_negatives_are_words_of_the_row_and_noise_is_normal():
    texts = [dict(text="the hat , zebra the glove ."), dict(text="the film was great and tom hates the old cake")]
    batch, drawn = node("""const run = api.newRun(nano, given.labels, {k: 8});
        const batch = api.collateRows(nano, api.encodeRows(nano, given.texts, run.template, 4));
        return [batch, api.draw(nano, run, batch, api.randomSource(5, 7))];""", texts=texts, labels=LABELS)
    ids, negatives = batch["input_ids"].reshape(2, -1), drawn["negative_ids"].reshape(2, 8)
    for row, own in zip(ids, negatives):
        words = sorted(row[row > 4])  # the special ones come first in nano's list
        taken = sorted(own[own >= 0])
        assert len(taken) == min(8, len(words)) and all(taken.count(i) <= words.count(i) for i in taken)
    noise = drawn["noise"]
    assert len(noise) == 2 * 8 * 64 and abs(noise.mean()) < .12 and abs(noise.std() - 1) < .1


@needs_node
def test_streams_of_random_numbers_differ_and_do_not_follow_each_other():
    streams = node("return given.seeds.map(s => Array.from({length: 4000}, api.randomSource(...s).uniform));",
                   seeds=[[0], [1], [0, 0], [0, 1], [1, 0], [7, 239], [7, 240]])
    table = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(table).max() < .08 and np.abs(np.mean(streams, 1) - .5).max() < .02
    assert np.array(streams).min() >= 0 and np.array(streams).max() < 1


IN_WORKER = """async ([script, asset, rows, labels]) => {
  const work = `${script}
    onmessage = ({data: [asset, rows, labels]}) => {
      const nano = readNano(asset), run = newRun(nano, labels), ready = prepare(nano, run, rows);
      postMessage([...training(nano, run, ready, {epochs: 1})].map(({loss}) => loss));
    };`;
  const bytes = Uint8Array.from(atob(asset), letter => letter.charCodeAt(0)).buffer;
  const worker = new Worker(URL.createObjectURL(new Blob([work])));
  return new Promise((done, failed) => {
    worker.onmessage = ({data}) => done(data);
    worker.onerror = ({message}) => failed(new Error(message));
    worker.postMessage([bytes, rows, labels]);
  });
}"""


@needs_node
def test_a_worker_in_a_browser_trains_as_node_does(page):
    rows = [*load_data("nano/sentiment", shots=16, seed=0)["train"]]
    given = [SCRIPT.read_text(encoding="utf-8"), base64.b64encode(ASSET.read_bytes()).decode(), rows, LABELS]
    page.set_content("<p>a page</p>")
    there = page.evaluate(IN_WORKER, given)
    here = node("""const run = api.newRun(nano, given.labels), rows = api.prepare(nano, run, given.rows);
        return [...api.training(nano, run, rows, {epochs: 1})].map(({loss}) => loss);""", rows=rows, labels=LABELS)
    assert len(there) == 2 and there == pytest.approx(here, rel=1e-9)
