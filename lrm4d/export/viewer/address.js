// What the part of the address after # says, and back: docs/viewer.md lists it. Unknown names are ignored.

const BACKGROUNDS = {
  white: [[1, 1, 1], [1, 1, 1]],
  gray: [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]],
  black: [[0, 0, 0], [0, 0, 0]],
  checker: [[1, 1, 1], [0.86, 0.86, 0.88]],
};

function numbersOf(text, lengths) {
  const numbers = text.split(",").map(Number);
  return lengths.includes(numbers.length) && numbers.every(Number.isFinite) ? numbers : null;
}

function lensOf([fx, fy, cx, cy, width, height]) {
  return { fx, fy, cx, cy, skew: 0, width, height };
}

// Sets what the address names on a viewer; whether it named anything that is worth skipping the poster for.
function readAddress(hash, viewer) {
  const named = new URLSearchParams(hash.replace(/^#/, ""));
  const flag = (name) => named.has(name) ? named.get(name) !== "0" : null;
  const { playback, state } = viewer;
  for (const name of ["cameras", "trails", "stats", "ui"]) if (flag(name) !== null) state[name] = flag(name);
  if (named.get("background") in BACKGROUNDS) state.background = named.get("background");
  if (Number(named.get("scale")) > 0) state.scale = clamp(Number(named.get("scale")), 0.05, 2);
  if (SPEEDS.includes(Number(named.get("speed")))) playback.speed = Number(named.get("speed"));
  if (MODES.includes(named.get("loop"))) playback.mode = named.get("loop");

  const pose = named.has("camera_to_world") && numbersOf(named.get("camera_to_world"), [12, 16]);
  const intrinsics = named.has("intrinsics") && numbersOf(named.get("intrinsics"), [6]);
  const index = named.has("camera") ? Number(named.get("camera")) : -1;
  if (Number.isInteger(index) && index in viewer.cameras) viewer.standIn(index, 0);
  else if (pose) viewer.setCamera({ pose, lens: intrinsics ? lensOf(intrinsics) : viewer.home.lens });
  if (named.has("time") && Number.isFinite(Number(named.get("time")))) viewer.setTime(Number(named.get("time")));
  if (flag("play") === true) playback.play();
  return ["time", "camera", "camera_to_world", "play"].some((name) => named.has(name)) || flag("ui") === false;
}

// The hash that shows what the viewer shows now.
function writeAddress({ playback, state, view, chosen }) {
  const round = (x) => String(Number(x.toFixed(4)));
  const parts = [`time=${round(playback.time)}`];
  if (chosen >= 0) {
    parts.push(`camera=${chosen}`);
  } else {
    const { fx, fy, cx, cy, width, height } = view.lens;
    parts.push(`camera_to_world=${view.pose.slice(0, 12).map(round).join(",")}`);
    parts.push(`intrinsics=${[fx, fy, cx, cy, width, height].map(round).join(",")}`);
  }
  if (playback.playing) parts.push("play=1");
  if (playback.speed !== 1) parts.push(`speed=${playback.speed}`);
  if (playback.mode !== MODES[0]) parts.push(`loop=${playback.mode}`);
  if (state.background !== "white") parts.push(`background=${state.background}`);
  if (state.scale !== 1) parts.push(`scale=${round(state.scale)}`);
  for (const name of ["cameras", "trails"]) if (state[name]) parts.push(`${name}=1`);
  return `#${parts.join("&")}`;
}
