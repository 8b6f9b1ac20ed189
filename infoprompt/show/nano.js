// nano in JavaScript: the frozen encoder forward and backward, the losses, and the training of a prompt, its head and
// the critic of L_rep. It mirrors infoprompt.method and infoprompt.engine for one run and keeps their names;
// tests/test_nano_js.py holds it to them. Plain typed arrays, no library: for a page, a Web Worker, or Node.
// The encoder is never trained: its weights need no gradient, the inputs of its matrix products need not be kept, and
// only the [MASK] rows of its last layer are computed.

// ---- the asset: the length of its header (four bytes), the header (JSON), then all tensors (fp16, in that order) ----
const NANO_FORMAT = 1; // of the asset; infoprompt.nano.page writes it

// The number that 16 bits stand for. Not all browsers have Float16Array; infinities and NaN are never packed.
const half = bits => {
  const exponent = bits >> 10 & 31, rest = bits & 1023;
  const size = exponent ? (1 + rest / 1024) * 2 ** (exponent - 15) : rest * 2 ** -24;
  return bits & 0x8000 ? -size : size;
};

// The encoder from the bytes of nano.bin (an ArrayBuffer).
const readNano = buffer => {
  const start = 4 + new DataView(buffer).getUint32(0, true), view = new DataView(buffer, start), tensors = {};
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, start - 4)));
  if (header.format !== NANO_FORMAT) throw new Error(`nano.bin has format ${header.format}, not ${NANO_FORMAT}`);
  let at = 0;
  for (const [name, shape] of header.tensors) {
    const data = new Float64Array(shape.reduce((a, b) => a * b));
    for (let i = 0; i < data.length; i++, at += 2) data[i] = half(view.getUint16(at, true));
    tensors[name] = {shape, data};
  }
  const table = name => tensors[`embeddings.${name}_embeddings.weight`].data;
  const norm = name => ({scale: tensors[`${name}.weight`].data, shift: tensors[`${name}.bias`].data});
  const linear = name => { // a matrix as PyTorch keeps it, and its transpose for the backward pass
    const {shape: [outer, inner], data: weight} = tensors[`${name}.weight`], turned = new Float64Array(weight.length);
    for (let o = 0; o < outer; o++) for (let i = 0; i < inner; i++) turned[i * outer + o] = weight[o * inner + i];
    return {outer, inner, weight, turned, bias: tensors[`${name}.bias`].data};
  };
  const layers = Array.from({length: header.layers}, (_, l) => {
    const part = name => linear(`encoder.layer.${l}.${name}`), normal = name => norm(`encoder.layer.${l}.${name}`);
    return {query: part("attention.self.query"), key: part("attention.self.key"), value: part("attention.self.value"),
      mixed: part("attention.output.dense"), first: normal("attention.output.LayerNorm"),
      wide: part("intermediate.dense"), narrow: part("output.dense"), second: normal("output.LayerNorm")};
  });
  const dense = linear("lm_head.dense"), width = dense.outer, places = table("position");
  for (let i = 0; i < places.length; i++) places[i] += table("token_type")[i % width]; // there is one token type
  return {...header, width, layers, places, embeddings: table("word"), start: norm("embeddings.LayerNorm"), dense,
    end: norm("lm_head.layer_norm"), biases: tensors["lm_head.bias"].data,
    ids: new Map(header.words.map((word, i) => [word, i]))};
};

// ---- text to rows: the tokenizer and the templates of infoprompt.method.prompts ----
// Token ids of a text: in lower case, split at white space, with each of . , ? ! by itself. The name of a special
// token is plain text here: a word that nano does not know.
const tokenize = (nano, text) => {
  const words = text.toLowerCase().split(/\p{White_Space}+|([.,?!])/u).filter(word => word);
  const known = word => nano.ids.get(word) ?? nano.unknown;
  return words.map(known).map(id => nano.special.includes(id) ? nano.unknown : id);
};

const SINGLE = "[CLS] [P] {text} [P] [MASK] [P] [P] [SEP]";
const PAIR = "[CLS] [P] {text} [P] [MASK] [P] [PAIR] {pair} [P] [SEP]";
const PART = new RegExp(String.raw`\[(?<special>CLS|SEP|PAIR|MASK)\]|(?<slot>\[P(?::\w+)?\])|\{(?<text>\w*)\}|`
  + String.raw`(?<word>(?:(?!\[(?:CLS|SEP|PAIR|MASK|P)(?::\w+)?\]|\{\w*\})\S)+)`, "g");
