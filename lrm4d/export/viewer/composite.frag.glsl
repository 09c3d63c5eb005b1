#version 300 es
// The splats' picture onto what is behind it; blended as colour + transmittance * background.
precision highp float;
uniform sampler2D u_picture;
in vec2 v_place;
out vec4 o_color;
void main() { o_color = texture(u_picture, v_place); }
