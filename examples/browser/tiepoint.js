// Tie points of two images by a graph that `tiepoint convert` has written, on ONNX Runtime Web.
// Knows nothing of the page: take this file along and import it.

const RUNTIME = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url);
// each brings its own WebAssembly file and looks for it beside itself
const BUNDLES = { wasm: "ort.wasm.bundle.min.mjs", webgpu: "ort.webgpu.bundle.min.mjs" };
const INPUTS = ["image0", "image1", "max_keypoints"];
const OUTPUTS = ["keypoints0", "keypoints1", "matches0", "scores"];
const LEAST_SIDE = 8; // px
const MID_GREY = 128;

/** What was given is wrong; the message is one sentence. */
export class InputError extends Error {}

/** Remembers the session: make one with `Matcher.load`, use it for all pairs, one after the other. */
export class Matcher {
  #ort;
  #session;

  constructor(ort, session, backend, threads) {
    [this.#ort, this.#session, this.backend, this.threads] = [ort, session, backend, threads];
  }

  /**
   * @param {ArrayBuffer} model the content of an .onnx file
   * @param {object} options backend: "wasm" or "webgpu"; threads of wasm, settled by the first load in a page: 0 for
   *   half the cores, four at most (on two cores that others use too, a second thread cost more than it brought). More
   *   than one needs a page that is cross-origin isolated.
   */
  static async load(model, { backend = "wasm", threads = 0, name = "the model" } = {}) {
    const ort = await import(new URL(BUNDLES[backend], RUNTIME));
    const wanted = threads || Math.min(4, Math.ceil((globalThis.navigator?.hardwareConcurrency ?? 1) / 2));
    ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? wanted : 1;
    ort.env.wasm.proxy = backend === "wasm"; // in a worker: the page stays alive meanwhile
    ort.env.logLevel = "error";
    const options = { executionProviders: [backend], logSeverityLevel: 3 };
    let session;
    try {
      session = await ort.InferenceSession.create(new Uint8Array(model), options);
    } catch (error) {
      throw new InputError(`${name} is no ONNX graph that ONNX Runtime Web can run on ${backend}: ${firstLine(error)}`);
    }
    const { inputNames, outputNames } = session;
    const fits = inputNames.length === INPUTS.length && INPUTS.every((input) => inputNames.includes(input));
    if (!fits || !OUTPUTS.every((output) => outputNames.includes(output))) {
      throw new InputError(
        `${name} is an ONNX graph from ${inputNames.join(", ")} to ${outputNames.join(", ")}, ` +
          `expected one from ${INPUTS.join(", ")} to matches, as \`tiepoint convert\` writes it`,
      );
    }
    return new Matcher(ort, session, backend, ort.env.wasm.numThreads);
  }

  /**
   * The matches of two images ({width, height, data}: red, green, blue; row by row), best first. Pixels (x, y) of the
   * images as given, the centre of the top-left pixel at (0, 0): keypoints0 and keypoints1 (2 N numbers), scores (N).
   */
  async match(image0, image1, { maxKeypoints = 2048, longSide = 1024 } = {}) {
    const [small0, small1] = [image0, image1].map((image) => shrink(checked(image), longSide));
    const outputs = await this.#session.run(
      {
        image0: this.#tensor(small0),
        image1: this.#tensor(small1),
        max_keypoints: new this.#ort.Tensor("int64", BigInt64Array.of(BigInt(maxKeypoints)), []),
      },
      OUTPUTS,
    );
    const [keypoints0, keypoints1, matches0, scores] = OUTPUTS.map((name) => outputs[name].data);
    const chosen = [];
    matches0.forEach((partner, index) => partner >= 0n && chosen.push(index)); // padding and the unmatched have -1
    chosen.sort((a, b) => scores[b] - scores[a]);
    const partners = chosen.map((index) => Number(matches0[index]));
    return {
      keypoints0: toOriginal(keypoints0, chosen, small0.scale),
      keypoints1: toOriginal(keypoints1, partners, small1.scale),
      scores: Float32Array.from(chosen, (index) => scores[index]),
    };
  }

  #tensor({ width, height, data }) {
    // a copy: what goes to the worker is lost to the page, and these may be the caller's own pixels
    return new this.#ort.Tensor("uint8", data.slice(), [1, height, width, 3]);
  }

  async release() {
    await this.#session.release();
  }
}

