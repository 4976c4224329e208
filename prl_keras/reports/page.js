"use strict";
// Draws the page from its data. All text goes in as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const { pictures: P, classes, sheet } = data;
const SPLITS = ["train", "validation", "test"];
const $ = (id) => document.getElementById(id);
const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;
const count = (n) => n.toLocaleString("en");
const share = (thousandths) => (thousandths >= 1000 ? "100 %" : `${Math.floor(thousandths / 10)} %`);
const named = (k) => classes[k].trim() || "(no name)";
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") node.addEventListener("click", value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

function svg(tag, attributes = {}, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

const narrow = window.innerWidth < 500;
const note = (text) => el("p", { class: "soft" }, text);

// Pictures -----------------------------------------------------------------------------------------------------------
const place = (n) => {
  const each = sheet.columns * sheet.rows, at = n % each;
  return { sheet: Math.floor(n / each), x: (at % sheet.columns) * sheet.cell_width, y: Math.floor(at / sheet.columns) * sheet.cell_height };
};

function thumb(n, side) {
  const at = place(n), scale = side / Math.max(sheet.width, sheet.height);
  const node = el("i", { class: `thumb s${at.sheet}`, "aria-hidden": "true" });
  Object.assign(node.style, {
    width: `${sheet.width * scale}px`, height: `${sheet.height * scale}px`,
    backgroundSize: `${sheet.columns * sheet.cell_width * scale}px ${sheet.rows * sheet.cell_height * scale}px`,
    backgroundPosition: `${-at.x * scale}px ${-at.y * scale}px`,
  });
  return node;
}

const splitOf = (n) => SPLITS[P.split[n]];
const isWrong = (n) => P.label[n] !== P.predicted[n];
const title = (n) => `${splitOf(n)} picture ${P.row[n]}`;

function words(n) {
  const answer = isWrong(n) ? `taken for ${named(P.predicted[n])}` : "answered right";
  return `${title(n)}: ${named(P.label[n])}, ${answer}, ${share(P.confidence[n])}`;
}

function pic(n, side = 60, captions = [], label = words(n)) {
  const lines = captions.map(([text, kind]) => el("span", { class: kind, title: text }, text));
  return el("button", { class: "pic", type: "button", "data-number": n, "aria-label": label, title: label, onclick: () => open(n) }, thumb(n, side), ...lines);
}

const answerCaption = (n) => [[named(P.label[n]), ""], [`→ ${named(P.predicted[n])}`, isWrong(n) ? "bad" : ""], [share(P.confidence[n]), "soft"]];

function pictureList(numbers, make, { captioned = false, step = 60 } = {}) {
  const box = el("div", { class: `pictures${captioned ? " captioned" : ""}` });
  const more = el("button", { class: "button", type: "button" });
  let shown = 0;
  const grow = () => {
    const first = box.children.length && shown ? shown : null;
    for (const n of numbers.slice(shown, shown + step)) box.insertBefore(make(n), more.parentNode === box ? more : null);
    shown = Math.min(shown + step, numbers.length);
    if (shown < numbers.length) { more.textContent = `${count(numbers.length - shown)} more`; box.append(more); } else more.remove();
    if (first !== null) box.children[first]?.focus();
  };
  more.addEventListener("click", grow);
  grow();
  return box;
}

// One picture, and what is like it -----------------------------------------------------------------------------------
const dialog = document.querySelector("dialog");
let trail = [];

function open(n) {
  trail.push(n);
  show();
}

function show() {
  const n = trail[trail.length - 1], unseen = P.split[n] === 0 || (P.split[n] === 1 && data.validation_trained_on);
  const facts = [
    ["Label", named(P.label[n])],
    [unseen ? "Answer without it" : "Answer", `${named(P.predicted[n])}, ${share(P.confidence[n])}`],
    ["Then", `${named(P.second[n])}, ${share(P.second_confidence[n])}`],
  ];
  if (data.files[n]) facts.push(["File", data.files[n]]);
  const list = el("dl", {}, ...facts.flatMap(([name, value], i) => [
    el("dt", {}, name), el("dd", { class: i === 1 && isWrong(n) ? "bad" : null }, value)]));
  const near = P.neighbours[n].map((m, i) => pic(m, 64, [[named(P.label[m]), P.label[m] === P.label[n] ? "" : "bad"],
    [(P.similarity[n][i] / 100).toFixed(2), "soft"]], `${title(m)}: ${named(P.label[m])}, similarity ${P.similarity[n][i] / 100}`));
  const back = el("button", { class: "button", type: "button", onclick: () => { trail.pop(); show(); } }, "Back");
  const heading = title(n);
  dialog.replaceChildren(
    el("header", {}, el("h2", { id: "detail-title", tabindex: "-1" }, heading[0].toUpperCase() + heading.slice(1)), ...(trail.length > 1 ? [back] : []),
      el("button", { class: "button", type: "button", onclick: () => dialog.close() }, "Close")),
    el("div", { class: "detail" }, thumb(n, 168), list),
    el("h3", {}, "Most like it in training"),
    near.length ? el("div", { class: "pictures captioned" }, ...near) : note("There are no other training pictures."),
    note("By the cosine of the features, 1 at most" + (data.sizes.train > data.kept.train ? `; among ${count(data.kept.train)} of the ${count(data.sizes.train)} training pictures.` : ".")));
  if (!dialog.open) dialog.showModal();
  dialog.querySelector("h2").focus();
}
dialog.addEventListener("close", () => { trail = []; });
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

// Charts -------------------------------------------------------------------------------------------------------------
function ticks(low, high, about = 5) {
  const raw = (high - low) / about || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9; i++) found.push(i * step);
  return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function chart({ name, x, series, xlabel, ylabel = "", yRange, xRange, isPercent = false, diagonal = false, say }) {
  const W = 420, H = 250, L = 44, R = 10, T = 10, B = 34;
  const values = series.flatMap((s) => s.values).filter((v) => v !== null);
  const [y0, y1] = yRange ?? [Math.min(0, ...values), Math.max(...values, 1e-9)];
  const [x0, x1] = xRange ?? [Math.min(...x), Math.max(...x)];
  const X = (v) => L + (W - L - R) * (x1 > x0 ? (v - x0) / (x1 - x0) : 0.5);
  const Y = (v) => H - B - (H - T - B) * ((v - y0) / (y1 - y0 || 1));
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", tabindex: "0", "aria-label": `${name}. Left and right arrow keys read the values.` });
  const yTicks = ticks(y0, y1), xTicks = ticks(x0, x1, 6);
  const label = (v, digits, asPercent) => (asPercent ? `${Math.round(100 * v * 10) / 10}` : v.toFixed(digits));
  for (const v of yTicks.found) {
    root.append(svg("line", { class: "rule", x1: L, x2: W - R, y1: Y(v), y2: Y(v) }), svg("text", { x: L - 6, y: Y(v) + 4, "text-anchor": "end" }, label(v, yTicks.digits, isPercent)));
  }
  for (const v of xTicks.found) {
    if (xRange || Number.isInteger(v)) root.append(svg("text", { x: X(v), y: H - B + 16, "text-anchor": "middle" }, label(v, 0, Boolean(xRange))));
  }
  root.append(svg("text", { x: (L + W - R) / 2, y: H - 2, "text-anchor": "middle" }, xlabel));
  if (diagonal) root.append(svg("line", { x1: X(0), y1: Y(0), x2: X(1), y2: Y(1), stroke: "var(--e)", class: "dashed" }));
  const hues = ["var(--a)", "var(--b)", "var(--c)", "var(--d)", "var(--e)"];
  let used = 0;
  for (const s of series) {
    s.hue = s.dashed ? "var(--e)" : hues[used++ % 4];
    const points = x.map((v, i) => [v, s.values[i], s.sizes?.[i]]).filter(([, v]) => v !== null);
    const path = points.map(([v, w], i) => `${i ? "L" : "M"}${X(v).toFixed(1)},${Y(w).toFixed(1)}`).join("");
    root.append(svg("path", { d: path, fill: "none", stroke: s.hue, "stroke-width": 2, "stroke-linejoin": "round", class: s.dashed ? "dashed" : "" }));
    if (!s.dashed && points.length <= 40) for (const [v, w, size] of points) root.append(svg("circle", { cx: X(v), cy: Y(w), r: size ?? 2.6, fill: s.hue, "fill-opacity": size ? 0.75 : 1 }));
  }
  const cursor = svg("line", { y1: T, y2: H - B, stroke: "var(--soft)", "stroke-dasharray": "2 3", visibility: "hidden" });
  root.append(cursor);
  const readout = el("output", {});
  const known = x.map((_, i) => i).filter((i) => series.some((s) => s.values[i] !== null));
  let at = -1;
  const read = (i) => {
    at = i;
    const v = x[known[i]];
    for (const side of ["x1", "x2"]) cursor.setAttribute(side, X(v));
    cursor.setAttribute("visibility", "visible");
    readout.textContent = say(known[i]);
  };
  root.addEventListener("pointermove", (event) => {
    const box = root.getBoundingClientRect(), v = ((event.clientX - box.left) / box.width) * W;
    read(known.reduce((best, i, j) => (Math.abs(X(x[i]) - v) < Math.abs(X(x[known[best]]) - v) ? j : best), 0));
  });
  root.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    read(Math.max(0, Math.min(known.length - 1, at < 0 ? (step > 0 ? 0 : known.length - 1) : at + step)));
  });
  const key = el("ul", { class: "key" }, ...series.map((s) => {
    const line = el("i", { class: s.dashed ? "dashed" : null });
    line.style.borderTopColor = s.hue;
    return el("li", {}, line, s.name);
  }));
  return el("figure", { class: "chart" }, el("figcaption", {}, name, ylabel ? el("span", { class: "soft" }, ` ${ylabel}`) : ""), root, series.length > 1 || series[0].dashed ? key : "", readout);
}