const isMask = ([kind, value]) => kind === "special" && value === "MASK";

// A template's parts, [kind, value] each; kinds: special, slot, text, word.
const parseTemplate = template => {
  const parts = [...template.matchAll(PART)].flatMap(({groups}) => Object.entries(groups).filter(([, value]) => value));
  if (parts.filter(isMask).length !== 1) throw new Error("a template needs one [MASK]");
  const texts = parts.filter(([kind]) => kind === "text").map(([, value]) => value).join(" ");
  if (texts !== "text" && texts !== "text pair") throw new Error("a template needs {text} once, and {pair} after it");
  return parts;
};

// How many prompt vectors each slot gets. They are spread evenly; if there are fewer vectors than slots, slots are
// dropped in the order of the released code.
const slotCounts = (parts, n) => {
  const at = parts.flatMap(([kind], i) => kind === "slot" ? [i] : []);
  if (n && !at.length) throw new Error("the template has no slot for a prompt: put [P] where it should go");
  const mask = parts.findIndex(isMask), inner = at.slice(1, -1);
  const after = inner.filter(i => i > mask).slice(0, 1);
  const drop = at.length < 2 ? at : [at.at(-1), at[0], ...after, ...inner.reverse().filter(i => !after.includes(i))];
  const dropped = new Set(drop.slice(0, Math.max(0, at.length - n))), kept = at.filter(i => !dropped.has(i));
  const share = i => Math.floor(n / kept.length) + (kept.indexOf(i) < n % kept.length ? 1 : 0);
  return at.map(i => dropped.has(i) ? 0 : share(i));
};

// Shorten the longer text until all fit.
const cutTexts = ([one, two], room) => {
  if (!two) return [one.slice(0, room)];
  const first = Math.min(one.length, Math.max(Math.ceil(room / 2), room - two.length));
  return [one.slice(0, first), two.slice(0, room - first)];
};

// Lay rows out: each of {text (, pair) (, label)} becomes {input_ids, slot, mask_pos (, label)}. A place's slot is -1,
// or the index of the prompt vector that stands there.
const encodeRows = (nano, rows, template, n) => {
  const parts = parseTemplate(template), names = parts.flatMap(([kind, value]) => kind === "text" ? [value] : []);
  const fixed = ([kind, value]) =>
    kind === "special" ? nano.marks[value] : kind === "word" ? tokenize(nano, value) : [];
  const room = nano.room - n - parts.reduce((sum, part) => sum + fixed(part).length, 0), counts = slotCounts(parts, n);
  if (room < names.length) throw new Error(`the template with n_prompt=${n} leaves no room for text: lower n_prompt`);
  return rows.map(row => {
    const texts = cutTexts(names.map(name => tokenize(nano, row[name]).slice(0, room)), room), left = [...counts];
    const out = {input_ids: [], slot: [], ...row.label === undefined ? {} : {label: row.label}};
    const put = (ids, slot) => { out.input_ids.push(...ids); out.slot.push(...ids.map(() => slot)); };
    let next = 0;
    for (const part of parts) {
      if (isMask(part)) out.mask_pos = out.input_ids.length;
      if (part[0] === "slot") for (let c = left.shift(); c > 0; c--) put(nano.marks.MASK, next++);
      else put(part[0] === "text" ? texts[names.indexOf(part[1])] : fixed(part), -1);
    }
    return out;
  });
};

// Rows as one batch, padded on the right: input_ids, slot, attention_mask, position_ids (row after row, `length` places
// each), mask_pos, labels, and z0 where the rows have it.
const collateRows = (nano, rows) => {
  const size = rows.length, length = Math.max(...rows.map(row => row.input_ids.length)), filled = size * length;
  const batch = {size, length, input_ids: new Int32Array(filled).fill(nano.pad), slot: new Int32Array(filled).fill(-1),
    attention_mask: new Int32Array(filled), position_ids: new Int32Array(filled).fill(nano.offset),
    mask_pos: rows.map(row => row.mask_pos)};
  rows.forEach(({input_ids, slot}, r) => {
    batch.input_ids.set(input_ids, r * length);
    batch.slot.set(slot, r * length);
    batch.attention_mask.fill(1, r * length, r * length + slot.length);
    batch.position_ids.set(slot.map((_, i) => nano.offset + i), r * length);
  });
  if (rows.every(row => row.label !== undefined)) batch.labels = rows.map(row => row.label);
  if (rows.every(row => row.z0)) batch.z0 = Float64Array.from(rows.flatMap(row => [...row.z0]));
  return batch;
};

