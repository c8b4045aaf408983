#version 460
// Activations to 8 bits: a scale for each chunk, the largest magnitude over 127. An invocation quantises
// one chunk. Grid: x = chunks / lanes, y = rows of x.
#include "common.glsl"

layout(push_constant, scalar) uniform Push {
    uvec2 x;             // f32 [rows, 32 * chunks]
    uvec2 quants;
    uvec2 scales;        // (scale, scale * sum of the quants)
    uvec2 step_address;
    uint header_word;
    uint max_rows;
    uint chunks;
} pc;

void main() {
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    uint row = gl_WorkGroupID.y;
    uint chunk = gl_GlobalInvocationID.x;
    if (row >= n || chunk >= pc.chunks) {
        return;
    }
    uint block = row * pc.chunks + chunk;
    vec4 x[8];
    vec4 largest = vec4(0.0);
    [[unroll]] for (uint i = 0; i < 8; i++) {
        x[i] = Vec4s(pc.x).v[block * 8 + i];
        largest = max(largest, abs(x[i]));
    }
    float scale = max(max(largest.x, largest.y), max(largest.z, largest.w)) / 127.0;
    // A scale below the least normal float has no inverse.
    float inverse = scale >= 1.17549435e-38 ? 1.0 / scale : 0.0;
    int sum = 0;
    [[unroll]] for (uint i = 0; i < 2; i++) {
        uvec4 words;
        [[unroll]] for (uint j = 0; j < 4; j++) {
            ivec4 q = clamp(ivec4(roundEven(x[4 * i + j] * inverse)), -127, 127);
            sum += (q.x + q.y) + (q.z + q.w);
            uvec4 bytes = uvec4(q) & 0xFFu;
            words[j] = bytes.x | (bytes.y << 8) | (bytes.z << 16) | (bytes.w << 24);
        }
        QuadsOut(pc.quants).v[block * 2 + i] = words;
    }
    Pairs(pc.scales).v[block] = vec2(scale, scale * float(sum));
}