// Sections -----------------------------------------------------------------------------------------------------------
function header() {
  const f = data.answers.figure;
  const top = $("top");
  top.append(el("h1", {}, data.run), el("p", { class: "soft" }, `${data.command} · ${data.dataset}${data.other_data === null ? "" : ` (trained on ${data.other_data})`} · ${count(classes.length)} classes · `
    + SPLITS.map((s) => `${count(data.sizes[s])} ${s}`).join(", ") + ` pictures · ${data.created.slice(0, 10)}`),
    el("div", { class: "headline" }, el("strong", {}, percent(f.value)),
      el("span", {}, `of ${count(f.n)} test pictures are answered right (95 % interval ${(100 * f.low).toFixed(1)} – ${percent(f.high)})`)),
    el("p", {}, data.answers.how + " Nothing was chosen on test."));
  const seen = Object.entries(data.seen);
  if (seen.length) top.append(el("p", { class: "warning" }, `This run was trained on ${seen.map(([s, n]) => `${count(n)} of the ${s} pictures`).join(" and ")}: figures on these are not of new pictures.`));
  const links = [...document.querySelectorAll("main > section")].filter((s) => !s.hidden).map((s) => el("a", { href: `#${s.id}` }, s.dataset.short));
  document.querySelector("nav").append(el("div", {}, ...links));
  const marks = new IntersectionObserver((entries) => entries.forEach((entry) => {
    const link = links.find((a) => a.hash === `#${entry.target.id}`);
    if (entry.isIntersecting) { links.forEach((a) => a.removeAttribute("aria-current")); link?.setAttribute("aria-current", "true"); }
  }), { rootMargin: "-20% 0px -70% 0px" });
  document.querySelectorAll("main > section").forEach((s) => marks.observe(s));
}

