#version 460
// Softmax attention for few tokens, on a GPU: the cached positions of a token are split among workgroups.
// A workgroup serves HEADS query heads of one KV head, so that keys and values are read once for them; a
// group of ROW_LANES lanes takes positions in turn, each lane the same elements of every row, and keeps a
// running maximum. The next rows are on their way while these are computed with, and the addresses of those
// after them. The workgroup that finishes last joins the results of all (nobody waits: a counter tells it),
// and quantises them where a product with quantised weights comes next.
// Grid: x = splits, y = heads / HEADS, z = tokens.
#include "common.glsl"
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_KHR_memory_scope_semantics : require
#include "chain.glsl"
#include "kv.glsl"

layout(constant_id = 2) const uint HEAD_DIM = 64;
layout(constant_id = 3) const uint GROUP_HEADS = 1;  // query heads of a KV head
layout(constant_id = 4) const uint HEADS = 1;        // of a workgroup, divides GROUP_HEADS
layout(constant_id = 5) const uint ROW_LANES = 8;    // a power of two that divides HEAD_DIM / 8 and the subgroup
layout(constant_id = 6) const uint BATCH = 2;        // positions of a group at a time, divides BLOCK_LEN
layout(constant_id = 7) const uint BLOCK_LEN = 32;
layout(constant_id = 8) const bool CAPPED = false;
layout(constant_id = 9) const bool QUANTISE = false; // y is quants

layout(push_constant, scalar) uniform Push {
    KvStep kv;
    uvec2 qkv;
    uvec2 y;
    uvec2 y_scales;
    uvec2 parts;         // f32 [tokens, heads, splits, HEAD_DIM], sums; [tokens, heads, splits, 2], maximum and
                         // sum of the weights
    uvec2 counters;      // u32 [tokens, heads / HEADS], 0 between launches
    float scale;
    float cap;
    uint window;         // 0 for none
    Chain chain;
} pc;

layout(buffer_reference, scalar, buffer_reference_align = 16) coherent buffer PartQuads { vec4 v[]; };
layout(buffer_reference, scalar, buffer_reference_align = 8) coherent buffer PartPairs { vec2 v[]; };

const uint OCTETS = HEAD_DIM / 8 / ROW_LANES;
const uint ELEMENTS = OCTETS * 8;
const uint LANES = gl_WorkGroupSize.x;
const uint SUBGROUPS = (LANES + SUBGROUP - 1) / SUBGROUP;
const uint GROUPS = SUBGROUP / ROW_LANES;            // of a subgroup
const uint STRIDE = SUBGROUPS * GROUPS * BATCH;      // positions that a workgroup has at a time
const uint ROWS = BATCH * OCTETS;                    // octets of a row that a lane has of a batch
const uint HEAD_QUADS = HEAD_DIM / 4;
const uint OUT_QUADS = HEADS * HEAD_QUADS;
// The join's lanes beyond one for each quad of the result take other splits.
const uint SPARE = LANES / OUT_QUADS;
const uint SLICES = SPARE == 0 ? 1 : SPARE < SUBGROUPS ? SPARE : SUBGROUPS;
#define JOINED 8
#define LEAST_SPLIT 128                              // positions
#define MOST_SPLITS 64
const uint SHARES = (MOST_SPLITS + SUBGROUP - 1) / SUBGROUP; // splits that a lane has, of the join
const float LOWEST = -1.0e30;

#define STAGED OUT_QUADS
#define STAGED_BY_LANES
#include "quants.glsl"
#include "kv_octet.glsl"

shared float part_max[SUBGROUPS * HEADS];
shared float part_sum[SUBGROUPS * HEADS];
shared vec4 part_acc[SUBGROUPS * OUT_QUADS];
shared float join_factors[HEADS * MOST_SPLITS];
shared bool is_last;

float q[HEADS][ELEMENTS];
float acc[HEADS][ELEMENTS];
float running_max[HEADS];
float running_sum[HEADS];
KvOctet keys[ROWS];
KvOctet values[ROWS];
uvec2 block;

uint my_octet() {
    return gl_SubgroupInvocationID % ROW_LANES * OCTETS;
}

float group_sum(float x) {
    [[unroll]] for (uint m = 1; m < ROW_LANES; m *= 2) {
        x += subgroupShuffleXor(x, m);
    }
    return x;
}

void store_quad(uint token, uint head0, uint i, vec4 value) {
    if (QUANTISE) {
        staged[i] = value;
    } else {
        QuadsOut(pc.y).v[(token * pc.kv.n_heads + head0) * HEAD_QUADS + i] = floatBitsToUint(value);
    }
}

