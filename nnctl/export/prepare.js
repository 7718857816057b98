// From a picture to an image as MNIST has them: nnctl/pictures/preparation.py once more, function by
// function; see there for the reasons. A test holds the two together.
//
// A picture or an image of ink is {rows, columns, data}, row by row; ink is 0..1.

const PREPARATION = MODEL.preparation;
const { SIDE, INK, FINE, THINNEST, USUAL, THICKEST, SPECK, BLANK, FAINT, HALF } = PREPARATION;

function blank(rows, columns) {
  return { rows, columns, data: new Float64Array(rows * columns) };
}

function sum(values) {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

// darkInk: is the ink darker than the page? null: as it looks.
function prepare(grey, darkInk) {
  if (!MODEL.mnist_like) return resized(grey, ...MODEL.image_shape, darkInk === true);
  if (darkInk !== true && isImage(grey)) return untouched(grey);
  const [page, noise] = findPage(grey);
  const inverted = darkInk === null ? isDarker(grey, page, noise) : darkInk;
  const ink = findInk(grey, page, noise, inverted);
  const pieces = findPieces(ink);
  return { inverted, digit: pieces.length ? makeDigit(ink, pieces) : null };
}

function isImage(grey) {
  if (grey.rows !== SIDE || grey.columns !== SIDE) return false;
  const near = border(SIDE, SIDE);
  return middle([...grey.data].filter((_, place) => near[place])) < 64;
}

function untouched(grey) {
  const inked = grey.data.some((value) => value > 0);
  return { inverted: false, digit: inked ? { image: Uint8Array.from(grey.data) } : null };
}

function resized(grey, height, width, inverted) {
  const ink = blank(grey.rows, grey.columns);
  ink.data = Float64Array.from(grey.data, (value) => (inverted ? 255 - value : value) / 255);
  return { inverted, digit: { image: asBytes(scaled(ink, height, width)) } };
}

// Page and ink.

function border(rows, columns) {
  const m = Math.max(1, Math.floor(Math.min(rows, columns) / 16));
  const near = new Uint8Array(rows * columns);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const inside = y >= m && y < rows - m && x >= m && x < columns - m;
      near[y * columns + x] = inside ? 0 : 1;
    }
  }
  return near;
}

function terms(x, y, rows, columns) {
  const u = (2 * x) / columns - 1, v = (2 * y) / rows - 1;
  return [1, u, v, u * u, u * v, v * v];
}

function surface(page, t) {
  return page[0] + page[1] * t[1] + page[2] * t[2] + page[3] * t[3] + page[4] * t[4] + page[5] * t[5];
}

function findPage(grey) {
  const { rows, columns, data } = grey;
  const step = Math.max(1, Math.floor(Math.max(rows, columns) / 100));
  const atBorder = border(rows, columns);
  const points = [];
  for (let y = 0; y < rows; y += step) {
    for (let x = 0; x < columns; x += step) {
      const place = y * columns + x;
      points.push({ g: data[place], t: terms(x, y, rows, columns), edge: atBorder[place] });
    }
  }
  const edges = points.filter((point) => point.edge);
  const level = middle(edges.map((point) => point.g));
  const spread = Math.max(4 * middle(edges.map((point) => Math.abs(point.g - level))), 16);
  let page = [level, 0, 0, 0, 0, 0], noise = 0;
  let near = edges.filter((point) => Math.abs(point.g - level) <= spread);
  for (let round = 0; round < 4 && near.length >= 12; round++) {
    page = leastSquares(near);
    noise = 1.5 * middle(near.map((point) => Math.abs(point.g - surface(page, point.t))));
    const tolerance = Math.max(4 * noise, 8.5);
    near = points.filter((point) => Math.abs(point.g - surface(page, point.t)) <= tolerance);
  }
  return [page, noise];
}

function leastSquares(points) {
  const matrix = [], n = 6;
  for (let i = 0; i < n; i++) {
    matrix.push(new Float64Array(n + 1));
    if (i) matrix[i][i] = 1e-6 * points.length;
  }
  for (const { g, t } of points) {
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) matrix[i][j] += t[i] * t[j];
      matrix[i][n] += t[i] * g;
    }
  }
  for (let column = 0; column < n; column++) {  // Gauss's elimination, largest pivot first
    let pivot = column;
    for (let i = column + 1; i < n; i++) {
      if (Math.abs(matrix[i][column]) > Math.abs(matrix[pivot][column])) pivot = i;
    }
    [matrix[column], matrix[pivot]] = [matrix[pivot], matrix[column]];
    for (let i = 0; i < n; i++) {
      if (i === column) continue;
      const factor = matrix[i][column] / matrix[column][column];
      for (let j = column; j <= n; j++) matrix[i][j] -= factor * matrix[column][j];
    }
  }
  return matrix.map((row, i) => row[n] / row[i]);
}