function figures() {
  const rows = data.figures.length ? data.figures : [{ name: data.answers.name, split: "test", ...data.answers.figure }];
  const low = Math.max(0, Math.floor(10 * Math.min(...rows.map((r) => r.low)) - 0.2) / 10);
  const X = (v) => 4 + (182 * (v - low)) / (1 - low);
  const body = rows.map((r) => {
    const bar = svg("svg", { viewBox: "0 0 190 16", class: "interval", role: "img", "aria-label": `from ${percent(r.low)} to ${percent(r.high)}` });
    const hue = r.split === "test" ? "var(--a)" : "var(--e)";
    bar.append(svg("line", { x1: X(low), x2: X(1), y1: 8, y2: 8, stroke: "var(--line)" }),
      svg("line", { x1: X(r.low), x2: X(r.high), y1: 8, y2: 8, stroke: hue, "stroke-width": 3, "stroke-linecap": "round" }), svg("circle", { cx: X(r.value), cy: 8, r: 4.5, fill: hue }));
    const worst = r.worst && r.worst.value < r.value - 1e-9 ? `${percent(r.worst.value, 0)} ${r.worst.class < classes.length ? named(r.worst.class) : r.worst.class}` : "";
    return el("tr", {}, el("th", { scope: "row" }, r.name), el("td", {}, r.split), el("td", { class: "number" }, el("b", {}, percent(r.value))),
      el("td", { class: "number" }, `${(100 * r.low).toFixed(1)} – ${(100 * r.high).toFixed(1)}`), el("td", { class: "optional" }, bar),
      el("td", { class: "number optional" }, `${count(r.correct)} / ${count(r.n)}`), el("td", { class: "optional" }, worst));
  });
  const head = [["", ""], ["split", ""], ["accuracy", "number"], ["95 %", "number"], [`${Math.round(100 * low)} – 100 %`, "optional"], ["right / n", "number optional"], ["worst class", "optional"]];
  $("figures").append(el("div", { class: "wide" }, el("table", { class: "table" }, el("thead", {}, el("tr", {}, ...head.map(([text, kind]) => el("th", { class: kind, scope: "col" }, text)))), el("tbody", {}, ...body))),
    note("Intervals: Wilson, 95 %, for pictures like these; another training would give another model." + (data.chosen.length ? ` Chosen on validation: ${data.chosen.join("; ")}.` : "")));
}

