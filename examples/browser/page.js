// The page: files in, a picture, one line and a table out. What matches is in tiepoint.js.
import { InputError, Matcher, readImage, toCsv } from "./tiepoint.js";

const at = (id) => document.getElementById(id);
const GAP = 8; // px between the images
const THREADS = Number(new URLSearchParams(location.search).get("threads")) || 0; // ?threads=4

let loaded = { key: null, matcher: null }; // a session is kept while network and backend stay the same
let shown = null; // {images, matches} of the last run

function say(text, state) {
  at("status").textContent = text;
  at("status").dataset.state = state;
}

async function fetched(url) {
  const response = await fetch(url);
  if (!response.ok) throw new InputError(`${url} cannot be had (${response.status}): start the page by serve.py`);
  return response;
}

async function matcher(file, backend) {
  const name = file?.name ?? "default.onnx";
  const key = [backend, name, file?.size, file?.lastModified].join();
  if (loaded.key !== key) {
    say(`Loading ${name} …`, "busy");
    const model = await (file ?? (await fetched("default.onnx"))).arrayBuffer();
    await loaded.matcher?.release();
    loaded = { key: null, matcher: null };
    loaded = { key, matcher: await Matcher.load(model, { backend, name, threads: THREADS }) };
  }
  return loaded.matcher;
}

async function chosenFile(id) {
  const [file] = at(id).files;
  if (!file) throw new InputError(`No ${id} photograph is chosen`);
  return file;
}

async function run() {
  // the demo's button does not go through the form, which would say it itself
  const wrong = ["keypoints", "long-side"].map(at).find((field) => !field.checkValidity());
  if (wrong) throw new InputError(`${wrong.id} is ${wrong.value || "empty"}, expected ${wrong.min} to ${wrong.max}`);
  const files = await Promise.all(["left", "right"].map(chosenFile));
  const ready = await matcher(at("model").files[0], at("backend").value);
  const images = await Promise.all(files.map((file) => readImage(file, file.name)));
  say("Matching …", "busy");
  const start = performance.now();
  const options = { maxKeypoints: at("keypoints").valueAsNumber, longSide: at("long-side").valueAsNumber };
  const matches = await ready.match(...images, options);
  const seconds = ((performance.now() - start) / 1000).toFixed(2);
  shown = { bitmaps: await Promise.all(images.map(toBitmap)), matches };
  offer(toCsv(matches), files);
  const threads = ready.backend === "wasm" ? `, ${ready.threads} thread${ready.threads > 1 ? "s" : ""}` : "";
  say(`${matches.scores.length} matches in ${seconds} s (${ready.backend}${threads})`, "done");
  at("lines").max = Math.max(1, matches.scores.length);
  draw();
}

/** What was matched is what is drawn, upright and without its alpha. */
function toBitmap({ width, height, data }) {
  const rgba = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let from = 0, to = 0; from < data.length; from += 3, to += 4) rgba.set(data.subarray(from, from + 3), to);
  return createImageBitmap(new ImageData(rgba, width, height));
}

function offer(csv, files) {
  const link = at("download");
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([csv], { type: "text/csv" }));
  link.download = `${files.map((file) => file.name.replace(/\.\w+$/, "")).join("-")}.csv`;
  link.hidden = false;
}

function draw() {
  const { bitmaps, matches } = shown;
  const canvas = at("picture");
  const height = Math.min(900, Math.max(...bitmaps.map((image) => image.height)));
  const scales = bitmaps.map((image) => height / image.height);
  const shift = bitmaps[0].width * scales[0] + GAP;
  [canvas.width, canvas.height] = [shift + bitmaps[1].width * scales[1], height];
  canvas.hidden = at("lines-label").hidden = false;
  const context = canvas.getContext("2d");
  bitmaps.forEach((image, i) => context.drawImage(image, i * shift, 0, image.width * scales[i], height));
  context.lineWidth = 2;
  const count = Math.min(at("lines").valueAsNumber, matches.scores.length);
  at("lines-shown").textContent = `${count} of ${matches.scores.length}`;
  for (let i = count - 1; i >= 0; i--) {
    const [x0, y0] = place(matches.keypoints0, i, scales[0], 0);
    const [x1, y1] = place(matches.keypoints1, i, scales[1], shift);
    // evenly over the hues, so that neighbouring lines can be told apart
    context.strokeStyle = `hsl(${(i * 137.5) % 360} 90% 55% / 70%)`;
    context.beginPath();
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
    context.stroke();
  }
}

function place(points, i, scale, shift) {
  return [(points[2 * i] + 0.5) * scale + shift, (points[2 * i + 1] + 0.5) * scale];
}

async function takeDemo() {
  for (const side of ["left", "right"]) {
    const blob = await (await fetched(`demo/${side}.png`)).blob();
    const list = new DataTransfer();
    list.items.add(new File([blob], `${side}.png`, { type: blob.type }));
    at(side).files = list.files;
  }
  await run();
}

/** One thing at a time, and one sentence where it fails. */
function guarded(work) {
  return async (event) => {
    event.preventDefault();
    at("actions").disabled = true;
    say("Reading …", "busy");
    try {
      await work();
    } catch (error) {
      say(error instanceof InputError ? error.message : `It failed: ${error.message ?? error}`, "error");
    } finally {
      at("actions").disabled = false;
    }
  };
}

at("form").addEventListener("submit", guarded(run));
at("demo").addEventListener("click", guarded(takeDemo));
at("lines").addEventListener("input", draw);
at("backend").options[1].disabled = !navigator.gpu;
at("demo").disabled = !(await fetch("demo/left.png", { method: "HEAD" })).ok;
const isolated = globalThis.crossOriginIsolated ? "" : " (on one thread: the page is not cross-origin isolated)";
say(`Choose two photographs${isolated}.`, "ready");
