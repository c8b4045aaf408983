#version 460
// Softmax attention for few tokens, on a GPU: the cached positions of a token are split among workgroups.
// A workgroup serves HEADS query heads of one KV head, so that keys and values are read once for them; a
// group of ROW_LANES lanes takes positions in turn, each lane the same elements of every row, and keeps a
// running maximum. The workgroup that finishes last joins the results of all (nobody waits: a counter tells
// it), and quantises them where a product with quantised weights comes next.
// Grid: x = splits, y = heads / HEADS, z = tokens.
#include "common.glsl"
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_KHR_memory_scope_semantics : require
#include "chain.glsl"
#include "kv.glsl"

layout(constant_id = 2) const uint HEAD_DIM = 64;
layout(constant_id = 3) const uint HEADS = 1;
layout(constant_id = 4) const uint ROW_LANES = 8;    // a power of two that divides HEAD_DIM / 8 and the subgroup
layout(constant_id = 5) const uint SPLITS = 1;
layout(constant_id = 6) const bool QUANTISE = false; // y is quants

layout(push_constant, scalar) uniform Push {
    KvStep kv;
    uvec2 qkv;
    uvec2 y;
    uvec2 y_scales;
    uvec2 parts;         // f32 [tokens, heads, SPLITS, HEAD_DIM + 2]: sums, maximum, sum of the weights
    uvec2 counters;      // u32 [tokens, heads / HEADS], 0 between launches
    float scale;
    float cap;           // 0 for none
    uint window;         // 0 for none
    Chain chain;
} pc;

#define BATCH 2
#define LEAST_SPLIT 128
const uint OCTETS = HEAD_DIM / 8 / ROW_LANES;
const uint ELEMENTS = OCTETS * 8;
const uint SUBGROUPS = (gl_WorkGroupSize.x + SUBGROUP - 1) / SUBGROUP;
const uint OUT = HEADS * HEAD_DIM;
const float LOWEST = -1.0e30;

#define STAGED ((OUT + 3) / 4)
#include "quants.glsl"

shared float part_max[SUBGROUPS * HEADS];
shared float part_sum[SUBGROUPS * HEADS];
shared float part_acc[SUBGROUPS * OUT];
shared bool is_last;

void store_result(uint token, uint head0, uint i, float value) {
    if (QUANTISE) {
        staged[i / 4][i % 4] = value;
    } else {
        Floats(pc.y).v[(token * pc.kv.n_heads + head0) * HEAD_DIM + i] = value;
    }
}

void finish(uint token, uint head0) {
    if (QUANTISE) {
        quantise_staged(OUT / 4, pc.y, pc.y_scales, (token * pc.kv.n_heads + head0) * HEAD_DIM / 32, 1);
    }
}

