#version 460
// A few rows of x and quantised weights: up to three weights of one format whose outputs lie side by side.
// Rows of x beyond the step's are computed and not stored: nothing waits for the step's count. Grid:
// x = rows of all weights / ABREAST, where a weight before another is whole workgroups.
#include "common.glsl"
#define SETS 1

layout(constant_id = 5) const uint WEIGHTS = 1;
layout(constant_id = 6) const bool BIAS = false;

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

#include "lanes.glsl"

void main() {
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    uint row0 = gl_WorkGroupID.x * ABREAST;
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
    uvec2 sets[1][4];
    planes_of(weight, rows * pc.chunks, sets[0]);
    multiply(sets, row0, rows - 1);
    for (uint i = gl_LocalInvocationID.x; i < ABREAST * n; i += gl_WorkGroupSize.x) {
        uint token = i / ABREAST;
        uint row = row0 + i % ABREAST;
        if (row < rows) {
            float value = whole_sum(0, token, i % ABREAST);
            if (BIAS) {
                value += Floats(bias).v[row];
            }
            Floats(pc.y).v[token * pc.y_stride + column + row] = soft_cap(value, pc.cap);
        }
    }
}
