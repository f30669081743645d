"use strict";
// The page's behaviour. Studies arrive as scripts, so that it also works from a folder.

const SIZE = 256; // side of a slice in pixels
const SCALE = 3; // pixels of the canvas for each
const KEPT = 60; // decoded slices in memory
const COLOURS = ["#6cb6ff", "#ffb454", "#d6a2ff", "#7ee0a8", "#ff8a80"];
const OPPOSITE = { L: "R", R: "L", A: "P", P: "A", H: "F", F: "H" }; // sides of the patient
const SIDES = { L: "left", R: "right", A: "front", P: "back", H: "head", F: "feet" };
const GROUPS = { false_negative: "false negative", false_positive: "false positive", indeterminate: "indeterminate" };

const about = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const view = { number: -1, study: null, slice: 0, level: 100, width: 700, map: "", opacity: 0.45, filter: "all" };
const decoded = new Map(); // slice to a promise of its Int16Array
let drawing = 0; // the latest drawing; earlier ones that end late are dropped

function element(name, attributes = {}, text = "") {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const percent = (p) => (100 * p).toFixed(p < 0.0995 || p > 0.9005 ? 1 : 0) + "%";
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// Studies

function listStudies() {
  const list = at("studies");
  list.replaceChildren();
  about.studies.forEach((study, number) => {
    if (view.filter !== "all" && !study.groups.includes(view.filter)) return;
    const present = study.targets.pe_present;
    const button = element("button", { type: "button", "data-number": number, "aria-current": number === view.number, title: study.uid });
    button.append(element("bdi", { class: "uid", dir: "ltr" }, study.uid), element("span", { class: "p" }, percent(present.probability)));
    const tags = element("span", { class: "tags" });
    const words = study.groups.filter((group) => group in GROUPS).map((group) => element("span", { class: group }, GROUPS[group]));
    if (!words.length && present.truth !== null) words.push(element("span", {}, present.truth ? "PE present" : "no PE"));
    words.forEach((word) => tags.append(word, " · "));
    tags.append(`${study.slices} slices`);
    button.append(tags);
    button.addEventListener("click", () => openStudy(number));
    const item = element("li");
    item.append(button);
    list.append(item);
  });
  at("shown").textContent = `${list.children.length} of ${about.studies.length} studies, by probability of PE`;
}

function filterStudies(name) {
  view.filter = name;
  for (const button of document.querySelectorAll("[data-filter]")) {
    button.setAttribute("aria-pressed", button.dataset.filter === name);
  }
  listStudies();
}

function openStudy(number) {
  view.number = number;
  view.study = null;
  decoded.clear();
  drawing += 1;
  at("trouble").hidden = true;
  at("image").getContext("2d").clearRect(0, 0, SIZE * SCALE, SIZE * SCALE);
  for (const button of at("studies").querySelectorAll("button")) {
    button.setAttribute("aria-current", Number(button.dataset.number) === number);
  }
  at("corner-study").textContent = `${about.studies[number].uid}\nloading …`;
  at("curve").replaceChildren();
  showSides("");
  showLabels(about.studies[number]);
  const script = element("script", { src: `${about.folder}/${number}.js` });
  script.addEventListener("error", () => number === view.number && showTrouble(`${about.folder}/${number}.js could not be loaded: it must lie beside this page.`));
  // The study is the script's; without it the browser can forget it.
  script.addEventListener("load", () => script.remove());
  document.head.append(script);
}

// Called by the study's script.
window.clotlineStudy = function (number, study) {
  if (number !== view.number) return; // another one was opened meanwhile
  study.bytes = {};
  view.study = study;
  at("corner-study").textContent = study.uid;
  at("slice").max = study.pixels.length - 1;
  const known = study.positions.every((mm) => mm !== null) && study.orientations.every((letters) => letters === "LP");
  at("end-first").textContent = known ? "feet" : "";
  at("end-last").textContent = known ? "head" : "";
  const first = Object.values(study.curves)[0];
  view.slice = first ? first.indexOf(Math.max(...first)) : 0;
  drawCurves();
  draw();
  at("stage").focus({ preventScroll: true });
};

function showTrouble(text) {
  at("trouble").textContent = text;
  at("trouble").hidden = false;
}

function showLabels(study) {
  const yes = (value) => (value === null || value === undefined ? "–" : value ? "yes" : "no");
  const rows = about.targets.map(([name, title]) => {
    const { probability, threshold, called, truth } = study.targets[name];
    const row = element("tr");
    const known = called !== null && truth !== null;
    const p = element("td", { class: "n p" }, percent(probability));
    p.style.backgroundSize = `${100 * probability}% 3px`;
    p.style.backgroundPosition = "left bottom";
    const verdict = known && called !== truth ? (truth ? "no – missed" : "yes – false") : yes(called);
    row.append(
      element("th", { scope: "row" }, title),
      p,
      element("td", { class: "n" }, threshold === null ? "–" : percent(threshold)),
      element("td", { class: known ? (called === truth ? "right" : "wrong") : "" }, verdict),
      element("td", {}, yes(truth)),
    );
    return row;
  });
  if (study.contradiction) {
    // More probable than PE itself, of which it would be a part.
    const title = about.targets.find(([name]) => name === study.contradiction)[1];
    const row = element("tr", { id: "contradiction" });
    row.append(element("td", { class: "wrong", colspan: 5 }, `${title} is more probable than PE present: these outputs contradict each other`));
    rows.push(row);
  }
  at("labels").replaceChildren(...rows);
}

// Slices

function pixelsOf(slice) {
  if (!decoded.has(slice)) {
    const stream = new Blob([bytes(view.study.pixels[slice])]).stream().pipeThrough(new DecompressionStream("deflate"));
    decoded.set(slice, new Response(stream).arrayBuffer().then((buffer) => {
      const planes = new Uint8Array(buffer);
      const half = planes.length / 2;
      const values = new Int16Array(half);
      for (let i = 0; i < half; i++) values[i] = planes[i] | (planes[half + i] << 8);
      return values;
    }));
    if (decoded.size > KEPT) decoded.delete(decoded.keys().next().value);
  }
  return decoded.get(slice);
}

// The map's value from 0 to 1 at every pixel of the slice, linear between the centres of its places.
function mapOf(name, slice) {
  const map = view.study.maps[name];
  view.study.bytes[name] ??= bytes(map.values);
  const values = view.study.bytes[name].subarray(slice * map.rows * map.columns);
  const laid = new Float32Array(SIZE * SIZE);
  const margin = (SIZE - map.crop) >> 1;
  const places = (count) => Array.from({ length: map.crop }, (_, i) => {
    const place = clamp(((i + 0.5) * count) / map.crop - 0.5, 0, count - 1);
    const low = Math.floor(place);
    return [low, Math.min(low + 1, count - 1), place - low];
  });
  const rows = places(map.rows), columns = places(map.columns);
  rows.forEach(([r0, r1, dr], y) => columns.forEach(([c0, c1, dc], x) => {
    const above = values[r0 * map.columns + c0] * (1 - dc) + values[r0 * map.columns + c1] * dc;
    const below = values[r1 * map.columns + c0] * (1 - dc) + values[r1 * map.columns + c1] * dc;
    laid[(y + margin) * SIZE + x + margin] = (above * (1 - dr) + below * dr) / 255;
  }));
  return laid;
}

// Black-red-yellow-white, as heat.
const heat = (v) => [clamp(v * 3, 0, 1) * 255, clamp(v * 3 - 1, 0, 1) * 255, clamp(v * 3 - 2, 0, 1) * 255];

const small = element("canvas", { width: SIZE, height: SIZE });

async function draw() {
  const { study, slice } = view;
  if (!study) return;
  const mine = ++drawing;
  showPosition();
  let pixels;
  try {
    pixels = await pixelsOf(slice);
  } catch (error) {
    showTrouble(`This slice cannot be shown: ${error.message}. A newer browser may help.`);
    return;
  }
  if (mine !== drawing) return;
  const map = view.map && study.maps[view.map] ? mapOf(view.map, slice) : null;
  const low = view.level - view.width / 2;
  const image = new ImageData(SIZE, SIZE);
  for (let i = 0; i < pixels.length; i++) {
    const grey = clamp((255 * (pixels[i] - low)) / view.width, 0, 255);
    let colour = [grey, grey, grey];
    if (map && map[i] > 0) {
      const share = view.opacity * Math.sqrt(map[i]);
      colour = heat(map[i]).map((value) => grey * (1 - share) + value * share);
    }
    image.data.set(colour, 4 * i);
    image.data[4 * i + 3] = 255;
  }
  small.getContext("2d").putImageData(image, 0, 0);
  const canvas = at("image");
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  // Smoothed edges are half transparent: nothing of the last slice is to shine through.
  context.globalCompositeOperation = "copy";
  context.drawImage(small, 0, 0, SIZE * SCALE, SIZE * SCALE);
  canvas.dataset.drawn = mine;
  for (const next of [slice + 1, slice - 1]) if (study.pixels[next]) pixelsOf(next);
}

function showPosition() {
  const { study, slice } = view;
  const count = study.pixels.length;
  const curves = Object.entries(study.curves).map(([name, curve]) => `${name} ${percent(curve[slice])}`);
  const mm = study.positions[slice];
  const text = `Slice ${slice + 1} of ${count}${mm === null ? "" : `, ${mm} mm`}`;
  const sides = showSides(study.orientations[slice]);
  at("corner-slice").textContent = `${text}\n${curves.join("\n")}`;
  at("corner-window").textContent = `L ${view.level} W ${view.width}${view.map ? `\nmap: ${view.map}` : ""}`;
  at("corner-truth").textContent = study.truth ? (study.truth[slice] ? "Truth: embolus on this slice" : "Truth: none on this slice") : "";
  at("slice").value = slice;
  at("slice").setAttribute("aria-valuetext", text);
  at("image").setAttribute("aria-label", `CT, ${text}, ${sides}, ${curves.join(", ")}${view.map ? `, with the map of ${view.map}` : ""}`);
  const line = at("curve").querySelector(".here");
  if (line) {
    const x = place(slice, count);
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
  }
}

// Letters at the edges: which side of the patient lies there. Gives the same in words.
function showSides(orientation) {
  const [right, bottom] = orientation || ["", ""];
  const edges = { left: OPPOSITE[right], right, top: OPPOSITE[bottom], bottom };
  for (const [edge, letter] of Object.entries(edges)) at(`edge-${edge}`).textContent = letter ?? "";
  return right ? `patient's ${SIDES[right]} on the right` : "left and right unknown";
}

function goTo(slice) {
  if (!view.study) return;
  view.slice = clamp(slice, 0, view.study.pixels.length - 1);
  draw();
}

// Curves

const place = (slice, count) => (1000 * (slice + 0.5)) / count;
const height = (p) => 124 - 118 * p;

function drawCurves() {
  const { study } = view;
  const count = study.pixels.length;
  const svg = at("curve");
  svg.replaceChildren();
  const legend = at("legend");
  legend.replaceChildren();
  const name = (colour, text, kind = "") => {
    const entry = element("span");
    const mark = element("i", { class: kind });
    mark.style.borderColor = colour;
    entry.append(mark, text);
    legend.append(entry);
  };
  if (study.truth) {
    study.truth.forEach((shown, slice) => {
      if (shown) svg.append(shape("rect", { class: "truth", x: (1000 * slice) / count, width: 1000 / count, y: 0, height: 130, fill: "#7ee0a8", "fill-opacity": 0.22 }));
    });
    name("#2c4a3b", "embolus (truth)", "band");
  }
  if (about.sliceThreshold !== null) {
    const y = height(about.sliceThreshold);
    svg.append(shape("line", { x1: 0, x2: 1000, y1: y, y2: y, stroke: "#a9b1ba", "stroke-dasharray": "5 4" }));
    name("#a9b1ba", `threshold of ${Object.keys(study.curves)[0]} ${percent(about.sliceThreshold)}`);
  }
  Object.entries(study.curves).forEach(([key, curve], number) => {
    const colour = COLOURS[number % COLOURS.length];
    const points = curve.map((p, slice) => `${place(slice, count).toFixed(1)},${height(p).toFixed(1)}`).join(" ");
    svg.append(shape("polyline", { points, stroke: colour, "stroke-opacity": number ? 0.6 : 1 }));
    name(colour, key);
  });
  svg.append(shape("line", { class: "here", x1: 0, x2: 0, y1: 0, y2: 130, stroke: "#fff", "stroke-width": 1.5 }));
  const [first, curve] = Object.entries(study.curves)[0] ?? ["", [0]];
  const top = curve.indexOf(Math.max(...curve));
  svg.setAttribute("aria-label", `Probability of each slice by ${first}: highest ${percent(curve[top])} on slice ${top + 1} of ${count}`);
}

function jump(event) {
  if (!view.study || (event.type === "pointermove" && !event.buttons)) return;
  const box = at("curve").getBoundingClientRect();
  goTo(Math.floor(((event.clientX - box.left) / box.width) * view.study.pixels.length));
}

// Window and map

function setWindow(level, width) {
  view.level = Math.round(clamp(level, -2000, 4000));
  view.width = Math.round(clamp(width, 1, 6000));
  at("level").value = view.level;
  at("width").value = view.width;
  for (const button of document.querySelectorAll(".preset")) {
    const same = Number(button.dataset.level) === view.level && Number(button.dataset.width) === view.width;
    button.setAttribute("aria-pressed", same);
  }
  draw();
}

function setMap(name) {
  view.map = name;
  at("map").value = name;
  draw();
}

function readWindow() {
  const level = at("level").valueAsNumber, width = at("width").valueAsNumber;
  if (Number.isFinite(level) && width >= 1) setWindow(level, width);
}

function neighbour(step) {
  const numbers = [...at("studies").querySelectorAll("button")].map((button) => Number(button.dataset.number));
  const next = numbers[clamp(numbers.indexOf(view.number) + step, 0, numbers.length - 1)];
  if (next !== undefined && next !== view.number) openStudy(next);
}

const KEYS = {
  ArrowUp: () => goTo(view.slice + 1),
  ArrowDown: () => goTo(view.slice - 1),
  ArrowRight: () => goTo(view.slice + 1),
  ArrowLeft: () => goTo(view.slice - 1),
  PageUp: () => goTo(view.slice + 10),
  PageDown: () => goTo(view.slice - 10),
  Home: () => goTo(0),
  End: () => goTo(Infinity),
  m: () => setMap([...at("map").options][(at("map").selectedIndex + 1) % at("map").options.length].value),
  n: () => neighbour(1),
  p: () => neighbour(-1),
};
[...document.querySelectorAll(".preset")].forEach((button, number) => {
  const choose = () => setWindow(Number(button.dataset.level), Number(button.dataset.width));
  button.addEventListener("click", choose);
  KEYS[number + 1] = choose;
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const focus = document.activeElement;
  // Fields that use keys themselves keep them.
  if (focus.matches("input[type=number], select, #opacity")) return;
  if (focus.closest("#studies") && event.key.startsWith("Arrow")) {
    const item = focus.closest("li");
    const next = event.key === "ArrowDown" ? item.nextElementSibling : event.key === "ArrowUp" ? item.previousElementSibling : null;
    next?.querySelector("button").focus();
    event.preventDefault();
    return;
  }
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});

let turned = 0;
at("stage").addEventListener("wheel", (event) => {
  event.preventDefault();
  // A touchpad sends many small turns, a wheel one large one.
  turned += clamp(event.deltaMode ? event.deltaY * 40 : event.deltaY, -100, 100);
  const steps = Math.trunc(turned / 40) && Math.sign(turned);
  if (steps) {
    turned = 0;
    goTo(view.slice - steps);
  }
}, { passive: false });

let drag = null;
at("stage").addEventListener("pointerdown", (event) => {
  if (event.button) return;
  drag = { x: event.clientX, y: event.clientY, level: view.level, width: view.width };
  at("stage").setPointerCapture(event.pointerId);
});
at("stage").addEventListener("pointermove", (event) => {
  if (drag) setWindow(drag.level + 2 * (event.clientY - drag.y), drag.width + 2 * (event.clientX - drag.x));
});
for (const end of ["pointerup", "pointercancel"]) at("stage").addEventListener(end, () => { drag = null; });

at("curve").addEventListener("pointerdown", jump);
at("curve").addEventListener("pointermove", jump);
at("slice").addEventListener("input", () => goTo(at("slice").valueAsNumber));
for (const id of ["level", "width"]) at(id).addEventListener("change", readWindow);
at("map").addEventListener("change", () => setMap(at("map").value));
at("opacity").addEventListener("input", () => { view.opacity = at("opacity").valueAsNumber / 100; draw(); });
for (const button of document.querySelectorAll("[data-filter]")) {
  button.addEventListener("click", () => filterStudies(button.dataset.filter));
}

listStudies();
setWindow(view.level, view.width);
if (about.studies.length) openStudy(0);