function learning() {
  if (!data.curves.length) { $("curves").hidden = true; return; }
  const box = el("div", { class: "charts" });
  for (const c of data.curves) {
    const isPercent = c.name === "accuracy";
    const format = (v) => (v === null ? "–" : isPercent ? percent(v) : v.toPrecision(4));
    const lowest = Math.min(...c.series.flatMap((s) => s.values).filter((v) => v !== null));
    box.append(chart({ name: c.name[0].toUpperCase() + c.name.slice(1), ylabel: isPercent ? "%" : "", x: c.epochs, series: c.series, xlabel: "epoch", isPercent,
      yRange: isPercent ? [Math.floor(10 * lowest) / 10, 1] : undefined,
      say: (i) => `epoch ${c.epochs[i]}: ` + c.series.map((s) => `${s.name} ${format(s.values[i])}`).join(", ") }));
  }
  $("curves").append(box);
}

function confusions() {
  const { classes: chosen, counts } = data.confusions;
  const cells = new Map();
  P.label.forEach((label, n) => {
    if (P.split[n] !== 2) return;
    const key = label * classes.length + P.predicted[n];
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(n);
  });
  const panel = el("div", { role: "region", "aria-live": "polite", id: "cell", "aria-label": "Pictures of the chosen cell" });
  const grid = chosen.map(() => []);
  let pressed = null;
  const choose = (i, j) => {
    const k = chosen[i], m = chosen[j], found = (cells.get(k * classes.length + m) ?? []).sort((a, b) => P.confidence[b] - P.confidence[a]);
    pressed?.setAttribute("aria-pressed", "false");
    pressed = grid[i][j];
    pressed.setAttribute("aria-pressed", "true");
    const what = i === j ? `${named(k)}, answered right` : `${named(k)} taken for ${named(m)}`;
    panel.replaceChildren(el("h3", {}, `${what}: ${count(counts[i][j])}`),
      note(found.length < counts[i][j] ? `${count(found.length)} of them are in this page, the surest first.` : "The surest first."),
      pictureList(found, (n) => pic(n, 60, [[share(P.confidence[n]), ""]]), { step: narrow ? 20 : 42 }));
  };
  const body = chosen.map((k, i) => {
    const total = counts[i].reduce((a, b) => a + b, 0);
    const row = chosen.map((m, j) => {
      const n = counts[i][j];
      if (!n) return el("td", {}, el("span", { "aria-hidden": "true" }, ""));
      const button = el("button", { type: "button", tabindex: "-1", "aria-pressed": "false", title: `${named(k)} → ${named(m)}: ${n}`,
        "aria-label": `${count(n)} test pictures of ${named(k)} ${i === j ? "answered right" : `taken for ${named(m)}`}`, onclick: () => choose(i, j) }, count(n));
      const strength = i === j ? (55 * n) / total : 12 + 43 * Math.sqrt(n / total);
      button.style.setProperty("--hue", i === j ? "var(--a)" : "var(--bad)");
      button.style.setProperty("--strength", `${strength.toFixed(0)}%`);
      grid[i][j] = button;
      return el("td", {}, button);
    });
    return el("tr", {}, el("th", { scope: "row", title: named(k) }, named(k)), ...row);
  });
  const short = chosen.every((k) => named(k).length < 3);
  const table = el("table", { class: `matrix${short ? " short" : ""}` }, el("thead", {}, el("tr", {}, el("td", {}), ...chosen.map((k) => el("th", { scope: "col", title: named(k) }, el("span", {}, named(k)))))), el("tbody", {}, ...body));
  const buttons = grid.flatMap((row, i) => Object.keys(row).map((j) => ({ i, j: Number(j), node: row[j] })));
  buttons[0]?.node.setAttribute("tabindex", "0");
  table.addEventListener("keydown", (event) => {
    const way = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    const from = buttons.find((b) => b.node === document.activeElement);
    if (!way || !from) return;
    event.preventDefault();
    for (let i = from.i + way[0], j = from.j + way[1]; i >= 0 && j >= 0 && i < chosen.length && j < chosen.length; i += way[0], j += way[1]) {
      if (grid[i][j]) { grid[i][j].focus(); break; }
    }
  });
  table.addEventListener("focusin", (event) => { buttons.forEach((b) => b.node.setAttribute("tabindex", b.node === event.target ? "0" : "-1")); });
  const part = chosen.length < classes.length ? ` The ${chosen.length} of ${count(classes.length)} classes that are taken for each other most.` : "";
  $("confusions").append(note(`Rows: the label of the test pictures. Columns: the answer. A click on a cell, or Enter, shows its pictures; arrow keys move.${part}`),
    el("div", { class: "confusions" }, el("div", { class: "wide" }, table), panel));
  const worst = buttons.filter((b) => b.i !== b.j).sort((a, b) => counts[b.i][b.j] - counts[a.i][a.j])[0] ?? buttons[0];
  if (worst) choose(worst.i, worst.j);
}

