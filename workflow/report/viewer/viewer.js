"use strict";
// The page's behaviour. Studies arrive as scripts, so that it also works from a folder.

const CANVAS = 768; // side of the canvas in pixels
const KEPT = 60; // decoded slices in memory
const COLOURS = ["#6cb6ff", "#ffb454", "#d6a2ff", "#7ee0a8", "#ff8a80"];
const OPPOSITE = { L: "R", R: "L", A: "P", P: "A", H: "F", F: "H" }; // sides of the patient
const SIDES = { L: "left", R: "right", A: "front", P: "back", H: "head", F: "feet" };
const NO_BREAK = "\u00a0";
const FIGURE_SPACE = "\u2007"; // as wide as a digit
const ZOOMS = [1, 8]; // least and most
const BAR_MM = [100, 50, 20, 10, 5, 2]; // lengths that the scale can have
// From a map's least value to its highest: dark blue, violet, red, orange, yellow, as in the bar.
const MAP_COLOURS = [[13, 8, 135], [126, 3, 168], [204, 71, 120], [248, 149, 64], [240, 249, 33]];

const about = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const view = { number: -1, study: null, slice: 0, level: 100, width: 700, map: "", opacity: 0.55, cut: 0.4, filter: "all", plane: "axial", row: 0, tool: "window", zoom: 1, x: 0.5, y: 0.5, ruler: null };
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

const DECIMALS = 1; // of a percentage, and more where that does not tell it from its threshold
const percent = (p, digits = DECIMALS) => (100 * p).toFixed(digits) + "%";
const counted = (n, one, many) => `${n}${NO_BREAK}${n === 1 ? one : many}`;
const signed = (value) => String(value).replace("-", "−");
const withMinus = (text) => text.replace(/(?<![\w.-])-(?=\d)/g, "−");

// A probability and its threshold with as many digits as tell them apart.
function beside(p, threshold) {
  if (threshold === null) return [percent(p), "–"];
  let digits = DECIMALS;
  while (p !== threshold && digits < 6 && percent(p, digits) === percent(threshold, digits)) digits += 1;
  return [percent(p, digits), percent(threshold, digits)];
}
// Percentages below one another, their points too: after what has fewer decimals goes as much space.
function alignPoints(cells) {
  const length = (cell) => cell.textContent.split(".")[1]?.length ?? 0;
  const longest = Math.max(0, ...cells.map(length));
  for (const cell of cells) if (length(cell)) cell.textContent += FIGURE_SPACE.repeat(longest - length(cell));
}

const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// Studies

// What the model says of PE, and whether that is true.
function callOf(study) {
  const { called, truth } = study.targets.pe_present;
  if (called === null) return ["no threshold: not called", ""];
  if (truth === null) return called ? ["PE called", "called"] : ["no PE called", ""];
  if (called === truth) return called ? ["true positive", ""] : ["true negative", ""];
  return truth ? ["false negative", "false_negative"] : ["false positive", "false_positive"];
}

function listStudies() {
  const list = at("studies");
  list.replaceChildren();
  about.studies.forEach((study, number) => {
    if (view.filter !== "all" && !study.groups.includes(view.filter)) return;
    const present = study.targets.pe_present;
    const button = element("button", { type: "button", "data-number": number, "aria-current": number === view.number, title: study.uid });
    button.append(element("bdi", { class: "uid", dir: "ltr" }, study.uid), element("span", { class: "p" }, beside(present.probability, present.threshold)[0]));
    const tags = element("span", { class: "tags" });
    const [call, look] = callOf(study);
    tags.append(element("span", { class: look }, call));
    if (study.groups.includes("indeterminate")) tags.append(" · ", element("span", { class: "indeterminate" }, "indeterminate"));
    tags.append(` · ${counted(study.slices, "slice", "slices")}`);
    if (study.notes.length) tags.append(" · ", element("span", { class: "noted" }, counted(study.notes.length, "note", "notes")));
    button.append(tags);
    button.addEventListener("click", () => openStudy(number));
    const item = element("li");
    item.append(button);
    list.append(item);
  });
  alignPoints([...list.querySelectorAll(".p")]);
  at("shown").textContent = `${list.children.length} of ${counted(about.studies.length, "study", "studies")}, by probability of PE`;
}

