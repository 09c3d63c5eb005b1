// The page around the picture: it shows the viewer's state and hands its buttons' wishes on.

const byId = (id) => document.getElementById(id);
const MODE_NAMES = { pingpong: "there and back", loop: "loop", once: "once" };

class Panel {
  constructor(viewer) {
    this.viewer = viewer;
    this.shown = {};
    const press = (id, action) => byId(id).addEventListener("click", (event) => {
      viewer.begin();
      action();
      viewer.invalidate();
      if (event.detail) event.currentTarget.blur();  // pressed by a pointer: the space bar stays play's
    });
    press("play", () => viewer.toggle("playing"));
    press("mode", () => viewer.playback.nextMode());
    press("speed", () => viewer.cycleSpeed());
    press("cameras", () => viewer.toggle("cameras"));
    press("trails", () => viewer.toggle("trails"));
    press("settings", () => viewer.toggle("settings"));
    press("help", () => viewer.toggle("help"));
    press("full-screen", () => viewer.toggleFullScreen());
    press("reset", () => viewer.reset());
    press("copy-link", () => viewer.copyLink());
    press("previous", () => viewer.standIn(viewer.chosen - 1));
    press("next", () => viewer.standIn(viewer.chosen + 1));
    press("leave", () => viewer.leaveCamera());
    byId("help-sheet").addEventListener("click", () => { viewer.state.help = false; viewer.invalidate(); });
    for (const swatch of document.querySelectorAll("[data-background]")) {
      swatch.addEventListener("click", () => viewer.setBackground(swatch.dataset.background));
    }
    byId("time").addEventListener("input", (event) => {
      viewer.begin();
      viewer.setTime(Number(event.target.value));
      viewer.touch();
    });
    byId("splat-scale").addEventListener("input", (event) => {
      viewer.begin();
      viewer.state.scale = Number(event.target.value);
      viewer.touch();
    });
    this.drawTicks();
    if (!viewer.cameras.length) for (const id of ["cameras", "cameras-help"]) byId(id).hidden = true;
    if (!document.fullscreenEnabled) byId("full-screen").hidden = true;
    byId("trail-note").textContent = "A trail is as long as the way of "
      + `${(viewer.header.trailDuration / 2).toPrecision(2)} clips at that velocity.`;
  }

  // A mark on the timeline for each moment that a picture was taken at.
  drawTicks() {
    const times = new Set(this.viewer.cameras.map((camera) => camera.time.toFixed(3)));
    for (const time of times) {
      const tick = document.createElement("i");
      tick.style.left = `${100 * time}%`;
      byId("ticks").append(tick);
    }
  }

  // Touch the page only where something changed: this runs with every frame.
  put(key, value, change) {
    if (this.shown[key] === value) return;
    this.shown[key] = value;
    change(value);
  }

  update() {
    const { playback, state, chosen, cameras } = this.viewer;
    const pressed = (id) => (on) => byId(id).setAttribute("aria-pressed", String(on));
    this.put("playing", playback.playing, (on) => {
      byId("play").classList.toggle("on", on);
      byId("play").setAttribute("aria-label", on ? "Pause" : "Play");
    });
    this.put("time", playback.time.toFixed(3), (time) => {
      byId("time").value = time;
      byId("time").style.setProperty("--done", `${100 * time}%`);
      byId("clock").textContent = time;
    });
    this.put("speed", playback.speed, (speed) => { byId("speed").textContent = `${speed}×`; });
    this.put("mode", playback.mode, (mode) => {
      byId("mode").dataset.mode = mode;
      byId("mode").title = `Plays ${MODE_NAMES[mode]} (m)`;
    });
    this.put("scale", state.scale, (scale) => {
      byId("splat-scale").value = scale;
      byId("splat-scale").style.setProperty("--done", `${100 * (scale - 0.05) / 1.45}%`);
      byId("scale-value").textContent = scale.toFixed(2);
    });
    for (const id of ["cameras", "trails", "settings"]) this.put(id, state[id], pressed(id));
    this.put("open", state.settings, (open) => { byId("settings-sheet").hidden = !open; });
    this.put("help", state.help, (open) => { byId("help-sheet").hidden = !open; });
    this.put("ui", state.ui, (on) => { document.body.classList.toggle("bare", !on); });
    this.put("background", state.background, (name) => {
      document.body.dataset.background = name;
      for (const swatch of document.querySelectorAll("[data-background]")) {
        if (swatch !== document.body) swatch.setAttribute("aria-pressed", String(swatch.dataset.background === name));
      }
    });
    this.put("chosen", chosen, (index) => {
      byId("camera-card").hidden = index < 0;
      if (index < 0) return;
      const { columns, rows } = this.viewer.header.atlas;
      const place = (at, of) => of > 1 ? `${100 * at / (of - 1)}%` : "0%";
      const picture = byId("camera-picture");
      picture.style.backgroundImage = `url(${byId("atlas").src})`;
      picture.style.backgroundSize = `${100 * columns}% ${100 * rows}%`;
      picture.style.backgroundPosition = `${place(index % columns, columns)} ${place(Math.floor(index / columns), rows)}`;
      picture.style.aspectRatio = `${cameras[index].lens.width} / ${cameras[index].lens.height}`;
      byId("camera-name").textContent = `Camera ${index + 1} of ${cameras.length}`;
      byId("camera-time").textContent = `taken at ${cameras[index].time.toFixed(2)}`;
    });
  }

  showStats({ visible, total, sortMilliseconds, framesPerSecond, resolution }) {
    const parts = [`${visible.toLocaleString("en")} of ${total.toLocaleString("en")} Gaussians`];
    if (framesPerSecond) parts.push(`${Math.round(framesPerSecond)} fps`);
    parts.push(`sort ${sortMilliseconds.toFixed(1)} ms`);
    if (resolution < 1) parts.push(`${Math.round(100 * resolution)} %`);
    this.put("stats", this.viewer.state.stats ? parts.join(" · ") : "", (text) => { byId("stats").textContent = text; });
  }

  say(text) {
    byId("toast").textContent = text;
    byId("toast").classList.add("on");
    clearTimeout(this.quiet);
    this.quiet = setTimeout(() => byId("toast").classList.remove("on"), 1800);
  }
}

// Instead of a picture: what went wrong, over the poster, which stays.
function showProblem(text) {
  document.body.classList.add("broken");
  byId("problem-text").textContent = text;
  byId("problem").hidden = false;
}
