// Mouse, wheel, touch and keyboard. `viewer` is the object of main.js; nothing here draws.

const CLICK_REACH = 6;  // pixels that a click may slip

class Controls {
  constructor(viewer, canvas) {
    Object.assign(this, { viewer, canvas, pointers: new Map(), spin: [0, 0], moved: 0, gap: 0 });
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.up(event));
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => viewer.reset());
    window.addEventListener("keydown", (event) => this.key(event));
  }

  get dragging() { return this.pointers.size > 0; }

  down(event) {
    this.viewer.begin(true);
    // A pointer that a script made up cannot be captured, and needs not be.
    try { this.canvas.setPointerCapture(event.pointerId); } catch (error) { /* see above */ }
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    this.spin = [0, 0];
    if (this.pointers.size === 1) this.moved = 0;
    else this.gap = this.measureGap();
    this.viewer.view.flight = null;
  }

  measureGap() {
    const [a, b] = [...this.pointers.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  }

  move(event) {
    const before = this.pointers.get(event.pointerId), { viewer } = this;
    if (!before) {
      viewer.hover(event.clientX, event.clientY);
      return;
    }
    const dx = event.clientX - before[0], dy = event.clientY - before[1];
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    this.moved += Math.hypot(dx, dy);
    if (this.moved < CLICK_REACH && this.pointers.size === 1) return;
    viewer.leaveCamera();
    if (this.pointers.size >= 2) {  // two fingers: their middle pans (each moves it by half), their gap zooms
      viewer.view.pan(dx / 2, dy / 2, viewer.fitted());
      const gap = this.measureGap();
      if (gap > 0 && this.gap > 0) viewer.view.zoom(this.gap / gap);
      this.gap = gap;
    } else if (event.buttons & 6 || event.shiftKey) {
      viewer.view.pan(dx, dy, viewer.fitted());
    } else {
      const turn = Math.PI / Math.min(this.canvas.clientWidth, this.canvas.clientHeight);
      this.spin = [dx * turn, dy * turn];
      this.spunAt = performance.now();
      viewer.view.orbit(...this.spin);
    }
    viewer.invalidate();
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    this.gap = this.pointers.size >= 2 ? this.measureGap() : 0;
    const still = REDUCED_MOTION.matches || performance.now() - (this.spunAt || 0) > 60;  // held before it was let go
    if (still || this.pointers.size) this.spin = [0, 0];
    const pressed = event.type === "pointerup" && event.button === 0;
    if (pressed && !this.pointers.size && this.moved < CLICK_REACH) this.viewer.click(event.clientX, event.clientY);
    this.viewer.invalidate();
  }

  wheel(event) {
    event.preventDefault();
    this.viewer.begin(true);
    this.viewer.leaveCamera();
    // Lines and pages of old mice as pixels; a pinch on a touchpad comes as small steps with ctrl.
    const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
    this.viewer.view.zoom(Math.exp(clamp(pixels * (event.ctrlKey ? 0.01 : 0.0012), -0.5, 0.5)));
    this.viewer.touch();
  }

  // The turn that goes on after letting go; whether it still does.
  step(dt) {
    if (this.dragging || Math.hypot(...this.spin) < 2e-4) return false;
    const fade = Math.exp(-5 * dt);
    this.viewer.view.orbit(...this.spin.map((s) => s * Math.min(1, dt * 60)));
    this.spin = this.spin.map((s) => s * fade);
    return true;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const kind = event.target.tagName;
    if (kind === "BUTTON" && (event.key === " " || event.key === "Enter")) return;  // the button's own
    if (kind === "SELECT" || (event.target.id === "splat-scale" && event.key.startsWith("Arrow"))) return;
    const action = this.action(event.key, event.shiftKey);
    if (!action) return;
    event.preventDefault();
    this.viewer.begin();
    action();
    this.viewer.touch();
  }

  action(key, shift) {
    const { viewer } = this, { playback } = viewer, step = shift ? 0.1 : 0.02;
    if (/^[0-9]$/.test(key)) return () => viewer.setTime(Number(key) / 10);
    return {
      " ": () => viewer.toggle("playing"),
      ArrowLeft: () => viewer.setTime(playback.time - step),
      ArrowRight: () => viewer.setTime(playback.time + step),
      ArrowUp: () => { viewer.leaveCamera(); viewer.view.zoom(0.9); },
      ArrowDown: () => { viewer.leaveCamera(); viewer.view.zoom(1 / 0.9); },
      Home: () => viewer.setTime(0),
      End: () => viewer.setTime(1),
      "[": () => viewer.standIn(viewer.chosen - 1),
      "]": () => viewer.standIn(viewer.chosen + 1),
      ",": () => playback.changeSpeed(-1),
      ".": () => playback.changeSpeed(1),
      c: () => viewer.toggle("cameras"),
      t: () => viewer.toggle("trails"),
      b: () => viewer.nextBackground(),
      m: () => playback.nextMode(),
      s: () => viewer.toggle("stats"),
      u: () => viewer.toggle("ui"),
      l: () => viewer.copyLink(),
      r: () => viewer.reset(),
      f: () => viewer.toggleFullScreen(),
      h: () => viewer.toggle("help"),
      "?": () => viewer.toggle("help"),
      Escape: () => viewer.closeAll(),
    }[key.length === 1 ? key.toLowerCase() : key];
  }
}