function errors() {
  const box = $("errors");
  box.append(el("h3", {}, "Surely wrong"), note("The wrong answers on test with the highest probability: label, then the answer."));
  box.append(data.wrong.length ? pictureList(data.wrong, (n) => pic(n, narrow ? 66 : 76, answerCaption(n)), { captioned: true, step: narrow ? 12 : 24 }) : el("p", {}, "No answer on test is wrong."));
  box.append(el("h3", {}, "Least sure"), note("The test pictures whose two likeliest classes are closest to each other."),
    pictureList(data.unsure, (n) => pic(n, narrow ? 66 : 76, [[`${share(P.confidence[n])} ${named(P.predicted[n])}`, isWrong(n) ? "bad" : ""], [`${share(P.second_confidence[n])} ${named(P.second[n])}`, "soft"]]), { captioned: true, step: narrow ? 12 : 24 }));
}

function theClasses() {
  const box = $("classes"), many = classes.length > 20;
  const dot = (k) => { const node = el("i", { class: "dot" }); node.style.background = data.colours[k]; return node; };
  const side = narrow ? 34 : 46;
  const group = (kind, k, numbers) => el("div", { class: "pictures", role: "group", "data-kind": kind, "aria-label": `${named(k)}, ${kind}` }, ...numbers.map((n) => pic(n, side)));
  const row = (k) => el("div", { class: "class" }, el("b", {}, dot(k), named(k)), group("typical", k, data.extremes[k][0]), group("strange", k, data.extremes[k][1]));
  box.append(note("Training pictures of each class. Typical: nearest to its prototype, the mean of its features. Strange: its own pictures that are farthest from that."));
  const rows = el("div", {});
  box.append(el("div", { class: "class head", "aria-hidden": "true" }, el("b", {}), el("span", {}, "typical"), el("span", {}, "strange")));
  if (many) {
    const choice = el("select", { "aria-label": "Class" }, ...classes.map((_, k) => el("option", { value: k }, named(k))));
    choice.addEventListener("change", () => rows.replaceChildren(row(Number(choice.value))));
    box.insertBefore(choice, box.lastChild);
    rows.append(row(0));
  } else rows.append(...classes.map((_, k) => row(k)));
  box.append(rows);
}

function doubtful() {
  const box = $("labels");
  box.append(note("Confident learning (Northcutt et al. 2021): a model that has not seen the picture is as sure of another class as it usually is of that class's own pictures. A weak model doubts many right labels: look before you change one."));
  for (const part of data.doubtful) {
    box.append(el("h3", {}, `${part.split[0].toUpperCase() + part.split.slice(1)}: ${count(part.found)} of ${count(part.of)}`), note(`Judged by ${part.how}.` + (part.split === "train" && data.trained_on ? " The encoder was trained on these pictures, so what it has learned by heart is not found." : "")));
    if (part.shown.length) box.append(pictureList(part.shown, ({ number: n, suggested }) => pic(n, narrow ? 66 : 76, [[named(P.label[n]), ""], [`rather ${named(suggested)}`, "bad"]], `${title(n)}: label ${named(P.label[n])}, rather ${named(suggested)}`), { captioned: true, step: narrow ? 12 : 24 }));
  }
}

