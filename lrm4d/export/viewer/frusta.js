// The input cameras: wire pyramids with their pictures, drawn and hit by the pointer.

const EDGES = [[4, 0], [4, 1], [4, 2], [4, 3], [0, 1], [1, 3], [3, 2], [2, 0]];
const EDGE_COLOR = [0.45, 0.49, 0.56, 0.9], CHOSEN_COLOR = [0.98, 0.45, 0.09, 1];

class Frusta {
  // cameras: the header's; atlas: {columns, rows}; depth: of a pyramid, world units.
  constructor(gl, cameras, atlas, image, depth) {
    Object.assign(this, { gl, cameras, atlas, chosen: -1 });
    this.points = cameras.map((camera) => Frusta.corners(camera, depth));
    this.line = compileProgram(gl, SHADERS["line.vert"], SHADERS["line.frag"]);
    this.picture = compileProgram(gl, SHADERS["picture.vert"], SHADERS["picture.frag"]);
    this.buffer = gl.createBuffer();
    this.edges = gl.createVertexArray();
    gl.bindVertexArray(this.edges);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffer);
    [[0, 3, 0], [1, 3, 12], [2, 4, 24]].forEach(([slot, size, offset]) => {
      gl.enableVertexAttribArray(slot);
      gl.vertexAttribPointer(slot, size, gl.FLOAT, false, 40, offset);
      gl.vertexAttribDivisor(slot, 1);
    });
    gl.bindVertexArray(null);
    this.texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, image);
    gl.generateMipmap(gl.TEXTURE_2D);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
  }

  // Top left, top right, bottom left, bottom right of the picture, and the camera's centre, in the world.
  static corners({ pose, lens }, depth) {
    const rotation = [pose[0], pose[1], pose[2], pose[4], pose[5], pose[6], pose[8], pose[9], pose[10]];
    const center = [pose[3], pose[7], pose[11]];
    const corner = (x, y) => {
      const down = (y - lens.cy) / lens.fy;
      return add(center, apply(rotation, [(x - lens.cx - lens.skew * down) / lens.fx, down, 1]), depth);
    };
    return [corner(0, 0), corner(lens.width, 0), corner(0, lens.height), corner(lens.width, lens.height), center];
  }

  // Farther than the scene's centre, and so behind the splats; all others are in front of them.
  isBehind(index, view) {
    return dot(subtract(this.points[index][4], view.center), view.forward) > 0;
  }

  draw(camera, view, behind, width) {
    const gl = this.gl;
    const depth = (index) => dot(subtract(this.points[index][4], view.position), view.forward);
    const shown = this.cameras.map((_, index) => index)
      .filter((index) => this.isBehind(index, view) === behind && !this.isInside(index, view));
    if (!shown.length) return;
    shown.sort((a, b) => depth(b) - depth(a));
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.activeTexture(gl.TEXTURE0);
    for (const index of shown) {
      this.drawPicture(index, camera);
      this.drawEdges(index, camera, width);
    }
    gl.bindVertexArray(null);
  }

  // Standing in a camera, its own pyramid would be a frame around everything.
  isInside(index, view) {
    const points = this.points[index];
    return Math.hypot(...subtract(points[4], view.position)) < 0.5 * Math.hypot(...subtract(points[0], points[4]));
  }

  drawPicture(index, camera) {
    const gl = this.gl, { program, uniforms } = this.picture, { columns, rows } = this.atlas;
    gl.useProgram(program);
    gl.bindVertexArray(null);
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.uniform1i(uniforms.u_pictures, 0);
    setCamera(gl, this.picture, camera);
    gl.uniform3fv(uniforms.u_corners, this.points[index].slice(0, 4).flat());
    gl.uniform4f(uniforms.u_cell, (index % columns) / columns, Math.floor(index / columns) / rows, 1 / columns, 1 / rows);
    gl.uniform1f(uniforms.u_opacity, 0.94);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }

  drawEdges(index, camera, width) {
    const gl = this.gl, points = this.points[index], color = index === this.chosen ? CHOSEN_COLOR : EDGE_COLOR;
    gl.useProgram(this.line.program);
    gl.bindVertexArray(this.edges);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffer);
    const segments = EDGES.flatMap(([from, to]) => [...points[from], ...points[to], ...color]);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(segments), gl.STREAM_DRAW);
    setCamera(gl, this.line, camera);
    gl.uniform1f(this.line.uniforms.u_width, index === this.chosen ? 1.6 * width : width);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, EDGES.length);
  }

  // The nearest camera whose picture or centre is under a pixel of the canvas (camera: the lens at its size), or -1.
  hit(x, y, camera, view, reach) {
    let best = -1, nearest = Infinity;
    this.points.forEach((points, index) => {
      if (this.isInside(index, view)) return;
      const seen = points.map((point) => {
        const [px, py, z] = apply(camera.toCamera, subtract(point, view.position));
        return [px / z * camera.fx + py / z * camera.skew + camera.cx, py / z * camera.fy + camera.cy, z];
      });
      if (seen.some((point) => point[2] < 0.01)) return;
      const inside = insideConvex([seen[0], seen[1], seen[3], seen[2]], x, y)
        || Math.hypot(seen[4][0] - x, seen[4][1] - y) < reach;
      if (inside && seen[4][2] < nearest) [best, nearest] = [index, seen[4][2]];
    });
    return best;
  }
}

function insideConvex(corners, x, y) {
  const sides = corners.map((a, k) => {
    const b = corners[(k + 1) % corners.length];
    return (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]);
  });
  return sides.every((side) => side >= 0) || sides.every((side) => side <= 0);
}
