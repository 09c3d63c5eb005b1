// The picture of the Gaussians, the same as the rasterizer's: sorted quads blended front to back in half floats.

const ROW = 1024;  // Gaussians in a row of the texture

function compileProgram(gl, vertex, fragment) {
  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS) && !gl.isContextLost()) {
      throw new PageError(`This machine's graphics driver refuses a shader: ${gl.getShaderInfoLog(shader)}`);
    }
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    throw new PageError(`This machine's graphics driver refuses the shaders: ${gl.getProgramInfoLog(program)}`);
  }
  const uniforms = {};
  for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
    const { name } = gl.getActiveUniform(program, i);
    uniforms[name.replace("[0]", "")] = gl.getUniformLocation(program, name);
  }
  return { program, uniforms };
}

// What every shader that projects points wants to know.
function setCamera(gl, { uniforms }, camera) {
  gl.uniformMatrix3fv(uniforms.u_rotation, true, camera.toCamera);
  gl.uniform3fv(uniforms.u_translation, camera.translation);
  gl.uniform4f(uniforms.u_lens, camera.fx, camera.fy, camera.cx, camera.cy);
  gl.uniform2f(uniforms.u_size, camera.width, camera.height);
}

class Splats {
  constructor(gl, records, header) {
    Object.assign(this, { gl, header, found: 0, width: 0, height: 0 });
    const floats = gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float");
    this.precise = Boolean(floats);  // else 8 bits, in which many faint layers are lost
    this.splat = compileProgram(gl, SHADERS["gaussian"] + SHADERS["splat.vert"], SHADERS["splat.frag"]);
    this.trail = compileProgram(gl, SHADERS["gaussian"] + SHADERS["trail.vert"], SHADERS["line.frag"]);
    this.records = this.upload(records);
    this.order = gl.createBuffer();
    this.vertices = gl.createVertexArray();
    gl.bindVertexArray(this.vertices);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.order);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribIPointer(0, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(0, 1);
    gl.bindVertexArray(null);
    this.texture = gl.createTexture();
    this.framebuffer = gl.createFramebuffer();
  }

  upload(records) {
    const gl = this.gl, rows = Math.ceil(this.header.count / ROW), most = gl.getParameter(gl.MAX_TEXTURE_SIZE);
    if (rows > most) {
      throw new PageError(`This machine's graphics can hold ${(most * ROW).toLocaleString("en")} Gaussians, and this `
        + `scene has ${this.header.count.toLocaleString("en")}.`);
    }
    const padded = new Uint32Array(rows * ROW * 8);
    padded.set(records);
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32UI, 2 * ROW, rows, 0, gl.RGBA_INTEGER, gl.UNSIGNED_INT, padded);
    return texture;
  }

  setOrder(order, found) {
    const gl = this.gl;
    this.found = found;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.order);
    gl.bufferData(gl.ARRAY_BUFFER, order.subarray(0, found), gl.DYNAMIC_DRAW);
  }

  resize(width, height) {
    if (width === this.width && height === this.height) return;
    Object.assign(this, { width, height });
    const gl = this.gl;
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    const [format, type] = this.precise ? [gl.RGBA16F, gl.HALF_FLOAT] : [gl.RGBA8, gl.UNSIGNED_BYTE];
    gl.texImage2D(gl.TEXTURE_2D, 0, format, width, height, 0, gl.RGBA, type, null);
    for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, side, gl.LINEAR);
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.framebuffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.texture, 0);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
  }

  useRecords({ program, uniforms }, time) {
    const gl = this.gl, header = this.header;
    gl.useProgram(program);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.records);
    gl.uniform1i(uniforms.u_records, 0);
    gl.uniform3fv(uniforms.u_box_low, header.boxLow);
    gl.uniform3fv(uniforms.u_box_size, header.boxSize);
    gl.uniform2f(uniforms.u_time_span, header.timeLow, header.timeSize);
    gl.uniform1f(uniforms.u_color_scale, header.colorScale);
    gl.uniform1f(uniforms.u_time, 2 * time - 1);
    gl.bindVertexArray(this.vertices);
  }

  // Into the texture: colour summed from front to back, and in alpha the light that passes everything.
  draw(camera, time, scale) {
    const gl = this.gl, header = this.header, { uniforms } = this.splat;
    this.resize(camera.width, camera.height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.framebuffer);
    gl.viewport(0, 0, camera.width, camera.height);
    gl.clearColor(0, 0, 0, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    this.useRecords(this.splat, time);
    setCamera(gl, this.splat, camera);
    gl.uniform1f(uniforms.u_skew, camera.skew);
    gl.uniform1f(uniforms.u_low_pass, header.lowPass);
    gl.uniform1i(uniforms.u_compensate, header.compensate ? 1 : 0);
    gl.uniform1f(uniforms.u_splat_scale, scale);
    gl.enable(gl.BLEND);
    gl.blendFuncSeparate(gl.DST_ALPHA, gl.ONE, gl.ZERO, gl.ONE_MINUS_SRC_ALPHA);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.found);
    gl.bindVertexArray(null);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
  }

  // Onto the canvas; at most 4,000 trails, else they are a fog.
  drawTrails(camera, time, width) {
    const gl = this.gl, { uniforms } = this.trail;
    this.useRecords(this.trail, time);
    setCamera(gl, this.trail, camera);
    gl.uniform1f(uniforms.u_width, width);
    gl.uniform1f(uniforms.u_duration, this.header.trailDuration);
    gl.uniform1ui(uniforms.u_every, Math.max(1, Math.round(this.found / 4000)));
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.found);
    gl.bindVertexArray(null);
  }
}
