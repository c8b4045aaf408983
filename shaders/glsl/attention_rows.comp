#version 460
// Softmax attention for drivers that run on the CPU: a lane owns one query head of one token, and all
// lanes of a subgroup read the same keys and values, so that those loads are scalar. Lanes of different
// sequences take turns. Positions go by in batches; each batch rescales the running result once.
// A subgroup a workgroup. Grid: x = tokens * heads per KV head / lanes, y = KV heads.
#include "common.glsl"
#include "kv.glsl"
#extension GL_KHR_shader_subgroup_vote : require

layout(constant_id = 2) const uint HEAD_DIM = 64;

layout(push_constant, scalar) uniform Push {
    KvStep kv;
    uvec2 qkv;
    uvec2 y;
    float scale;
    float cap;      // 0 for none
    uint window;    // 0 for none
} pc;

// Long heads are unrolled over fewer positions, so that the driver's compiler stays quick.
const uint BATCH = HEAD_DIM > 128 ? 4 : 8;
const float LOWEST = -1.0e30;

void main() {
    KvStep kv = pc.kv;
    uint n = rows_of_step(kv.step_address, 0, kv.max_rows);
    uint group = kv.n_heads / kv.n_kv_heads;
    if (gl_WorkGroupID.x * gl_WorkGroupSize.x >= n * group) {
        return;
    }
    uint token = gl_GlobalInvocationID.x / group;
    bool pending = token < n;
    token = min(token, n - 1);
    uint kv_head = gl_WorkGroupID.y;
    uint head = kv_head * group + gl_GlobalInvocationID.x % group;
    uint position = kv_last(kv, token);
    uint slot = Words(kv.step_address).v[kv.slots_word + token];
    uint end = position + 1;
    uint begin = pc.window != 0 && end > pc.window ? end - pc.window : 0;
    uint row_bytes = KV_ROW_BYTES(HEAD_DIM);

    float q[HEAD_DIM];
    float acc[HEAD_DIM];
    uint q_base = (token * (kv.n_heads + 2 * kv.n_kv_heads) + head) * HEAD_DIM;
    [[unroll]] for (uint d = 0; d < HEAD_DIM; d++) {
        q[d] = Floats(pc.qkv).v[q_base + d] * pc.scale;
        acc[d] = 0.0;
    }
    float running_max = LOWEST;
    float running_sum = 0.0;
    while (subgroupAny(pending)) {
        // The sequence of the first lane that still waits, and all lanes of the same.
        uvec4 waiting = subgroupBallot(pending);
        uint turn = subgroupBroadcast(slot, subgroupBallotFindLSB(waiting));
        bool mine = pending && slot == turn;
        uint first = subgroupMin(mine ? begin : 0xFFFFFFFFu);
        uint last = subgroupMax(mine ? position : 0);
        for (uint j = first; j <= last;) {
            uvec2 block = kv_block(kv, turn, j);
            uint in_block = j % kv.block_len;
            uint count = min(min(BATCH, kv.block_len - in_block), last - j + 1);
            if ((block.x | block.y) != 0) {
                uint row = kv_head * kv.block_len + in_block;
                float score[BATCH];
                uvec2 rows[BATCH];
                [[unroll]] for (uint b = 0; b < BATCH; b++) {
                    rows[b] = advance(block, kv.k_offset + (row + min(b, count - 1)) * row_bytes);
                    score[b] = 0.0;
                }
                [[unroll]] for (uint d = 0; d < HEAD_DIM; d++) {
                    [[unroll]] for (uint b = 0; b < BATCH; b++) {
                        score[b] = fma(q[d], kv_load(rows[b], d), score[b]);
                    }
                }
                float batch_max = running_max;
                [[unroll]] for (uint b = 0; b < BATCH; b++) {
                    bool seen = mine && b < count && j + b >= begin && j + b < end;
                    score[b] = seen ? soft_cap(score[b], pc.cap) : LOWEST;
                    batch_max = max(batch_max, score[b]);
                    rows[b] = advance(block, kv.v_offset + (row + min(b, count - 1)) * row_bytes);
                }
                float rescale = exp(running_max - batch_max);
                running_max = batch_max;
                running_sum *= rescale;
                [[unroll]] for (uint b = 0; b < BATCH; b++) {
                    // Zero for what is not seen, also while nothing was.
                    score[b] = score[b] > 0.5 * LOWEST ? exp(score[b] - batch_max) : 0.0;
                    running_sum += score[b];
                }
                [[unroll]] for (uint d = 0; d < HEAD_DIM; d++) {
                    float value = acc[d] * rescale;
                    [[unroll]] for (uint b = 0; b < BATCH; b++) {
                        value = fma(score[b], kv_load(rows[b], d), value);
                    }
                    acc[d] = value;
                }
            }
            j += count;
        }
        pending = pending && !mine;
    }
    if (gl_GlobalInvocationID.x < n * group) {
        float inverse = running_sum > 0.0 ? 1.0 / running_sum : 0.0;
        uint y_base = (token * kv.n_heads + head) * HEAD_DIM;
        [[unroll]] for (uint d = 0; d < HEAD_DIM; d++) {
            Floats(pc.y).v[y_base + d] = acc[d] * inverse;
        }
    }
}
