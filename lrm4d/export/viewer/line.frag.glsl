#version 300 es
precision highp float;
uniform float u_width;
in float v_across;
in vec4 v_color;
out vec4 o_color;               // premultiplied

void main() {
  float cover = clamp(0.5 * u_width + 0.5 - abs(v_across), 0.0, 1.0) * v_color.a;
  o_color = vec4(v_color.rgb * cover, cover);
}
