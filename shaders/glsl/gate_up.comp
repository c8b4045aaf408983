#version 460
// Gate and up for few tokens, with the activation, quantised for the down product: a workgroup computes a
// chunk of 32 columns of activation(x gateT) * (x upT) and leaves its quants. Each of its subgroups takes
// ROWS columns at a time; neighbouring lanes read neighbouring quant blocks. Grid: x = columns / 32.
#include "common.glsl"
#define STAGED (TOKENS * 8)
layout(constant_id = 2) const uint TOKENS = 1;
layout(constant_id = 3) const uint ROWS = 4;
layout(constant_id = 4) const bool GELU = false;
layout(constant_id = 5) const uint CHUNKS = 0;     // of a row of either weight, or 0: see the push constants

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

#include "dot.glsl"
#include "activation.glsl"
#include "quants.glsl"

void main() {
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    uint row0 = gl_WorkGroupID.x * CHUNK;
    uint chunks = CHUNKS > 0 ? CHUNKS : pc.chunks;
    uvec2 gate_planes[4];
    uvec2 up_planes[4];
    planes_of(pc.gate, pc.rows * pc.chunks, gate_planes);
    planes_of(pc.up, pc.rows * pc.chunks, up_planes);
    for (uint first = gl_SubgroupID * ROWS; first < CHUNK; first += gl_NumSubgroups * ROWS) {
        float gate[ROWS][TOKENS];
        float up[ROWS][TOKENS];
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            [[unroll]] for (uint t = 0; t < TOKENS; t++) {
                gate[r][t] = 0.0;
                up[r][t] = 0.0;
            }
        }
        // Where the count of turns is known and none is skipped, compilers load for several at once.
        for (uint turn = 0; turn < chunks; turn += gl_SubgroupSize) {
            bool beyond = turn + gl_SubgroupInvocationID >= chunks;
            uint chunk = beyond ? chunks - 1 : turn + gl_SubgroupInvocationID;
            Quants g[ROWS];
            Quants u[ROWS];
            [[unroll]] for (uint r = 0; r < ROWS; r++) {
                g[r] = load_quants(gate_planes, row0 + first + r, chunk);
                u[r] = load_quants(up_planes, row0 + first + r, chunk);
            }
            [[unroll]] for (uint t = 0; t < TOKENS; t++) {
                QuantisedX x = load_quantised_x(t, chunk);
                [[unroll]] for (uint r = 0; r < ROWS; r++) {
                    gate[r][t] += beyond ? 0.0 : quants_dot(g[r], x);
                    up[r][t] += beyond ? 0.0 : quants_dot(u[r], x);
                }
            }
        }
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            [[unroll]] for (uint t = 0; t < TOKENS; t++) {
                float value = activated(subgroupAdd(gate[r][t]), GELU) * subgroupAdd(up[r][t]);
                if (subgroupElect()) {
                    staged[t * 8 + (first + r) / 4][(first + r) % 4] = value;
                }
            }
        }
    }
    // A row of the result is rows / 32 chunks.
    quantise_staged(n * 8, pc.quants, pc.scales, gl_WorkGroupID.x, pc.rows / CHUNK);
}