function filterStudies(name) {
  view.filter = name;
  for (const button of document.querySelectorAll("[data-filter]")) {
    button.setAttribute("aria-pressed", button.dataset.filter === name);
  }
  listStudies();
  // What the filter hides is not to stay on the screen.
  const numbers = listed();
  if (!numbers.includes(view.number)) numbers.length ? openStudy(numbers[0]) : closeStudy();
}

const listed = () => [...at("studies").querySelectorAll("button")].map((button) => Number(button.dataset.number));

function closeStudy() {
  view.number = -1;
  view.study = null;
  decoded.clear();
  drawing += 1;
  at("image").getContext("2d").clearRect(0, 0, CANVAS, CANVAS);
  at("image").setAttribute("aria-label", "No study is open");
  for (const id of ["corner-study", "corner-notes", "corner-window", "corner-slice", "corner-truth", "cursor", "end-first", "end-last"]) at(id).textContent = "";
  for (const id of ["curve", "legend", "labels", "facts", "notes", "shift"]) at(id).replaceChildren();
  at("noted").hidden = true;
  at("shifted").hidden = true;
  at("trouble").hidden = true;
  showSides("");
}

function openStudy(number) {
  view.number = number;
  view.study = null;
  Object.assign(view, { zoom: 1, x: 0.5, y: 0.5, ruler: null });
  decoded.clear();
  drawing += 1;
  at("trouble").hidden = true;
  at("image").getContext("2d").clearRect(0, 0, CANVAS, CANVAS);
  for (const button of at("studies").querySelectorAll("button")) {
    button.setAttribute("aria-current", Number(button.dataset.number) === number);
  }
  at("corner-study").textContent = `${about.studies[number].uid}\nloading …`;
  at("curve").replaceChildren();
  showSides("");
  showLabels(about.studies[number]);
  showFacts(about.studies[number]);
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
  view.row = study.size / 2;
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
    const [shown, limit] = beside(probability, threshold);
    const p = element("td", { class: "n p" }, shown);
    p.style.backgroundSize = `${100 * probability}% 3px`;
    p.style.backgroundPosition = "left bottom";
    const verdict = known && called !== truth ? (truth ? "no – missed" : "yes – false") : yes(called);
    row.append(
      element("th", { scope: "row" }, title),
      p,
      element("td", { class: "n" }, limit),
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
  for (const column of [2, 3]) alignPoints([...at("labels").querySelectorAll(`td.n:nth-child(${column})`)]);
}

// How the series was made and chosen, and what is doubtful of it.
function showFacts(study) {
  at("facts").replaceChildren(...study.facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  at("notes").replaceChildren(...study.notes.map((note) => element("li", {}, withMinus(note))));
  at("noted").hidden = !study.notes.length;
  at("shift").replaceChildren(...study.shift.flatMap(shiftRows));
  at("shifted").hidden = !study.shift.length;
  // Beside the picture what each is of; the numbers follow its colon.
  at("corner-notes").textContent = [...new Set(study.notes.map((note) => note.split(":")[0]))].join("\n");
}

// One fact beside the training studies; where it lies outside of them, that in words too.
function shiftRows(fact) {
  const row = element("tr", { title: withMinus(fact.told) });
  row.append(
    element("th", { scope: "row" }, fact.fact),
    element("td", { class: "n" }, withMinus(fact.value)),
    element("td", { class: "n" }, withMinus(fact.training)),
  );
  if (!fact.outside) return [row];
  row.classList.add("outside");
  const told = element("tr", { class: "outside told" });
  told.append(element("td", { colspan: 3 }, `⚠ ${withMinus(fact.told)}`));
  return [row, told];
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

// The map's value from 0 to 1 at every pixel of the slice, linear between the centres of its cells.
function mapOf(name, slice) {
  const map = view.study.maps[name];
  view.study.bytes[name] ??= bytes(map.values);
  const values = view.study.bytes[name].subarray(slice * map.rows * map.columns);
  const { size } = view.study; // side of a slice in pixels
  const laid = new Float32Array(size * size);
  const margin = (size - map.crop) >> 1;
  const cells = (count) => Array.from({ length: map.crop }, (_, i) => {
    const at = clamp(((i + 0.5) * count) / map.crop - 0.5, 0, count - 1);
    const low = Math.floor(at);
    return [low, Math.min(low + 1, count - 1), at - low];
  });
  const rows = cells(map.rows), columns = cells(map.columns);
  rows.forEach(([r0, r1, dr], y) => columns.forEach(([c0, c1, dc], x) => {
    const above = values[r0 * map.columns + c0] * (1 - dc) + values[r0 * map.columns + c1] * dc;
    const below = values[r1 * map.columns + c0] * (1 - dc) + values[r1 * map.columns + c1] * dc;
    laid[(y + margin) * size + x + margin] = (above * (1 - dr) + below * dr) / 255;
  }));
  return laid;
}

function mapColour(value) {
  const step = clamp(value, 0, 1) * (MAP_COLOURS.length - 1);
  const low = Math.min(Math.floor(step), MAP_COLOURS.length - 2);
  return MAP_COLOURS[low].map((from, i) => from + (step - low) * (MAP_COLOURS[low + 1][i] - from));
}

// A plane: values and map by row and column, and the sides of a pixel in mm, or null.

async function axialPlane() {
  const { study, slice } = view;
  const map = view.map && study.maps[view.map] ? mapOf(view.map, slice) : null;
  const mm = study.pixelMm[slice];
  return { values: await pixelsOf(slice), map, width: study.size, height: study.size, mm };
}

// All slices at one of their rows, the head above, as high as they lie apart.
async function coronalPlane() {
  const { study, row } = view;
  const { size } = study;
  const count = study.pixels.length;
  const mm = study.pixelMm.every((side) => side === study.pixelMm[0]) ? study.pixelMm[0] : null;
  const positions = study.positions.every((p) => p !== null) ? study.positions : null;
  const length = positions ? Math.abs(positions[count - 1] - positions[0]) : 0;
  const scaled = mm !== null && length > 0;
  const height = scaled ? clamp(Math.round(length / mm) + 1, 2, 4 * size) : size;
  if (study.rowsAt !== row) {
    const all = [];
    for (let i = 0; i < count; i++) {
      const kept = decoded.has(i);
      const pixels = await pixelsOf(i);
      if (!kept) decoded.delete(i);
      all.push(pixels.slice(row * size, (row + 1) * size));
    }
    study.rowsAt = row;
    study.rows = all;
  }
  const values = new Int16Array(size * height);
  const nearest = new Array(height);
  for (let y = 0; y < height; y++) {
    const share = 1 - y / (height - 1);
    nearest[y] = Math.round(share * (count - 1));
    if (scaled) {
      const at = positions[0] + share * (positions[count - 1] - positions[0]);
      let best = 0;
      positions.forEach((p, i) => { if (Math.abs(p - at) < Math.abs(positions[best] - at)) best = i; });
      nearest[y] = best;
    }
    values.set(study.rows[nearest[y]], y * size);
  }
  return { values, map: null, width: size, height, mm: scaled ? mm : null, nearest };
}

let plane = null; // the one that is drawn

// The part of the plane that the square canvas shows: its left and top edge and its side, in pixels.
function windowOn({ width, height }) {
  const side = Math.max(width, height) / view.zoom;
  return { side, left: view.x * width - side / 2, top: view.y * height - side / 2 };
}

async function draw() {
  const { study } = view;
  if (!study) return;
  const mine = ++drawing;
  showPosition();
  let made;
  try {
    made = await (view.plane === "axial" ? axialPlane() : coronalPlane());
  } catch (error) {
    showTrouble(`This slice cannot be shown: ${error.message}. A newer browser may help.`);
    return;
  }
  if (mine !== drawing) return;
  plane = made;
  const { values, map, width, height } = plane;
  const low = view.level - view.width / 2;
  const image = new ImageData(width, height);
  for (let i = 0; i < values.length; i++) {
    const grey = clamp((255 * (values[i] - low)) / view.width, 0, 255);
    let colour = [grey, grey, grey];
    if (map && map[i] > 0 && map[i] >= view.cut) {
      colour = mapColour(map[i]).map((value) => grey * (1 - view.opacity) + value * view.opacity);
    }
    image.data.set(colour, 4 * i);
    image.data[4 * i + 3] = 255;
  }
  const small = element("canvas", { width, height });
  small.getContext("2d").putImageData(image, 0, 0);
  const canvas = at("image");
  const context = canvas.getContext("2d");
  const full = CANVAS;
  const { side, left, top } = windowOn(plane);
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#000";
  context.fillRect(0, 0, full, full);
  context.drawImage(small, left, top, side, side, 0, 0, full, full);
  drawMeasures(context, full / side);
  canvas.dataset.drawn = mine;
  if (view.plane === "axial") for (const next of [view.slice + 1, view.slice - 1]) if (study.pixels[next]) pixelsOf(next);
}

// The row of the coronal plane at which a slice lies: the middle of its rows or, where slices lie nearer
// together than rows and it has none, of those of the nearest slice.
function markedAt(nearest, slice) {
  const away = nearest.map((shown) => Math.abs(shown - slice));
  const least = Math.min(...away);
  return (away.indexOf(least) + away.lastIndexOf(least)) / 2;
}

// The scale, the ruler, and in the coronal plane where the slice lies.
function drawMeasures(context, scale) {
  const full = CANVAS;
  const { side, left, top } = windowOn(plane);
  const stroke = (points, colour) => {
    for (const [width, style] of [[5, "#000"], [2, colour]]) {
      context.lineWidth = width;
      context.strokeStyle = style;
      context.beginPath();
      points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.stroke();
    }
  };
  const write = (text, x, y) => {
    context.font = "20px system-ui, sans-serif";
    context.textAlign = "center";
    context.lineWidth = 4;
    context.strokeStyle = "#000";
    context.strokeText(text, x, y);
    context.fillStyle = "#fff";
    context.fillText(text, x, y);
  };
  if (plane.mm !== null) {
    const length = BAR_MM.find((mm) => mm / plane.mm <= side / 3) ?? 1;
    const half = (length / plane.mm) * scale / 2;
    const y = full - 46;
    stroke([[full / 2 - half, y - 6], [full / 2 - half, y], [full / 2 + half, y], [full / 2 + half, y - 6]], "#fff");
    write(`${length} mm`, full / 2, y - 12);
  }
  if (plane.nearest) {
    const y = (markedAt(plane.nearest, view.slice) + 0.5 - top) * scale;
    stroke([[0, y], [24, y]], "#6cb6ff");
    stroke([[full - 24, y], [full, y]], "#6cb6ff");
  }
  if (view.ruler) {
    const ends = view.ruler.map(({ x, y }) => [(x - left) * scale, (y - top) * scale]);
    stroke(ends, "#ffb454");
    write(rulerText(), (ends[0][0] + ends[1][0]) / 2, (ends[0][1] + ends[1][1]) / 2 - 10);
  }
}

function rulerText() {
  const [from, to] = view.ruler;
  const length = Math.hypot(to.x - from.x, to.y - from.y);
  return plane.mm === null ? `${length.toFixed(1)} pixels` : `${(length * plane.mm).toFixed(1)} mm`;
}

// Where an event lies on the plane, in its pixels.
function pointAt(event) {
  const box = at("image").getBoundingClientRect();
  const shown = Math.min(box.width, box.height);
  const { side, left, top } = windowOn(plane);
  return {
    x: left + ((event.clientX - box.left - (box.width - shown) / 2) / shown) * side,
    y: top + ((event.clientY - box.top - (box.height - shown) / 2) / shown) * side,
  };
}

// The Hounsfield units under the cursor.
function showValue(event) {
  if (!view.study || !plane) return;
  const { x, y } = pointAt(event);
  const [column, row] = [Math.floor(x), Math.floor(y)];
  const inside = column >= 0 && row >= 0 && column < plane.width && row < plane.height;
  at("cursor").textContent = inside ? `${signed(plane.values[row * plane.width + column])} HU at ${column}, ${row}` : "";
}

function setZoom(zoom, on = null) {
  if (!view.study || !plane) return;
  const before = windowOn(plane);
  view.zoom = clamp(zoom, ...ZOOMS);
  const after = windowOn(plane);
  if (on) {
    // What lies under the cursor stays there.
    const stay = (point, edge) => point + (0.5 - (point - edge) / before.side) * after.side;
    view.x = stay(on.x, before.left) / plane.width;
    view.y = stay(on.y, before.top) / plane.height;
  }
  moveTo(view.x, view.y);
}

function moveTo(x, y) {
  view.x = view.zoom === 1 ? 0.5 : clamp(x, 0, 1);
  view.y = view.zoom === 1 ? 0.5 : clamp(y, 0, 1);
  at("zoom").textContent = `${Math.round(100 * view.zoom)}%`;
  draw();
}

function press(name, value) {
  for (const button of document.querySelectorAll(`[data-${name}]`)) {
    if (button.id !== "stage") button.setAttribute("aria-pressed", button.dataset[name] === value);
  }
}

function setPlane(name) {
  Object.assign(view, { plane: name, zoom: 1, x: 0.5, y: 0.5, ruler: null });
  press("plane", name);
  at("zoom").textContent = "100%";
  draw();
}

function setTool(name) {
  view.tool = name;
  at("stage").dataset.tool = name;
  press("tool", name);
}

function showPosition() {
  const { study, slice } = view;
  const count = study.pixels.length;
  const axial = view.plane === "axial";
  const threshold = about.sliceThreshold;
  const curves = Object.entries(study.curves).map(([name, curve], number) => `${name} ${number || threshold === null ? percent(curve[slice]) : beside(curve[slice], threshold)[0]}`);
  const mm = study.positions[slice];
  const text = `Slice ${slice + 1} of ${count}${mm === null ? "" : `, ${signed(mm)} mm`}`;
  const orientation = study.orientations[slice];
  const sides = showSides(axial ? orientation : orientation === "LP" ? "LF" : "");
  at("corner-slice").textContent = axial ? `${text}\n${curves.join("\n")}` : `Coronal, row ${view.row + 1} of ${study.size}\n${text}`;
  at("corner-window").textContent = `L ${signed(view.level)} W ${view.width}${view.map && axial ? `\nmap: ${view.map}` : ""}`;
  at("corner-truth").textContent = study.truth && axial ? (study.truth[slice] ? "Truth: embolus on this slice" : "Truth: none on this slice") : "";
  at("slice").value = slice;
  at("slice").setAttribute("aria-valuetext", text);
  at("image").setAttribute("aria-label", `CT, ${axial ? "" : `coronal, row ${view.row + 1}, `}${text}, ${sides}, ${curves.join(", ")}${view.map && axial ? `, with the map of ${view.map}` : ""}`);
  const line = at("curve").querySelector(".here");
  if (line) {
    const x = xOf(slice, count);
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
  view.ruler = null;
  draw();
}

// A step through the plane's own slices: to the head, or to the back.
function step(by) {
  if (view.plane === "axial") return goTo(view.slice + by);
  if (!view.study) return;
  view.row = clamp(view.row + by, 0, view.study.size - 1);
  view.ruler = null;
  draw();
}

// Curves

const xOf = (slice, count) => (1000 * (slice + 0.5)) / count;
const yOf = (p) => 124 - 118 * p;

function drawCurves() {
  const { study } = view;
  const count = study.pixels.length;
  const svg = at("curve");
  svg.replaceChildren();
  const legend = at("legend");
  legend.replaceChildren();
  const name = (colour, text, look = "") => {
    const entry = element("span");
    const mark = element("i", { class: look });
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
    const y = yOf(about.sliceThreshold);
    svg.append(shape("line", { x1: 0, x2: 1000, y1: y, y2: y, stroke: "#a9b1ba", "stroke-dasharray": "5 4" }));
    name("#a9b1ba", `threshold of ${Object.keys(study.curves)[0]} ${percent(about.sliceThreshold)}`);
  }
  Object.entries(study.curves).forEach(([key, curve], number) => {
    const colour = COLOURS[number % COLOURS.length];
    const points = curve.map((p, slice) => `${xOf(slice, count).toFixed(1)},${yOf(p).toFixed(1)}`).join(" ");
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
  const numbers = listed();
  const next = numbers[clamp(numbers.indexOf(view.number) + step, 0, numbers.length - 1)];
  if (next !== undefined && next !== view.number) openStudy(next);
}

const KEYS = {
  ArrowUp: () => step(1),
  ArrowDown: () => step(-1),
  ArrowRight: () => step(1),
  ArrowLeft: () => step(-1),
  PageUp: () => step(10),
  PageDown: () => step(-10),
  Home: () => goTo(0),
  End: () => goTo(Infinity),
  m: () => setMap([...at("map").options][(at("map").selectedIndex + 1) % at("map").options.length].value),
  n: () => neighbour(1),
  p: () => neighbour(-1),
  "+": () => setZoom(view.zoom * 1.25),
  "=": () => setZoom(view.zoom * 1.25),
  "-": () => setZoom(view.zoom / 1.25),
  0: () => setZoom(1),
  c: () => setPlane(view.plane === "axial" ? "coronal" : "axial"),
  w: () => setTool("window"),
  v: () => setTool("pan"),
  r: () => setTool("ruler"),
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
  if (focus.matches("input[type=number], select, #opacity, #cut")) return;
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
  if (event.ctrlKey) return setZoom(view.zoom * Math.exp(-clamp(event.deltaY, -100, 100) / 300), pointAt(event));
  // A touchpad sends many small turns, a wheel one large one.
  turned += clamp(event.deltaMode ? event.deltaY * 40 : event.deltaY, -100, 100);
  const steps = Math.trunc(turned / 40) && Math.sign(turned);
  if (steps) {
    turned = 0;
    step(-steps);
  }
}, { passive: false });

let drag = null;
const fingers = new Map();

const apart = () => {
  const [a, b] = [...fingers.values()];
  return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
};

at("stage").addEventListener("pointerdown", (event) => {
  if (event.button || !view.study || !plane) return;
  fingers.set(event.pointerId, event);
  at("stage").setPointerCapture(event.pointerId);
  if (fingers.size === 2) {
    drag = { pinch: apart(), zoom: view.zoom };
    return;
  }
  const tool = event.shiftKey ? "pan" : view.tool;
  drag = { tool, px: event.clientX, py: event.clientY, level: view.level, width: view.width, from: pointAt(event), x: view.x, y: view.y };
});
at("stage").addEventListener("pointermove", (event) => {
  if (fingers.has(event.pointerId)) fingers.set(event.pointerId, event);
  if (!drag || !plane) return showValue(event);
  if (drag.pinch) {
    if (fingers.size === 2) setZoom((drag.zoom * apart()) / drag.pinch);
    return;
  }
  if (drag.tool === "window") return setWindow(drag.level + 2 * (event.clientY - drag.py), drag.width + 2 * (event.clientX - drag.px));
  if (drag.tool === "ruler") {
    view.ruler = [drag.from, pointAt(event)];
    return draw();
  }
  const box = at("image").getBoundingClientRect();
  const pixels = windowOn(plane).side / Math.min(box.width, box.height);
  moveTo(drag.x - ((event.clientX - drag.px) * pixels) / plane.width, drag.y - ((event.clientY - drag.py) * pixels) / plane.height);
});
for (const end of ["pointerup", "pointercancel"]) {
  at("stage").addEventListener(end, (event) => {
    fingers.delete(event.pointerId);
    drag = null;
  });
}
at("stage").addEventListener("pointerleave", () => { at("cursor").textContent = ""; });

for (const button of document.querySelectorAll("button[data-plane]")) button.addEventListener("click", () => setPlane(button.dataset.plane));
for (const button of document.querySelectorAll("button[data-tool]")) button.addEventListener("click", () => setTool(button.dataset.tool));
at("zoom-in").addEventListener("click", () => setZoom(view.zoom * 1.25));
at("zoom-out").addEventListener("click", () => setZoom(view.zoom / 1.25));
at("zoom-fit").addEventListener("click", () => setZoom(1));

at("curve").addEventListener("pointerdown", jump);
at("curve").addEventListener("pointermove", jump);
at("slice").addEventListener("input", () => goTo(at("slice").valueAsNumber));
for (const id of ["level", "width"]) at(id).addEventListener("change", readWindow);
at("map").addEventListener("change", () => setMap(at("map").value));
at("cut").addEventListener("input", () => {
  view.cut = at("cut").valueAsNumber / 100;
  at("cut-shown").textContent = `${at("cut").value}%`;
  at("bar").style.setProperty("--cut", `${at("cut").value}%`);
  draw();
});
at("opacity").addEventListener("input", () => { view.opacity = at("opacity").valueAsNumber / 100; draw(); });
for (const button of document.querySelectorAll("[data-filter]")) {
  button.addEventListener("click", () => filterStudies(button.dataset.filter));
}

listStudies();
setWindow(view.level, view.width);
if (about.studies.length) openStudy(0);
