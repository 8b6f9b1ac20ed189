// Draws one figure from one JSON spec (written by infoprompt.show.explore): sentence, controls, plot, settings.
// spec.frame is a plotly figure in which {"$": table} stands for what depends on the controls.

const MISSING = -32768; // the int16 that means "no number"

// A packed table's rows, in base64: bytes that count levels, or int16, scaled, on a log scale where they span orders
// of magnitude.
const unpack = ({data, width, levels, offset, scale, log}) => {
  const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0)), view = new DataView(bytes.buffer);
  const number = levels ? i => levels[bytes[i]] ?? null : i => {
    const q = view.getInt16(2 * i, true), value = offset + scale * q;
    return q === MISSING ? null : scale === 1 ? value : Number((log ? Math.exp(value) : value).toPrecision(4));
  };
  return Array.from({length: bytes.length / (levels ? 1 : 2) / width},
    (_, row) => Array.from({length: width}, (_, column) => number(row * width + column)));
};

// The frame at one place of the grid; `at` maps a control's name to the number of its stop.
const fill = (node, at, stops) => {
  if (Array.isArray(node)) return node.map(part => fill(part, at, stops));
  if (node === null || typeof node !== "object") return node;
  if (!node.$) return Object.fromEntries(Object.entries(node).map(([key, part]) => [key, fill(part, at, stops)]));
  const table = node.$;
  if (table.packed) { table.rows = unpack(table.packed); delete table.packed; }
  return table.rows[table.index[table.over.reduce((flat, name) => flat * stops[name] + at[name], 0)]];
};

// Python's format language, as far as sentences need it: d, .2f, +.2f, .3g, .0%.
const format = (value, how) => {
  if (typeof value !== "number") return value ?? "–";
  const [, sign, digits, kind] = /^(\+?)(?:\.(\d+))?([dfg%]?)$/.exec(how ?? "");
  if (kind === "f") return (sign && value >= 0 ? "+" : "") + value.toFixed(digits ?? 6);
  if (kind === "%") return (100 * value).toFixed(digits ?? 6) + "%";
  return kind === "d" ? value.toFixed(0) : String(Number(value.toPrecision(digits || 6)));
};

const say = (template, numbers) =>
  template.replace(/\{(\w+)(?::([^}]*))?\}/g, (_, name, how) => format(numbers[name], how));

const literal = value => value === true ? "True" : value === false ? "False" : JSON.stringify(value);

// An element with attributes (or properties, or "on..." listeners) and children.
const make = (tag, has = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(has)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  if (node.matches("input, select, button")) node.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes keys
  node.append(...children);
  return node;
};

const STYLE = `
.infoprompt { margin: 0 0 1em; color: inherit; font: inherit; }
.infoprompt figcaption { font-weight: 600; color: inherit; min-height: 2.8em; line-height: 1.4; }
.infoprompt .controls, .infoprompt .settings { display: flex; flex-wrap: wrap; gap: .3em 1.4em; align-items: center;
  margin: .4em 0; }
.infoprompt label { display: flex; flex-wrap: wrap; gap: 0 .5em; align-items: center; max-width: 100%; }
.infoprompt output { font-weight: 600; min-width: 7ch; font-variant-numeric: tabular-nums; }
.infoprompt input[type=range] { width: 11em; max-width: 100%; margin: 0; }
.infoprompt input[type=text] { width: 22em; max-width: 100%; }
.infoprompt fieldset { display: flex; flex-wrap: wrap; gap: .3em; align-items: center; border: 0; margin: 0; padding: 0;
  min-width: 0; }
.infoprompt legend { float: left; padding: 0; margin: 0 .3em 0 0; width: auto; font-size: inherit; color: inherit; }
.infoprompt fieldset label { border: 1px solid #80848c; border-radius: 1em; padding: .05em .7em; cursor: pointer; }
.infoprompt fieldset input { position: absolute; opacity: 0; margin: 0; }
.infoprompt fieldset label:has(:checked) { background: #2f6fb5; border-color: #2f6fb5; color: #fff; }
.infoprompt fieldset label:has(:focus-visible) { outline: 3px solid #3b8ee0; outline-offset: 2px; }
@media (max-width: 600px) { /* the figure before its controls, where these fill a screen */
  .infoprompt.many { display: flex; flex-direction: column; }
  .infoprompt.many .plot { order: -1; }
  .infoprompt.many figcaption { order: -2; }
}
.infoprompt .guess { margin: .4em 0; }
.infoprompt .guess button { margin-left: .5em; }
.infoprompt select, .infoprompt button, .infoprompt input[type=text] { font: inherit; color: inherit;
  background: transparent; border: 1px solid #80848c; border-radius: .25em; padding: .1em .5em; max-width: 100%; }
.infoprompt option { color: #222; background: #fff; }
.infoprompt button { cursor: pointer; }
.infoprompt :focus-visible { outline: 3px solid #3b8ee0; outline-offset: 2px; }
.infoprompt code { font-size: .85em; overflow-wrap: anywhere; color: inherit; background: transparent; }`;