function middle(values) {
  return quantile(values, 0.5);
}

function quantile(values, q) {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.floor(q * (sorted.length - 1))];
}

function contrastWith(grey, page) {
  const contrast = blank(grey.rows, grey.columns);
  for (let y = 0, place = 0; y < grey.rows; y++) {
    for (let x = 0; x < grey.columns; x++, place++) {
      contrast.data[place] = surface(page, terms(x, y, grey.rows, grey.columns)) - grey.data[place];
    }
  }
  return contrast;
}

function isDarker(grey, page, noise) {
  const least = Math.max(5 * noise, BLANK);
  return sum(contrastWith(grey, page).data.filter((value) => Math.abs(value) >= least)) >= 0;
}

function findInk(grey, page, noise, inverted) {
  const ink = contrastWith(grey, page);
  if (!inverted) ink.data = ink.data.map((value) => -value);
  const least = Math.max(5 * noise, BLANK);
  const strong = ink.data.filter((value) => value >= least);
  if (!strong.length) return blank(grey.rows, grey.columns);
  const level = quantile(strong, 0.75), lowest = Math.max(4 * noise, FAINT * level);
  ink.data = ink.data.map((value) => (value < lowest ? 0 : Math.min(value / level, 1)));
  return ink;
}

// Pieces of ink.

function findPieces(ink) {
  const { rows, columns, data } = ink;
  const runs = [];
  for (let row = 0; row < rows; row++) {
    for (let x = 0; x < columns; x++) {
      if (!(data[row * columns + x] > 0)) continue;
      const first = x;
      let mass = 0;
      while (x < columns && data[row * columns + x] > 0) mass += data[row * columns + x++];
      runs.push({ row, first, end: x, mass });
    }
  }
  const parent = runs.map((_, index) => index);
  const root = (index) => {
    while (parent[index] !== index) index = parent[index] = parent[parent[index]];
    return index;
  };
  let above = 0;
  for (let index = 0; index < runs.length; index++) {
    const { row, first, end } = runs[index];
    while (above < index && (runs[above].row < row - 1 ||
           (runs[above].row === row - 1 && runs[above].end < first))) above++;
    for (let other = above; runs[other].row === row - 1 && runs[other].first <= end; other++) {
      parent[root(other)] = root(index);
    }
  }
  const members = new Map();
  runs.forEach((run, index) => {
    const key = root(index);
    if (!members.has(key)) members.set(key, []);
    members.get(key).push(run);
  });
  let pieces = [...members.values()].map((mine) => ({
    runs: mine,
    mass: sum(mine.map((run) => run.mass)),
    box: around(mine.map((run) => ({ left: run.first, top: run.row, right: run.end, bottom: run.row + 1 }))),
  }));
  const inside = pieces.filter((piece) => !holdsACorner(piece, rows, columns));
  if (inside.length) pieces = inside;
  const largest = Math.max(0, ...pieces.map((piece) => piece.mass));
  return pieces.filter((piece) => piece.mass >= Math.max(SPECK * largest, 4));
}

function holdsACorner(piece, rows, columns) {
  return piece.runs.some((run) => (run.row === 0 || run.row === rows - 1) &&
                                  (run.first === 0 || run.end === columns));
}

function around(boxes) {
  const whole = { left: Infinity, top: Infinity, right: 0, bottom: 0 };
  for (const { left, top, right, bottom } of boxes) {
    whole.left = Math.min(whole.left, left);
    whole.top = Math.min(whole.top, top);
    whole.right = Math.max(whole.right, right);
    whole.bottom = Math.max(whole.bottom, bottom);
  }
  return whole;
}

// One digit.

function makeDigit(ink, pieces) {
  const box = around(pieces.map((piece) => piece.box));
  const crop = blank(box.bottom - box.top, box.right - box.left);
  for (const piece of pieces) {
    for (const { row, first, end } of piece.runs) {
      for (let x = first; x < end; x++) {
        crop.data[(row - box.top) * crop.columns + x - box.left] = ink.data[row * ink.columns + x];
      }
    }
  }
  const fine = fit(crop, FINE);
  const width = (strokeWidth(fine) * INK) / FINE;
  const usual = width >= THINNEST && width <= THICKEST;
  const changed = usual ? null : trim(changeStrokes(fine, width));
  if (!changed) return { box, width, adjusted: null, image: centred(fit(crop, INK)) };
  const adjusted = width < THINNEST ? "thickened" : "thinned";
  return { box, width, adjusted, image: centred(fit(changed, INK)) };
}

function fit(ink, longest) {
  const scale = longest / Math.max(ink.rows, ink.columns);
  const side = (length) => Math.max(1, Math.floor(length * scale + 0.5));
  return scaled(ink, side(ink.rows), side(ink.columns));
}

