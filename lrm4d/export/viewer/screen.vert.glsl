#version 300 es
// One triangle over the whole picture.
out vec2 v_place;               // [0, 1], y up
void main() {
  v_place = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0;
  gl_Position = vec4(v_place * 2.0 - 1.0, 0.0, 1.0);
}