// plotly.js: the page's own, else from the first source that has it, once for all figures of the page.
const load = src => new Promise((done, failed) => {
  const define = window.define; // an AMD loader on the page would swallow it
  const end = then => () => { window.define = define; then(); };
  window.define = undefined;
  document.head.append(make("script", {src, onload: end(done), onerror: end(failed)}));
});
const plotly = sources => window.infopromptPlotly ??= (async () => {
  for (const source of sources) {
    if (window.Plotly) break;
    try { await load(typeof source === "string" ? source : await source()); } catch {}
  }
})();

// A line that moved leaves a thin grey trace where it was.
const same = (one, other) => one.name === other.name && one.yaxis === other.yaxis
  && JSON.stringify([one.x, one.y]) === JSON.stringify([other.x, other.y]);
const ghosts = (before, now) => before.data
  .filter(trace => (trace.mode ?? "").includes("lines") && trace.meta !== "band" && trace.visible !== false
    && !now.data.some(other => same(trace, other)))
  .map(({x, y, xaxis, yaxis}) => ({x, y, xaxis, yaxis, mode: "lines", hoverinfo: "skip", showlegend: false,
    opacity: .6, line: {color: "#80848c", width: 1.5, dash: "dot"}}));

// A layout with some of its parts, named as "xaxis.domain", replaced.
const changed = (layout, parts) => {
  layout = structuredClone(layout);
  for (const [path, value] of Object.entries(parts ?? {})) {
    const names = path.split("."), last = names.pop();
    names.reduce((node, name) => node[name] ??= {}, layout)[last] = value;
  }
  return layout;
};

const NARROW = 600; // pixels of a figure below which `frame.narrow` holds

