#version 460
// What stands between two products of a layer, a branch joins the residual stream, by way
// of its own norm where the model has one, and the stream is normed and made quants (quants.glsl) or halves
// (halves.glsl) for the next product:
//
//   stream = x + branch            or  x + norm(branch; branch_weight)       (ADD, NORM_BRANCH)
//   y = norm(stream; weight)                                                 (NORM)
//
// where norm(v; w) = v / sqrt(mean(v^2) + eps) * (w + offset). A workgroup a row, which it keeps in
// registers, so that the stream may lie where x or the branch do. Grid: x = rows.
#define WORKGROUP_SUM
#include "common.glsl"
#include "quants.glsl"
#include "chain.glsl"

layout(constant_id = 2) const uint PER_LANE = 2;   // vec4s of a row that a lane holds
layout(constant_id = 3) const bool ADD = true;
layout(constant_id = 4) const bool NORM_BRANCH = false;
layout(constant_id = 5) const bool NORM = true;
// What y is.
layout(constant_id = 6) const uint LEAVES = 1;
layout(constant_id = 7) const bool NATURAL = false;

const uint FLOATS = 0;
const uint QUANTS = 1;
const uint HALVES = 2;

layout(push_constant, scalar) uniform Push {
    uvec2 x;
    uvec2 branch;
    uvec2 branch_weight;
    uvec2 stream;
    uvec2 weight;
    uvec2 y;
    uvec2 scales;        // of quants and halves
    uvec2 step_address;
    uint header_word;
    uint max_rows;
    uint columns;
    float branch_eps;
    float branch_offset;
    float eps;
    float offset;
    uint stride;         // rows of halves that are stored
    Chain chain;
} pc;

#include "halves.glsl"

layout(buffer_reference, scalar, buffer_reference_align = 16) writeonly buffer Vec4sOut { vec4 v[]; };

const uint HELD = gl_WorkGroupSize.x * PER_LANE;
shared float largest_of[HELD];
shared int sum_of[HELD];

float mean_square(vec4 v[PER_LANE]) {
    vec4 sum = vec4(0.0);
    [[unroll]] for (uint i = 0; i < PER_LANE; i++) {
        // What a lane holds beyond the row is a copy of its end.
        if (i * gl_WorkGroupSize.x + gl_LocalInvocationID.x < pc.columns / 4) {
            sum = fma(v[i], v[i], sum);
        }
    }
    return workgroup_sum((sum.x + sum.y) + (sum.z + sum.w)) / float(pc.columns);
}

void main() {
    uint row = gl_WorkGroupID.x;
    uint quads = pc.columns / 4;
    uint lane = gl_LocalInvocationID.x;
    // What does not depend on other launches comes before they are waited for.
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    vec4 v[PER_LANE];
    vec4 branch[PER_LANE];
    vec4 branch_weight[PER_LANE];
    vec4 weight[PER_LANE];
    [[unroll]] for (uint i = 0; i < PER_LANE; i++) {
        uint q = min(i * gl_WorkGroupSize.x + lane, quads - 1);
        if (NORM_BRANCH) {
            branch_weight[i] = Vec4s(pc.branch_weight).v[q];
        }
        if (NORM) {
            weight[i] = Vec4s(pc.weight).v[q];
        }
    }
    chain_await(pc.chain);
    if (row >= n) {
        chain_arrive(pc.chain);
        return;
    }
    [[unroll]] for (uint i = 0; i < PER_LANE; i++) {
        uint q = min(i * gl_WorkGroupSize.x + lane, quads - 1);
        v[i] = SharedVec4s(pc.x).v[row * quads + q];
        if (ADD) {
            branch[i] = SharedVec4s(pc.branch).v[row * quads + q];
        }
    }
    if (ADD) {
        if (NORM_BRANCH) {
            float scale = 1.0 / sqrt(mean_square(branch) + pc.branch_eps);
            [[unroll]] for (uint i = 0; i < PER_LANE; i++) {
                branch[i] *= scale * (branch_weight[i] + pc.branch_offset);
            }
        }
        [[unroll]] for (uint i = 0; i < PER_LANE; i++) {
            v[i] += branch[i];
        }
        // The stream may lie in place of either: every lane has read before any writes.
        barrier();
        [[unroll]] for (uint i = 0; i < PER_LANE; i++) {
            uint q = i * gl_WorkGroupSize.x + lane;
            if (q < quads) {
                Vec4sOut(pc.stream).v[row * quads + q] = v[i];
            }
        }
    }
    if (!NORM) {
        chain_arrive(pc.chain);
        return;
    }
    float scale = 1.0 / sqrt(mean_square(v) + pc.eps);
    float largest_of_lane = 0.0;
    [[unroll]] for (uint i = 0; i < PER_LANE; i++) {
        uint q = i * gl_WorkGroupSize.x + lane;
        v[i] *= scale * (weight[i] + pc.offset);
        largest_of_lane = max(largest_of_lane, largest4(v[i]));
        if (LEAVES == QUANTS) {
            largest_of[q] = largest4(v[i]);
        } else if (LEAVES == FLOATS && q < quads) {
            Vec4sOut(pc.y).v[row * quads + q] = v[i];
        }
    }
    if (LEAVES == HALVES) {
        int exponent = exponent_for(workgroup_max(largest_of_lane));
        [[unroll]] for (uint i = 0; i < PER_LANE; i++) {
            uint q = i * gl_WorkGroupSize.x + lane;
            if (q < quads) {
                uvec2 halves = to_halves(v[i] * power_of_two(exponent));
                WordPairsOut(pc.y).v[place_of_quad(pc.stride, row, q)] = halves;
            }
        }
        for (uint q = quads + lane; q < (quads + 63) / 64 * 64; q += gl_WorkGroupSize.x) {
            WordPairsOut(pc.y).v[place_of_quad(pc.stride, row, q)] = uvec2(0);
        }
        if (lane == 0) {
            Floats(pc.scales).v[row] = power_of_two(-exponent);
        }
    }
    if (LEAVES != QUANTS) {
        chain_arrive(pc.chain);
        return;
    }
    barrier();
    [[unroll]] for (uint i = 0; i < PER_LANE; i++) {
        uint q = i * gl_WorkGroupSize.x + lane;
        if (q < quads) {
            float largest = 0.0;
            [[unroll]] for (uint j = 0; j < 8; j++) {
                largest = max(largest, largest_of[(q & ~7u) + j]);
            }
            ivec4 quants = quantise4(v[i], quant_scale(largest).y);
            Words(pc.y).v[row * quads + q] = pack_quants(quants);
            sum_of[q] = (quants.x + quants.y) + (quants.z + quants.w);
        }
    }
    barrier();
    for (uint chunk = lane; chunk < quads / 8; chunk += gl_WorkGroupSize.x) {
        float largest = 0.0;
        int sum = 0;
        [[unroll]] for (uint j = 0; j < 8; j++) {
            largest = max(largest, largest_of[chunk * 8 + j]);
            sum += sum_of[chunk * 8 + j];
        }
        float chunk_scale = quant_scale(largest).x;
        Pairs(pc.scales).v[row * (quads / 8) + chunk] = vec2(chunk_scale, chunk_scale * float(sum));
    }
    chain_arrive(pc.chain);
}
