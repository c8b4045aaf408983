#version 460
// Gate and up for a few rows of x, with the activation, quantised for the down product: a workgroup computes
// a chunk of 32 columns of activation(x gateT) * (x upT) and leaves its quants. Grid: x = columns / 32.
#include "common.glsl"
#define SETS 2
#define STAGED (TOKENS * 8)
layout(constant_id = 5) const bool GELU = false;

layout(push_constant, scalar) uniform Push {
    uvec2 gate;
    uvec2 up;
    uvec2 x;             // quants
    uvec2 x_scales;
    uvec2 quants;
    uvec2 scales;
    uvec2 step_address;
    uint header_word;
    uint max_rows;
    uint rows;           // of either weight: columns of the result
    uint chunks;         // of a row of either weight
} pc;

#include "lanes.glsl"
#include "activation.glsl"
#include "quants.glsl"

void main() {
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    uint row0 = gl_WorkGroupID.x * CHUNK;
    uvec2 sets[2][4];
    planes_of(pc.gate, pc.rows * pc.chunks, sets[0]);
    planes_of(pc.up, pc.rows * pc.chunks, sets[1]);
    // As often for every lane: barriers stand within.
    for (uint first = 0; first < CHUNK; first += ABREAST) {
        if (first > 0) {
            barrier();
        }
        multiply(sets, row0 + first, pc.rows - 1);
        for (uint i = gl_LocalInvocationID.x; i < ABREAST * TOKENS; i += gl_WorkGroupSize.x) {
            uint token = i / ABREAST;
            uint row = i % ABREAST;
            float value = activated(whole_sum(0, token, row), GELU) * whole_sum(1, token, row);
            staged[token * 8 + (first + row) / 4][(first + row) % 4] = value;
        }
    }
    // A row of the result is rows / 32 chunks.
    quantise_staged(n * 8, pc.quants, pc.scales, gl_WorkGroupID.x, pc.rows / CHUNK);
}