// The same row as if its slots were not there.
const unprompted = ({input_ids, slot, mask_pos}) => {
  const bare = list => list.filter((_, i) => slot[i] < 0);
  return {input_ids: bare(input_ids), slot: bare(slot), mask_pos: bare(slot.slice(0, mask_pos)).length};
};

// ---- kernels. Arrays of states are (row, width), rows in blocks of four: rows that fill the last block mean nothing
const states = (rows, width) => new Float64Array((rows + 3 & ~3) * width);

// y = x wᵀ + bias for `rows` rows. A block of four rows by two columns is summed up in eight registers, so that reading
// six numbers gives eight products; plain loops read two for each. Doubles, because JavaScript would convert floats at
// every read.
const multiply = (y, x, w, bias, rows, inner, outer) => {
  for (let r = 0; r < rows; r += 4) {
    const x0 = r * inner, x1 = x0 + inner, x2 = x1 + inner, x3 = x2 + inner;
    for (let o = 0; o < outer; o += 2) {
      const w0 = o * inner, w1 = w0 + inner;
      let a0 = bias[o], a1 = a0, a2 = a0, a3 = a0, b0 = bias[o + 1], b1 = b0, b2 = b0, b3 = b0;
      for (let k = 0; k < inner; k++) {
        const p = w[w0 + k], q = w[w1 + k], c0 = x[x0 + k], c1 = x[x1 + k], c2 = x[x2 + k], c3 = x[x3 + k];
        a0 += c0 * p; b0 += c0 * q; a1 += c1 * p; b1 += c1 * q;
        a2 += c2 * p; b2 += c2 * q; a3 += c3 * p; b3 += c3 * q;
      }
      const y0 = r * outer + o, y1 = y0 + outer, y2 = y1 + outer, y3 = y2 + outer;
      y[y0] = a0; y[y0 + 1] = b0; y[y1] = a1; y[y1 + 1] = b1;
      y[y2] = a2; y[y2 + 1] = b2; y[y3] = a3; y[y3 + 1] = b3;
    }
  }
};

const forth = ({weight, bias, inner, outer}, x, rows) => {
  const y = states(rows, outer);
  kernels.multiply(y, x, weight, bias, rows, inner, outer);
  return y;
};
const back = ({turned, inner, outer}, dy, rows) =>
  forth({weight: turned, bias: new Float64Array(inner), inner: outer, outer: inner}, dy, rows);
const kernels = {multiply}; // a benchmark puts another here

// The dot product of `width` numbers from x[a] and y[b] on. Four sums (so `width` is a multiple of four), none of which
// waits for another.
const dot = (x, y, width, a = 0, b = 0) => {
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  for (let i = 0; i < width; i += 4) {
    const j = a + i, k = b + i;
    s0 += x[j] * y[k]; s1 += x[j + 1] * y[k + 1]; s2 += x[j + 2] * y[k + 2]; s3 += x[j + 3] * y[k + 3];
  }
  return s0 + s1 + s2 + s3;
};

// y += factor x for `width` numbers, from y[a] and x[b] on.
const push = (y, factor, x, width, a = 0, b = 0) => { for (let i = 0; i < width; i++) y[a + i] += factor * x[b + i]; };

// Some rows of x, one after the other; and the reverse, which adds the rows of x to some rows of y.
const gather = (x, rows, width) => {
  const y = states(rows.length, width);
  rows.forEach((row, r) => push(y, 1, x, width, r * width, row * width));
  return y;
};
const scatter = (y, x, rows, width) => rows.forEach((row, r) => push(y, 1, x, width, row * width, r * width));

