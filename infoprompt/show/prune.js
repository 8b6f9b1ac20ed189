// A trained prompt, token by token: the reader removes some, and nano answers five sentences anew. It follows
// playground.js in one script; infoprompt.show.prune wrote the spec. The first click starts the worker.

// A sentence with a bar for each label; `before`, the whole prompt's chances, tells whether the answer has changed.
const sentenceOf = (text, labels, chances, before) => {
  const best = own => own.indexOf(Math.max(...own)), changed = best(chances) !== best(before);
  return make("div", {role: "group", "aria-label": text}, make("p", {}, text), ...labels.map((label, c) => {
    const bar = make("i");
    bar.style.width = `${100 * chances[c]}%`;
    return make("div", {className: c === best(chances) ? "bar most" : "bar"}, make("span", {}, label),
      make("output", {}, chances[c].toFixed(2)), make("div", {}, bar));
  }), make("p", {className: "verdict"}, changed ? `changed: it was ${labels[best(before)]}` : "\xa0"));
};

const pruneHere = (place, spec) => {
  const {asked, chances: whole, effects, shades} = spec, count = effects.length, removed = new Set();
  const labels = Object.keys(spec.labels), prompt = numbersOf(spec.prompt), head = numbersOf(spec.head);
  let worker = null, turn = 0, found = [], first = null;

  const status = make("p", {className: "status", role: "status", "aria-live": "polite"});
  const answers = make("div", {className: "answers"});
  const order = [...effects.keys()].sort((i, j) => Math.abs(effects[j]) - Math.abs(effects[i]));
  const best = own => own.indexOf(Math.max(...own));
  const tell = () => {
    const gone = [...removed].sort((i, j) => i - j), moved = found.filter((own, i) => best(own) !== best(whole[i]));
    const names = gone.length > 1 ? `tokens ${gone.join(", ")} are removed` : `token ${gone[0]} is removed`;
    status.textContent = !gone.length ? "The prompt is whole."
      : `${moved.length} of ${asked.length} answers changed; ${names}.`;
    if (gone.length && first !== null) status.textContent += ` Your first pick was token ${first}: of ${count}, its `
      + `removal has effect number ${order.indexOf(first) + 1} on the training loss.`;
  };
  const draw = () => {
    answers.replaceChildren(...asked.map((text, i) => sentenceOf(text, labels, found[i], whole[i])));
    tell();
  };
  const hear = ({id, answers: one, error}) => {
    if (error) status.textContent = `Nothing can be computed: ${error}.`;
    if (!one || Math.floor(id / asked.length) !== turn) return; // of an earlier click
    found[id % asked.length] = [...one[0].chances];
    if (asked.every((_, i) => found[i])) draw();
  };
  const ask = () => {
    turn++;
    found = [];
    if (!removed.size) { found = whole; draw(); return; }
    try { worker ??= hire(hear); } catch (error) { hear({error: error.message}); return; }
    const width = prompt.length / count, left = prompt.map((x, i) => removed.has(Math.floor(i / width)) ? 0 : x);
    const given = {labels: spec.labels, template: spec.template, prompt: left, head};
    asked.forEach((text, i) => worker.postMessage({ask: {id: turn * asked.length + i, prompts: [given],
      row: {text}}}));
  };

  const tokens = effects.map((effect, i) => {
    const seen = make("small", {hidden: true}, Math.abs(effect) < .0005 ? "≈ 0" : effect.toFixed(3));
    const button = make("button", {type: "button", className: `shade${shades[i]}`, onclick: () => {
      first ??= i;
      if (!removed.delete(i)) removed.add(i);
      button.setAttribute("aria-pressed", removed.has(i));
      ask();
    }}, String(i));
    button.setAttribute("aria-pressed", false);
    button.setAttribute("aria-label", `remove token ${i}`);
    return {button, seen, node: make("span", {}, button, seen)};
  });
  const back = make("button", {type: "button", onclick: () => {
    removed.clear();
    tokens.forEach(({button}) => button.setAttribute("aria-pressed", false));
    ask();
  }}, "make it whole again");
  const effect = make("button", {type: "button", onclick: () => {
    const shown = effect.getAttribute("aria-expanded") !== "true";
    effect.setAttribute("aria-expanded", shown);
    tokens.forEach(({seen}) => { seen.hidden = !shown; });
  }}, "show what each removal does to the training loss, in nats");
  effect.setAttribute("aria-expanded", false);
  place.replaceChildren(make("style", {}, STYLE), make("figcaption", {}, spec.caption), make("p", {}, spec.predict),
    make("div", {className: "tokens", role: "group", "aria-label": "the prompt's tokens"},
      ...tokens.map(({node}) => node)), make("div", {className: "controls"}, back, effect), status, answers);
  place.classList.add("infoprompt");
  found = whole;
  draw();
};