/** Decode a file upright (EXIF), its pixels as they are stored (no colour profile), as red, green, blue. */
export async function readImage(blob, name = "the file") {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch {
    throw new InputError(`${name} is not an image that this browser reads`);
  }
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    const alpha = rgba[from + 3];
    for (let channel = 0; channel < 3; channel++, to++) {
      // what is transparent is laid over mid-grey, as tiepoint does
      data[to] = Math.floor((rgba[from + channel] * alpha + MID_GREY * (255 - alpha) + 127) / 255);
    }
  }
  return { width, height, data, name };
}

/** The table that `tiepoint match -o m.csv` writes. */
export function toCsv({ keypoints0, keypoints1, scores }) {
  const lines = Array.from(scores, (score, i) =>
    [...keypoints0.subarray(2 * i, 2 * i + 2), ...keypoints1.subarray(2 * i, 2 * i + 2), score].map(shortest).join(","),
  );
  return ["x0,y0,x1,y1,score", ...lines].join("\n") + "\n";
}

/** Shrink an image until its longer side fits, averaged over areas; pixel x lies at (x + 0.5) * scale[0] - 0.5. */
export function shrink({ width, height, data }, longSide) {
  const ratio = longSide / Math.max(width, height);
  if (ratio >= 1) return { width, height, data, scale: [1, 1] };
  const [newWidth, newHeight] = [width, height].map((side) => Math.max(1, roundHalfEven(side * ratio)));
  const scale = [width / newWidth, height / newHeight];
  // OpenCV's INTER_AREA, which Python uses, rounds halves up at exactly 2:1 and to the even number elsewhere
  const round = scale[0] === 2 && scale[1] === 2 ? Math.round : roundHalfEven;
  const [columns, rows] = [taps(width, newWidth), taps(height, newHeight)];
  const small = new Uint8Array(3 * newWidth * newHeight);
  const sums = new Float64Array(3 * newWidth);
  rows.forEach(({ first, weights }, row) => {
    sums.fill(0);
    weights.forEach((weight, offset) => addRow(sums, data, 3 * width * (first + offset), columns, weight));
    for (let i = 0; i < sums.length; i++) small[row * sums.length + i] = round(sums[i]);
  });
  return { width: newWidth, height: newHeight, data: small, scale };
}

function addRow(sums, data, start, columns, rowWeight) {
  for (let column = 0; column < columns.length; column++) {
    const { first, weights } = columns[column];
    for (let offset = 0; offset < weights.length; offset++) {
      const weight = weights[offset] * rowWeight;
      const from = start + 3 * (first + offset);
      for (let channel = 0; channel < 3; channel++) sums[3 * column + channel] += weight * data[from + channel];
    }
  }
}

/** For each of `wanted` pixels along an axis of `length`, which pixels it covers and by how much. */
function taps(length, wanted) {
  const scale = length / wanted;
  return Array.from({ length: wanted }, (_, i) => {
    const [from, to] = [i * scale, Math.min((i + 1) * scale, length)];
    const first = Math.floor(from);
    const weights = [];
    for (let j = first; j < to; j++) weights.push((Math.min(to, j + 1) - Math.max(from, j)) / (to - from));
    return { first, weights };
  });
}

function checked(image) {
  if (Math.min(image.width, image.height) < LEAST_SIDE) {
    const title = image.name ?? "an image";
    throw new InputError(`${title} is ${image.width}×${image.height} px, expected sides of ${LEAST_SIDE} px or more`);
  }
  return image;
}

/** Rounded after each step to the 32 bits that Python computes with. */
function toOriginal(points, indices, scale) {
  const found = new Float32Array(2 * indices.length);
  const factor = scale.map(Math.fround);
  indices.forEach((index, i) => {
    for (let axis = 0; axis < 2; axis++) {
      const moved = Math.fround(Math.fround(points[2 * index + axis] + 0.5) * factor[axis]);
      found[2 * i + axis] = moved - 0.5;
    }
  });
  return found;
}

function roundHalfEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  return rest === 0.5 ? below + (below % 2) : Math.round(value);
}

/** The shortest number that is still exact in 32 bits: 0.1, 100.0. */
function shortest(value) {
  let digits = 6; // of which every number in 32 bits has at least as many
  while (digits < 9 && Math.fround(Number(value.toPrecision(digits))) !== value) digits++;
  const text = String(Number(value.toPrecision(digits)));
  return /[.e]/.test(text) ? text : `${text}.0`;
}

function firstLine(error) {
  return String(error?.message ?? error).split("\n")[0].slice(0, 160);
}
