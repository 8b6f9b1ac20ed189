// The page that trains and asks a prompt. It stands after explore.js in one script, whose `make` and `STYLE` it uses;
// infoprompt.show.playground writes the spec, and the words and picture that stand here before it. All computing is
// done by a Web Worker (nano.js and worker.js), made from a Blob so that it also works from file://.

// ---- nano on this page: one element brings it, and all use it ----
const bytesOf = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer;
const numbersOf = text => new Float32Array(bytesOf(text));

// A worker with nano in it; `hear` gets its messages. Throws an error of one line if no worker can be had.
const hire = hear => {
  const {code, weights} = window.infopromptNano ?? {};
  if (!code) throw new Error("nano's weights are not on this page: show an element with weights=True");
  if (typeof Worker === "undefined") throw new Error("this browser has no Web Workers");
  const address = URL.createObjectURL(new Blob([code], {type: "text/javascript"})), worker = new Worker(address);
  worker.onmessage = ({data}) => hear(data);
  worker.onerror = ({message}) => hear({error: message || "the worker could not be started"});
  const asset = bytesOf(weights);
  worker.postMessage({load: asset}, [asset]);
  return worker;
};

// ---- drawing ----
const svg = (tag, has = {}, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(has)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};
const INK = {mine: "#2aa587", own: "#3b8ee0", band: "#80848c", ce: "#3b8ee0", l_rep: "#cf7d1a", l_head: "#2aa587"};

