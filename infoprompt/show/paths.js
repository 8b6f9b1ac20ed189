// Two drawings for a page on which a prompt trains: where its vectors point among the words, and which term of the loss
// pushes them. Each is one SVG that takes the page's own text colour and width; nothing is loaded.
// infoprompt.show.landscape.plane() gives the plane: {axes: [2][d], mean: [d], variance, words: [[word, x, y], ...]}.
const {projectPrompt, drawPath, drawPush} = (() => {
  const COLOURS = ["#e07b39", "#3b8ee0", "#2aa587", "#b07cc6"], WIDE = 360, FONT = 12;
  const TERMS = {ce: ["cross-entropy", "#3b8ee0", ""], rep: ["β·L_rep", "#cf7d1a", "7 3"],
    head: ["γ·L_head", "#2aa587", "2 3"]}, AT = [44, 170, 262]; // where a term's name stands

  // An element as text: attributes, then children, which are text already.
  const ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"};
  const safe = text => String(text).replace(/[&<>"]/g, c => ENTITIES[c]);
  const make = (tag, has = {}, ...children) =>
    `<${tag}${Object.entries(has).map(([k, v]) => ` ${k}="${safe(v)}"`).join("")}>${children.join("")}</${tag}>`;
  const round = x => Number(x.toFixed(1));
  const percent = x => `${(100 * x).toFixed(0)} %`;
  const label = (x, y, words, has = {}) => make("text", {x: round(x), y: round(y), "font-size": FONT,
    fill: "currentColor", ...has}, safe(words));

  const draw = (div, height, about, parts) => {
    div.innerHTML = make("svg", {viewBox: `0 0 ${WIDE} ${height}`, role: "img", "aria-label": about,
      style: `display: block; width: 100%; max-width: ${1.5 * WIDE}px; color: inherit; font-family: inherit`},
      ...parts);
  };

  // From numbers to places in a box: [left, right] to [x0, x1], and [low, high] to [y1, y0].
  const scale = ([left, right], [low, high], [x0, y0, x1, y1]) => ([x, y]) =>
    [x0 + (x1 - x0) * (x - left) / (right - left || 1), y1 - (y1 - y0) * (y - low) / (high - low || 1)];
  const line = (places, colour, dash = "", width = 2) => make("polyline", {fill: "none", stroke: colour,
    "stroke-width": width, "stroke-linejoin": "round", "stroke-dasharray": dash,
    points: places.map(at => at.map(round).join(",")).join(" ")});
  const ends = values => [Math.min(...values), Math.max(...values)];

  // Where the directions of a prompt's vectors, laid end to end in one array, stand on the plane: [[x, y], ...].
  const projectPrompt = (prompt, {axes, mean}) => {
    const d = mean.length;
    if (prompt.length % d) throw new Error(`a prompt of ${prompt.length} numbers has no whole vectors of ${d}`);
    return Array.from({length: prompt.length / d}, (_, i) => {
      const vector = prompt.slice(i * d, (i + 1) * d), norm = Math.hypot(...vector) || 1;
      return axes.map(axis => axis.reduce((sum, a, j) => sum + a * (vector[j] / norm - mean[j]), 0));
    });
  };

  // words: [[word, x, y], ...]; start: [[x, y], ...], one a vector; points: after each epoch the same; variance: the
  // share of the words' variance that the plane shows; nearest: each vector's nearest word now.
  const drawPath = (div, {words, start, points, variance, nearest}) => {
    const ways = start.map((first, i) => [first, ...points.map(epoch => epoch[i])]);
    const every = [...words.map(([, ...at]) => at), ...ways.flat()], height = 300;
    const place = scale(ends(every.map(at => at[0])), ends(every.map(at => at[1])), [12, 24, WIDE - 12, height - 26]);
    const colour = i => COLOURS[i % COLOURS.length];
    const about = `The directions of ${words.length} words as dots on a plane that shows ${percent(variance)} of their `
      + `variance, and ${start.length === 1 ? "the path of one prompt vector" : `the paths of ${start.length} prompt `
      + "vectors"} over ${points.length} epoch${points.length === 1 ? "" : "s"}. Nearest words now: `
      + `${nearest.map((word, i) => `vector ${i + 1}, ${word}`).join("; ")}.`;
    const dots = words.map(([word, ...at]) => {
      const [x, y] = place(at).map(round);
      return make("circle", {cx: x, cy: y, r: 1.6, fill: "currentColor", opacity: .3}, make("title", {}, safe(word)));
    });
    const rim = new Set([0, 1, 2, 3, 4, 5, 6, 7].map(turn => turn * Math.PI / 4).map(angle => { // the farthest words
      const far = ([, x, y]) => x * Math.cos(angle) + y * Math.sin(angle);
      return words.reduce((best, word) => far(word) > far(best) ? word : best);
    }));
    const names = [...rim].map(([word, ...at]) => {
      const [x, y] = place(at), anchor = x < 40 ? "start" : x > WIDE - 40 ? "end" : "middle";
      return label(x, y - 4, word, {"text-anchor": anchor, "font-size": 10, opacity: .7});
    });
    const drawn = ways.map((way, i) => {
      const at = way.map(place), [x, y] = at.at(-1), [x0, y0] = at[0].map(round), right = x > .6 * WIDE;
      return line(at, colour(i))
        + make("circle", {cx: x0, cy: y0, r: 4, fill: "none", stroke: colour(i), "stroke-width": 2})
        + make("circle", {cx: round(x), cy: round(y), r: 5, fill: colour(i)})
        + label(x + (right ? -8 : 8), y + 4, nearest[i] ?? "", {"text-anchor": right ? "end" : "start",
          "font-weight": 600});
    });
    const after = `${points.length} epoch${points.length === 1 ? "" : "s"}`;
    draw(div, height, about, [label(12, 14, `Where the prompt points after ${after}`), ...dots, ...names, ...drawn,
      label(12, height - 8, `ring: start; dot: now; variance shown: ${percent(variance)} of the words'`)]);
  };

  // A line for each term in a box, with its ticks; a missing reading leaves a gap.
  const panel = (box, title, range, ticks, epochs, curves) => {
    const place = scale(ends(epochs), range, box), [x0, , x1] = box;
    const grid = ticks.map(([value, text]) => {
      const y = place([epochs[0], value])[1];
      return line([[x0, y], [x1, y]], "currentColor", "", .3) + label(x0 - 5, y + 4, text, {"text-anchor": "end"});
    });
    const drawn = curves.map(([values, colour, dash]) => {
      const runs = [[]];
      values.forEach((v, i) => { Number.isFinite(v) ? runs.at(-1).push(place([epochs[i], v])) : runs.push([]); });
      return runs.filter(run => run.length).map(run => run.length > 1 ? line(run, colour, dash)
        : make("circle", {cx: round(run[0][0]), cy: round(run[0][1]), r: 2.5, fill: colour})).join("");
    });
    return [label(x0, box[1] - 7, title), ...grid, ...drawn];
  };

  // readings: what the worker posted, one an epoch: {epoch, push: {ce, rep, head, cos_rep, cos_head}}, the norms of the
  // weighted terms' gradients on the prompt, and the cosines of two of them with cross-entropy's; a term that is not
  // trained has no numbers.
  const drawPush = (div, readings) => {
    if (!readings.length) { div.innerHTML = ""; return; }
    const norm = (push, term) => Number.isFinite(push[term]) ? push[term] : 0, pushes = readings.map(r => r.push);
    const sum = push => norm(push, "ce") + norm(push, "rep") + norm(push, "head") || 1;
    const shares = Object.keys(TERMS).map(term => pushes.map(push => norm(push, term) / sum(push)));
    const cosines = ["rep", "head"].map(term => pushes.map(push => norm(push, term) ? push[`cos_${term}`] : NaN));
    const epochs = readings.map(r => r.epoch), last = epochs.at(-1), height = 330, named = Object.values(TERMS);
    const told = named.map(([name], i) => {
      const cosine = i ? cosines[i - 1].at(-1) : NaN;
      return `${name} ${percent(shares[i].at(-1))}`
        + (Number.isFinite(cosine) ? ` at a cosine of ${cosine.toFixed(2)}` : "");
    });
    const about = `Two panels over epochs ${epochs[0]} to ${last}: each term's share of the push on the prompt, and `
      + `the cosine of its gradient with cross-entropy's. After epoch ${last}: ${told.join(", ")}.`;
    const keys = named.map(([name, colour, dash], i) => line([[AT[i], 10], [AT[i] + 22, 10]], colour, dash, 3)
      + label(AT[i] + 27, 14, name));
    draw(div, height, about, [...keys,
      ...panel([44, 46, WIDE - 10, 168], "share of the push on the prompt", [0, 1],
        [[0, "0"], [.5, "50 %"], [1, "100 %"]], epochs, shares.map((values, i) => [values, ...named[i].slice(1)])),
      ...panel([44, 200, WIDE - 10, 306], "cosine with cross-entropy's", [-1, 1], [[-1, "−1"], [0, "0"], [1, "1"]],
        epochs, cosines.map((values, i) => [values, ...named[i + 1].slice(1)])),
      label(44, height - 6, `epoch ${epochs[0]}`),
      label(WIDE - 10, height - 6, `epoch ${last}`, {"text-anchor": "end"})]);
  };
  return {projectPrompt, drawPath, drawPush};
})();

if (typeof module !== "undefined" && module) module.exports = {projectPrompt, drawPath, drawPush};
