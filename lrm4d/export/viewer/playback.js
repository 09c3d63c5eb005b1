// The time that is shown, in [0, 1], and how it runs.

const MODES = ["pingpong", "loop", "once"];
const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];

class Playback {
  // seconds: how long the clip lasts at speed 1.
  constructor(seconds, time) {
    Object.assign(this, { seconds, time, playing: false, speed: 1, mode: "pingpong", direction: 1 });
  }

  play() {
    if (this.mode === "once" && this.time >= 1) this.time = 0;
    if (this.mode !== "pingpong") this.direction = 1;
    this.playing = true;
  }

  pause() { this.playing = false; }

  scrub(time) {
    this.pause();
    this.time = clamp(time, 0, 1);
  }

  step(dt) {
    if (!this.playing) return;
    const next = this.time + this.direction * this.speed * dt / this.seconds;
    if (this.mode === "loop") {
      this.time = next - Math.floor(next);
    } else if (this.mode === "once") {
      this.time = Math.min(next, 1);
      if (next >= 1) this.pause();
    } else {
      const folded = ((next % 2) + 2) % 2;  // there and back again is a circle of length 2
      if (next < 0 || next > 1) this.direction = -this.direction;
      this.time = folded > 1 ? 2 - folded : folded;
    }
  }

  nextMode() {
    this.mode = MODES[(MODES.indexOf(this.mode) + 1) % MODES.length];
    if (this.mode !== "pingpong") this.direction = 1;
  }

  changeSpeed(steps) {
    this.speed = SPEEDS[clamp(SPEEDS.indexOf(this.speed) + steps, 0, SPEEDS.length - 1)];
  }
}
