#version 460
// From a qkv row to what attention reads: the q and k heads normed where the model norms them, then turned;
// q goes to y, k and v to the cache. A workgroup a head. y may lie where x does. Grid: x = heads of q, k and
// v together, y = tokens.
#define WORKGROUP_SUM
#include "common.glsl"
#include "kv.glsl"
#include "rope.glsl"
#include "chain.glsl"

layout(constant_id = 2) const uint HEAD_DIM = 64;
layout(constant_id = 3) const bool NORM = false;
layout(constant_id = 4) const bool INTERLEAVED = false;

layout(push_constant, scalar) uniform Push {
    KvStep kv;
    uvec2 x;
    uvec2 y;
    uvec2 inv_freqs;
    uvec2 q_weight;
    uvec2 k_weight;
    float eps;
    float offset;
    Chain chain;
} pc;

shared float head_row[HEAD_DIM];

float kv_source(uint i) {
    return head_row[i];
}

#include "kv_store.glsl"

void run(uint token, uint head) {
    KvStep kv = pc.kv;
    uint lane = gl_LocalInvocationID.x;
    bool is_q = head < kv.n_heads;
    bool is_value = head >= kv.n_heads + kv.n_kv_heads;
    uint base = (token * (kv.n_heads + 2 * kv.n_kv_heads) + head) * HEAD_DIM;
    uint position = Words(kv.step_address).v[kv.positions_word + token];
    uint slot = Words(kv.step_address).v[kv.slots_word + token];
    uvec2 block = is_q ? uvec2(0) : kv_block(kv, slot, position);
    chain_await(pc.chain);
    float sum = 0.0;
    for (uint i = lane; i < HEAD_DIM; i += gl_WorkGroupSize.x) {
        float value = SharedFloats(pc.x).v[base + i];
        head_row[i] = value;
        sum = fma(value, value, sum);
    }
    float scale = NORM && !is_value ? 1.0 / sqrt(workgroup_sum(sum) / float(HEAD_DIM) + pc.eps) : 1.0;
    barrier();
    if (!is_value) {
        Floats weight = Floats(is_q ? pc.q_weight : pc.k_weight);
        for (uint i = lane; i < HEAD_DIM / 2; i += gl_WorkGroupSize.x) {
            uint first = INTERLEAVED ? 2 * i : i;
            uint second = INTERLEAVED ? first + 1 : first + HEAD_DIM / 2;
            float a = head_row[first];
            float b = head_row[second];
            if (NORM) {
                a *= scale * (weight.v[first] + pc.offset);
                b *= scale * (weight.v[second] + pc.offset);
            }
            vec2 pair = turned(a, b, position, Floats(pc.inv_freqs).v[i]);
            if (is_q) {
                Floats(pc.y).v[base + first] = pair.x;
                Floats(pc.y).v[base + second] = pair.y;
            } else {
                head_row[first] = pair.x;
                head_row[second] = pair.y;
            }
        }
    }
    if (is_q) {
        return;
    }
    barrier();
    if ((block.x | block.y) == 0) {
        return;
    }
    uint kv_head = head - kv.n_heads - (is_value ? kv.n_kv_heads : 0);
    for (uint i = lane * ITEM; i < HEAD_DIM; i += gl_WorkGroupSize.x * ITEM) {
        kv_store(kv, block, is_value, kv_head, position, HEAD_DIM, i);
    }
}

void main() {
    uint token = gl_WorkGroupID.y;
    if (token < rows_of_step(pc.kv.step_address, 0, pc.kv.max_rows)) {
        run(token, gl_WorkGroupID.x);
    } else {
        chain_await(pc.chain);
    }
    chain_arrive(pc.chain);
}
