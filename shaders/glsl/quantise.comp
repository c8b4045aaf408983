#version 460
// Activations to 8 bits (quants.glsl). An invocation quantises one chunk. Grid: x = chunks / lanes, y = rows of x.
#include "common.glsl"
#include "quants.glsl"

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
    float largest = 0.0;
    [[unroll]] for (uint i = 0; i < 8; i++) {
        x[i] = Vec4s(pc.x).v[block * 8 + i];
        largest = max(largest, largest4(x[i]));
    }
    vec2 scale = quant_scale(largest);
    int sum = 0;
    [[unroll]] for (uint i = 0; i < 2; i++) {
        uvec4 words;
        [[unroll]] for (uint j = 0; j < 4; j++) {
            ivec4 q = quantise4(x[4 * i + j], scale.y);
            sum += (q.x + q.y) + (q.z + q.w);
            words[j] = pack_quants(q);
        }
        QuadsOut(pc.quants).v[block * 2 + i] = words;
    }
    Pairs(pc.scales).v[block] = vec2(scale.x, scale.x * float(sum));
}