// GELU, x Φ(x), in place; returns the slopes. Φ to 1e-7 (Abramowitz and Stegun 1964, formula 7.1.26).
const gelu = (x, count) => {
  const slopes = new Float64Array(x.length);
  for (let i = 0; i < count; i++) {
    const at = x[i], bell = Math.exp(-at * at / 2), t = 1 / (1 + .3275911 / Math.SQRT2 * Math.abs(at));
    const tail = t * (.254829592 + t * (-.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) / 2;
    const below = at < 0 ? tail * bell : 1 - tail * bell;
    x[i] = at * below;
    slopes[i] = below + at * bell / Math.sqrt(2 * Math.PI);
  }
  return slopes;
};

// Mean of a row's numbers, and the sum of their squared distances from it.
const moments = (x, width, at) => {
  let mean = 0, square = 0;
  for (let i = 0; i < width; i++) mean += x[at + i] / width;
  for (let i = 0; i < width; i++) square += (x[at + i] - mean) * (x[at + i] - mean);
  return [mean, square];
};

// LayerNorm of x in place; returns what the backward pass needs: the normalized numbers, and 1 / each row's deviation.
const normalize = (x, {scale, shift}, rows, width, eps) => {
  const unit = states(rows, width), over = new Float64Array(rows);
  for (let r = 0, at = 0; r < rows; r++, at += width) {
    const [mean, square] = moments(x, width, at), inverse = over[r] = 1 / Math.sqrt(square / width + eps);
    for (let i = 0; i < width; i++) {
      unit[at + i] = (x[at + i] - mean) * inverse;
      x[at + i] = unit[at + i] * scale[i] + shift[i];
    }
  }
  return {unit, over};
};

// Its backward pass, in place: gradients of its output become gradients of its input.
const denormalize = (d, {scale}, {unit, over}, rows, width) => {
  for (let r = 0, at = 0; r < rows; r++, at += width) {
    let mean = 0, along = 0;
    for (let i = 0; i < width; i++) {
      d[at + i] *= scale[i];
      mean += d[at + i];
      along += d[at + i] * unit[at + i];
    }
    mean /= width; along /= width;
    for (let i = 0; i < width; i++) d[at + i] = (d[at + i] - mean - unit[at + i] * along) * over[r];
  }
};

// All queries of attention. Those of sentence s are rows asks[s] to asks[s + 1], each head by itself; its keys are rows
// spans[s] to spans[s + 1]. Calls act(where the query begins, where the first key begins, number of keys).
const eachQuestion = ({heads, width}, spans, asks, act) => {
  for (let s = 0; s + 1 < spans.length; s++) for (let column = 0; column < width; column += width / heads) {
    const first = spans[s] * width + column, seen = spans[s + 1] - spans[s];
    for (let i = asks[s]; i < asks[s + 1]; i++) act(i * width + column, first, seen);
  }
};

// Attention: its output, and the attention weights, which the backward pass needs.
const attend = (nano, q, k, v, spans, asks) => {
  const {heads, width} = nano, size = width / heads, root = 1 / Math.sqrt(size), out = new Float64Array(q.length);
  const shares = [];
  let at = 0;
  eachQuestion(nano, spans, asks, (from, first, seen) => {
    let most = -Infinity, sum = 0;
    for (let j = 0; j < seen; j++) {
      const score = shares[at + j] = dot(q, k, size, from, first + j * width) * root;
      if (score > most) most = score;
    }
    for (let j = 0; j < seen; j++) sum += shares[at + j] = Math.exp(shares[at + j] - most);
    for (let j = 0; j < seen; j++) push(out, shares[at + j] /= sum, v, size, from, first + j * width);
    at += seen;
  });
  return {out, shares};
};

// Its backward pass: gradients of q, k and v.
const unattend = (nano, d, {q, k, v, shares, asks}, spans) => {
  const {heads, width} = nano, size = width / heads, root = 1 / Math.sqrt(size), slopes = new Float64Array(nano.room);
  const [dq, dk, dv] = [q, k, v].map(x => new Float64Array(x.length));
  let at = 0;
  eachQuestion(nano, spans, asks, (from, first, seen) => {
    let mean = 0;
    for (let j = 0, to = first; j < seen; j++, to += width) {
      slopes[j] = dot(d, v, size, from, to);
      mean += shares[at + j] * slopes[j];
      push(dv, shares[at + j], d, size, to, from);
    }
    for (let j = 0, to = first; j < seen; j++, to += width) {
      const slope = shares[at + j] * (slopes[j] - mean) * root;
      push(dq, slope, k, size, from, to);
      push(dk, slope, q, size, to, from);
    }
    at += seen;
  });
  return {dq, dk, dv};
};

// ---- the encoder ----
// The places of a batch that may be seen, one after the other: nothing is computed for padding.
const seenPlaces = ({size, length, attention_mask, slot, mask_pos}) => {
  const at = [], spans = [0];
  for (let r = 0; r < size; r++) {
    for (let place = r * length; place < (r + 1) * length; place++) if (attention_mask[place]) at.push(place);
    spans.push(at.length);
  }
  const masks = mask_pos.map((i, r) => at.indexOf(r * length + i));
  return {at, spans, masks, slots: at.flatMap((place, row) => slot[place] < 0 ? [] : [row])};
};

// z of every row at [MASK], (size, width), with the prompt (n, width) in its slots; and all that `encoderBack` needs.
const encoderForth = (nano, batch, prompt) => {
  const {width, eps} = nano, seen = seenPlaces(batch), {at, spans, masks} = seen, n = at.length;
  let x = states(n, width);
  at.forEach((place, row) => {
    const slot = batch.slot[place], table = slot < 0 ? nano.embeddings : prompt;
    const from = (slot < 0 ? batch.input_ids[place] : slot) * width, position = batch.position_ids[place] * width;
    for (let i = 0; i < width; i++) x[row * width + i] = table[from + i] + nano.places[position + i];
  });
  const start = normalize(x, nano.start, n, width, eps), each = Array.from(masks, (_, s) => s);
  const kept = nano.layers.map((layer, l) => {
    const last = l === nano.layers.length - 1, rows = last ? masks.length : n; // the last layer: [MASK] alone asks
    const own = last ? gather(x, masks, width) : x, asks = last ? [...each, rows] : spans;
    const q = forth(layer.query, own, rows), k = forth(layer.key, x, n), v = forth(layer.value, x, n);
    const {out, shares} = attend(nano, q, k, v, spans, asks), y = forth(layer.mixed, out, rows);
    push(y, 1, own, rows * width);
    const first = normalize(y, layer.first, rows, width, eps), wide = forth(layer.wide, y, rows);
    const slopes = gelu(wide, rows * layer.wide.outer);
    x = forth(layer.narrow, wide, rows);
    push(x, 1, y, rows * width);
    return {q, k, v, shares, asks, rows, last, first, slopes, second: normalize(x, layer.second, rows, width, eps)};
  });
  const z = forth(nano.dense, x, batch.size), slopes = gelu(z, batch.size * width);
  const end = normalize(z, nano.end, batch.size, width, eps);
  return {z: z.subarray(0, batch.size * width), kept, start, slopes, end, seen, batch};
};

// From gradients of z to gradients of the prompt (n, width).
const encoderBack = (nano, {kept, start, slopes, end, seen, batch}, dz, n) => {
  const {width} = nano, {at, spans, masks, slots} = seen, total = at.length, size = batch.size;
  let d = states(size, width);
  d.set(dz);
  denormalize(d, nano.end, end, size, width);
  for (let i = 0; i < size * width; i++) d[i] *= slopes[i];
  d = back(nano.dense, d, size);
  for (let l = kept.length - 1; l >= 0; l--) {
    const layer = nano.layers[l], was = kept[l], rows = was.rows;
    denormalize(d, layer.second, was.second, rows, width);
    const wide = back(layer.narrow, d, rows);
    for (let i = 0; i < wide.length; i++) wide[i] *= was.slopes[i];
    push(d, 1, back(layer.wide, wide, rows), rows * width);
    denormalize(d, layer.first, was.first, rows, width);
    const {dq, dk, dv} = unattend(nano, back(layer.mixed, d, rows), was, spans);
    push(d, 1, back(layer.query, dq, rows), rows * width);
    const own = was.last ? states(total, width) : d;
    if (was.last) scatter(own, d, masks, width);
    // Below the first layer only the slots count; above it, every place that may be seen.
    const pick = x => l ? x : gather(x, slots, width), count = l ? total : slots.length;
    const dx = back(layer.key, pick(dk), count);
    push(dx, 1, back(layer.value, pick(dv), count), count * width);
    push(dx, 1, pick(own), count * width);
    d = dx;
  }
  const there = {unit: gather(start.unit, slots, width), over: Float64Array.from(slots, row => start.over[row])};
  denormalize(d, nano.start, there, slots.length, width);
  const gradient = new Float64Array(n * width);
  scatter(gradient, d, slots.map(row => batch.slot[at[row]]), width);
  return gradient;
};

// ---- the losses of infoprompt.method.objective: CE + β L_rep + γ L_head ----
// The softmax, and the logarithm of the sum of the exponentials.
const softmax = scores => {
  const most = Math.max(...scores), weights = scores.map(score => Math.exp(score - most));
  const sum = weights.reduce((a, b) => a + b);
  return {shares: weights.map(weight => weight / sum), log: most + Math.log(sum)};
};

const meanRow = (x, width) => {
  const mean = new Float64Array(width);
  for (let at = 0; at < x.length; at += width) push(mean, width / x.length, x, width, 0, at);
  return mean;
};

// Each row's logits: z times the class vectors, and the output biases of the label words.
const logitsOf = ({width}, {params, bias}, z) => Float64Array.from({length: z.length / width * bias.length}, (_, i) => {
  const c = i % bias.length, r = (i - c) / bias.length;
  return bias[c] + dot(z, params.head, width, r * width, c * width);
});

// Each term of the loss adds its gradients, times a factor, to `to`: those of z, of the mean prompt vector, of head and
// of critic. It returns its mean over the rows.
const ceTerm = ({width}, {params: {head}}, {size, labels}, z, logits, to, factor) => {
  let loss = 0;
  pieces([...logits], logits.length / size).forEach((scores, r) => {
    const {shares, log} = softmax(scores);
    loss += (log - scores[labels[r]]) / size;
    shares.forEach((share, c) => {
      const slope = (share - (c === labels[r] ? 1 : 0)) * factor / size;
      push(to.z, slope, head, width, r * width, c * width);
      push(to.head, slope, z, width, c * width, r * width);
    });
  });
  return loss;
};

// Mean InfoNCE in nats, by dot products with one vector, `query`: row r's positive is `positive` at r * stride, and its
// negatives are in `table` at places(r).
const infonce = ({width}, size, query, positive, stride, table, places, dQuery, dPositive, factor) => {
  const root = Math.sqrt(width), step = factor / size / root;
  let loss = 0;
  for (let r = 0; r < size; r++) {
    const own = dot(query, positive, width, 0, r * stride), at = places(r);
    const scores = at.map(from => (dot(query, table, width, 0, from) - own) / root);
    const {shares: [share, ...others], log} = softmax([0, ...scores]);
    loss += log / size;
    push(dQuery, (share - 1) * step, positive, width, 0, r * stride);
    push(dPositive, (share - 1) * step, query, width, r * stride);
    at.forEach((from, n) => push(dQuery, others[n] * step, table, width, 0, from));
  }
  return loss;
};

// L_rep with the bilinear critic. Negatives: the un-prompted state plus noise, as wide as the state's own spread.
const repTerm = (nano, {params: {rep_critic}, k}, {size, z0}, z, mean, {noise}, to, factor) => {
  const {width} = nano, asked = new Float64Array(width), dAsked = new Float64Array(width), other = noise.slice();
  for (let row = 0; row < size * k; row++) {
    const at = row * width, from = Math.floor(row / k) * width, [, square] = moments(z0, width, from);
    for (let i = 0; i < width; i++) other[at + i] = z0[from + i] + Math.sqrt(square / (width - 1)) * noise[at + i];
  }
  const places = r => Array.from({length: k}, (_, n) => (r * k + n) * width);
  for (let i = 0; i < width; i++) push(asked, mean[i], rep_critic, width, 0, i * width);
  const loss = infonce(nano, size, asked, z, width, other, places, dAsked, to.z, factor);
  for (let i = 0; i < width; i++) {
    push(to.rep_critic, mean[i], dAsked, width, i * width);
    to.mean[i] += dot(rep_critic, dAsked, width, i * width);
  }
  return loss;
};

// L_head with the dot product. Negatives: words of the row in place of the prompt.
const headTerm = (nano, {params: {head}, k, bias}, {size}, mean, {negative_ids}, to, factor) => {
  const {width, embeddings} = nano, dTheta = new Float64Array(width), theta = meanRow(head, width);
  const places = r => [...negative_ids.subarray(r * k, (r + 1) * k)].filter(id => id >= 0).map(id => id * width);
  const loss = infonce(nano, size, theta, mean, 0, embeddings, places, dTheta, to.mean, factor);
  bias.forEach((_, c) => push(to.head, 1 / bias.length, dTheta, width, c * width));
  return loss;
};

// The terms of the loss, means over the rows, and the gradients of prompt, head and critic. `drawn` holds what `draw`
// gives; a term of weight 0 is left out.
const gradients = (nano, run, batch, drawn, weights = run.weights) => {
  const {width} = nano, {params} = run, {prompt} = params, {ce, l_rep, l_head} = weights, n = prompt.length / width;
  const passed = encoderForth(nano, batch, prompt), {z} = passed, logits = logitsOf(nano, run, z);
  const mean = meanRow(prompt, width), grads = zerosLike(params), terms = {};
  const to = {...grads, z: new Float64Array(z.length), mean: new Float64Array(width)};
  if (ce) terms.ce = ceTerm(nano, run, batch, z, logits, to, ce);
  if (l_rep) terms.l_rep = repTerm(nano, run, batch, z, mean, drawn, to, l_rep);
  if (l_head) terms.l_head = headTerm(nano, run, batch, mean, drawn, to, l_head);
  push(grads.prompt, 1, encoderBack(nano, passed, to.z, n), prompt.length);
  for (let i = 0; i < n; i++) push(grads.prompt, 1 / n, to.mean, width, i * width);
  terms.loss = Object.keys(terms).reduce((sum, name) => sum + weights[name] * terms[name], 0);
  return {terms, grads, logits};
};

const zerosLike = params =>
  Object.fromEntries(Object.entries(params).map(([name, x]) => [name, new Float64Array(x.length)]));

// ---- random numbers: a stream for each list of whole numbers, like settings.named_source, but with other numbers ----
// xorshift128 (Marsaglia 2003), with a state mixed from the seeds; normal numbers by Box and Muller (1958).
const randomSource = (...seeds) => {
  let a = 0x9e3779b9, b = 0x7f4a7c15, c = 0xf39cc060, d = 0x5cedc834;
  const uniform = () => { // from 0 up to 1, which it never reaches
    const t = a ^ a << 11;
    [a, b, c] = [b, c, d];
    d = d ^ d >>> 19 ^ t ^ t >>> 8;
    return (d >>> 0) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  const shuffled = list => { // a copy
    const out = [...list];
    for (let i = out.length - 1; i > 0; i--) {
      const j = Math.floor(uniform() * (i + 1));
      [out[i], out[j]] = [out[j], out[i]];
    }
    return out;
  };
  for (const seed of seeds) {
    a ^= seed;
    for (let i = 0; i < 128; i++) uniform();
  }
  return {uniform, normal, shuffled};
};

// A step's negatives and noise: words of each row for L_head, -1 if there are fewer than k; normal numbers for L_rep.
const draw = (nano, {k, weights}, {size, length, input_ids, slot}, source) => {
  const negative_ids = new Int32Array(size * k).fill(-1);
  for (let r = 0; r < size; r++) {
    const own = Array.from({length}, (_, i) => r * length + i), usable = own.filter(place =>
      slot[place] < 0 && !nano.special.includes(input_ids[place]));
    negative_ids.set(source.shuffled(usable).slice(0, k).map(place => input_ids[place]), r * k);
  }
  return {negative_ids, noise: Float64Array.from({length: weights.l_rep ? size * k * nano.width : 0}, source.normal)};
};

// ---- training ----
// A run before its first step. labels: label -> word(s), in the order of the classes; steps: of the whole run.
const newRun = (nano, labels, {template = SINGLE, n_prompt = 4, beta = .1, gamma = .05, k = 32, lr = .01, steps = 240,
  weight_decay = .01, warmup = .06, max_norm = 1, seed = 0, prompt = null} = {}) => {
  const {width} = nano, source = randomSource(seed), names = Object.keys(labels);
  const rows = ids => gather(nano.embeddings, ids, width).subarray(0, ids.length * width);
  const words = names.map(name => tokenize(nano, labels[name]).filter(id => id !== nano.unknown));
  const missing = names.find((_, c) => !words[c].length);
  if (missing !== undefined) throw new Error(`nano does not know the word ${labels[missing]}: choose another`);
  const usable = nano.words.map((_, id) => id).filter(id => !nano.special.includes(id));
  const random = Array.from({length: n_prompt}, () => usable[Math.floor(source.uniform() * usable.length)]);
  const params = {prompt: Float64Array.from(prompt ?? rows(random)), // without a prompt, the start called "vocab"
    head: Float64Array.from(words.flatMap(ids => [...meanRow(rows(ids), width)]))};
  if (beta) params.rep_critic = Float64Array.from({length: width * width}, () => source.normal() / Math.sqrt(width));
  const bias = Float64Array.from(words, ids => ids.reduce((sum, id) => sum + nano.biases[id], 0) / ids.length);
  return {names, template, n_prompt: params.prompt.length / width, k, lr, steps, weight_decay, warmup, max_norm, seed,
    bias, params, weights: {ce: 1, l_rep: beta, l_head: gamma}, m: zerosLike(params), v: zerosLike(params), step: 0};
};

// Linear warm-up, then linear decay; a half rounds to even, as in Python.
const schedule = (step, total, warmup) => {
  const share = total * warmup, even = 2 * Math.round(share / 2);
  const rise = Math.max(1, share % 1 === .5 ? even : Math.round(share));
  return step < rise ? (step + 1) / rise : (total - step) / Math.max(1, total - rise);
};

// One step of AdamW with clipping and schedule; returns the terms, the norm of the gradient and the logits before it.
// If these are not finite, it throws an error and leaves the run as it was.
const trainStep = (nano, run, batch, drawn = draw(nano, run, batch, randomSource(run.seed, run.step))) => {
  const {terms, grads, logits} = gradients(nano, run, batch, drawn);
  const grad_norm = Math.sqrt(Object.values(grads).reduce((sum, g) => sum + dot(g, g, g.length), 0));
  if (!Number.isFinite(terms.loss + grad_norm)) throw new Error(`loss or gradient not finite at step ${run.step + 1}`);
  const lr = run.lr * schedule(run.step, run.steps, run.warmup), t = ++run.step;
  const clip = Math.min(1, run.max_norm / (grad_norm + 1e-6));
  for (const [name, p] of Object.entries(run.params)) {
    const m = run.m[name], v = run.v[name];
    for (let i = 0; i < p.length; i++) {
      const g = clip * grads[name][i];
      m[i] = .9 * m[i] + .1 * g;
      v[i] = .999 * v[i] + .001 * g * g;
      const root = Math.sqrt(v[i] / (1 - .999 ** t)) + 1e-8;
      p[i] = p[i] * (1 - lr * run.weight_decay) - lr / (1 - .9 ** t) * m[i] / root;
    }
  }
  return {...terms, grad_norm, logits};
};

// Rows that are ready for a run: laid out and, if L_rep is on, each with its own un-prompted state z0.
const prepare = (nano, run, data) => {
  const rows = encodeRows(nano, data, run.template, run.n_prompt);
  if (run.weights.l_rep) for (const piece of pieces(rows, 64)) {
    const {z} = encoderForth(nano, collateRows(nano, piece.map(unprompted)), null);
    piece.forEach((row, r) => { row.z0 = z.slice(r * nano.width, (r + 1) * nano.width); });
  }
  return rows;
};

const pieces = (list, size) =>
  Array.from({length: Math.ceil(list.length / size)}, (_, i) => list.slice(i * size, (i + 1) * size));

// Row numbers of an epoch's batches: shuffled, sorted by length within 16 batches, shuffled again.
const epochBatches = (rows, size, seed, epoch) => {
  const source = randomSource(seed, epoch, 1), length = i => rows[i].input_ids.length;
  return pieces(source.shuffled(rows.keys()), 16 * size).flatMap(some =>
    source.shuffled(pieces(some.sort((i, j) => length(i) - length(j)), size)));
};

// A whole training run. It yields {step, epoch, ...} at each step, so that a page can stop, draw, or use a worker.
const training = function* (nano, run, rows, {epochs = 30, batch_size = 8, order_seed = run.seed} = {}) {
  run.steps = epochs * Math.ceil(rows.length / batch_size);
  for (let epoch = 0; epoch < epochs; epoch++) for (const at of epochBatches(rows, batch_size, order_seed, epoch)) {
    const found = trainStep(nano, run, collateRows(nano, at.map(i => rows[i])));
    yield {...found, step: run.step, epoch};
  }
};

// Probabilities of the classes and the best class for each row, and for rows with labels {accuracy, val_loss}.
const judge = (nano, run, rows) => {
  const found = pieces(rows, 64).flatMap(piece => {
    const {z} = encoderForth(nano, collateRows(nano, piece), run.params.prompt);
    return pieces([...logitsOf(nano, run, z)], run.bias.length).map(scores => ({scores, ...softmax(scores)}));
  });
  const chances = found.map(({shares}) => shares), best = chances.map(own => own.indexOf(Math.max(...own)));
  if (rows.some(row => row.label === undefined)) return {chances, best};
  const mean = of => rows.reduce((sum, row, r) => sum + of(row.label, r), 0) / rows.length;
  return {chances, best, accuracy: mean((label, r) => label === best[r] ? 1 : 0),
    val_loss: mean((label, r) => found[r].log - found[r].scores[label])};
};

// [label, probability] for each text or {text, pair}.
const predict = (nano, run, texts) => {
  const data = texts.map(text => typeof text === "string" ? {text} : {text: text.text, pair: text.pair});
  const {chances, best} = judge(nano, run, encodeRows(nano, data, run.template, run.n_prompt));
  return best.map((c, r) => [run.names[c], chances[r][c]]);
};

if (typeof module !== "undefined") {
  module.exports = {SINGLE, PAIR, half, readNano, tokenize, parseTemplate, slotCounts, encodeRows, collateRows,
    unprompted, encoderForth, logitsOf, gradients, newRun, schedule, randomSource, draw, trainStep, prepare, training,
    judge, predict, kernels};
}
