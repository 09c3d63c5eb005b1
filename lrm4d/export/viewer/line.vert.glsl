#version 300 es
// Segments in space as quads of a width in pixels, so that they are smooth on every machine.
precision highp float;
uniform mat3 u_rotation;
uniform vec3 u_translation;
uniform vec4 u_lens;
uniform vec2 u_size;
uniform float u_width;
layout(location = 0) in vec3 a_start;
layout(location = 1) in vec3 a_end;
layout(location = 2) in vec4 a_color;
out float v_across;             // pixels from the middle
out vec4 v_color;

void main() {
  vec3 start = u_rotation * a_start + u_translation, end = u_rotation * a_end + u_translation;
  const float NEAR = 0.02;
  if (start.z < NEAR) start = mix(start, end, clamp((NEAR - start.z) / (end.z - start.z), 0.0, 1.0));
  if (end.z < NEAR) end = mix(end, start, clamp((NEAR - end.z) / (start.z - end.z), 0.0, 1.0));
  vec2 from = start.xy / start.z * u_lens.xy + u_lens.zw, to = end.xy / end.z * u_lens.xy + u_lens.zw;
  vec2 along = to - from;
  along = dot(along, along) > 1e-8 ? normalize(along) : vec2(1.0, 0.0);
  v_across = (float(gl_VertexID & 1) * 2.0 - 1.0) * (0.5 * u_width + 1.0);
  v_color = start.z < NEAR * 0.99 || end.z < NEAR * 0.99 ? vec4(0.0) : a_color;
  vec2 pixel = (gl_VertexID < 2 ? from : to) + v_across * vec2(-along.y, along.x);
  gl_Position = vec4(2.0 * pixel.x / u_size.x - 1.0, 1.0 - 2.0 * pixel.y / u_size.y, 0.0, 1.0);
}
