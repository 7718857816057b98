// The drawing board: pens, and what is shown of the network.

const element = (id) => document.getElementById(id);
const board = element("board"), pen = element("pen");
const names = MODEL.class_names, [ROWS, COLUMNS] = MODEL.image_shape;
const STEP = 1 / 40;  // of the board's side, with an arrow key
let strokes = [];  // each {width, points: [[x, y], ...]}, in parts of the board's side
let current = null;  // the stroke that is being drawn
let cursor = null;  // where the keyboard's pen is
let shown = null;  // an image of the gallery, in place of the drawing
let result = null;  // what the network makes of what is shown
let chosen = null;  // [layer, unit] whose weights are shown; null: the brightest of the first
let waiting = false;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// The drawing.

function drawStrokes(context, style) {
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = context.fillStyle = style;
  const side = board.width;
  for (const { width, points } of strokes) {
    context.lineWidth = width * side;
    context.beginPath();
    context.moveTo(points[0][0] * side, points[0][1] * side);
    for (const [x, y] of points) context.lineTo(x * side, y * side);
    context.stroke();
  }
}

function drawing() {
  const canvas = new OffscreenCanvas(board.width, board.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  drawStrokes(context, "#000");
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const data = new Uint8Array(pixels.length / 4);
  for (let i = 0; i < data.length; i++) data[i] = 255 - pixels[4 * i + 3];
  return { rows: canvas.height, columns: canvas.width, data };
}

function place(event) {
  const box = board.getBoundingClientRect();
  const part = (value) => Math.min(Math.max(value, 0), 1);
  return [part((event.clientX - box.left) / box.width), part((event.clientY - box.top) / box.height)];
}

function begin(point) {
  shown = null;
  current = { width: pen.value / 100, points: [point] };
  strokes.push(current);
}

function change(action) {
  return () => {
    action();
    current = shown = null;
    later();
  };
}

const undo = change(() => { strokes.pop(); });
const clear = change(() => { strokes = []; });

board.addEventListener("pointerdown", (event) => {
  board.setPointerCapture(event.pointerId);
  cursor = null;
  begin(place(event));
  later();
});
board.addEventListener("pointermove", (event) => {
  if (!current || cursor) return;
  const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  for (const each of events.length ? events : [event]) current.points.push(place(each));
  later();
});
for (const name of ["pointerup", "pointercancel"]) {
  board.addEventListener(name, () => { if (!cursor) current = null; });
}
element("undo").addEventListener("click", undo);
element("clear").addEventListener("click", clear);

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
board.addEventListener("keydown", (event) => {
  cursor = cursor || [0.5, 0.25];
  if (event.key in ARROWS) {
    const by = STEP * (event.shiftKey ? 4 : 1);
    cursor = cursor.map((value, axis) => Math.min(Math.max(value + by * ARROWS[event.key][axis], 0), 1));
    if (current) current.points.push(cursor);
  } else if (event.key === " ") {
    if (current) current = null;
    else begin(cursor);
  } else if (event.key === "Backspace") undo();
  else if (event.key === "Escape") clear();
  else return;
  event.preventDefault();
  later();
});
board.addEventListener("blur", () => {
  if (cursor) current = cursor = null;
  later();
});

// What is shown.

function later() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    update();
  });
}

function update() {
  const stages = shown || !strokes.length ? null : prepare(drawing(), true);
  const image = shown ? shown.image : stages && stages.digit ? stages.digit.image : null;
  result = image && { image, digit: stages && stages.digit, ...recognise(image) };
  showBoard();
  showImage(element("seen"), image || new Uint8Array(ROWS * COLUMNS));
  showScores();
  showLayers();
  showWeights();
  const digit = result && result.digit;
  element("note").textContent = digit && digit.adjusted
    ? `strokes of ${digit.width.toFixed(1)} pixels, ${digit.adjusted} to about ${USUAL}`
    : shown ? shown.caption : `${ROWS} x ${COLUMNS} pixels`;
}