// One panel: lines of {values (by epoch), colour, dash, width} and areas of {low, high} on axes from 0 to `top`.
const panel = ({width, height, epochs, top, title, first = 0}, lines, areas = []) => {
  const left = 40, right = 10, above = 20, below = 26, n = value => value.toFixed(1);
  const x = epoch => left + (width - left - right) * epoch / epochs;
  const y = value => height - below - (height - above - below) * Math.min(value, top) / top;
  const at = (values, from) => values.map((value, i) => value === null ? "" : `${n(x(i + from))},${n(y(value))}`);
  const grid = [0, .25, .5, .75, 1].flatMap(share => [
    svg("line", {x1: left, x2: width - right, y1: y(share * top), y2: y(share * top), stroke: "currentColor",
      "stroke-opacity": .15}),
    svg("text", {x: left - 6, y: y(share * top) + 4, "text-anchor": "end"}, String(+(share * top).toPrecision(2)))]);
  const ticks = Array.from({length: 7}, (_, i) => Math.round(epochs * i / 6)).map(epoch =>
    svg("text", {x: x(epoch), y: height - 8, "text-anchor": "middle"}, String(epoch)));
  const shapes = areas.map(({low, high, colour}) => svg("polygon", {fill: colour, "fill-opacity": .25,
    points: [...at(high, 0), ...at(low, 0).reverse()].join(" ")}));
  const drawn = lines.map(({values, colour, dash = "", width: wide = 2, from = first}) => svg("polyline", {fill: "none",
    stroke: colour, "stroke-width": wide, "stroke-dasharray": dash, points: at(values, from).join(" ")}));
  return svg("svg", {viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true"}, ...grid, ...ticks, ...shapes, ...drawn,
    svg("text", {x: left, y: 12}, title));
};
const keyOf = (name, colour, dash) => {
  const mark = make("i");
  Object.assign(mark.style, {borderTopColor: colour, borderTopStyle: dash ?? "solid"});
  return make("span", {}, mark, name);
};

// A label with a select; `act` is called when another value is chosen.
const choice = ({name, label, values, start, published}, act) => {
  const told = value => value + (value === published ? " (published)" : "");
  const select = make("select", {name, onchange: act}, ...values.map(value => make("option", {}, told(value))));
  select.selectedIndex = values.indexOf(start);
  return {name, label, node: make("label", {}, label, select), value: () => values[select.selectedIndex],
    set: value => { select.selectedIndex = values.indexOf(value); }};
};

// ---- train it yourself ----
// Rows from their packed form: two letters a word, "," before a second text, "." after each row.
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";
const unpackRows = ({rows, classes}, words) => rows.split(".").map((row, i) => {
  const [text, pair] = row.split(",").map(part => part.match(/../g).map(two =>
    words[64 * LETTERS.indexOf(two[0]) + LETTERS.indexOf(two[1])]).join(" "));
  return {text, label: Number(classes[i]), ...pair === undefined ? {} : {pair}};
});

// All that a worker needs for a training run with these settings.
const planOf = (spec, settings) => {
  const {task, seed} = settings, own = spec.tasks[task], {noise, epochs, steps} = spec;
  own.unpacked ??= unpackRows(own, spec.words);
  const pick = at => at.map(i => own.unpacked[i]), rows = new Uint8Array(bytesOf(noise.rows));
  const cut = (list, size, count, from = 0) => Array.from({length: count}, (_, i) =>
    [...list.subarray((from + i) * size, (from + i + 1) * size)]);
  const streams = name => cut(new Uint32Array(bytesOf(noise[name])), epochs * steps, 1, seed)[0];
  return {rows: pick(own.train[seed]), held: pick(own.validation[seed]),
    orders: cut(rows, own.train[seed].length, epochs, seed * epochs),
    turns: cut(new Uint8Array(bytesOf(noise.batches)), steps, epochs),
    seeds: {head: streams("head"), rep: streams("rep")},
    settings: {...settings, labels: own.labels, template: own.template, informed: own.informed[seed],
      critic: noise.critic[seed]}};
};

// The stored runs of a setting: {low, middle, high, own (of this seed), n, stuck}, or null.
const storedOf = (spec, {task, lr, start, beta, gamma, seed}) => {
  const found = spec.stored[[task, lr, start, beta, gamma].join(" ")], length = spec.epochs + 1;
  if (!found) return null;
  const all = [...new Uint8Array(bytesOf(found.curves))].map(level => level / 250);
  const [low, middle, high, own] = [0, 1, 2, 3 + seed].map(i => all.slice(i * length, (i + 1) * length));
  return {low, middle, high, own, n: found.n, stuck: found.stuck};
};

const trainHere = (place, spec) => {
  const told = [], ghost = [], two = value => value === null ? "–" : value.toFixed(2);
  let worker = null, running = false, going = null, serial = 0, best = null, speed = null, at = 0, drawn = 0;

  const ready = typeof Worker !== "undefined" ? "Press Train." : "This browser has no Web Workers, so nothing can be "
    + "trained here; the stored runs are drawn.";
  const status = make("p", {className: "status", role: "status", "aria-live": "polite"});
  const progress = make("p", {className: "progress"}), chart = make("div", {role: "img", className: "chart"});
  const extra = make("details", {className: "terms"}, make("summary", {}, "the terms of the loss"));
  const keys = make("div", {className: "keys"}), terms = make("div"), path = make("div"), push = make("div");
  extra.append(terms);
  const settings = () => Object.fromEntries(fields.map(field => [field.name, field.value()]));
  const majority = () => spec.tasks[settings().task].majority[settings().seed];
  const paced = () => !at ? "" : `step ${at} of ${spec.epochs * spec.steps}`
    + (speed ? `, ${speed.toFixed(1)} steps a second` : "");

  const redraw = () => {
    const stored = storedOf(spec, settings()), width = Math.max(280, Math.min(place.clientWidth || 600, 900));
    const {seed} = settings(), {epochs} = spec, flat = value => Array(epochs + 1).fill(value);
    const untrained = told[0]?.score ?? stored?.own[0] ?? null;
    const scores = told.map(one => one.score);
    const lines = [{values: flat(majority()), colour: "currentColor", dash: "8 5", width: 1.5},
      ...untrained === null ? [] : [{values: flat(untrained), colour: "currentColor", dash: "2 4", width: 1.5}],
      ...stored ? [{values: stored.middle, colour: INK.band, width: 1.5},
        {values: stored.own, colour: INK.own, dash: "6 4"}] : [],
      {values: ghost.map(one => one.score), colour: INK.band, dash: "2 3"},
      {values: scores, colour: INK.mine, width: 4}];
    chart.replaceChildren(panel({width, height: 300, epochs, top: 1, title: "validation accuracy, by epoch"}, lines,
      stored ? [{...stored, colour: INK.band}] : []));
    const said = stored ? `${stored.n} stored runs of this setting: the grey band holds the middle 80 %; ${stored.stuck} `
      + "got stuck. " : "No runs of this setting are stored, so there is no band. ";
    chart.setAttribute("aria-label", `${said}Majority ${two(majority())}, untrained ${two(untrained)}. Yours by epoch: `
      + (scores.length ? scores.map(two).join(", ") : "not trained yet"));
    keys.replaceChildren(keyOf("yours", INK.mine), ...stored ? [keyOf(`the stored run with seed ${seed}`, INK.own,
      "dashed"), keyOf(`${stored.n} stored runs: middle 80 %, and median; ${stored.stuck} stuck`, INK.band)]
      : [make("span", {}, "no runs of this setting are stored, so there is no band")],
      keyOf(`majority ${two(majority())}`, "currentColor", "dashed"), ...untrained === null ? []
        : [keyOf(`untrained ${two(untrained)}`, "currentColor", "dotted")]);
    const shown = ["ce", "l_rep", "l_head"].filter(name => told.some(one => typeof one[name] === "number"));
    const by = shown.map(name => told.slice(1).map(one => one[name])), top = Math.max(.1, ...by.flat());
    terms.replaceChildren(panel({width, height: 180, epochs, top, title: "nats, by epoch", first: 1},
      by.map((values, i) => ({values, colour: INK[shown[i]]}))), make("div", {className: "keys"},
      ...shown.map(name => keyOf({ce: "cross-entropy", l_rep: "L_rep", l_head: "L_head"}[name], INK[name]))));
    progress.textContent = paced();
    drawn = place.clientWidth;
    if (told.length < 2) { path.replaceChildren(); push.replaceChildren(); return; }
    const [first, ...later] = told.map(one => projectPrompt(one.prompt, spec.plane));
    drawPath(path, {...spec.plane, start: first, points: later, nearest: told.at(-1).nearest});
    drawPush(push, told.slice(1));
  };

  // The best epoch so far is the reader's prompt: `fit` keeps the same one in Python.
  const keep = one => {
    if (one.epoch && (!best || one.score > best.score || one.score === best.score && one.val_loss < best.val_loss)) {
      const {task} = settings(), {labels, template} = spec.tasks[task];
      best = one;
      window.infopromptYours = {task, labels, template, prompt: one.prompt, head: one.head,
        about: fields.slice(1).map(({label, value}) => `${label} ${value()}`).join(", ") + `, epoch ${one.epoch}`};
      document.dispatchEvent(new Event("infoprompt:yours"));
    }
  };
  const ended = step => {
    running = false;
    button.textContent = "Train";
    const epochs = +(step / spec.steps).toFixed(2), most = best ? `${two(best.score)} after epoch ${best.epoch}` : "–";
    status.textContent = epochs === spec.epochs
      ? `Trained for ${epochs} epochs. Best validation accuracy: ${most}; majority ${two(majority())}.`
      : `Stopped after ${epochs} of ${spec.epochs} epochs. Best validation accuracy: ${most}. The prompt is kept, and `
        + "Train continues from there.";
    if (best) worker.postMessage({test: {id: serial, prompt: window.infopromptYours, rows: testRows()}});
  };
  const testRows = () => spec.tasks[settings().task].test.map(i => spec.tasks[settings().task].unpacked[i]);
  const hear = message => {
    if ("id" in message && message.id !== serial) return; // of a training run that is no longer wanted
    if ("error" in message) {
      running = false;
      button.textContent = "Train";
      status.textContent = `Nothing can be trained: ${message.error}.`;
    }
    if ("epoch" in message) {
      told.push(message);
      speed = message.speed ?? speed;
      keep(message);
      if (message.epoch % 5 === 0) status.textContent = `Epoch ${message.epoch} of ${spec.epochs}: validation accuracy `
        + `${two(message.score)}; majority ${two(majority())}.`;
      redraw();
    }
    if ("step" in message) { at = message.step; progress.textContent = paced(); }
    if ("ended" in message) ended(message.ended);
    if ("tested" in message) status.textContent += ` On ${testRows().length} test rows: ${two(message.tested)}.`;
  };
  const forget = () => {
    if (told.length > 1) ghost.splice(0, ghost.length, ...told);
    told.length = at = 0;
    going = best = speed = null;
  };
  const toggle = () => {
    if (running) { worker.postMessage({stop: true}); return; }
    const now = JSON.stringify(settings()), on = going === now && at < spec.epochs * spec.steps;
    try { worker ??= hire(hear); } catch (error) { hear({error: error.message}); return; }
    status.textContent = on ? "Training continues." : "Training begins.";
    button.textContent = "Stop";
    running = true;
    if (on) { worker.postMessage({go: true}); return; }
    forget();
    going = now;
    worker.postMessage({train: {id: ++serial, ...planOf(spec, settings())}});
  };
  const changed = () => { // another setting is another training run
    if (running) worker.postMessage({stop: true});
    running = false;
    serial++;
    button.textContent = "Train";
    forget();
    status.textContent = ready;
    redraw();
  };

  const fields = spec.fields.map(field => choice(field, changed));
  const button = make("button", {type: "button", onclick: toggle, className: "train"}, "Train");
  const over = make("button", {type: "button", onclick: changed}, "start over");
  const caption = make("figcaption", {}, spec.caption);
  place.replaceChildren(make("style", {}, STYLE), caption,
    make("div", {className: "controls"}, ...fields.map(field => field.node)),
    make("div", {className: "controls"}, button, over, progress), chart, keys, status, extra, path, push);
  place.classList.add("infoprompt");
  status.textContent = ready;
  new ResizeObserver(() => { if (drawn !== place.clientWidth) redraw(); }).observe(place);
  redraw();
};
