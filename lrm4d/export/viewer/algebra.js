// Vectors as arrays of three, rotations as arrays of nine (row-major). The columns of a camera's rotation are its
// right, down and forward axes in the world (OpenCV).

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const add = (a, b, factor = 1) => [a[0] + factor * b[0], a[1] + factor * b[1], a[2] + factor * b[2]];
const subtract = (a, b) => add(a, b, -1);
const mix = (a, b, s) => a + (b - a) * s;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const column = (m, k) => [m[k], m[3 + k], m[6 + k]];
const apply = (m, v) => [0, 1, 2].map((r) => m[3 * r] * v[0] + m[3 * r + 1] * v[1] + m[3 * r + 2] * v[2]);
const transpose = (m) => [m[0], m[3], m[6], m[1], m[4], m[7], m[2], m[5], m[8]];

function multiply(a, b) {
  const product = [];
  for (let r = 0; r < 3; r++) for (let c = 0; c < 3; c++) product.push(dot(a.slice(3 * r, 3 * r + 3), column(b, c)));
  return product;
}

// About a unit axis by an angle in radians (Rodrigues).
function rotationAbout([x, y, z], angle) {
  const c = Math.cos(angle), s = Math.sin(angle), t = 1 - c;
  return [t * x * x + c, t * x * y - s * z, t * x * z + s * y,
    t * x * y + s * z, t * y * y + c, t * y * z - s * x,
    t * x * z - s * y, t * y * z + s * x, t * z * z + c];
}

// The part `s` of the way from one rotation to another, along the shortest turn.
function interpolateRotation(from, to, s) {
  const turn = multiply(to, transpose(from));
  const angle = Math.acos(clamp((turn[0] + turn[4] + turn[8] - 1) / 2, -1, 1));
  if (angle < 1e-6) return to.slice();
  let axis = [turn[7] - turn[5], turn[2] - turn[6], turn[3] - turn[1]];
  const length = Math.hypot(...axis);
  // Half a turn leaves no antisymmetric part: then any axis across the view will do, and the world's up is the calmest.
  axis = length > 1e-6 ? axis.map((x) => x / length) : [0, 0, 1];
  if (length <= 1e-6 && s >= 1) return to.slice();
  return multiply(rotationAbout(axis, angle * s), from);
}
