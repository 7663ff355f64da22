// Decide about two faces with a smoothed verifier, and read its certificate: Node.js and onnxruntime-node.
//
//     node verify.mjs smoothed.onnx probe.rgb reference.rgb THRESHOLD SIGMA CONFIDENCE [CALLS]
//
// The numbers are those of the manifest beside the file. The crops are raw bytes: 160 x 160 x 3, RGB, for a verifier
// that takes (x - 127.5) / 128 as NHWC, as facenet-mini does.
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const ort = createRequire(process.cwd() + "/")("onnxruntime-node");
const [model, probe, reference, ...numbers] = process.argv.slice(2);
const [threshold, sigma, confidence, calls = 1] = numbers.map(Number);
const [SIDE, SIZE] = [160, 128];
const session = await ort.InferenceSession.create(model);

function crop(path) {
  const pixels = Float32Array.from(readFileSync(path), (value) => (value - 127.5) / 128);
  return new ort.Tensor("float32", pixels, [1, SIDE, SIDE, 3]);
}

async function run(outputs, path, reference, threshold) {
  // The noise must not be known to an attacker, so that it comes from the operating system.
  const entropy = new ort.Tensor("int64", [randomBytes(8).readBigUInt64LE() >> 2n], [1]);
  const inputs = {
    [session.inputNames.find((input) => !input.startsWith("sixpixels_"))]: crop(path),
    sixpixels_entropy: entropy,
    sixpixels_reference: new ort.Tensor("float32", reference, [1, reference.length]),
    sixpixels_threshold: new ort.Tensor("float32", [threshold], [1]),
  };
  return session.run(inputs, outputs);
}

// Enroll once, without a reference and a threshold, and keep this embedding.
const name = session.outputNames.find((output) => !output.startsWith("smoothed_"));
const nothing = new Float32Array(SIZE).fill(NaN);
const enrolled = (await run([name], reference, nothing, NaN))[name].data;
let [votes, draws, found] = [0, 0, null];
for (let call = 0; call < calls; call++) {
  found = await run(["smoothed_votes", "smoothed_same", "smoothed_radius", "smoothed_draws"], probe, enrolled, threshold);
  votes += Number(found.smoothed_votes.data[0]);
  draws += found.smoothed_draws.dims[1];
}

// The same certificate from the votes alone, over all calls (Cohen et al. 2019; Clopper and Pearson 1934).
function bisect(rising, low, high) {
  for (let i = 0; i < 200; i++) {
    const middle = (low + high) / 2;
    if (rising(middle)) high = middle;
    else low = middle;
  }
  return low;
}

// The probability of at least k of n, by logarithms, which do not overflow.
function atLeast(k, n, p) {
  let [logarithm, sum] = [0, 0];
  for (let i = 0; i <= n; i++) {
    if (i > 0) logarithm += Math.log((n - i + 1) / i);
    if (i >= k) sum += Math.exp(logarithm + i * Math.log(p) + (n - i) * Math.log1p(-p));
  }
  return sum;
}

// The normal distribution function by its series, for x from 0 to 8.
function normal(x) {
  let [term, sum] = [x, x];
  for (let i = 1; i < 400; i++) sum += term *= (x * x) / (2 * i + 1);
  return 0.5 + (sum * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI);
}

const most = Math.max(votes, draws - votes);
const bound = bisect((p) => atLeast(most, draws, p) > (1 - confidence) / 2, 0, 1);
const certain = bound > 0.5;
const decision = certain ? (2 * votes > draws ? "same" : "different") : "abstains";
const radius = certain ? sigma * bisect((x) => normal(x) > bound, 0, 8) : 0;
console.log(`votes ${votes} of ${draws}\ndecision ${decision}\nradius ${radius.toFixed(6)}`);
if (calls === 1) {
  console.log(`in the file ${found.smoothed_same.data[0]} ${found.smoothed_radius.data[0].toFixed(6)}`);
}
