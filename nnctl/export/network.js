// The network: from the bytes of an image to scores, layer by layer.

// Weights are the upper three bytes of float32, least first, in base64.
function decode(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const words = new Uint32Array(bytes.length / 3);
  for (let i = 0; i < words.length; i++) {
    words[i] = (bytes[3 * i] << 8) | (bytes[3 * i + 1] << 16) | (bytes[3 * i + 2] << 24);
  }
  return new Float32Array(words.buffer);
}

const WEIGHTS = decode(MODEL.weights);
let taken = 0;
const NETWORK = MODEL.layers.map((layer) => {
  const arrays = {};
  for (const [name, size] of Object.entries(layer.arrays)) {
    arrays[name] = WEIGHTS.subarray(taken, (taken += size));
  }
  return { ...layer, ...arrays };
});

const LAYERS = {
  affine(x, { weight, bias }) {  // y = x W + b, W (inputs, units)
    const y = Float64Array.from(bias), units = bias.length;
    for (let i = 0; i < x.length; i++) {
      if (!x[i]) continue;
      for (let j = 0; j < units; j++) y[j] += x[i] * weight[i * units + j];
    }
    return y;
  },
  relu: (x) => x.map((v) => Math.max(v, 0)),
  leaky_relu: (x, { slope }) => x.map((v) => (v > 0 ? v : slope * v)),
  sigmoid: (x) => x.map((v) => 1 / (1 + Math.exp(-v))),
  tanh: (x) => x.map((v) => Math.tanh(v)),
  gelu: (x, { a, b }) => x.map((v) => (v * (1 + Math.tanh(a * v * (1 + b * v * v)))) / 2),
  dropout: (x) => x,
  batch_norm: (x, { weight, bias, running_mean, running_variance, epsilon }) =>
    x.map((v, i) => ((v - running_mean[i]) / Math.sqrt(running_variance[i] + epsilon)) * weight[i] + bias[i]),
};

function softmax(z) {
  const most = Math.max(...z), y = z.map((v) => Math.exp(v - most)), total = sum(y);
  return y.map((v) => v / total);
}

// Return the scores of an image, and what each hidden affine layer hands to the next one.
function recognise(image) {
  let x = Float64Array.from(image, (pixel) => pixel / 255);
  const hidden = [];
  NETWORK.forEach((layer, index) => {
    if (layer.kind === "affine" && NETWORK.slice(0, index).some((each) => each.kind === "affine")) {
      hidden.push(x);
    }
    x = LAYERS[layer.kind](x, layer);
  });
  return { scores: MODEL.softmax ? softmax(x) : x, hidden };
}
