// What a page's Web Worker does with nano: it trains a prompt as Python does, and asks prompts. It stands after nano.js
// in one script. It is sent {load}, {train}, {go}, {stop}, {test} or {ask}, and answers as each function below says.

// ---- PyTorch's random numbers on a CPU, so that a seed means here what it means there ----
// Whole numbers of 32 bits (Matsumoto and Nishimura 1998, mt19937).
const mersenne = seed => {
  const state = new Uint32Array(624);
  let at = 624;
  state[0] = seed;
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ state[i - 1] >>> 30) + i;
  const renew = () => {
    for (let i = 0; i < 624; i++) {
      const y = state[i] & 0x80000000 | state[(i + 1) % 624] & 0x7fffffff;
      state[i] = state[(i + 397) % 624] ^ y >>> 1 ^ (y & 1 ? 0x9908b0df : 0);
    }
    at = 0;
  };
  return () => {
    if (at === 624) renew();
    let y = state[at++];
    y ^= y >>> 11;
    y ^= y << 7 & 0x9d2c5680;
    y ^= y << 15 & 0xefc60000;
    return (y ^ y >>> 18) >>> 0;
  };
};

// torch.rand and torch.randn of a generator with that seed; of the latter, a multiple of 16 numbers.
const uniforms = (seed, count) => {
  const next = mersenne(seed);
  return Float64Array.from({length: count}, () => (next() & 0xffffff) / 2 ** 24);
};
const normals = (seed, count) => {
  const x = uniforms(seed, count);
  for (let at = 0; at < count; at += 16) for (let i = at; i < at + 8; i++) {
    const size = Math.sqrt(-2 * Math.log(1 - x[i])), angle = 2 * Math.PI * x[i + 8];
    x[i] = size * Math.cos(angle);
    x[i + 8] = size * Math.sin(angle);
  }
  return x;
};

// ---- starts, batches and noise, as infoprompt.method.prompts, data.tasks and method.objective draw them ----
// n vectors of the start "vocab", "informed" (with the seed that Python chose), "label" or "random".
const startPrompt = (nano, {start, seed, informed, labels}, n) => {
  const {width, embeddings, words} = nano, count = words.length;
  const rows = ids => gather(embeddings, ids, width).subarray(0, n * width);
  const named = Object.values(labels).flatMap(word => tokenize(nano, word));
  if (start === "label") return rows(Array.from({length: n}, (_, i) => named[i % named.length]));
  const usable = words.map((_, id) => id).filter(id => !nano.special.includes(id));
  const next = mersenne(start === "informed" ? informed : seed);
  if (start !== "random") return rows(Array.from({length: n}, () => usable[next() % usable.length]));
  const mean = meanRow(embeddings, width), spread = new Float64Array(width);
  embeddings.forEach((x, i) => { spread[i % width] += (x - mean[i % width]) ** 2 / (count - 1); });
  return normals(seed, n * width).map((x, i) => mean[i % width] + Math.sqrt(spread[i % width]) * x);
};

// A run that begins where Python's does.
const beginRun = (nano, settings, n = 4) => {
  const {labels, template, beta, gamma, lr, seed, critic} = settings, {width} = nano;
  const run = newRun(nano, labels, {template, beta, gamma, lr, seed, prompt: startPrompt(nano, settings, n)});
  if (beta) run.params.rep_critic = normals(critic, width * width).map(x => x / Math.sqrt(width));
  return run;
};

// An epoch's batches: rows in Python's order, those of similar length together, the batches in Python's order.
const orderOf = (rows, order, turns) => {
  const length = i => rows[i].input_ids.length, sorted = [...order].sort((i, j) => length(i) - length(j));
  const cut = pieces(sorted, order.length / turns.length);
  return Array.from(turns, turn => cut[turn]);
};

