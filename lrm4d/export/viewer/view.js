// Where one looks from: a pose, a lens, and how far ahead the point is that turning goes around.

const UP = [0, 0, 1];

// Pixel intrinsics for a canvas that shows the whole picture of a lens, centred, whatever the canvas's shape.
function fitLens(lens, width, height) {
  const scale = Math.min(width / lens.width, height / lens.height);
  return {
    fx: lens.fx * scale, fy: lens.fy * scale, skew: lens.skew * scale, width, height,
    cx: lens.cx * scale + (width - lens.width * scale) / 2, cy: lens.cy * scale + (height - lens.height * scale) / 2,
  };
}

const mixLens = (a, b, s) => Object.fromEntries(Object.keys(a).map((key) => [key, mix(a[key], b[key], s)]));

class View {
  // center, radius: of the scene, in the world.
  constructor(center, radius) {
    Object.assign(this, { center, radius, flight: null });
  }

  // camera: {pose: 12 or 16 numbers, row-major camera_to_world; lens}.
  stand(camera) {
    const p = camera.pose;
    this.rotation = [p[0], p[1], p[2], p[4], p[5], p[6], p[8], p[9], p[10]];
    this.position = [p[3], p[7], p[11]];
    this.lens = { skew: 0, ...camera.lens };
    this.flight = null;
    this.lookAhead();
  }

  // Turning goes around the point of the line of sight that is nearest to the scene's centre.
  lookAhead() {
    const ahead = dot(subtract(this.center, this.position), this.forward);
    this.distance = Math.max(ahead, 0.2 * this.radius);
  }

  get forward() { return column(this.rotation, 2); }
  get pivot() { return add(this.position, this.forward, this.distance); }
  get pose() {
    const r = this.rotation, p = this.position;
    return [r[0], r[1], r[2], p[0], r[3], r[4], r[5], p[1], r[6], r[7], r[8], p[2], 0, 0, 0, 1];
  }

  // Angles in radians: around the world's up, and over or under.
  orbit(around, over) {
    const pivot = this.pivot, forward = this.forward, upright = column(this.rotation, 1)[2] <= 0;
    // Stop short of looking straight up or down, where left and right would swap.
    const height = Math.asin(clamp(-forward[2], -1, 1)) * (upright ? 1 : -1);
    const allowed = upright ? clamp(over, -1.54 - height, 1.54 - height) : over;
    const tilt = rotationAbout(column(this.rotation, 0), -allowed);
    this.rotation = multiply(rotationAbout(UP, -around), multiply(tilt, this.rotation));
    this.position = add(pivot, this.forward, -this.distance);
  }

  // CSS pixels, such that the pivot follows the finger.
  pan(dx, dy, fitted) {
    this.position = add(this.position, column(this.rotation, 0), -dx * this.distance / fitted.fx);
    this.position = add(this.position, column(this.rotation, 1), -dy * this.distance / fitted.fy);
  }

  zoom(factor) {
    const pivot = this.pivot;
    this.distance = clamp(this.distance * factor, 0.05 * this.radius, 40 * this.radius);
    this.position = add(pivot, this.forward, -this.distance);
  }

  // Fly to a camera in `seconds`; the way swings around the scene's centre rather than through it.
  flyTo(camera, seconds) {
    const end = new View(this.center, this.radius);
    end.stand(camera);
    if (seconds <= 0) return this.stand(camera);
    const { position, rotation, lens } = this;
    this.flight = { start: { position, rotation, lens }, end, seconds, passed: 0 };
    return undefined;
  }

  // Move on by dt seconds; whether something moved. width, height: of the canvas, that lenses are mixed on.
  step(dt, width, height) {
    const flight = this.flight;
    if (!flight) return false;
    flight.passed += dt;
    const s = clamp(flight.passed / flight.seconds, 0, 1), eased = s * s * (3 - 2 * s);
    const { start, end } = flight;
    if (s === 1) {
      Object.assign(this, { position: end.position, rotation: end.rotation, lens: end.lens, flight: null });
      this.lookAhead();
      return true;
    }
    const from = subtract(start.position, this.center), to = subtract(end.position, this.center);
    const straight = [0, 1, 2].map((k) => mix(from[k], to[k], eased));
    const length = Math.hypot(...straight), wanted = mix(Math.hypot(...from), Math.hypot(...to), eased);
    const stretch = length > 0.2 * wanted ? wanted / length : 1;
    this.position = add(this.center, straight, stretch);
    this.rotation = interpolateRotation(start.rotation, end.rotation, eased);
    this.lens = mixLens(fitLens(start.lens, width, height), fitLens(end.lens, width, height), eased);
    this.lookAhead();
    return true;
  }
}