void run(uint token) {
    KvStep kv = pc.kv;
    uint head0 = gl_WorkGroupID.y * HEADS;
    uint kv_head = head0 / (kv.n_heads / kv.n_kv_heads);
    uint position = kv_last(kv, token);
    uint slot = Words(kv.step_address).v[kv.slots_word + token];
    uint end = position + 1;
    uint begin = pc.window != 0 && end > pc.window ? end - pc.window : 0;
    uint each = max((end - begin + SPLITS - 1) / SPLITS, LEAST_SPLIT);
    uint used = (end - begin + each - 1) / each;
    uint split = gl_WorkGroupID.x;
    if (split >= used) {
        return;
    }
    begin += split * each;
    end = min(end, begin + each);

    uint row_bytes = KV_ROW_BYTES(HEAD_DIM);
    uint lane = gl_SubgroupInvocationID;
    uint walker = gl_SubgroupID * (SUBGROUP / ROW_LANES) + lane / ROW_LANES;
    const uint walkers = SUBGROUPS * (SUBGROUP / ROW_LANES);
    uint my_octet = (lane % ROW_LANES) * OCTETS;

    chain_await(pc.chain);
    float q[HEADS][ELEMENTS];
    float acc[HEADS][ELEMENTS];
    float running_max[HEADS];
    float running_sum[HEADS];
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        uint base = (token * (kv.n_heads + 2 * kv.n_kv_heads) + head0 + h) * HEAD_DIM + my_octet * 8;
        [[unroll]] for (uint i = 0; i < ELEMENTS; i++) {
            q[h][i] = SharedFloats(pc.qkv).v[base + i] * pc.scale;
            acc[h][i] = 0.0;
        }
        running_max[h] = LOWEST;
        running_sum[h] = 0.0;
    }
    for (uint j = begin; j < end; j += walkers * BATCH) {
        bool there[BATCH];
        float keys[BATCH][ELEMENTS];
        float values[BATCH][ELEMENTS];
        [[unroll]] for (uint b = 0; b < BATCH; b++) {
            uint p = j + b * walkers + walker;
            uvec2 block = kv_block(kv, slot, min(p, position));
            there[b] = p < end && (block.x | block.y) != 0;
            [[unroll]] for (uint i = 0; i < ELEMENTS; i++) {
                keys[b][i] = 0.0;
                values[b][i] = 0.0;
            }
            if (there[b]) {
                uint row = (kv_head * kv.block_len + p % kv.block_len) * row_bytes;
                [[unroll]] for (uint o = 0; o < OCTETS; o++) {
                    float octet[8];
                    kv_load_octet(advance(block, kv.k_offset + row), my_octet + o, octet);
                    [[unroll]] for (uint i = 0; i < 8; i++) {
                        keys[b][o * 8 + i] = octet[i];
                    }
                    kv_load_octet(advance(block, kv.v_offset + row), my_octet + o, octet);
                    [[unroll]] for (uint i = 0; i < 8; i++) {
                        values[b][o * 8 + i] = octet[i];
                    }
                }
            }
        }
        [[unroll]] for (uint h = 0; h < HEADS; h++) {
            float score[BATCH];
            float batch_max = running_max[h];
            [[unroll]] for (uint b = 0; b < BATCH; b++) {
                float s = 0.0;
                [[unroll]] for (uint i = 0; i < ELEMENTS; i++) {
                    s = fma(q[h][i], keys[b][i], s);
                }
                for (uint m = 1; m < ROW_LANES; m *= 2) {
                    s += subgroupShuffleXor(s, m);
                }
                score[b] = there[b] ? soft_cap(s, pc.cap) : LOWEST;
                batch_max = max(batch_max, score[b]);
            }
            float rescale = exp(running_max[h] - batch_max);
            running_max[h] = batch_max;
            running_sum[h] *= rescale;
            float weight[BATCH];
            [[unroll]] for (uint b = 0; b < BATCH; b++) {
                weight[b] = there[b] ? exp(score[b] - batch_max) : 0.0;
                running_sum[h] += weight[b];
            }
            [[unroll]] for (uint i = 0; i < ELEMENTS; i++) {
                acc[h][i] *= rescale;
                [[unroll]] for (uint b = 0; b < BATCH; b++) {
                    acc[h][i] = fma(weight[b], values[b][i], acc[h][i]);
                }
            }
        }
    }
    // The groups of a subgroup, then the subgroups.
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        float whole = running_max[h];
        for (uint m = ROW_LANES; m < SUBGROUP; m *= 2) {
            whole = max(whole, subgroupShuffleXor(whole, m));
        }
        float factor = exp(running_max[h] - whole);
        float sum = running_sum[h] * factor;
        for (uint m = ROW_LANES; m < SUBGROUP; m *= 2) {
            sum += subgroupShuffleXor(sum, m);
        }
        [[unroll]] for (uint i = 0; i < ELEMENTS; i++) {
            float part = acc[h][i] * factor;
            for (uint m = ROW_LANES; m < SUBGROUP; m *= 2) {
                part += subgroupShuffleXor(part, m);
            }
            if (lane < ROW_LANES) {
                part_acc[(gl_SubgroupID * HEADS + h) * HEAD_DIM + my_octet * 8 + i] = part;
            }
        }
        if (lane == 0) {
            part_max[gl_SubgroupID * HEADS + h] = whole;
            part_sum[gl_SubgroupID * HEADS + h] = sum;
        }
    }
    barrier();
    uint part_size = HEAD_DIM + 2;
    uint parts0 = (token * kv.n_heads + head0) * SPLITS * part_size;
    SharedFloats parts = SharedFloats(pc.parts);
    for (uint i = gl_LocalInvocationID.x; i < OUT; i += gl_WorkGroupSize.x) {
        uint h = i / HEAD_DIM;
        float whole = LOWEST;
        for (uint g = 0; g < SUBGROUPS; g++) {
            whole = max(whole, part_max[g * HEADS + h]);
        }
        float sum = 0.0;
        float value = 0.0;
        for (uint g = 0; g < SUBGROUPS; g++) {
            float factor = exp(part_max[g * HEADS + h] - whole);
            sum = fma(part_sum[g * HEADS + h], factor, sum);
            value = fma(part_acc[g * OUT + i], factor, value);
        }
        if (used == 1) {
            store_result(token, head0, i, sum > 0.0 ? value / sum : 0.0);
        } else {
            uint part = parts0 + (h * SPLITS + split) * part_size;
            parts.v[part + i % HEAD_DIM] = value;
            if (i % HEAD_DIM == 0) {
                parts.v[part + HEAD_DIM] = whole;
                parts.v[part + HEAD_DIM + 1] = sum;
            }
        }
    }
    if (used == 1) {
        finish(token, head0);
        return;
    }
    // What this workgroup wrote is there before it counts; who counts last sees what all wrote.
    memoryBarrierBuffer();
    barrier();
    if (gl_LocalInvocationID.x == 0) {
        Words counter = Words(advance(pc.counters, 4 * (token * gl_NumWorkGroups.y + gl_WorkGroupID.y)));
        uint before = atomicAdd(counter.v[0], 1);
        is_last = before + 1 == used;
        if (is_last) {
            counter.v[0] = 0;
        }
    }
    memoryBarrierBuffer();
    barrier();
    if (!is_last) {
        return;
    }
    for (uint i = gl_LocalInvocationID.x; i < OUT; i += gl_WorkGroupSize.x) {
        uint part = parts0 + i / HEAD_DIM * SPLITS * part_size;
        float whole = LOWEST;
        for (uint s = 0; s < used; s++) {
            whole = max(whole, parts.v[part + s * part_size + HEAD_DIM]);
        }
        float sum = 0.0;
        float value = 0.0;
        for (uint s = 0; s < used; s++) {
            float factor = exp(parts.v[part + s * part_size + HEAD_DIM] - whole);
            sum = fma(parts.v[part + s * part_size + HEAD_DIM + 1], factor, sum);
            value = fma(parts.v[part + s * part_size + i % HEAD_DIM], factor, value);
        }
        store_result(token, head0, i, sum > 0.0 ? value / sum : 0.0);
    }
    finish(token, head0);
}

void main() {
    uint token = gl_WorkGroupID.z;
    if (token < rows_of_step(pc.kv.step_address, 0, pc.kv.max_rows)) {
        run(token);
    }
    chain_arrive(pc.chain);
}
