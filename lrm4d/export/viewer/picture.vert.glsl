#version 300 es
// An input picture at the far end of its camera's frustum.
precision highp float;
uniform mat3 u_rotation;
uniform vec3 u_translation;
uniform vec4 u_lens;
uniform vec2 u_size;
uniform vec3 u_corners[4];      // world: top left, top right, bottom left, bottom right
uniform vec4 u_cell;            // of the atlas: left, top, width, height in [0, 1]
out vec2 v_place;

void main() {
  vec3 corner = u_rotation * u_corners[gl_VertexID] + u_translation;
  v_place = u_cell.xy + u_cell.zw * vec2(gl_VertexID & 1, gl_VertexID >> 1);
  vec2 pixel = corner.xy * u_lens.xy + u_lens.zw * corner.z;
  // z is w's twin here: the clip against -w <= z cuts what is behind the camera.
  gl_Position = vec4(2.0 * pixel.x / u_size.x - corner.z, corner.z - 2.0 * pixel.y / u_size.y, corner.z - 0.04, corner.z);
}
