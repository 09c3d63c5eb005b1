#version 300 es
precision highp float;
uniform vec3 u_light, u_dark;   // the two colours of the checker; equal for a plain background
uniform float u_square;         // pixels
out vec4 o_color;

void main() {
  vec2 square = floor(gl_FragCoord.xy / u_square);
  o_color = vec4(mod(square.x + square.y, 2.0) < 0.5 ? u_light : u_dark, 1.0);
}
