#version 460
// y = x / sqrt(mean(x^2) + eps) * (w + offset), a workgroup a row. In place is allowed: an invocation
// writes only what it alone reads. Grid: x = rows.
#define WORKGROUP_SUM
#include "common.glsl"

layout(push_constant, scalar) uniform Push {
    uvec2 x;
    uvec2 y;
    uvec2 weight;
    uvec2 step_address;
    uint header_word;
    uint max_rows;
    uint columns;
    float eps;
    float offset;
} pc;

void main() {
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    uint row = gl_WorkGroupID.x;
    if (row >= n) {
        return;
    }
    Floats x = Floats(pc.x);
    uint base = row * pc.columns;
    float sum = 0.0;
    for (uint i = gl_LocalInvocationID.x; i < pc.columns; i += gl_WorkGroupSize.x) {
        float value = x.v[base + i];
        sum = fma(value, value, sum);
    }
    float scale = 1.0 / sqrt(workgroup_sum(sum) / float(pc.columns) + pc.eps);
    Floats y = Floats(pc.y);
    Floats weight = Floats(pc.weight);
    for (uint i = gl_LocalInvocationID.x; i < pc.columns; i += gl_WorkGroupSize.x) {
        y.v[base + i] = x.v[base + i] * scale * (weight.v[i] + pc.offset);
    }
}