// A step's negatives and noise, from the seeds that Python gives these two streams.
const drawAs = (nano, {k, weights}, {size, length, input_ids, slot}, head, rep) => {
  const negative_ids = new Int32Array(size * k).fill(-1), {room, width} = nano;
  const rank = weights.l_head ? uniforms(head, size * room) : [];
  for (let r = 0; r < size && weights.l_head; r++) {
    const usable = Array.from({length}, (_, i) => i).filter(i => slot[r * length + i] < 0
      && !nano.special.includes(input_ids[r * length + i]));
    usable.sort((i, j) => rank[r * room + j] - rank[r * room + i]);
    negative_ids.set(usable.slice(0, k).map(i => input_ids[r * length + i]), r * k);
  }
  return {negative_ids, noise: weights.l_rep ? normals(rep, size * k * width) : new Float64Array(0)};
};

// ---- training ----
// What each term, times its weight, does to the prompt: norms of the gradients, and cosines with cross-entropy's.
const pushesOf = (nano, run, batch, drawn) => {
  const {weights} = run, none = new Float64Array(run.params.prompt.length), norm = g => Math.sqrt(dot(g, g, g.length));
  const [ce, rep, head] = ["ce", "l_rep", "l_head"].map(name => weights[name] ? gradients(nano, run, batch, drawn,
    {ce: 0, l_rep: 0, l_head: 0, [name]: weights[name]}).grads.prompt : none);
  const cosine = g => norm(g) && norm(ce) ? dot(g, ce, g.length) / norm(g) / norm(ce) : null;
  return {ce: norm(ce), rep: norm(rep), head: norm(head), cos_rep: cosine(rep), cos_head: cosine(head)};
};

// How far a training run is; `go` continues it. plan: id, settings, rows and held ({text (, pair), label}),
// orders (epoch -> permutation), turns (epoch -> order of batches), seeds ({head, rep}: one a step).
const newSession = (nano, plan) => {
  const run = beginRun(nano, plan.settings), rows = prepare(nano, run, plan.rows);
  const held = encodeRows(nano, plan.held, run.template, run.n_prompt), per = plan.turns[0].length;
  run.steps = per * plan.turns.length;
  return {...plan, run, rows, held, per, spent: 0, sums: {}, push: null};
};

// The word that each vector of a prompt points to most nearly.
const nearestWords = (nano, {params: {prompt}, n_prompt}) => {
  const {width, embeddings, words} = nano, norm = (x, at) => Math.sqrt(dot(x, x, width, at, at));
  return Array.from({length: n_prompt}, (_, i) => {
    const along = w => dot(prompt, embeddings, width, i * width, w * width) / norm(embeddings, w * width);
    const near = words.map((_, w) => along(w));
    return words[near.indexOf(Math.max(...near))];
  });
};

// What is reported after an epoch, and as epoch 0 before the first step: each term's mean over the steps, and scores.
const toldOf = (nano, {run, held, per, spent, sums, push}) => {
  const {accuracy, val_loss} = judge(nano, run, held), mean = name => name in sums ? sums[name] / per : null;
  return {epoch: run.step / per, score: accuracy, val_loss, loss: mean("loss"), ce: mean("ce"), l_rep: mean("l_rep"),
    l_head: mean("l_head"), prompt: Float32Array.from(run.params.prompt), head: Float32Array.from(run.params.head),
    nearest: nearestWords(nano, run), push, speed: spent ? per / spent * 1e3 : null};
};

// One step of a session; the last of an epoch also reads the pushes. Returns whether the epoch is done.
const stepOn = (nano, session) => {
  const {run, rows, per, orders, turns, seeds} = session, at = run.step, epoch = Math.floor(at / per);
  const begun = Date.now();
  if (at % per === 0) Object.assign(session, {order: orderOf(rows, orders[epoch], turns[epoch]), sums: {}, spent: 0});
  const batch = collateRows(nano, session.order[at % per].map(i => rows[i]));
  const drawn = drawAs(nano, run, batch, seeds.head[at], seeds.rep[at]), last = at % per === per - 1;
  if (last) session.push = pushesOf(nano, run, batch, drawn);
  const begins = Date.now() - begun, found = trainStep(nano, run, batch, drawn);
  for (const name of ["loss", "ce", "l_rep", "l_head"]) if (name in found)
    session.sums[name] = (session.sums[name] ?? 0) + found[name];
  session.spent += Date.now() - begun - (last ? begins : 0);
  return last;
};

