#version 300 es
// Read one Gaussian's record (lrm4d/export/packing.py) and slice it at a time. Put before each shader that does so.
precision highp float;
precision highp int;
precision highp usampler2D;

uniform usampler2D u_records;   // two texels a Gaussian, 1024 Gaussians a row
uniform vec3 u_box_low, u_box_size;
uniform vec2 u_time_span;       // low, size
uniform float u_color_scale;
uniform float u_time;           // model time, [-1, 1]

layout(location = 0) in uint a_index;

struct Record { uvec4 first, second; };

Record read_record(uint index) {
  ivec2 texel = ivec2(int(index & 1023u) * 2, int(index >> 10));
  return Record(texelFetch(u_records, texel, 0), texelFetch(u_records, texel + ivec2(1, 0), 0));
}

// What slice_at computes (lrm4d/gaussians4d.py): mean + velocity (t - mu), opacity exp(-(t - mu)^2 / (2 sigma^2)).
vec3 velocity_of(Record record) {
  return vec3(unpackHalf2x16(record.first.z), unpackHalf2x16(record.first.w).x);
}

float elapsed_of(Record record) {
  return u_time - (u_time_span.x + u_time_span.y * float(record.first.y >> 16) / 65535.0);
}

vec3 mean_of(Record record) {
  uvec3 whole = uvec3(record.first.x & 65535u, record.first.x >> 16, record.first.y & 65535u);
  return u_box_low + u_box_size * vec3(whole) / 65535.0 + velocity_of(record) * elapsed_of(record);
}

float opacity_of(Record record) {
  float ratio = elapsed_of(record) / unpackHalf2x16(record.first.w).y;
  return unpackHalf2x16(record.second.z).y * exp(-0.5 * ratio * ratio);
}

vec3 color_of(Record record) {
  uvec3 whole = uvec3(record.second.w, record.second.w >> 10, record.second.w >> 20) & 1023u;
  return vec3(whole) / 1023.0 * u_color_scale;
}

// Columns: the axes times their standard deviations; its square is the covariance.
mat3 factor_of(Record record) {
  uvec3 whole = uvec3(record.second.x, record.second.x >> 10, record.second.x >> 20) & 1023u;
  vec3 o = (vec3(whole) / 1023.0 * 2.0 - 1.0) * 0.70710678;
  float large = sqrt(max(0.0, 1.0 - dot(o, o)));
  uint largest = record.second.x >> 30;
  vec4 q = largest == 0u ? vec4(large, o) : largest == 1u ? vec4(o.x, large, o.yz)
         : largest == 2u ? vec4(o.xy, large, o.z) : vec4(o, large);
  q = normalize(q);
  float w = q.x, x = q.y, y = q.z, z = q.w;
  mat3 rotation = mat3(
    1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
    2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
    2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
  vec2 first = unpackHalf2x16(record.second.y);
  float third = unpackHalf2x16(record.second.z).x;
  return mat3(rotation[0] * first.x, rotation[1] * first.y, rotation[2] * third);
}
