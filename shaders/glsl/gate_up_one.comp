#version 460
// Gate and up for one token, with the activation, quantised for the down product: a workgroup computes chunks
// of 32 columns of activation(x gateT) * (x upT) and leaves their quants. Its subgroups take ROWS columns at a
// time; neighbouring lanes read neighbouring quant blocks, and the next are always on their way. Grid: x = any
// number of workgroups, among which the chunks go round.
#include "common.glsl"
#include "chain.glsl"
#define STAGED 8

layout(constant_id = 2) const uint CHUNKS = 128;
layout(constant_id = 3) const bool GELU = false;
layout(constant_id = 4) const uint ROWS = 2;     // columns at a time; divides 32 among the subgroups

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

// Columns from `row` on, one chunk of each.
#define LOAD_AHEAD(row, chunk) \
    [[unroll]] for (uint r = 0; r < ROWS; r++) { \
        gate_ahead[r] = load_packed(gate, row + r, min(chunk, CHUNKS - 1)); \
        up_ahead[r] = load_packed(up, row + r, min(chunk, CHUNKS - 1)); \
    }

void main() {
    uvec2 gate[4];
    uvec2 up[4];
    planes_of(pc.gate, pc.rows * pc.chunks, gate);
    planes_of(pc.up, pc.rows * pc.chunks, up);
    uint lane = gl_SubgroupInvocationID;
    uint tile = gl_WorkGroupID.x;
    uint step = gl_NumSubgroups * ROWS;
    uint row = min(tile * CHUNK + gl_SubgroupID * ROWS, pc.rows - ROWS);
    Packed gate_ahead[ROWS];
    Packed up_ahead[ROWS];
    // The subgroup that waits for others would also wait for what it has loaded.
    bool waits = CHAINED && gl_SubgroupID == 0;
    if (!waits) {
        LOAD_AHEAD(row, lane)
    }
    chain_await(pc.chain);
    if (waits) {
        LOAD_AHEAD(row, lane)
    }
    stage_x();
    for (; tile < pc.rows / CHUNK; tile += gl_NumWorkGroups.x) {
        for (uint column = gl_SubgroupID * ROWS; column < CHUNK; column += step) {
            row = tile * CHUNK + column;
            // The subgroup's next columns: of this tile, or the first of its next tile.
            uint next = column + step < CHUNK ? row + step : (tile + gl_NumWorkGroups.x) * CHUNK + gl_SubgroupID * ROWS;
            bool more = next < pc.rows;
            float gate_sum[ROWS];
            float up_sum[ROWS];
            [[unroll]] for (uint r = 0; r < ROWS; r++) {
                gate_sum[r] = 0.0;
                up_sum[r] = 0.0;
            }
            for (uint chunk0 = 0; chunk0 < CHUNKS; chunk0 += SUBGROUP) {
                Packed gate_now[ROWS];
                Packed up_now[ROWS];
                uint chunk = chunk0 + lane;
                bool last = chunk0 + SUBGROUP >= CHUNKS;
                uint row_ahead = last ? next : row;
                uint chunk_ahead = min(last ? lane : chunk + SUBGROUP, CHUNKS - 1);
                [[unroll]] for (uint r = 0; r < ROWS; r++) {
                    gate_now[r] = gate_ahead[r];
                    up_now[r] = up_ahead[r];
                }
                if (!last || more) {
                    LOAD_AHEAD(row_ahead, chunk_ahead)
                }
                if (chunk < CHUNKS) {
                    QuantisedX x = staged_x(chunk);
                    [[unroll]] for (uint r = 0; r < ROWS; r++) {
                        gate_sum[r] += quants_dot(unpack(gate_now[r], chunk), x);
                        up_sum[r] += quants_dot(unpack(up_now[r], chunk), x);
                    }
                }
            }
            [[unroll]] for (uint r = 0; r < ROWS; r++) {
                float value = activated(subgroupAdd(gate_sum[r]), GELU) * subgroupAdd(up_sum[r]);
                if (lane == 0) {
                    staged[(column + r) / 4][(column + r) % 4] = value;
                }
            }
        }
        quantise_staged(8, pc.quants, pc.scales, tile, 1);
        barrier();
    }
    chain_arrive(pc.chain);
}