// One figure. `ask(state)` computes what is not baked and is there only where a kernel runs.
const show = (place, spec, sources, ask) => {
  const stops = Object.fromEntries(spec.controls.map(c => [c.name, c.values?.length ?? 0]));
  const start = () => Object.fromEntries(spec.controls.map(c => [c.name, c.start]));
  const key = control => `${spec.name}.${control.name}`;
  const serial = window.infopromptSerial = (window.infopromptSerial ?? 0) + 1; // so that radio buttons are groups
  let state = start(), before = null, frame = null, asked = 0, moving = false, narrow = false, running = null;

  const index = control => control.values.indexOf(state[control.name]);
  const baked = () => spec.controls.every(c => c.values ? index(c) >= 0 : state[c.name] === c.start);
  const find = async () => baked()
    ? fill(spec.frame, Object.fromEntries(spec.controls.map(c => [c.name, c.values ? index(c) : 0])), stops)
    : ask(state);

  const caption = make("figcaption", {"aria-live": "polite"});
  const plot = make("div", {role: "img", className: "plot"});
  plot.style.minHeight = `${spec.frame.layout.height ?? 450}px`;
  const code = make("code");
  const script = () => `${spec.call.name}(${spec.controls.map(c => `${c.name}=${literal(state[c.name])}`).join(", ")})`;

  const present = () => {
    caption.textContent = say(frame.sentence, frame.numbers);
    plot.setAttribute("aria-label", say(frame.about, frame.numbers));
    if (!window.Plotly) plot.textContent = plot.getAttribute("aria-label");
    redraw();
  };
  const redraw = () => {
    if (!window.Plotly || !frame) return;
    if (!plot.data) plot.textContent = "";
    narrow = place.clientWidth < NARROW;
    const layout = changed(frame.layout, {...narrow ? frame.narrow : {}, "font.color": getComputedStyle(place).color});
    if (layout.height) plot.style.minHeight = `${layout.height}px`;
    window.Plotly.react(plot, [...before ? ghosts(before, frame) : [], ...frame.data], layout, {displayModeBar: false});
  };
  // A press on a map, or a drag over it: its cells are settings.
  const toCell = ({clientX, clientY}) => {
    const trace = plot.data?.find(({meta}) => meta?.x);
    if (!trace) return;
    const box = plot.getBoundingClientRect(), found = {};
    for (const [side, at] of [["x", clientX - box.x], ["y", clientY - box.y]]) {
      const axis = plot._fullLayout[trace[`${side}axis`].replace(side, `${side}axis`)];
      const label = axis._categories[Math.round(axis.p2c(at - axis._offset))];
      const control = spec.controls.find(c => c.name === trace.meta[side]);
      found[control.name] = control.values.find(value => String(value) === label);
    }
    if (Object.values(found).includes(undefined)) return; // outside the map
    if (Object.entries(found).some(([name, value]) => state[name] !== value)) set(found);
  };
  plot.addEventListener("pointerdown", down => {
    toCell(down);
    const over = new AbortController();
    window.addEventListener("pointermove", toCell, over);
    for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, () => over.abort(), over);
  });
  const update = async () => {
    const turn = ++asked;
    for (const control of spec.controls) control.show(state[control.name]);
    if (spec.call) code.textContent = script();
    try {
      const found = await find();
      if (turn !== asked) return; // a later setting is on its way
      frame = found;
      present();
    } catch (error) { caption.textContent = error.message; }
  };
  const toHash = () => {
    const params = new URLSearchParams(location.hash.slice(1)), kept = [...params].filter(([name]) =>
      name.includes(".") && !name.startsWith(`${spec.name}.`));
    const own = spec.controls.filter(c => state[c.name] !== c.start).map(c => [key(c), state[c.name]]);
    const hash = new URLSearchParams([...kept, ...own]).toString();
    try { history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search); } catch {}
  };
  const fromHash = () => {
    const params = new URLSearchParams(location.hash.slice(1));
    for (const c of spec.controls.filter(c => c.values && params.has(key(c)))) {
      const found = c.values.find(value => String(value) === params.get(key(c)));
      if (found !== undefined) state[c.name] = found;
    }
  };
  const set = (changed, ended = true) => {
    running?.stop();
    if (!moving) before = frame;
    moving = !ended;
    state = {...state, ...changed};
    if (ended) toHash();
    return update();
  };

  const field = control => {
    const {name, label, values, published} = control;
    if (!values) {
      const send = () => { if (input.value !== state[name]) set({[name]: input.value}); };
      const input = make("input", {type: "text", disabled: !ask, onchange: send,
        onkeydown: event => { if (event.key === "Enter") send(); }, // in JupyterLab Enter is no change
        placeholder: ask ? "" : "in a notebook you can type here"});
      control.show = value => { if (ask) input.value = value; };
      return make("label", {}, label, input);
    }
    if (control.chips) {
      const inputs = values.map(value => make("input", {type: "radio", name: `${spec.name}.${name}.${serial}`,
        onchange: () => set({[name]: value})}));
      control.show = value => inputs.forEach((input, i) => { input.checked = values[i] === value; });
      return make("fieldset", {}, make("legend", {}, label),
        ...values.map((value, i) => make("label", {}, inputs[i], value + (value === published ? " (published)" : ""))));
    }
    if (typeof values[0] !== "number") {
      const select = make("select", {onchange: () => set({[name]: values[select.selectedIndex]})},
        ...values.map(value => make("option", {}, value)));
      control.show = value => { select.selectedIndex = values.indexOf(value); };
      return make("label", {}, label, select);
    }
    const told = value => value + (value === published ? " (published)" : "");
    const out = make("output"), move = ended => () => set({[name]: values[Number(range.value)]}, ended);
    const range = make("input", {type: "range", min: 0, max: values.length - 1, step: 1, oninput: move(false),
      onchange: move(true)});
    control.show = value => {
      range.value = values.indexOf(value);
      out.textContent = told(value);
      range.setAttribute("aria-valuetext", told(value));
    };
    return make("label", {}, label, range, out);
  };

  // Predict before you see: a preset is shown once the reader has said what to expect of it.
  const guess = make("div", {className: "guess", "aria-live": "polite"});
  const expect = (name, preset) => {
    const {ask: question, answers, number, low, high, verdict} = spec.guess;
    const say_so = given => async () => {
      await set({...start(), ...preset});
      const {[number]: value, [low]: from, [high]: to} = frame.numbers;
      const right = typeof from !== "number" ? null : answers[from > 0 ? 2 : to < 0 ? 0 : 1];
      guess.textContent = right === null ? "" : `${given === right ? "Yes" : "No"}: you said ${given}; ` +
        `${say(verdict, {value, from, to})}: ${right}.`;
    };
    guess.replaceChildren(`${name}: ${question}`, ...answers.map(answer =>
      make("button", {type: "button", onclick: say_so(answer)}, answer)));
    guess.querySelector("button").focus();
  };
  const buttons = Object.entries(spec.presets ?? {}).map(([name, preset]) => make("button", {type: "button",
    onclick: () => {
      guess.textContent = "";
      spec.guess?.of.some(name => preset[name]) ? expect(name, preset) : set({...start(), ...preset});
    }}, name));
  const train = make("button", {type: "button", onclick: async () => { // the chosen setting, in the kernel
    if (running) { running.stop(); return; }
    before = null;
    train.textContent = "stop";
    running = ask.train(state, found => { frame = found; present(); });
    try { await running.ended; } catch (error) { caption.textContent = error.message; }
    running = null;
    train.textContent = spec.live;
  }}, spec.live ?? "");
  if (spec.live && ask?.train) buttons.push(train);
  const reset = () => { state = start(); before = null; moving = false; guess.textContent = ""; toHash(); update(); };
  if (spec.controls.length) buttons.push(make("button", {type: "button", onclick: reset}, "reset"));
  const copy = make("button", {type: "button", onclick: async () => {
    await navigator.clipboard.writeText(`${spec.call.imports}\n\nshow(${script()})`);
    copy.textContent = "copied"; setTimeout(() => { copy.textContent = "copy these settings"; }, 1500);
  }}, "copy these settings");

  place.replaceChildren(make("style", {}, STYLE), caption,
    ...spec.controls.length ? [make("div", {className: "controls"}, ...spec.controls.map(field)),
      make("div", {className: "controls"}, ...buttons)] : [], ...spec.guess ? [guess] : [], plot,
    ...spec.call ? [make("div", {className: "settings"}, code, copy)] : []);
  place.classList.add("infoprompt", ...spec.controls.length > 4 ? ["many"] : []);
  fromHash();
  window.addEventListener("hashchange", () => {
    if (location.hash.includes(`${spec.name}.`)) { before = frame; state = start(); fromHash(); update(); }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new MutationObserver(redraw).observe(document.body,
    {attributes: true, attributeFilter: ["class", "data-jp-theme-light"]});
  new ResizeObserver(() => { // also when JupyterLab first shows a figure that was drawn out of sight
    if (!plot.data || !plot.checkVisibility()) return;
    if (narrow !== place.clientWidth < NARROW) redraw();
    window.Plotly.Plots.resize(plot);
  }).observe(plot);
  return update().then(() => plotly(sources)).then(redraw);
};
