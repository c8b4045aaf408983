#version 460
// RMS norm of each q and k head of a qkv row; v is copied unless it lies in place. A workgroup a head.
// Grid: x = heads of q, k and v together, y = tokens.
#define WORKGROUP_SUM
#include "common.glsl"

layout(push_constant, scalar) uniform Push {
    uvec2 x;
    uvec2 y;
    uvec2 q_weight;
    uvec2 k_weight;
    uvec2 step_address;
    uint max_rows;
    uint n_heads;
    uint n_kv_heads;
    uint head_dim;
    float eps;
    float offset;
} pc;

void main() {
    uint n = rows_of_step(pc.step_address, 0, pc.max_rows);
    uint token = gl_WorkGroupID.y;
    uint head = gl_WorkGroupID.x;
    if (token >= n) {
        return;
    }
    Floats x = Floats(pc.x);
    Floats y = Floats(pc.y);
    uint base = (token * (pc.n_heads + 2 * pc.n_kv_heads) + head) * pc.head_dim;
    if (head >= pc.n_heads + pc.n_kv_heads) {
        for (uint i = gl_LocalInvocationID.x; i < pc.head_dim; i += gl_WorkGroupSize.x) {
            y.v[base + i] = x.v[base + i];
        }
        return;
    }
    float sum = 0.0;
    for (uint i = gl_LocalInvocationID.x; i < pc.head_dim; i += gl_WorkGroupSize.x) {
        float value = x.v[base + i];
        sum = fma(value, value, sum);
    }
    float scale = 1.0 / sqrt(workgroup_sum(sum) / float(pc.head_dim) + pc.eps);
    Floats weight = Floats(head < pc.n_heads ? pc.q_weight : pc.k_weight);
    for (uint i = gl_LocalInvocationID.x; i < pc.head_dim; i += gl_WorkGroupSize.x) {
        y.v[base + i] = x.v[base + i] * scale * (weight.v[i] + pc.offset);
    }
}
