#version 300 es
precision highp float;
uniform sampler2D u_pictures;
uniform float u_opacity;
in vec2 v_place;
out vec4 o_color;
void main() { o_color = vec4(texture(u_pictures, v_place).rgb, 1.0) * u_opacity; }
