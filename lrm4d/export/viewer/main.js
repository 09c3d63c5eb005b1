// The viewer: its state, its frames, and the object `lrm4d` that scripts may use (docs/viewer.md).

const REDUCED_MOTION = window.matchMedia("(prefers-reduced-motion: reduce)");
const SLOW_FRAME = 1 / 32, FAIR_FRAME = 1 / 42, FAST_FRAME = 1 / 52;  // seconds: the resolution follows them in motion
const LEAST_QUALITY = 0.35;  // of the canvas's width and height
const REST = 200;  // milliseconds without motion before a frame of full resolution
const FLIGHT = 0.9;  // seconds to a camera
const NO_WEBGL = "This browser shows no WebGL 2, so here is a picture only. "
  + "Try another browser, or turn hardware acceleration on.";

class Viewer {
  constructor(header, records, canvas, atlasImage) {
    Object.assign(this, { header, records, canvas, atlasImage, begun: false, chosen: -1, waiting: [], touched: -1e9 });
    this.cameras = header.cameras;
    this.home = header.home;
    this.playback = new Playback(header.seconds, 0);
    this.state = {
      background: "white", scale: 1, cameras: false, trails: false, stats: true, ui: true, settings: false, help: false,
    };
    this.view = new View(header.center, header.radius);
    this.view.stand(this.home);
    this.stats = { total: header.count, visible: 0, sortMilliseconds: 0, framesPerSecond: 0, resolution: 1, sorts: [] };
    this.pace = { quality: 1, frame: FAIR_FRAME, shown: 1 / 60, last: 0, moved: -1e9, running: false };
    this.build();
    this.sorting = new Sorting(records, header, (order) => this.takeOrder(order));
    this.controls = new Controls(this, canvas);
    this.panel = new Panel(this);
    new ResizeObserver(() => this.invalidate()).observe(canvas);
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.build();
      this.sorting.forget();
      this.invalidate();
    });
  }

  // Everything that lives on the graphics card.
  build() {
    const options = { alpha: false, antialias: false, depth: false, powerPreference: "high-performance" };
    const gl = this.canvas.getContext("webgl2", options);
    if (!gl) throw new PageError(NO_WEBGL);
    this.gl = gl;
    this.splats = new Splats(gl, this.records, this.header);
    this.screen = compileProgram(gl, SHADERS["screen.vert"], SHADERS["background.frag"]);
    this.composite = compileProgram(gl, SHADERS["screen.vert"], SHADERS["composite.frag"]);
    this.frusta = this.cameras.length
      ? new Frusta(gl, this.cameras, this.header.atlas, this.atlasImage, this.header.frustumDepth) : null;
  }

  // The first interaction: the poster makes room, and time begins to run unless something else was asked for.
  begin(playing = false) {
    if (this.begun) return;
    this.begun = true;
    document.body.classList.add("begun");
    if (playing && !REDUCED_MOTION.matches) this.playback.play();
    this.invalidate();
  }

  // Draw again. One frame is asked for at a time, and none while nothing changes.
  invalidate() {
    if (!this.pending) this.pending = requestAnimationFrame((now) => this.tick(now));
  }

  // Someone is moving something by hand.
  touch() {
    this.touched = performance.now();
    this.invalidate();
  }

  tick(now) {
    this.pending = 0;
    const since = (now - this.pace.last) / 1000;
    const dt = this.pace.running ? Math.min(since, 0.25) : 1 / 60;  // a hidden page comes back without a jump
    this.pace.last = now;
    if (this.begun) this.playback.step(dt);
    const flying = this.view.step(dt, this.canvas.clientWidth, this.canvas.clientHeight);
    const spinning = this.controls.step(dt), touched = now - this.touched < 150;
    const moves = this.playback.playing || flying || spinning || touched || this.controls.dragging;
    this.adapt(moves, since, now);
    const sorted = this.sorting.request(this.playback.time, this.view);
    this.draw(this.stats.resolution);
    this.panel.update();
    this.panel.showStats(this.stats);
    const done = this.playback.playing ? this.sorting.done : sorted && this.stats.resolution === 1 && !flying && !spinning;
    if (done) this.waiting.splice(0).forEach((resolve) => resolve());
    this.pace.running = moves || this.stats.resolution < 1;
    if (this.pace.running) this.invalidate();
  }

  // While things move, as many pixels as the machine draws smoothly; at rest, all of them.
  adapt(moves, since, now) {
    const { pace, stats } = this;
    if (moves && pace.running && since < 1) {
      pace.frame = mix(pace.frame, since, 0.15);
      pace.shown = mix(pace.shown, since, 0.08);
      if (pace.frame > SLOW_FRAME && pace.quality > LEAST_QUALITY) {
        pace.quality = Math.max(LEAST_QUALITY, 0.85 * pace.quality);
        pace.frame = FAIR_FRAME;  // and see what that brings
      } else if (pace.frame < FAST_FRAME) {
        pace.quality = Math.min(1, 1.01 * pace.quality);
      }
    }
    if (moves) pace.moved = now;
    const rested = now - pace.moved >= REST;
    stats.framesPerSecond = moves && pace.running ? 1 / pace.shown : 0;
    stats.resolution = !moves && (rested || pace.quality === 1) ? 1 : pace.quality;
  }

  takeOrder({ order, found, milliseconds }) {
    this.splats.setOrder(order, found);
    const { stats } = this, sorts = stats.sorts;
    sorts.push(milliseconds);
    if (sorts.length > 15) sorts.shift();
    // The median, because one sort that had to wait for the processor tells nothing.
    Object.assign(stats, { visible: found, sortMilliseconds: sorts.slice().sort((a, b) => a - b)[sorts.length >> 1] });
    this.invalidate();
  }

  // The lens at the canvas's size in CSS pixels.
  fitted() { return fitLens(this.view.lens, this.canvas.clientWidth, this.canvas.clientHeight); }

  cameraFor(width, height) {
    const toCamera = transpose(this.view.rotation);
    const translation = apply(toCamera, this.view.position).map((x) => -x);
    return { ...fitLens(this.view.lens, width, height), toCamera, translation };
  }

  draw(resolution) {
    const { gl, canvas, state, playback, view } = this, ratio = Math.min(window.devicePixelRatio || 1, 2);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.max(1, Math.round(side * ratio)));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const size = [width, height].map((pixels) => Math.max(1, Math.round(pixels * resolution)));
    this.splats.draw(this.cameraFor(...size), playback.time, state.scale);

    const camera = this.cameraFor(width, height), line = 1.1 * ratio;
    gl.viewport(0, 0, width, height);
    gl.disable(gl.BLEND);
    gl.useProgram(this.screen.program);
    const [light, dark] = BACKGROUNDS[state.background];
    gl.uniform3fv(this.screen.uniforms.u_light, light);
    gl.uniform3fv(this.screen.uniforms.u_dark, dark);
    gl.uniform1f(this.screen.uniforms.u_square, 12 * ratio);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    if (this.frusta && state.cameras) this.frusta.draw(camera, view, true, line);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.SRC_ALPHA);
    gl.useProgram(this.composite.program);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.splats.texture);
    gl.uniform1i(this.composite.uniforms.u_picture, 0);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    if (state.trails) this.splats.drawTrails(camera, playback.time, 1.4 * ratio);
    if (this.frusta && state.cameras) this.frusta.draw(camera, view, false, line);
  }

  setTime(time) {
    this.playback.scrub(time);
    this.invalidate();
  }

  // Stand in any camera: {pose, lens} as the header has them.
  setCamera(camera, seconds = 0) {
    this.chosen = -1;
    this.view.flyTo(camera, REDUCED_MOTION.matches ? 0 : seconds);
    this.invalidate();
  }

  // Stand in an input camera at the time of its picture; indices run round.
  standIn(index, seconds = FLIGHT) {
    const count = this.cameras.length;
    if (!count) return;
    const wanted = this.chosen < 0 && index < -1 ? count - 1 : ((index % count) + count) % count;
    this.setCamera(this.cameras[wanted], seconds);
    this.setTime(this.cameras[wanted].time);
    this.chosen = wanted;
    if (this.frusta) this.frusta.chosen = wanted;
  }

  leaveCamera() {
    if (this.chosen < 0) return;
    this.chosen = -1;
    this.frusta.chosen = -1;
    this.invalidate();
  }

  click(x, y) {
    const index = this.cameraAt(x, y);
    if (index >= 0) this.standIn(index);
  }

  hover(x, y) { this.canvas.style.cursor = this.cameraAt(x, y) >= 0 ? "pointer" : ""; }

  cameraAt(x, y) {
    if (!this.frusta || !this.state.cameras) return -1;
    const box = this.canvas.getBoundingClientRect();
    return this.frusta.hit(x - box.left, y - box.top, this.cameraFor(box.width, box.height), this.view, 8);
  }

  toggle(name) {
    if (name === "playing") {
      if (this.playback.playing) this.playback.pause();
      else this.playback.play();
    } else {
      this.state[name] = !this.state[name];
      if (name === "cameras" && this.state.cameras) this.stepBack();
    }
    this.invalidate();
  }

  // Cameras that were just shown are mostly beside or behind: move back until they are in the picture.
  stepBack() {
    if (this.chosen >= 0 || !this.frusta) return;
    const { view } = this, reach = Math.max(...this.frusta.points.flat().map((p) => Math.hypot(...subtract(p, view.center))));
    const fitted = this.fitted(), slope = Math.min(fitted.width / fitted.fx, fitted.height / fitted.fy) / 2;
    const distance = 0.85 * reach / Math.sin(Math.atan(slope));  // they seldom fill a sphere
    if (distance <= view.distance) return;
    const pose = view.pose, position = add(view.pivot, view.forward, -distance);
    [pose[3], pose[7], pose[11]] = position;
    this.setCamera({ pose, lens: view.lens }, FLIGHT);
  }

  setBackground(name) {
    this.state.background = name;
    this.invalidate();
  }

  nextBackground() {
    const names = Object.keys(BACKGROUNDS);
    this.setBackground(names[(names.indexOf(this.state.background) + 1) % names.length]);
  }

  cycleSpeed() {
    if (this.playback.speed === SPEEDS[SPEEDS.length - 1]) this.playback.speed = SPEEDS[0];
    else this.playback.changeSpeed(1);
  }

  reset() {
    this.leaveCamera();
    this.state.scale = 1;
    this.setCamera(this.home, 0.5);
  }

  closeAll() {
    Object.assign(this.state, { help: false, settings: false });
    this.leaveCamera();
  }

  toggleFullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen?.().catch(() => this.panel.say("This browser refuses full screen"));
  }

  async copyLink() {
    history.replaceState(null, "", writeAddress(this));
    try {
      await navigator.clipboard.writeText(location.href);
      this.panel.say("Link to this view copied");
    } catch (error) {
      this.panel.say("The address bar now shows this view");  // no clipboard for pages from disk in some browsers
    }
  }

  // Resolves once what is asked for now is on the canvas: sorted, at rest or playing, in full resolution.
  frameReady() {
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      this.invalidate();
    });
  }

  // {width, height, data}: RGBA bytes of the canvas, the top row first.
  readPixels() {
    this.draw(1);
    const { gl, canvas: { width, height } } = this;
    const rows = new Uint8Array(width * height * 4), data = new Uint8Array(width * height * 4);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, rows);
    const row = width * 4;
    for (let y = 0; y < height; y++) data.set(rows.subarray(y * row, (y + 1) * row), (height - 1 - y) * row);
    return { width, height, data };
  }
}