function showBoard() {
  const context = board.getContext("2d"), side = board.width;
  context.clearRect(0, 0, side, side);
  context.lineWidth = 2;
  if (result && result.digit && result.digit.box) {
    const { left, top, right, bottom } = result.digit.box;
    context.setLineDash([6, 6]);
    context.strokeStyle = colour("--accent");
    context.strokeRect(left - 3, top - 3, right - left + 6, bottom - top + 6);
    context.setLineDash([]);
  }
  drawStrokes(context, colour("--ink"));
  if (cursor) {
    const [x, y] = cursor.map((value) => value * side);
    context.strokeStyle = colour("--accent");
    context.lineWidth = current ? 6 : 2;
    context.beginPath();
    context.moveTo(x - 12, y);
    context.lineTo(x + 12, y);
    context.moveTo(x, y - 12);
    context.lineTo(x, y + 12);
    context.stroke();
  }
}

function showImage(canvas, image) {
  canvas.width = COLUMNS;
  canvas.height = ROWS;
  const pixels = new ImageData(COLUMNS, ROWS);
  image.forEach((value, i) => pixels.data.set([value, value, value, 255], 4 * i));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

const bars = names.map((name) => {
  const item = document.createElement("li");
  const parts = ["label", "track", "value"].map((kind) => {
    const part = document.createElement("span");
    part.className = kind;
    item.append(part);
    return part;
  });
  parts[0].textContent = name;
  const bar = document.createElement("span");
  bar.className = "bar";
  parts[1].append(bar);
  element("scores").append(item);
  return { item, bar, value: parts[2] };
});

function written(score) {
  return MODEL.softmax ? `${(100 * score).toFixed(1)} %` : score.toFixed(3);
}

function best(scores) {
  return scores.indexOf(Math.max(...scores));
}

let speaking = 0;

function showScores() {
  const winner = result ? best(result.scores) : -1;
  bars.forEach(({ item, bar, value }, i) => {
    const score = result ? result.scores[i] : 0;
    item.className = i === winner ? "best" : "";
    bar.style.width = `${100 * Math.min(Math.max(score, 0), 1)}%`;
    value.textContent = result ? written(score) : "";
  });
  element("answer").textContent = result ? `${names[winner]}: ${written(result.scores[winner])}` : "";
  clearTimeout(speaking);
  speaking = setTimeout(() => {
    const words = result ? `${names[winner]}, ${written(result.scores[winner])}` : "";
    element("spoken").textContent = words && `Reads ${words}`;
    element("seen").setAttribute("aria-label", result ? `the image, read as ${words}` : "nothing yet");
  }, 400);
}

// Hidden units: a grid of lamps for each layer.

const CELL = 22;  // pixels of a lamp, its gap in it
const affine = NETWORK.filter((layer) => layer.kind === "affine");
const grids = affine.slice(0, -1).map((layer, index) => {
  const units = layer.bias.length, across = Math.min(units, Math.ceil(Math.sqrt(4 * units)));
  const canvas = document.createElement("canvas");
  canvas.width = across * CELL;
  canvas.height = Math.ceil(units / across) * CELL;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * across);
    const y = Math.floor(((event.clientY - box.top) / box.height) * (canvas.height / CELL));
    return y * across + x;
  };
  const choose = (unit) => {
    if (unit < 0 || unit >= units) return;
    chosen = [index, unit];
    showLayers();
    showWeights();
  };
  for (const name of ["pointermove", "pointerdown"]) {
    canvas.addEventListener(name, (event) => choose(at(event)));
  }
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in ARROWS)) return;
    const [x, y] = ARROWS[event.key];
    choose((marked()[0] === index ? marked()[1] : 0) + x + y * across);
    event.preventDefault();
  });
  element("layers").append(canvas);
  return { canvas, units, across };
});
element("inside").hidden = !grids.length;