// ---- asking ----
// A prompt as it was sent, with its head.
const asRun = (nano, {labels, template, prompt, head}) => {
  const run = newRun(nano, labels, {template, prompt, beta: 0});
  run.params.head = Float64Array.from(head);
  return run;
};

// Probabilities of the labels, and the most likely words at [MASK].
const askOne = (nano, given, row, k = 5) => {
  const run = asRun(nano, given), {width, embeddings, biases, words} = nano;
  const batch = collateRows(nano, encodeRows(nano, [row], run.template, run.n_prompt));
  const {z} = encoderForth(nano, batch, run.params.prompt);
  const all = softmax(words.map((_, id) => dot(z, embeddings, width, 0, id * width) + biases[id])).shares;
  const best = all.map((p, id) => [words[id], p]).sort(([, p], [, q]) => q - p).slice(0, k);
  return {chances: softmax([...logitsOf(nano, run, z)]).shares, words: best};
};

// The row as nano gets it: {token, kind} of each place, kinds as in show.figures, "unknown" for a word it lacks.
const placesOf = (nano, {template}, row, n) => {
  const [{input_ids, slot, mask_pos}] = encodeRows(nano, [row], template, n);
  const typed = `${row.text} ${row.pair ?? ""}`.toLowerCase().split(/\p{White_Space}+|([.,?!])/u).filter(word => word);
  const lost = typed.filter(word => tokenize(nano, word)[0] === nano.unknown);
  return input_ids.map((id, i) => slot[i] >= 0 ? {token: `P${slot[i]}`, kind: "prompt"}
    : i === mask_pos ? {token: "[MASK]", kind: "mask"} : id === nano.unknown ? {token: lost.shift(), kind: "unknown"}
    : {token: nano.words[id], kind: nano.special.includes(id) ? "special" : "text"});
};

// ---- messages ----
const work = () => {
  let nano = null, session = null, running = false, halted = false;
  const {port1, port2} = new MessageChannel(); // so that messages can come in; a timer would wait four milliseconds
  const breathe = () => new Promise(done => { port1.onmessage = done; port2.postMessage(0); });
  const go = async () => {
    const {id, run} = session, send = message => postMessage({id, ...message});
    running = true;
    halted = false;
    if (!run.step) send(toldOf(nano, session));
    while (run.step < run.steps && !halted) {
      if (stepOn(nano, session)) send(toldOf(nano, session));
      send({step: run.step, steps: run.steps});
      await breathe();
    }
    running = false;
    send({ended: run.step, steps: run.steps});
  };
  const answers = {
    load: asset => {
      nano = readNano(asset);
      postMessage({words: nano.words.filter((_, id) => !nano.special.includes(id))});
    },
    train: async plan => {
      halted = true;
      while (running) await breathe();
      session = newSession(nano, plan);
      await go();
    },
    go, // continue from where the last training run was stopped
    stop: () => { halted = true; },
    test: ({id, prompt, rows}) => {
      const run = asRun(nano, prompt), laid = encodeRows(nano, rows, run.template, run.n_prompt);
      postMessage({id, tested: judge(nano, run, laid).accuracy});
    },
    ask: ({id, prompts, row}) => postMessage({id, answers: prompts.map(one => askOne(nano, one, row)),
      places: placesOf(nano, prompts[0], row, prompts[0].prompt.length / nano.width)}),
  };
  onmessage = async ({data}) => {
    for (const [kind, given] of Object.entries(data)) try { await answers[kind](given); } catch (error) {
      running = false;
      postMessage({id: given?.id ?? session?.id, error: error.message});
    }
  };
};

if (typeof WorkerGlobalScope !== "undefined") work();
if (typeof module !== "undefined") {
  Object.assign(module.exports, {mersenne, uniforms, normals, startPrompt, beginRun, orderOf, drawAs, pushesOf,
    newSession, toldOf, stepOn, askOne, placesOf});
}