function map() {
  const M = data.map, box = $("map");
  const ways = {
    class: { name: "class", of: (n) => P.label[n], groups: classes.map((_, k) => [named(k), data.colours[k]]) },
    split: { name: "split", of: (n) => P.split[n], groups: SPLITS.map((s, i) => [s, colour(["--a", "--b", "--c"][i])]) },
    error: { name: "error", of: (n) => (isWrong(n) ? 1 : 0), groups: [["right", colour("--e")], ["wrong", colour("--bad")]] },
  };
  let way = ways.class, only = null, asPictures = false, chosen = -1, zoom = 1, centre = [0, 0];
  const canvas = el("canvas", { tabindex: "0", role: "application", "aria-label": `Map of ${count(M.numbers.length)} pictures. Arrow keys go to the next picture, Enter opens it, plus and minus zoom.` });
  const tip = el("div", { class: "tip", hidden: true });
  const live = el("output", { "aria-live": "polite" });
  const legend = el("div", { class: "legend", role: "group", "aria-label": "Show only" });
  const images = [];
  const sheetImage = (i) => {
    if (!images[i]) {
      const probe = el("i", { class: `s${i}`, hidden: true });
      document.body.append(probe);
      images[i] = new Image();
      images[i].onload = draw;
      images[i].src = getComputedStyle(probe).backgroundImage.slice(5, -2);
      probe.remove();
    }
    return images[i];
  };
  let width = 600, height = 420;
  const at = ([x, y]) => { const half = Math.min(width, height) / 2 - 14; const wide = Math.max(width / 2 - 14, half); return [width / 2 + (x - centre[0]) * zoom * wide, height / 2 - (y - centre[1]) * zoom * half]; };
  const hidden = (i) => only !== null && way.of(M.numbers[i]) !== only;

  function draw() {
    const ratio = window.devicePixelRatio || 1, context = canvas.getContext("2d");
    canvas.width = width * ratio; canvas.height = height * ratio; canvas.style.height = `${height}px`;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const side = Math.min(14 + 6 * zoom, 44), big = Math.max(sheet.width, sheet.height);
    const order = M.numbers.map((_, i) => i).sort((a, b) => hidden(b) - hidden(a) || (way === ways.error) * (way.of(M.numbers[a]) - way.of(M.numbers[b])));
    for (const i of order) {
      const n = M.numbers[i], [x, y] = at(M.positions[i]), hue = way.groups[way.of(n)][1];
      context.globalAlpha = hidden(i) ? 0.12 : 0.85;
      const image = asPictures ? sheetImage(place(n).sheet) : null;
      if (image?.complete && image.naturalWidth) {
        const p = place(n), w = (side * sheet.width) / big, h = (side * sheet.height) / big;
        context.fillStyle = hue;
        context.fillRect(x - w / 2 - 2, y - h / 2 - 2, w + 4, h + 4);
        context.drawImage(image, p.x, p.y, sheet.width, sheet.height, x - w / 2, y - h / 2, w, h);
      } else {
        context.fillStyle = hue;
        context.beginPath();
        context.arc(x, y, P.split[n] === 2 ? 4 : 3, 0, 7);
        context.fill();
      }
    }
    context.globalAlpha = 1;
    if (way === ways.class) for (const [k, x, y] of M.prototypes) {
      if (only !== null && only !== k) continue;
      const [cx, cy] = at([x, y]);
      context.beginPath();
      for (let i = 0; i < 10; i++) context.lineTo(cx + (i % 2 ? 4 : 9) * Math.sin((i * Math.PI) / 5), cy - (i % 2 ? 4 : 9) * Math.cos((i * Math.PI) / 5));
      context.closePath();
      context.fillStyle = data.colours[k]; context.fill();
      context.strokeStyle = colour("--ink"); context.lineWidth = 1.4; context.stroke();
    }
    if (chosen >= 0) {
      const [x, y] = at(M.positions[chosen]);
      context.beginPath(); context.arc(x, y, asPictures ? side * 0.8 : 8, 0, 7);
      context.strokeStyle = colour("--ink"); context.lineWidth = 2.5; context.stroke();
    }
  }

  function choose(i) {
    chosen = i;
    tip.hidden = i < 0;
    if (i >= 0) {
      const n = M.numbers[i], [x, y] = at(M.positions[i]);
      const answer = isWrong(n) ? el("span", { class: "bad" }, `taken for ${named(P.predicted[n])}, ${share(P.confidence[n])}`) : `right, ${share(P.confidence[n])}`;
      tip.replaceChildren(thumb(n, 72), el("span", {}, el("b", {}, named(P.label[n])), el("br"), answer, el("br"), el("span", { class: "soft" }, title(n))));
      live.textContent = words(n);
      const left = Math.max(4, Math.min(x + 14, width - tip.offsetWidth - 6));
      tip.style.left = `${left}px`;
      tip.style.top = `${y + 16 + tip.offsetHeight > height ? Math.max(4, y - tip.offsetHeight - 14) : y + 16}px`;
    } else live.textContent = "";
    draw();
  }

  function nearest(x, y, within) {
    let best = -1, least = within * within;
    M.positions.forEach((position, i) => {
      if (hidden(i)) return;
      const [px, py] = at(position), d = (px - x) ** 2 + (py - y) ** 2;
      if (d < least) { least = d; best = i; }
    });
    return best;
  }
  const spot = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  let drag = null, moved = false, before = -1;
  canvas.addEventListener("pointerdown", (event) => { drag = spot(event); moved = false; before = chosen; });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = spot(event);
    if (drag && zoom > 1) {
      const half = Math.min(width, height) / 2 - 14, wide = Math.max(width / 2 - 14, half);
      if (Math.hypot(x - drag[0], y - drag[1]) > 3) moved = true;
      if (moved) { centre = [centre[0] - (x - drag[0]) / (zoom * wide), centre[1] + (y - drag[1]) / (zoom * half)]; drag = [x, y]; tip.hidden = true; draw(); }
      return;
    }
    const i = nearest(x, y, 16);
    if (i !== chosen) choose(i);
  });
  canvas.addEventListener("pointerup", () => { drag = null; });
  canvas.addEventListener("pointerleave", () => { drag = null; if (document.activeElement !== canvas) choose(-1); });
  canvas.addEventListener("click", (event) => {
    if (moved) return;
    const i = nearest(...spot(event), 18), touched = event.pointerType === "touch";
    if (i >= 0 && (!touched || i === before)) open(M.numbers[i]);
    else choose(i);
  });
  canvas.addEventListener("keydown", (event) => {
    const aim = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (event.key === "Enter" && chosen >= 0) open(M.numbers[chosen]);
    else if (event.key === "+" || event.key === "=") zoomBy(1.6);
    else if (event.key === "-") zoomBy(1 / 1.6);
    else if (event.key === "Escape") choose(-1);
    else if (aim) {
      const from = chosen >= 0 ? at(M.positions[chosen]) : [width / 2, height / 2];
      let best = -1, least = Infinity;
      M.positions.forEach((position, i) => {
        if (hidden(i) || i === chosen) return;
        const [x, y] = at(position), dx = x - from[0], dy = y - from[1];
        const ahead = dx * aim[0] + dy * aim[1], aside = Math.abs(dx * aim[1] + dy * aim[0]);
        if (ahead > 0.5 && ahead + 2 * aside < least) { least = ahead + 2 * aside; best = i; }
      });
      if (best >= 0) choose(best);
    } else return;
    event.preventDefault();
  });
  function zoomBy(factor) {
    zoom = Math.max(1, Math.min(12, zoom * factor));
    if (chosen >= 0 && factor > 1) centre = M.positions[chosen].slice();
    if (zoom === 1) centre = [0, 0];
    canvas.classList.toggle("zoomed", zoom > 1);
    choose(chosen);
  }
  function legends() {
    legend.replaceChildren(...way.groups.map(([text, hue], k) => {
      const dot = el("i", { class: "dot" });
      dot.style.background = hue;
      return el("button", { class: "button", type: "button", "aria-pressed": only === k ? "true" : "false", onclick: (event) => {
        only = only === k ? null : k;
        for (const node of legend.children) node.setAttribute("aria-pressed", node === event.currentTarget && only !== null ? "true" : "false");
        choose(-1);
      } }, dot, el("span", {}, text));
    }));
  }
  const choice = el("select", { id: "map-colour" }, ...Object.keys(ways).map((key) => el("option", { value: key }, ways[key].name)));
  choice.addEventListener("change", () => { way = ways[choice.value]; only = null; legends(); choose(-1); });
  const check = el("input", { type: "checkbox", id: "map-pictures" });
  check.addEventListener("change", () => { asPictures = check.checked; draw(); });
  const button = (text, label, act) => el("button", { class: "button", type: "button", "aria-label": label, onclick: act }, text);
  box.append(note(`t-SNE of the features of ${count(M.numbers.length)} pictures; stars are the prototypes, larger dots are test. Near means alike, far means little, and sizes of groups mean nothing.`),
    el("div", { class: "tools" }, el("label", {}, "Colour by ", choice), el("label", {}, check, " draw the pictures"),
      el("span", { class: "push" }, button("−", "zoom out", () => zoomBy(1 / 1.6)), button("+", "zoom in", () => zoomBy(1.6)))),
    el("div", { class: "plane" }, canvas, tip), live, legend);
  legends();
  new ResizeObserver(() => {
    width = canvas.parentNode.clientWidth; height = Math.round(Math.min(560, Math.max(340, width * 0.6)));
    choose(chosen);
  }).observe(canvas.parentNode);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    ways.split.groups.forEach((group, i) => { group[1] = colour(["--a", "--b", "--c"][i]); });
    ways.error.groups.forEach((group, i) => { group[1] = colour(["--e", "--bad"][i]); });
    legends(); draw();
  });
}