function scaled(ink, height, width) {
  const down = coverage(height, ink.rows), across = coverage(width, ink.columns);
  const tall = blank(height, ink.columns), small = blank(height, width);
  down.forEach((shares, y) => {
    for (const [from, share] of shares) {
      for (let x = 0; x < ink.columns; x++) {
        tall.data[y * ink.columns + x] += share * ink.data[from * ink.columns + x];
      }
    }
  });
  across.forEach((shares, x) => {
    for (const [from, share] of shares) {
      for (let y = 0; y < height; y++) {
        small.data[y * width + x] += share * tall.data[y * ink.columns + from];
      }
    }
  });
  return small;
}

// For each new pixel, the old ones that it covers, with their shares.
function coverage(count, old) {
  const shares = [];
  for (let i = 0; i < count; i++) {
    const end = (i + 1) * (old / count), start = end - old / count;
    const mine = [];
    for (let j = Math.max(0, Math.floor(start) - 1); j < Math.min(old, Math.ceil(end) + 1); j++) {
      const overlap = Math.min(end, j + 1) - Math.max(start, j);
      if (overlap > 0) mine.push([j, overlap * (count / old)]);
    }
    shares.push(mine);
  }
  return shares;
}

function padded(ink, by, value) {
  const wide = blank(ink.rows + 2 * by, ink.columns + 2 * by);
  wide.data.fill(value);
  for (let y = 0; y < ink.rows; y++) {
    for (let x = 0; x < ink.columns; x++) {
      wide.data[(y + by) * wide.columns + x + by] = ink.data[y * ink.columns + x];
    }
  }
  return wide;
}

function strokeWidth(ink) {
  const { rows, columns, data } = padded(ink, 1, 0);
  let outline = 0;
  for (let y = 0; y < rows - 1; y++) {
    for (let x = 0; x < columns - 1; x++) {
      const here = data[y * columns + x];
      const down = data[(y + 1) * columns + x] - here, right = data[y * columns + x + 1] - here;
      outline += Math.sqrt(down * down + right * right);
    }
  }
  return outline ? (2 * sum(ink.data)) / outline : 0;
}

function changeStrokes(fine, width) {
  const r = (FINE * (USUAL - width)) / (2 * (INK - USUAL));
  const reach = Math.floor(Math.abs(r)), thicker = r > 0;
  let most = 0;
  for (const value of fine.data) most = Math.max(most, value);
  const full = { ...fine, data: fine.data.map((value) => (thicker ? value / most : 1 - value / most)) };
  const { rows, columns, data } = padded(full, reach + 1, thicker ? 0 : 1);
  const result = { rows, columns, data: data.slice() };
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      if (dx * dx + dy * dy > r * r) continue;
      for (let y = Math.max(dy, 0); y < rows + Math.min(dy, 0); y++) {
        for (let x = Math.max(dx, 0); x < columns + Math.min(dx, 0); x++) {
          const from = data[(y - dy) * columns + x - dx], to = y * columns + x;
          if (from > result.data[to]) result.data[to] = from;
        }
      }
    }
  }
  if (!thicker) result.data = result.data.map((value) => 1 - value);
  return result;
}

function trim(ink) {
  const boxes = [];
  ink.data.forEach((value, place) => {
    if (!value) return;
    const left = place % ink.columns, top = Math.floor(place / ink.columns);
    boxes.push({ left, top, right: left + 1, bottom: top + 1 });
  });
  if (!boxes.length) return null;
  const box = around(boxes), small = blank(box.bottom - box.top, box.right - box.left);
  for (let y = 0; y < small.rows; y++) {
    for (let x = 0; x < small.columns; x++) {
      small.data[y * small.columns + x] = ink.data[(y + box.top) * ink.columns + x + box.left];
    }
  }
  return small;
}

function centred(small) {
  let mass = 0, down = 0, across = 0;
  small.data.forEach((value, place) => {
    mass += value;
    down += value * Math.floor(place / small.columns);
    across += value * (place % small.columns);
  });
  const top = SIDE / 2 - Math.floor(down / mass + HALF);
  const left = SIDE / 2 - Math.floor(across / mass + HALF);
  const image = blank(SIDE, SIDE);
  for (let y = 0; y < small.rows; y++) {
    for (let x = 0; x < small.columns; x++) {
      const row = y + top, column = x + left;
      if (row >= 0 && row < SIDE && column >= 0 && column < SIDE) {
        image.data[row * SIDE + column] = small.data[y * small.columns + x];
      }
    }
  }
  return asBytes(image);
}

function asBytes(ink) {
  return Uint8Array.from(ink.data, (value) => Math.floor(value * 255 + 0.5));
}