// Quantises what `store_quad` kept. All invocations call it.
void finish(uint token, uint head0) {
    if (QUANTISE) {
        uint chunk0 = (token * pc.kv.n_heads + head0) * HEAD_DIM / 32;
        if (SUBGROUP >= 8) {
            quantise_own(OUT_QUADS, pc.y, pc.y_scales, chunk0);
        } else {
            quantise_staged(OUT_QUADS, pc.y, pc.y_scales, chunk0, 1);
        }
    }
}

// The first of the BATCH positions that a group takes from those at `j` on.
uint place(uint j) {
    return j + (gl_SubgroupID * GROUPS + gl_SubgroupInvocationID / ROW_LANES) * BATCH;
}

// The block of a group's positions, or of those before `end`; all are in one.
void look_up(KvStep kv, uint slot, uint j, uint end) {
    block = kv_block(kv, slot, min(place(j), end - 1));
}

// Their rows, keys or values by where these begin in a block.
void fetch(uint kv_head, uint offset, uint j, inout KvOctet rows[ROWS]) {
    if ((block.x | block.y) != 0) {
        uint row = kv_head * BLOCK_LEN + place(j) % BLOCK_LEN;
        uvec2 address = advance(block, offset + row * KV_ROW_BYTES(HEAD_DIM));
        [[unroll]] for (uint b = 0; b < BATCH; b++) {
            [[unroll]] for (uint o = 0; o < OCTETS; o++) {
                rows[b * OCTETS + o] = kv_fetch(address, b, my_octet() + o);
            }
        }
    }
}

// Which of the positions that were looked up count, a bit each.
uint present(uint j, uint begin, uint end) {
    uint bits = 0;
    [[unroll]] for (uint b = 0; b < BATCH; b++) {
        bits |= mix(0, 1u << b, (place(j) + b >= begin) && (place(j) + b < end));
    }
    return mix(0, bits, (block.x | block.y) != 0);
}

// A score as it counts. Selected by `mix`, here as elsewhere: of `?:` a compiler makes branches, which keep it from
// computing several at a time.
float counted(float score, bool there) {
    return mix(LOWEST, CAPPED ? soft_cap(score, pc.cap) : score, there);
}

// The scores of a batch of keys; the lowest where a position does not count.
void score(uint bits, out float scores[HEADS][BATCH]) {
    [[unroll]] for (uint b = 0; b < BATCH; b++) {
        float s[HEADS];
        [[unroll]] for (uint h = 0; h < HEADS; h++) {
            s[h] = 0.0;
        }
        [[unroll]] for (uint o = 0; o < OCTETS; o++) {
            float key[8];
            kv_decode(keys[b * OCTETS + o], true, key);
            [[unroll]] for (uint h = 0; h < HEADS; h++) {
                [[unroll]] for (uint i = 0; i < 8; i++) {
                    s[h] = fma(q[h][o * 8 + i], key[i], s[h]);
                }
            }
        }
        [[unroll]] for (uint h = 0; h < HEADS; h++) {
            scores[h][b] = counted(group_sum(s[h]), (bits >> b & 1) != 0);
        }
    }
}

// From scores to weights; what was summed before is rescaled to the new maximum.
void weigh(uint bits, inout float scores[HEADS][BATCH]) {
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        float highest = running_max[h];
        [[unroll]] for (uint b = 0; b < BATCH; b++) {
            highest = max(highest, scores[h][b]);
        }
        float rescale = exp(running_max[h] - highest);
        running_max[h] = highest;
        running_sum[h] *= rescale;
        [[unroll]] for (uint b = 0; b < BATCH; b++) {
            scores[h][b] = mix(0.0, exp(scores[h][b] - highest), (bits >> b & 1) != 0);
            running_sum[h] += scores[h][b];
        }
        [[unroll]] for (uint i = 0; i < ELEMENTS; i++) {
            acc[h][i] *= rescale;
        }
    }
}

void add_values(uint bits, float weights[HEADS][BATCH]) {
    [[unroll]] for (uint b = 0; b < BATCH; b++) {
        [[unroll]] for (uint o = 0; o < OCTETS; o++) {
            float value[8];
            kv_decode(values[b * OCTETS + o], (bits >> b & 1) != 0, value);
            [[unroll]] for (uint h = 0; h < HEADS; h++) {
                [[unroll]] for (uint i = 0; i < 8; i++) {
                    acc[h][o * 8 + i] = fma(weights[h][b], value[i], acc[h][o * 8 + i]);
                }
            }
        }
    }
}

