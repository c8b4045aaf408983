#version 460
// Softmax attention by one pass over the cached positions, for a GPU. A workgroup serves one head of one
// token; its subgroups take positions in turn, four at a time, and the lanes of a subgroup share the
// head's elements. Each subgroup keeps a running maximum, so that length does not matter; the partial
// results are joined at the end. Grid: x = heads, y = tokens.
#include "common.glsl"
#include "kv.glsl"

layout(constant_id = 2) const uint HEAD_DIM = 64;

layout(push_constant, scalar) uniform Push {
    KvStep kv;
    uvec2 qkv;
    uvec2 y;
    float scale;
    float cap;      // 0 for none
    uint window;    // 0 for none
} pc;

#define BATCH 4
const uint PER_LANE = (HEAD_DIM + SUBGROUP - 1) / SUBGROUP;
const uint SUBGROUPS = (gl_WorkGroupSize.x + SUBGROUP - 1) / SUBGROUP;
const float LOWEST = -1.0e30;

shared float part_max[SUBGROUPS];
shared float part_sum[SUBGROUPS];
shared float part_acc[SUBGROUPS * HEAD_DIM];

void main() {
    KvStep kv = pc.kv;
    uint n = rows_of_step(kv.step_address, 0, kv.max_rows);
    uint token = gl_WorkGroupID.y;
    uint head = gl_WorkGroupID.x;
    if (token >= n) {
        return;
    }
    uint lane = gl_SubgroupInvocationID;
    uint position = kv_last(kv, token);
    uint slot = Words(kv.step_address).v[kv.slots_word + token];
    uint kv_head = head / (kv.n_heads / kv.n_kv_heads);
    uint row_bytes = KV_ROW_BYTES(HEAD_DIM);

    float q[PER_LANE];
    float acc[PER_LANE];
    uint q_base = token * (kv.n_heads + 2 * kv.n_kv_heads) * HEAD_DIM + head * HEAD_DIM;
    [[unroll]] for (uint i = 0; i < PER_LANE; i++) {
        uint d = i * SUBGROUP + lane;
        q[i] = d < HEAD_DIM ? Floats(pc.qkv).v[q_base + d] * pc.scale : 0.0;
        acc[i] = 0.0;
    }
    float running_max = LOWEST;
    float running_sum = 0.0;
    uint end = position + 1;
    uint begin = pc.window != 0 && end > pc.window ? end - pc.window : 0;
    for (uint j = begin + gl_SubgroupID * BATCH; j < end; j += SUBGROUPS * BATCH) {
        float score[BATCH];
        uvec2 block[BATCH];
        float batch_max = running_max;
        [[unroll]] for (uint b = 0; b < BATCH; b++) {
            uint p = min(j + b, position);
            block[b] = kv_block(kv, slot, p);
            bool there = (block[b].x | block[b].y) != 0 && j + b < end;
            // Positions that do not count read the step buffer's first bytes nowhere: they are skipped.
            float dot_part = 0.0;
            if (there) {
                uint row_index = kv_head * kv.block_len + p % kv.block_len;
                uvec2 row = advance(block[b], kv.k_offset + row_index * row_bytes);
                [[unroll]] for (uint i = 0; i < PER_LANE; i++) {
                    uint d = i * SUBGROUP + lane;
                    if (d < HEAD_DIM) {
                        dot_part = fma(q[i], kv_load(row, d), dot_part);
                    }
                }
            } else {
                block[b] = uvec2(0);
            }
            float s = soft_cap(subgroupAdd(dot_part), pc.cap);
            score[b] = there ? s : LOWEST;
            batch_max = max(batch_max, score[b]);
        }
        float rescale = exp(running_max - batch_max);
        running_max = batch_max;
        running_sum *= rescale;
        [[unroll]] for (uint i = 0; i < PER_LANE; i++) {
            acc[i] *= rescale;
        }
        [[unroll]] for (uint b = 0; b < BATCH; b++) {
            if ((block[b].x | block[b].y) != 0) {
                float weight = exp(score[b] - batch_max);
                running_sum += weight;
                uint row_index = kv_head * kv.block_len + (j + b) % kv.block_len;
                uvec2 row = advance(block[b], kv.v_offset + row_index * row_bytes);
                [[unroll]] for (uint i = 0; i < PER_LANE; i++) {
                    uint d = i * SUBGROUP + lane;
                    if (d < HEAD_DIM) {
                        acc[i] = fma(weight, kv_load(row, d), acc[i]);
                    }
                }
            }
        }
    }
    uint y_base = token * kv.n_heads * HEAD_DIM + head * HEAD_DIM;
    if (SUBGROUPS == 1) {
        float inverse = running_sum > 0.0 ? 1.0 / running_sum : 0.0;
        [[unroll]] for (uint i = 0; i < PER_LANE; i++) {
            uint d = i * SUBGROUP + lane;
            if (d < HEAD_DIM) {
                Floats(pc.y).v[y_base + d] = acc[i] * inverse;
            }
        }
        return;
    }
    if (subgroupElect()) {
        part_max[gl_SubgroupID] = running_max;
        part_sum[gl_SubgroupID] = running_sum;
    }
    [[unroll]] for (uint i = 0; i < PER_LANE; i++) {
        uint d = i * SUBGROUP + lane;
        if (d < HEAD_DIM) {
            part_acc[gl_SubgroupID * HEAD_DIM + d] = acc[i];
        }
    }
    barrier();
    float whole_max = LOWEST;
    for (uint g = 0; g < SUBGROUPS; g++) {
        whole_max = max(whole_max, part_max[g]);
    }
    float whole_sum = 0.0;
    for (uint g = 0; g < SUBGROUPS; g++) {
        whole_sum += part_sum[g] * exp(part_max[g] - whole_max);
    }
    float inverse = whole_sum > 0.0 ? 1.0 / whole_sum : 0.0;
    for (uint d = gl_LocalInvocationID.x; d < HEAD_DIM; d += gl_WorkGroupSize.x) {
        float value = 0.0;
        for (uint g = 0; g < SUBGROUPS; g++) {
            value += part_acc[g * HEAD_DIM + d] * exp(part_max[g] - whole_max);
        }
        Floats(pc.y).v[y_base + d] = value * inverse;
    }
}