function trust() {
  const c = data.calibration, r = data.reject, total = c.counts.reduce((a, b) => a + b, 0);
  const kept = c.counts.map((_, i) => i).filter((i) => c.counts[i]);
  const calibrated = chart({ name: "Calibration", ylabel: `expected calibration error ${percent(c.ece)}`, xlabel: "probability of the answer, %", x: kept.map((i) => c.confidence[i]), xRange: [0, 1], yRange: [0, 1], isPercent: true, diagonal: true,
    series: [{ name: "right, %", values: kept.map((i) => c.accuracy[i]), sizes: kept.map((i) => 3 + 9 * Math.sqrt(c.counts[i] / total)) }],
    say: (j) => `${count(c.counts[kept[j]])} answers with ${percent(c.confidence[kept[j]])} on average: ${percent(c.accuracy[kept[j]])} right` });
  const lowest = Math.min(...r.accuracy);
  const reject = chart({ name: "Leaving the doubtful ones out", ylabel: "right, % of what is answered", xlabel: "answered, % of the test pictures", x: r.coverage, xRange: [0, 1], yRange: [Math.min(0.9, Math.floor(20 * lowest) / 20), 1], isPercent: true,
    series: [{ name: "right", values: r.accuracy }],
    say: (i) => `the ${percent(r.coverage[i])} surest: ${percent(r.accuracy[i])} right` });
  $("trust").append(el("div", { class: "charts" }, calibrated, reject), note(`On test. On the dashed line a probability says how often the answer is right; large dots are many pictures. Area under the risk-coverage curve: ${r.aurc.toFixed(4)}.`));
  if (!r.thresholds.length) return;
  const rows = r.thresholds.map((t) => el("tr", {}, el("th", { scope: "row" }, percent(t.keep, 0)), el("td", { class: "number" }, percent(t.threshold)), el("td", { class: "number" }, percent(t.coverage)), el("td", { class: "number" }, el("b", {}, percent(t.value))), el("td", { class: "number" }, `${(100 * t.low).toFixed(1)} – ${(100 * t.high).toFixed(1)}`)));
  $("trust").append(el("h3", {}, "Thresholds, chosen on validation, and what they do on test"), el("div", { class: "wide" }, el("table", { class: "table" }, el("thead", {}, el("tr", {}, ...["keeps of validation", "threshold", "answered", "right", "95 %"].map((text, i) => el("th", { scope: "col", class: i ? "number" : "" }, text)))), el("tbody", {}, ...rows))));
}

function made() {
  const rows = [["command", data.command], ...data.options].map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
  $("made").append(el("dl", { class: "made" }, ...rows));
}

const shorts = { figures: "Figures", curves: "Curves", confusions: "Confusions", errors: "Errors", classes: "Classes", labels: "Labels", map: "Map", trust: "Trust", made: "Made" };
for (const [id, text] of Object.entries(shorts)) $(id).dataset.short = text;
data.kept = Object.fromEntries(SPLITS.map((name, i) => [name, P.split.filter((s) => s === i).length]));
for (const draw of [figures, learning, confusions, errors, theClasses, doubtful, map, trust, made, header]) draw();
