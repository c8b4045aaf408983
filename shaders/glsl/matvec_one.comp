#version 460
// One token and quantised weights, on a GPU: up to three weights of one format whose outputs lie side by
// side. A subgroup takes a row, its lanes share the chunks; neighbouring lanes read neighbouring quant blocks,
// and the first are on their way while the launch waits for others. Grid: x = rows of all weights / subgroups.
#include "common.glsl"
#include "chain.glsl"

layout(constant_id = 2) const uint CHUNKS = 128;
layout(constant_id = 3) const uint DEPTH = 2;    // chunks that a lane loads at a time
layout(constant_id = 4) const uint WEIGHTS = 1;
layout(constant_id = 5) const bool BIAS = false;

layout(push_constant, scalar) uniform Push {
    uvec2 weight[3];
    uvec2 bias[3];
    uvec2 x;             // quants
    uvec2 x_scales;
    uvec2 y;
    uvec2 step_address;
    uint rows[3];
    uint header_word;
    uint chunks;         // of a row of a weight: CHUNKS
    float cap;           // 0 for none
    Chain chain;
} pc;

#include "one.glsl"

// The DEPTH chunks of a lane from its `turn` on. What lies beyond the row is its end once more.
#define LOAD(turn) \
    [[unroll]] for (uint d = 0; d < DEPTH; d++) { \
        packed[d] = load_packed(planes, row, min(((turn) + d) * SUBGROUP + lane, CHUNKS - 1)); \
    }

void main() {
    uint lane = gl_SubgroupInvocationID;
    uint column = gl_WorkGroupID.x * gl_NumSubgroups + gl_SubgroupID;
    uint row = column;
    uvec2 weight = pc.weight[0];
    uvec2 bias = pc.bias[0];
    uint rows = pc.rows[0];
    [[unroll]] for (uint i = 1; i < WEIGHTS; i++) {
        if (row >= rows) {
            row -= rows;
            weight = pc.weight[i];
            bias = pc.bias[i];
            rows = pc.rows[i];
        }
    }
    // A row too many is the last once more, and not stored.
    bool stores = row < rows && lane == 0;
    row = min(row, rows - 1);
    uvec2 planes[4];
    planes_of(weight, rows * pc.chunks, planes);
    Packed packed[DEPTH];
    LOAD(0)
    uint n = Words(pc.step_address).v[pc.header_word];
    chain_await(pc.chain);
    stage_x();
    float acc = 0.0;
    for (uint turn = 0; turn * SUBGROUP < CHUNKS; turn += DEPTH) {
        if (turn > 0) {
            LOAD(turn)
        }
        [[unroll]] for (uint d = 0; d < DEPTH; d++) {
            uint chunk = (turn + d) * SUBGROUP + lane;
            float part = quants_dot(unpack(packed[d], chunk), staged_x(min(chunk, CHUNKS - 1)));
            acc += chunk < CHUNKS ? part : 0.0;
        }
    }
    float value = subgroupAdd(acc);
    if (stores && n > 0) {
        if (BIAS) {
            value += Floats(bias).v[row];
        }
        Floats(pc.y).v[column] = soft_cap(value, pc.cap);
    }
    chain_arrive(pc.chain);
}