function shade(value, most) {
  const strength = most ? Math.abs(value) / most : 0;
  return `rgba(${colour(value < 0 ? "--minus" : "--plus")}, ${strength})`;
}

function marked() {
  return chosen || [0, result ? best(result.hidden[0].map(Math.abs)) : 0];
}

function showLayers() {
  grids.forEach(({ canvas, units, across }, index) => {
    const values = result ? result.hidden[index] : new Float64Array(units);
    const most = Math.max(...values.map(Math.abs)), context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    for (let unit = 0; unit < units; unit++) {
      const x = (unit % across) * CELL + 1, y = Math.floor(unit / across) * CELL + 1;
      context.fillStyle = colour("--track");
      context.fillRect(x, y, CELL - 2, CELL - 2);
      context.fillStyle = shade(values[unit], most);
      context.fillRect(x, y, CELL - 2, CELL - 2);
      if (marked()[0] === index && marked()[1] === unit) {
        context.strokeStyle = colour("--text");
        context.lineWidth = 3;
        context.strokeRect(x, y, CELL - 2, CELL - 2);
      }
    }
    const lit = values.filter((value) => Math.abs(value) > most / 10).length;
    canvas.setAttribute("aria-label", `${units} hidden units, ${result ? lit : 0} lit; arrow keys choose one`);
  });
}

// The weights that lead into the chosen unit, as a picture: of pixels, or of the units before it.
function showWeights() {
  if (!grids.length) return;
  const canvas = element("weights"), [index, unit] = marked();
  const { weight, bias } = affine[index], units = bias.length, inputs = weight.length / units;
  const before = index ? grids[index - 1].across : COLUMNS;
  const rows = Math.ceil(inputs / before), scale = Math.max(1, Math.floor(280 / before));
  canvas.width = before * scale;
  canvas.height = rows * scale;
  const context = canvas.getContext("2d");
  const column = Float64Array.from({ length: inputs }, (_, i) => weight[i * units + unit]);
  const most = Math.max(...column.map(Math.abs));
  column.forEach((value, i) => {
    context.fillStyle = shade(value, most);
    context.fillRect((i % before) * scale, Math.floor(i / before) * scale, scale, scale);
  });
  const next = affine[index + 1], outputs = next.bias.length;
  const onward = Array.from({ length: outputs }, (_, j) => next.weight[unit * outputs + j]);
  const gives = result ? ` gives ${result.hidden[index][unit].toFixed(2)} here` : "";
  const words = [`Unit ${unit + 1} of ${units}${gives}`];
  if (index + 2 === affine.length) {
    const against = onward.indexOf(Math.min(...onward));
    words.push(`it speaks most for ${names[best(onward)]}, most against ${names[against]}`);
  }
  const what = index ? "units before it" : "pixels";
  element("unit").textContent = `${words.join("; ")}. The blue ${what} excite it, the orange inhibit it.`;
  canvas.setAttribute("aria-label", `weights of unit ${unit + 1}`);
}

// Mistakes.

const bytes = Uint8Array.from(atob(MODEL.mistakes.images), (character) => character.charCodeAt(0));
MODEL.mistakes.labels.forEach((label, i) => {
  const image = bytes.subarray(i * ROWS * COLUMNS, (i + 1) * ROWS * COLUMNS);
  const read = names[best(recognise(image).scores)];
  const caption = `test image ${MODEL.mistakes.indices[i]}: ${names[label]}, read as ${read}`;
  const button = document.createElement("button"), canvas = document.createElement("canvas");
  button.type = "button";
  showImage(canvas, image);
  button.append(canvas, `${names[label]}, read as ${read}`);
  button.setAttribute("aria-label", caption);
  button.addEventListener("click", () => {
    strokes = [];
    current = null;
    shown = { image, caption };
    later();
  });
  element("gallery").append(button);
});
element("mistakes").hidden = !MODEL.mistakes.labels.length;

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later);
update();
