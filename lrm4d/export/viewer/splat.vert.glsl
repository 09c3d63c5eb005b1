// One quad a Gaussian, as large as its ellipse of alpha 1/255: project_gaussians of lrm4d/rasterizer/reference.py.
uniform mat3 u_rotation;        // world to camera, OpenCV axes
uniform vec3 u_translation;
uniform vec4 u_lens;            // fx, fy, cx, cy in pixels of this framebuffer
uniform float u_skew;
uniform vec2 u_size;            // pixels
uniform float u_low_pass;       // pixels squared
uniform bool u_compensate;
uniform float u_splat_scale;

out vec2 v_offset;              // in standard deviations along the ellipse's axes
flat out vec4 v_color;          // straight RGB, opacity

const float NEAR = 0.01, FAR = 1e10, MIN_ALPHA = 1.0 / 255.0;

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);  // outside of what is drawn, unless all goes well
  Record record = read_record(a_index);
  float opacity = opacity_of(record);
  vec3 center = u_rotation * mean_of(record) + u_translation;
  if (opacity < MIN_ALPHA || center.z <= NEAR || center.z >= FAR) return;

  vec2 slopes = center.xy / center.z;
  vec2 pixel = vec2(u_lens.x * slopes.x + u_skew * slopes.y, u_lens.y * slopes.y) + u_lens.zw;
  // Far outside the picture the linearized perspective means nothing: clamped 30 % beyond the field of view.
  vec2 margin = 0.15 * u_size / u_lens.xy;
  vec2 clamped = clamp(slopes, -u_lens.zw / u_lens.xy - margin, (u_size - u_lens.zw) / u_lens.xy + margin);
  mat3 factor = u_rotation * factor_of(record) * u_splat_scale;
  vec3 along_x = vec3(u_lens.x, u_skew, -(u_lens.x * clamped.x + u_skew * clamped.y)) / center.z;
  vec3 along_y = vec3(0.0, u_lens.y, -u_lens.y * clamped.y) / center.z;
  vec3 row_x = along_x * factor, row_y = along_y * factor;
  vec3 sharp = vec3(dot(row_x, row_x), dot(row_x, row_y), dot(row_y, row_y));
  float a = sharp.x + u_low_pass, b = sharp.y, c = sharp.z + u_low_pass;
  // |row_x x row_y|^2: the determinant of the sharp covariance without the difference of two large products.
  vec3 area = cross(row_x, row_y);
  float determinant = dot(area, area) + u_low_pass * (sharp.x + sharp.z) + u_low_pass * u_low_pass;
  if (u_compensate) opacity *= sqrt(dot(area, area) / determinant);
  if (opacity < MIN_ALPHA || determinant <= 1e-10 || a >= 1e30 || c >= 1e30) return;

  float middle = 0.5 * (a + c), radius = length(vec2(0.5 * (a - c), b));
  float large = middle + radius, small = determinant / large;
  // Of the two forms of the eigenvector, the one that does not cancel.
  vec2 axis = a >= c ? vec2(0.5 * (a - c) + radius, b) : vec2(b, 0.5 * (c - a) + radius);
  axis = dot(axis, axis) > 0.0 ? normalize(axis) : vec2(1.0, 0.0);
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0 - 1.0;
  v_offset = corner * (sqrt(2.0 * log(opacity / MIN_ALPHA)) * 1.001 + 0.001);
  v_color = vec4(color_of(record), opacity);
  pixel += v_offset.x * sqrt(large) * axis + v_offset.y * sqrt(small) * vec2(-axis.y, axis.x);
  gl_Position = vec4(2.0 * pixel.x / u_size.x - 1.0, 1.0 - 2.0 * pixel.y / u_size.y, 0.0, 1.0);
}
