#version 460
// One token and quantised weights, on a GPU: up to three weights of one format whose outputs lie side by
// side. A subgroup takes ROWS rows at a time, its lanes share their chunks; neighbouring lanes read
// neighbouring quant blocks, and the next are always on their way. Grid: x = any number of workgroups, among
// whose subgroups the rows go round. A weight before another is a whole number of ROWS.
#include "common.glsl"
#include "chain.glsl"

layout(constant_id = 2) const uint CHUNKS = 128;
layout(constant_id = 3) const uint ROWS = 1;
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

// Where a subgroup's next rows are.
struct Place {
    uvec2 planes[4];
    uint index;          // of the weight
    uint row;
};

Place place_of(uint row) {
    Place place;
    place.index = 0;
    uvec2 weight = pc.weight[0];
    uint rows = pc.rows[0];
    [[unroll]] for (uint i = 1; i < WEIGHTS; i++) {
        if (row >= rows) {
            row -= rows;
            place.index = i;
            weight = pc.weight[i];
            rows = pc.rows[i];
        }
    }
    place.row = min(row, rows - 1);
    planes_of(weight, rows * pc.chunks, place.planes);
    return place;
}

// Rows of a place, one chunk of each. A row too many, at a weight's end, is its last once more, and not stored.
#define LOAD_AHEAD(place, chunk) \
    [[unroll]] for (uint r = 0; r < ROWS; r++) { \
        ahead[r] = load_packed(place.planes, min(place.row + r, pc.rows[place.index] - 1), min(chunk, CHUNKS - 1)); \
    }

void main() {
    uint all_rows = pc.rows[0] + (WEIGHTS > 1 ? pc.rows[1] : 0) + (WEIGHTS > 2 ? pc.rows[2] : 0);
    uint lane = gl_SubgroupInvocationID;
    uint stride = gl_NumWorkGroups.x * gl_NumSubgroups * ROWS;
    uint row = (gl_WorkGroupID.x * gl_NumSubgroups + gl_SubgroupID) * ROWS;
    Place place = place_of(row);
    Packed ahead[ROWS];
    // The subgroup that waits for others would also wait for what it has loaded.
    bool waits = CHAINED && gl_SubgroupID == 0;
    if (!waits) {
        LOAD_AHEAD(place, lane)
    }
    uint n = Words(pc.step_address).v[pc.header_word];
    chain_await(pc.chain);
    if (waits) {
        LOAD_AHEAD(place, lane)
    }
    stage_x();
    while (row < all_rows) {
        float acc[ROWS];
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            acc[r] = 0.0;
        }
        Place next = place;
        for (uint chunk0 = 0; chunk0 < CHUNKS; chunk0 += SUBGROUP) {
            Packed now[ROWS];
            [[unroll]] for (uint r = 0; r < ROWS; r++) {
                now[r] = ahead[r];
            }
            uint chunk = chunk0 + lane;
            uint chunk_ahead = chunk + SUBGROUP;
            if (chunk0 + SUBGROUP >= CHUNKS) {
                next = place_of(row + stride);
                chunk_ahead = lane;
            }
            if (chunk0 + SUBGROUP < CHUNKS || row + stride < all_rows) {
                LOAD_AHEAD(next, chunk_ahead)
            }
            if (chunk < CHUNKS) {
                QuantisedX x = staged_x(chunk);
                [[unroll]] for (uint r = 0; r < ROWS; r++) {
                    acc[r] += quants_dot(unpack(now[r], chunk), x);
                }
            }
        }
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            float value = subgroupAdd(acc[r]);
            if (lane == 0 && row + r < all_rows && n > 0) {
                if (BIAS) {
                    value += Floats(pc.bias[place.index]).v[place.row + r];
                }
                Floats(pc.y).v[row + r] = soft_cap(value, pc.cap);
            }
        }
        place = next;
        row += stride;
    }
    chain_arrive(pc.chain);
}