// A subgroup's results to shared memory, its groups joined.
void leave_parts() {
    uint lane = gl_SubgroupInvocationID;
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        float whole = running_max[h];
        [[unroll]] for (uint m = ROW_LANES; m < SUBGROUP; m *= 2) {
            whole = max(whole, subgroupShuffleXor(whole, m));
        }
        float factor = exp(running_max[h] - whole);
        float sum = running_sum[h] * factor;
        [[unroll]] for (uint m = ROW_LANES; m < SUBGROUP; m *= 2) {
            sum += subgroupShuffleXor(sum, m);
        }
        [[unroll]] for (uint i = 0; i < ELEMENTS; i++) {
            acc[h][i] *= factor;
            [[unroll]] for (uint m = ROW_LANES; m < SUBGROUP; m *= 2) {
                acc[h][i] += subgroupShuffleXor(acc[h][i], m);
            }
        }
        if (lane < ROW_LANES) {
            uint first = (gl_SubgroupID * HEADS + h) * HEAD_QUADS + lane * ELEMENTS / 4;
            [[unroll]] for (uint i = 0; i < ELEMENTS / 4; i++) {
                part_acc[first + i] = vec4(acc[h][4 * i], acc[h][4 * i + 1], acc[h][4 * i + 2], acc[h][4 * i + 3]);
            }
        }
        if (lane == 0) {
            part_max[gl_SubgroupID * HEADS + h] = whole;
            part_sum[gl_SubgroupID * HEADS + h] = sum;
        }
    }
}

// Parts of a quad of the result, of JOINED splits from `s0` on.
void fetch_parts(uint row0, uint quad, uint s0, uint used, out vec4 part[JOINED]) {
    uint row = row0 + quad / HEAD_QUADS * gl_NumWorkGroups.x;
    [[unroll]] for (uint k = 0; k < JOINED; k++) {
        part[k] = PartQuads(pc.parts).v[(row + min(s0 + k * SLICES, used - 1)) * HEAD_QUADS + quad % HEAD_QUADS];
    }
}

// The results of all splits, by the workgroup that finished last.
void join(uint token, uint head0, uint used) {
    uint splits = gl_NumWorkGroups.x;
    uint row0 = (token * pc.kv.n_heads + head0) * splits;
    uint stats0 = gl_NumWorkGroups.z * pc.kv.n_heads * splits * HEAD_DIM / 2 + row0;
    uint lane = gl_LocalInvocationID.x;
    vec4 part[JOINED];
    fetch_parts(row0, lane % OUT_QUADS, lane / OUT_QUADS, used, part);
    // A subgroup a head: what each split counts for.
    for (uint h = gl_SubgroupID; h < HEADS; h += SUBGROUPS) {
        vec2 stats[SHARES];
        float whole = LOWEST;
        [[unroll]] for (uint k = 0; k < SHARES; k++) {
            uint s = k * SUBGROUP + gl_SubgroupInvocationID;
            stats[k] = PartPairs(pc.parts).v[stats0 + h * splits + min(s, used - 1)];
            stats[k].y = mix(0.0, stats[k].y, s < used);
            whole = max(whole, stats[k].x);
        }
        whole = subgroupMax(whole);
        float sum = 0.0;
        [[unroll]] for (uint k = 0; k < SHARES; k++) {
            stats[k].x = exp(stats[k].x - whole);
            sum = fma(stats[k].y, stats[k].x, sum);
        }
        sum = subgroupAdd(sum);
        float inverse = sum > 0.0 ? 1.0 / sum : 0.0;
        [[unroll]] for (uint k = 0; k < SHARES; k++) {
            uint s = k * SUBGROUP + gl_SubgroupInvocationID;
            if (s < MOST_SPLITS) {
                join_factors[h * MOST_SPLITS + s] = mix(0.0, stats[k].x * inverse, s < used);
            }
        }
    }
    barrier();
    for (uint i = lane; i < OUT_QUADS * SLICES; i += LANES) {
        vec4 value = vec4(0.0);
        for (uint s0 = i / OUT_QUADS; s0 < used; s0 += SLICES * JOINED) {
            if (i != lane || s0 != i / OUT_QUADS) {
                fetch_parts(row0, i % OUT_QUADS, s0, used, part);
            }
            [[unroll]] for (uint k = 0; k < JOINED; k++) {
                uint s = s0 + k * SLICES;
                float factor = join_factors[i % OUT_QUADS / HEAD_QUADS * MOST_SPLITS + min(s, MOST_SPLITS - 1)];
                value = fma(vec4(mix(0.0, factor, s < used)), part[k], value);
            }
        }
        part_acc[i] = value;
    }
    barrier();
    for (uint i = lane; i < OUT_QUADS; i += LANES) {
        vec4 value = part_acc[i];
        [[unroll]] for (uint k = 1; k < SLICES; k++) {
            value += part_acc[k * OUT_QUADS + i];
        }
        store_quad(token, head0, i, value);
    }
}

