#version 460
// Gate and up for one token, with the activation, quantised for the down product: a workgroup computes a
// chunk of 32 columns of activation(x gateT) * (x upT) and leaves its quants. Its subgroups take a column at a
// time; neighbouring lanes read neighbouring quant blocks, and the first are on their way while the launch waits
// for others. Grid: x = columns / 32.
#include "common.glsl"
#include "chain.glsl"
#define STAGED 8

layout(constant_id = 2) const uint CHUNKS = 128;
layout(constant_id = 3) const bool GELU = false;
layout(constant_id = 4) const uint DEPTH = 2;    // chunks of each weight that a lane loads at a time

layout(push_constant, scalar) uniform Push {
    uvec2 gate;
    uvec2 up;
    uvec2 x;             // quants
    uvec2 x_scales;
    uvec2 quants;
    uvec2 scales;
    uvec2 step_address;
    uint header_word;
    uint rows;           // of either weight: columns of the result
    uint chunks;         // of a row of either weight: CHUNKS
    Chain chain;
} pc;

#include "one.glsl"
#include "activation.glsl"
#include "quants.glsl"

// The DEPTH chunks of a lane from its `turn` on. What lies beyond the row is its end once more.
#define LOAD(column, turn) \
    [[unroll]] for (uint d = 0; d < DEPTH; d++) { \
        uint chunk = min(((turn) + d) * SUBGROUP + lane, CHUNKS - 1); \
        gate_packed[d] = load_packed(gate, row0 + (column), chunk); \
        up_packed[d] = load_packed(up, row0 + (column), chunk); \
    }

void main() {
    uvec2 gate[4];
    uvec2 up[4];
    planes_of(pc.gate, pc.rows * pc.chunks, gate);
    planes_of(pc.up, pc.rows * pc.chunks, up);
    uint lane = gl_SubgroupInvocationID;
    uint row0 = gl_WorkGroupID.x * CHUNK;
    Packed gate_packed[DEPTH];
    Packed up_packed[DEPTH];
    LOAD(gl_SubgroupID, 0)
    chain_await(pc.chain);
    stage_x();
    for (uint column = gl_SubgroupID; column < CHUNK; column += gl_NumSubgroups) {
        float gate_sum = 0.0;
        float up_sum = 0.0;
        for (uint turn = 0; turn * SUBGROUP < CHUNKS; turn += DEPTH) {
            if (turn > 0 || column != gl_SubgroupID) {
                LOAD(column, turn)
            }
            [[unroll]] for (uint d = 0; d < DEPTH; d++) {
                uint chunk = (turn + d) * SUBGROUP + lane;
                QuantisedX x = staged_x(min(chunk, CHUNKS - 1));
                float gate_part = quants_dot(unpack(gate_packed[d], chunk), x);
                float up_part = quants_dot(unpack(up_packed[d], chunk), x);
                gate_sum += chunk < CHUNKS ? gate_part : 0.0;
                up_sum += chunk < CHUNKS ? up_part : 0.0;
            }
        }
        float value = activated(subgroupAdd(gate_sum), GELU) * subgroupAdd(up_sum);
        if (lane == 0) {
            staged[column / 4][column % 4] = value;
        }
    }
    quantise_staged(8, pc.quants, pc.scales, gl_WorkGroupID.x, 1);
    chain_arrive(pc.chain);
}
