// A Gaussian's way over the last moments, as a line that fades towards its past.
uniform mat3 u_rotation;
uniform vec3 u_translation;
uniform vec4 u_lens;
uniform vec2 u_size;
uniform float u_width, u_duration;  // pixels; model time
uniform uint u_every;           // one Gaussian in so many has a trail
out float v_across;
out vec4 v_color;

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);
  v_across = 0.0;
  v_color = vec4(0.0);
  // A hash, because neighbours in the file are neighbours in space.
  uint hash = (a_index ^ (a_index >> 7)) * 2654435761u;
  if ((hash >> 8) % u_every != 0u) return;
  Record record = read_record(a_index);
  float opacity = opacity_of(record);
  vec3 way = velocity_of(record) * u_duration;
  vec3 end = u_rotation * mean_of(record) + u_translation, start = end - u_rotation * way;
  if (opacity < 0.05 || start.z < 0.02 || end.z < 0.02) return;
  vec2 from = start.xy / start.z * u_lens.xy + u_lens.zw, to = end.xy / end.z * u_lens.xy + u_lens.zw;
  vec2 along = to - from;
  if (dot(along, along) < 4.0) return;  // shorter than two pixels: a dot, not a trail
  along = normalize(along);
  v_across = (float(gl_VertexID & 1) * 2.0 - 1.0) * (0.5 * u_width + 1.0);
  vec3 tint = 0.5 + 0.5 * normalize(way);
  v_color = vec4(mix(tint, vec3(1.0, 0.45, 0.1), 0.25), gl_VertexID < 2 ? 0.0 : min(1.0, 0.35 + opacity));
  vec2 pixel = (gl_VertexID < 2 ? from : to) + v_across * vec2(-along.y, along.x);
  gl_Position = vec4(2.0 * pixel.x / u_size.x - 1.0, 1.0 - 2.0 * pixel.y / u_size.y, 0.0, 1.0);
}
