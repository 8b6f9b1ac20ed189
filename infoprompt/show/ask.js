// Asks five prompts the same sentence. It follows playground.js in one script. Until the reader asks, the page shows
// stored answers, which infoprompt.show.playground wrote; the first question starts the worker.

const strip = places => places.map(({token, kind}) => make("span", {className: kind,
  ...kind === "unknown" ? {title: "nano does not know this word"} : {}}, kind === "unknown" ? `${token}?` : token));

// One prompt's answer: {name, about} and {chances, words}.
const answerOf = ({name, about}, labels, {chances, words}) => make("div", {role: "group", "aria-label": name},
  make("strong", {}, name), make("p", {}, about), ...Object.keys(labels).map((label, c) => {
    const bar = make("i"), most = chances[c] === Math.max(...chances);
    bar.style.width = `${100 * chances[c]}%`;
    return make("div", {className: most ? "bar most" : "bar"}, make("span", {}, label),
      make("output", {}, chances[c].toFixed(2)), make("div", {}, bar));
  }), make("p", {}, `[MASK]: ${words.filter(([, p]) => p >= .001).map(([word, p]) =>
    `${word} ${(100 * p).toFixed(p < .0995 ? 1 : 0)}\xa0%`).join(", ")}`));

const askHere = (place, spec) => {
  let worker = null, known = null, asked = 0, touched = false, yours = spec.yours, wait = null;
  const ready = prompt => typeof prompt.prompt === "string"
    ? {...prompt, prompt: numbersOf(prompt.prompt), head: numbersOf(prompt.head)} : prompt;
  const task = () => spec.tasks[picked.value()];
  const fits = () => yours && JSON.stringify(yours.labels) === JSON.stringify(task().labels)
    && yours.template === task().template && yours.task === picked.value();
  // The four prompts of the task; the fifth is the reader's own or, until there is one, that of the published weights.
  const prompts = () => [...task().prompts.filter(({name}) => name !== "published" || !fits()),
    ...fits() ? [{...yours, name: "yours"}] : []].map(one => ({...ready(one), labels: task().labels,
      template: task().template}));

  const status = make("p", {className: "status", role: "status", "aria-live": "polite"});
  const row = make("div", {className: "strip"}), answers = make("div", {className: "answers"});
  const offered = make("datalist", {id: `${place.id}-words-${asksOnPage++}`});
  const draw = (places, found) => {
    row.replaceChildren(...strip(places));
    answers.replaceChildren(...prompts().map((one, i) => answerOf(one, task().labels, found[i])));
  };
  const hear = ({words, id, answers: found, places, error}) => {
    if (words) { known = words; offer(text); }
    if (id !== undefined && id !== asked) return; // a later question is on its way
    if (error) status.textContent = `Nothing can be asked: ${error}.`;
    if (!found) return;
    draw(places, found);
    const lost = places.filter(({kind}) => kind === "unknown").map(({token}) => token);
    status.textContent = lost.length ? `nano does not know ${lost.join(", ")}: it reads <unk> there.` : "";
  };
  const ask = () => {
    try { worker ??= hire(hear); } catch (error) { hear({error: error.message}); return; }
    const given = {text: text.value, ...task().pair ? {pair: pair.value} : {}};
    worker.postMessage({ask: {id: ++asked, prompts: prompts(), row: given}});
  };
  // The words of nano that begin like the last word typed, each after the text before it.
  const offer = input => {
    const [, before, begun] = /^(.*?)([^\s.,?!]*)$/s.exec(input.value);
    offered.replaceChildren(...(known ?? []).filter(word => begun && word.startsWith(begun.toLowerCase()))
      .map(word => make("option", {value: before + word})));
  };
  const typed = ({target}) => {
    touched = true;
    offer(target);
    clearTimeout(wait);
    wait = setTimeout(ask, 150);
  };
  const input = (label, name) => {
    const field = make("input", {type: "text", name, autocomplete: "off", spellcheck: false, oninput: typed});
    field.setAttribute("list", offered.id);
    return [field, make("label", {}, label, field)];
  };
  const [text, textLabel] = input("your sentence", "text"), [pair, pairLabel] = input("second sentence", "pair");
  const begin = () => { // the sentence whose answers are stored
    const {text: first, pair: second} = task().asked;
    [text.value, pair.value] = [first, second ?? ""];
    pairLabel.hidden = second === undefined;
    pairLabel.style.display = second === undefined ? "none" : "";
  };
  const stored = () => {
    const five = prompts();
    if (five.every(one => one.answer)) draw(task().places, five.map(one => one.answer));
    else ask();
  };
  const changed = () => { asked++; begin(); stored(); };
  const picked = choice({name: "task", label: "task", values: Object.keys(spec.tasks), start: spec.task}, () => {
    touched = true;
    changed();
  });
  place.replaceChildren(make("style", {}, STYLE), make("figcaption", {}, spec.caption),
    make("div", {className: "controls"}, picked.node, textLabel, pairLabel, offered), row, status, answers);
  place.classList.add("infoprompt");
  document.addEventListener("infoprompt:yours", () => {
    const before = fits();
    yours = window.infopromptYours;
    if (!touched && yours.task in spec.tasks && picked.value() !== yours.task) { picked.set(yours.task); begin(); }
    if (fits() || before) ask();
  });
  changed();
};
let asksOnPage = 0;