void run(KvStep kv, uint token, uint slot, uint position) {
    uint head0 = gl_WorkGroupID.y * HEADS;
    uint kv_head = head0 / GROUP_HEADS;
    uint first = pc.window != 0 && position >= pc.window ? position + 1 - pc.window : 0;
    // In whole batches, shared among workgroups.
    uint last = position + 1;
    uint start = first / BATCH * BATCH;
    uint splits = gl_NumWorkGroups.x;
    uint each = LEAST_SPLIT;
    uint used = max((last - start + LEAST_SPLIT - 1) / LEAST_SPLIT, 1);
    if (used > splits) {
        each = ((last - start + splits - 1) / splits + BATCH - 1) / BATCH * BATCH;
        used = (last - start + each - 1) / each;
    }
    uint split = gl_WorkGroupID.x;
    if (split >= used) {
        return;
    }
    uint begin = start + split * each;
    uint end = min(last, begin + each);
    look_up(kv, slot, begin, end);
    chain_await(pc.chain);
    uint bits = present(begin, first, end);
    fetch(kv_head, kv.k_offset, begin, keys);
    fetch(kv_head, kv.v_offset, begin, values);
    look_up(kv, slot, begin + STRIDE, end);
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        uint row = (token * (kv.n_heads + 2 * kv.n_kv_heads) + head0 + h) * HEAD_QUADS + my_octet() * 2;
        [[unroll]] for (uint i = 0; i < ELEMENTS; i += 4) {
            vec4 quad = SharedVec4s(pc.qkv).v[row + i / 4] * pc.scale;
            [[unroll]] for (uint k = 0; k < 4; k++) {
                q[h][i + k] = quad[k];
                acc[h][i + k] = 0.0;
            }
        }
        running_max[h] = LOWEST;
        running_sum[h] = 0.0;
    }
    for (uint j = begin; j < end; j += STRIDE) {
        bool more = j + STRIDE < end;
        float weights[HEADS][BATCH];
        score(bits, weights);
        uint next_bits = present(j + STRIDE, first, end);
        if (more) {
            fetch(kv_head, kv.k_offset, j + STRIDE, keys);
        }
        weigh(bits, weights);
        add_values(bits, weights);
        if (more) {
            fetch(kv_head, kv.v_offset, j + STRIDE, values);
            look_up(kv, slot, j + 2 * STRIDE, end);
        }
        bits = next_bits;
    }
    leave_parts();
    barrier();
    uint row0 = (token * pc.kv.n_heads + head0) * splits;
    for (uint i = gl_LocalInvocationID.x; i < OUT_QUADS; i += LANES) {
        uint h = i / HEAD_QUADS;
        float whole = LOWEST;
        [[unroll]] for (uint g = 0; g < SUBGROUPS; g++) {
            whole = max(whole, part_max[g * HEADS + h]);
        }
        float sum = 0.0;
        vec4 value = vec4(0.0);
        [[unroll]] for (uint g = 0; g < SUBGROUPS; g++) {
            float factor = exp(part_max[g * HEADS + h] - whole);
            sum = fma(part_sum[g * HEADS + h], factor, sum);
            value = fma(vec4(factor), part_acc[g * OUT_QUADS + i], value);
        }
        if (used == 1) {
            store_quad(token, head0, i, sum > 0.0 ? value / sum : vec4(0.0));
        } else {
            PartQuads(pc.parts).v[(row0 + h * splits + split) * HEAD_QUADS + i % HEAD_QUADS] = value;
            if (i % HEAD_QUADS == 0) {
                uint stats0 = gl_NumWorkGroups.z * kv.n_heads * splits * HEAD_DIM / 2 + row0;
                PartPairs(pc.parts).v[stats0 + h * splits + split] = vec2(whole, sum);
            }
        }
    }
    if (used > 1) {
        // What this workgroup wrote is there before it counts; who counts last sees what all wrote.
        memoryBarrierBuffer();
        barrier();
        if (gl_LocalInvocationID.x == 0) {
            uint counter = token * gl_NumWorkGroups.y + gl_WorkGroupID.y;
            is_last = atomicAdd(Words(pc.counters).v[counter], 1) + 1 == used;
            if (is_last) {
                Words(pc.counters).v[counter] = 0;
            }
        }
        memoryBarrierBuffer();
        barrier();
        if (!is_last) {
            return;
        }
        join(token, head0, used);
    }
    finish(token, head0);
}

void main() {
    KvStep kv = pc.kv;
    kv.block_len = BLOCK_LEN;
    uint token = gl_WorkGroupID.z;
    // All on their way before the first is waited for.
    uint n = rows_of_step(kv.step_address, 0, kv.max_rows);
    uint position = kv_last(kv, token);
    uint slot = Words(kv.step_address).v[kv.slots_word + token];
    if (token < n) {
        run(kv, token, slot, position);
    }
    chain_arrive(pc.chain);
}
