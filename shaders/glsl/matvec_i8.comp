#version 460
// Few tokens and quantised weights, on a GPU: up to three weights of one format whose outputs lie side by
// side. The lanes of a workgroup share a row's chunks, ROWS rows a workgroup; neighbouring lanes read
// neighbouring quant blocks. Rows of x beyond the step's are computed and not stored: nothing waits for the
// step's count. Grid: x = rows of all weights / ROWS, where a weight before another is whole workgroups.
#include "common.glsl"

layout(constant_id = 2) const uint TOKENS = 1;
layout(constant_id = 3) const uint ROWS = 4;
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
    uint max_rows;
    uint chunks;         // of a row of a weight
    uint y_stride;
    uint y_offset;
    float cap;           // 0 for none
} pc;

#include "dot.glsl"

const uint SUBGROUPS = (gl_WorkGroupSize.x + SUBGROUP - 1) / SUBGROUP;
shared float parts[SUBGROUPS * ROWS * TOKENS];

// Whether sums pass through shared memory: those of several subgroups, and more than there are lanes.
const bool SHARED = (SUBGROUPS - 1) + (ROWS * TOKENS - 1) / gl_WorkGroupSize.x > 0;

void main() {
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    uint row0 = gl_WorkGroupID.x * ROWS;
    uvec2 weight = pc.weight[0];
    uvec2 bias = pc.bias[0];
    uint rows = pc.rows[0];
    uint column = pc.y_offset;
    [[unroll]] for (uint i = 1; i < WEIGHTS; i++) {
        if (row0 >= rows) {
            row0 -= rows;
            column += rows;
            weight = pc.weight[i];
            bias = pc.bias[i];
            rows = pc.rows[i];
        }
    }
    uvec2 planes[4];
    planes_of(weight, rows * pc.chunks, planes);
    float acc[ROWS][TOKENS];
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        [[unroll]] for (uint t = 0; t < TOKENS; t++) {
            acc[r][t] = 0.0;
        }
    }
    for (uint chunk = gl_LocalInvocationID.x; chunk < pc.chunks; chunk += gl_WorkGroupSize.x) {
        Quants w[ROWS];
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            w[r] = load_quants(planes, min(row0 + r, rows - 1), chunk);
        }
        [[unroll]] for (uint t = 0; t < TOKENS; t++) {
            QuantisedX x = load_quantised_x(t, chunk);
            [[unroll]] for (uint r = 0; r < ROWS; r++) {
                acc[r][t] += quants_dot(w[r], x);
            }
        }
    }
    // A lane finishes one sum.
    uint lane = gl_LocalInvocationID.x;
    float value = 0.0;
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        [[unroll]] for (uint t = 0; t < TOKENS; t++) {
            float sum = subgroupAdd(acc[r][t]);
            uint i = r * TOKENS + t;
            if (SHARED) {
                if (subgroupElect()) {
                    parts[gl_SubgroupID * ROWS * TOKENS + i] = sum;
                }
            } else if (lane == i) {
                value = sum;
            }
        }
    }
    if (SHARED) {
        barrier();
    }
    for (uint i = lane; i < ROWS * TOKENS; i += gl_WorkGroupSize.x) {
        if (SHARED) {
            value = 0.0;
            [[unroll]] for (uint s = 0; s < SUBGROUPS; s++) {
                value += parts[s * ROWS * TOKENS + i];
            }
        }
        uint row = row0 + i / TOKENS;
        uint token = i % TOKENS;
        if (row < rows && token < n) {
            if (BIAS) {
                value += Floats(bias).v[row];
            }
            Floats(pc.y).v[token * pc.y_stride + column + row] = soft_cap(value, pc.cap);
        }
    }
}
