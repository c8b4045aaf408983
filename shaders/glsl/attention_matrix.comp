#version 460
// Softmax attention for many tokens, by matrix instructions. The rows of a workgroup's tile are the query
// heads of one KV head, of consecutive tokens, so that what it brings of the cache serves all of them; each
// subgroup has MATRIX_M rows, those of long heads shared by PARTS subgroups, each with some columns of the
// result. It walks the positions that the rows see, POSITIONS at a time: while
// one step is computed, the next one's keys and values are on their way into registers, and the addresses of
// those after are looked up. Scores pass through shared memory, where lanes own rows; sums are in f32.
// A run of tokens of one sequence is walked by itself, so that no sequence meets another's values.
// Grid: x = tiles of tokens, from the last, which sees most; y = KV heads; z = runs of a tile in turn.
#include "common.glsl"
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "kv.glsl"

// One matrix instruction: rows of the first factor, columns of the second, what they share.
layout(constant_id = 2) const uint MATRIX_M = 16;
layout(constant_id = 3) const uint MATRIX_N = 16;
layout(constant_id = 4) const uint MATRIX_K = 16;
layout(constant_id = 5) const uint HEAD_DIM = 64;
layout(constant_id = 6) const uint GROUP = 1;        // query heads of a KV head
layout(constant_id = 7) const uint SUBGROUPS = 4;
layout(constant_id = 8) const uint POSITIONS = 32;
layout(constant_id = 9) const bool HOLD_Q = true;    // in registers; else in shared memory
layout(constant_id = 10) const uint PARTS = 1;       // subgroups that have the same rows

layout(push_constant, scalar) uniform Push {
    KvStep kv;
    uvec2 qkv;
    uvec2 y;
    float scale;
    float cap;      // 0 for none
    uint window;    // 0 for none
} pc;

layout(buffer_reference, scalar, buffer_reference_align = 16) writeonly buffer Vec4sOut { vec4 v[]; };

const uint ROW_GROUPS = SUBGROUPS / PARTS;
const uint ROWS = MATRIX_M * ROW_GROUPS;
const uint TOKENS = ROWS / GROUP;
const uint LANES = SUBGROUPS * SUBGROUP;
// Lanes that share a row of scores, and the quads of it that each has.
const uint ROW_LANES = SUBGROUP / MATRIX_M;
const uint QUADS = POSITIONS / 4 / ROW_LANES;
const uint OCTETS = HEAD_DIM / 8;
const uint MATRICES_D = HEAD_DIM / MATRIX_N / PARTS;
const uint MATRICES_P = POSITIONS / MATRIX_N;
const uint STEPS_D = HEAD_DIM / MATRIX_K;
const uint STEPS_P = POSITIONS / MATRIX_K;
const float LOWEST = -1.0e30;

// Shared memory in units of 16 bytes; odd strides spread rows over the banks.
const uint D_STRIDE = OCTETS | 1;           // of a query or key
const uint P_STRIDE = (POSITIONS / 8) | 1;  // of an element of all values: they lie transposed
const uint VALUES = POSITIONS * D_STRIDE;
const uint CACHED = VALUES + HEAD_DIM * P_STRIDE;
const uint QUERIES = HOLD_Q ? 0 : CACHED;
const uint QUERIES_END = QUERIES + ROWS * D_STRIDE;
const uint SCORES = QUERIES_END > CACHED ? QUERIES_END : CACHED;
// A row of scores in f32; then the weights as halves, and the factor of the sums so far, in each column.
const uint FACTORS = POSITIONS / 8;
const uint S_USED = FACTORS + MATRIX_N / 4 > POSITIONS / 4 ? FACTORS + MATRIX_N / 4 : POSITIONS / 4;
const uint S_STRIDE = S_USED | 1;

shared uvec4 tiles[SCORES + ROWS * PARTS * S_STRIDE];
// Of this step and the next: where the head's row of a position lies but for the offset of keys or values,
// 0 where there is none.
shared uvec2 places[2 * POSITIONS];
shared uvec4 present[2 * POSITIONS / 4];

#define MatrixA coopmat<float16_t, gl_ScopeSubgroup, MATRIX_M, MATRIX_K, gl_MatrixUseA>
#define MatrixB coopmat<float16_t, gl_ScopeSubgroup, MATRIX_K, MATRIX_N, gl_MatrixUseB>
#define MatrixC coopmat<float, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator>
#define ROW_MAJOR gl_CooperativeMatrixLayoutRowMajor
#define COLUMN_MAJOR gl_CooperativeMatrixLayoutColumnMajor

// Eight elements of a key or value.
#if defined(FORMAT_F16)
#define Raw uvec4
Raw load_octet(uvec2 row, uint octet) {
    return Quads(row).v[octet];
}
uvec4 to_halves(Raw raw) {
    return raw;
}
#else
#define Raw uvec3
Raw load_octet(uvec2 row, uint octet) {
    uint block = octet / 4 * 17;
    uint first = block + 1 + octet % 4 * 4;
    Shorts bits = Shorts(row);
    uvec4 q = uvec4(bits.v[first], bits.v[first + 1], bits.v[first + 2], bits.v[first + 3]);
    return Raw(q.x | (q.y << 16), q.z | (q.w << 16), uint(bits.v[block]));
}
uvec4 to_halves(Raw raw) {
    const f16vec2 LARGEST = f16vec2(65504.0);
    f16vec2 scale = unpackFloat2x16(raw.z | (raw.z << 16));
    uvec4 halves;
    [[unroll]] for (uint i = 0; i < 4; i++) {
        // 0x6400 | q is 1024 + q as a half.
        uint q = ((raw[i / 2] ^ 0x80808080u) >> (i % 2 * 16)) & 0xFFFFu;
        f16vec2 quants = unpackFloat2x16((q & 0xFFu) | ((q & 0xFF00u) << 8) | 0x64006400u) - f16vec2(1152.0);
        halves[i] = packFloat2x16(clamp(quants * scale, -LARGEST, LARGEST));
    }
    return halves;
}
#endif

// What an invocation brings of a step: octets of keys, of pairs of values, and places.
const uint K_UNITS = (POSITIONS * OCTETS + LANES - 1) / LANES;
const uint V_UNITS = (POSITIONS / 2 * OCTETS + LANES - 1) / LANES;
const uint PLACE_UNITS = (POSITIONS + LANES - 1) / LANES;
const bool K_EVEN = POSITIONS * OCTETS % LANES == 0;
const bool V_EVEN = POSITIONS / 2 * OCTETS % LANES == 0;

Raw k_raw[K_UNITS];
Raw v_raw[2 * V_UNITS];
uvec2 next_place[PLACE_UNITS];

void look_up(uint slot, uint first, uint end) {
    KvStep kv = pc.kv;
    [[unroll]] for (uint i = 0; i < PLACE_UNITS; i++) {
        uint position = first + gl_LocalInvocationID.x + i * LANES;
        next_place[i] = uvec2(0);
        if (position < min(first + POSITIONS, end)) {
            uvec2 block = kv_block(kv, slot, position);
            if ((block.x | block.y) != 0) {
                uint row = gl_WorkGroupID.y * kv.block_len + position % kv.block_len;
                next_place[i] = advance(block, row * KV_ROW_BYTES(HEAD_DIM));
            }
        }
    }
}

void store_places(uint turn) {
    [[unroll]] for (uint i = 0; i < PLACE_UNITS; i++) {
        uint unit = gl_LocalInvocationID.x + i * LANES;
        if (unit < POSITIONS) {
            places[turn * POSITIONS + unit] = next_place[i];
            present[(turn * POSITIONS + unit) / 4][unit % 4] = next_place[i].x | next_place[i].y;
        }
    }
}

Raw load_there(uvec2 place, uint offset, uint octet) {
    Raw raw = Raw(0);
    if ((place.x | place.y) != 0) {
        raw = load_octet(advance(place, offset), octet);
    }
    return raw;
}

void load_step(uint turn) {
    [[unroll]] for (uint i = 0; i < K_UNITS; i++) {
        uint unit = gl_LocalInvocationID.x + i * LANES;
        uint position = K_EVEN ? unit / OCTETS : min(unit / OCTETS, POSITIONS - 1);
        k_raw[i] = load_there(places[turn * POSITIONS + position], pc.kv.k_offset, unit % OCTETS);
    }
    [[unroll]] for (uint i = 0; i < V_UNITS; i++) {
        uint unit = gl_LocalInvocationID.x + i * LANES;
        uint position = turn * POSITIONS + unit % (POSITIONS / 2) * 2;
        uint octet = unit / (POSITIONS / 2);
        octet = V_EVEN ? octet : min(octet, OCTETS - 1);
        v_raw[2 * i] = load_there(places[position], pc.kv.v_offset, octet);
        v_raw[2 * i + 1] = load_there(places[position + 1], pc.kv.v_offset, octet);
    }
}

void store_step() {
    [[unroll]] for (uint i = 0; i < K_UNITS; i++) {
        uint unit = gl_LocalInvocationID.x + i * LANES;
        if (K_EVEN || unit < POSITIONS * OCTETS) {
            tiles[unit / OCTETS * D_STRIDE + unit % OCTETS] = to_halves(k_raw[i]);
        }
    }
    [[unroll]] for (uint i = 0; i < V_UNITS; i++) {
        uint unit = gl_LocalInvocationID.x + i * LANES;
        uint pair = unit % (POSITIONS / 2);
        uint element = unit / (POSITIONS / 2) * 8;
        if (V_EVEN || element < HEAD_DIM) {
            uvec4 even = to_halves(v_raw[2 * i]);
            uvec4 odd = to_halves(v_raw[2 * i + 1]);
            [[unroll]] for (uint j = 0; j < 8; j++) {
                uint shift = j % 2 * 16;
                uint both = ((even[j / 2] >> shift) & 0xFFFFu) | ((odd[j / 2] >> shift) << 16);
                tiles[VALUES + (element + j) * P_STRIDE + pair / 4][pair % 4] = both;
            }
        }
    }
}

void sync_subgroup() {
    subgroupMemoryBarrierShared();
    subgroupBarrier();
}

MatrixA held[HOLD_Q ? STEPS_D : 1];
MatrixC sums[MATRICES_D];
// Of the row that the lane works on, the sum over its own columns only.
float running_max;
float running_sum;

// The subgroup's first row in the tile.
uint first_row() {
    return gl_SubgroupID % ROW_GROUPS * MATRIX_M;
}

// Its first matrix of columns of the result.
uint first_column() {
    return gl_SubgroupID / ROW_GROUPS * MATRICES_D;
}

uint q_place(uint k) {
    return QUERIES + first_row() * D_STRIDE + k * MATRIX_K / 8;
}

// The subgroup's queries as halves, each row times a power of two that brings its largest magnitude to at
// least 2^14 and below 2^15; the lane's row's inverse.
float bring_queries(uint token0, uint count) {
    const uint BATCH = 4;
    const uint UNITS = (HEAD_DIM / 4 + SUBGROUP - 1) / SUBGROUP;
    uint lane = gl_SubgroupInvocationID;
    uint q_width = (pc.kv.n_heads + 2 * pc.kv.n_kv_heads) * HEAD_DIM;
    float inverse = 1.0;
    for (uint first = 0; first < MATRIX_M; first += BATCH) {
        vec4 x[BATCH * UNITS];
        [[unroll]] for (uint b = 0; b < BATCH; b++) {
            uint row = first_row() + first + b;
            uint token = token0 + min(row / GROUP, count - 1);
            uint from = (token * q_width + (gl_WorkGroupID.y * GROUP + row % GROUP) * HEAD_DIM) / 4;
            [[unroll]] for (uint i = 0; i < UNITS; i++) {
                x[b * UNITS + i] = Vec4s(pc.qkv).v[from + min(lane + i * SUBGROUP, HEAD_DIM / 4 - 1)];
            }
        }
        [[unroll]] for (uint b = 0; b < BATCH; b++) {
            vec4 most = vec4(0.0);
            [[unroll]] for (uint i = 0; i < UNITS; i++) {
                most = max(most, abs(x[b * UNITS + i]));
            }
            float largest = subgroupMax(max(max(most.x, most.y), max(most.z, most.w)));
            int exponent = clamp(141 - int(floatBitsToUint(largest) >> 23), -126, 126);
            float scale = uintBitsToFloat(uint(127 + exponent) << 23);
            if (first + b == lane / ROW_LANES) {
                inverse = uintBitsToFloat(uint(127 - exponent) << 23);
            }
            [[unroll]] for (uint i = 0; i < UNITS; i++) {
                uint unit = lane + i * SUBGROUP;
                vec4 scaled = x[b * UNITS + i] * scale;
                if (unit < HEAD_DIM / 4 && first_column() == 0) {
                    uint place = q_place(0) + (first + b) * D_STRIDE + unit / 2;
                    tiles[place][unit % 2 * 2] = packHalf2x16(scaled.xy);
                    tiles[place][unit % 2 * 2 + 1] = packHalf2x16(scaled.zw);
                }
            }
        }
    }
    sync_subgroup();
    if (HOLD_Q) {
        [[unroll]] for (uint k = 0; k < STEPS_D; k++) {
            coopMatLoad(held[k], tiles, q_place(k), D_STRIDE, ROW_MAJOR);
        }
    }
    return inverse;
}

// Multiplies the sums' rows by a factor, that of the lane's row.
void multiply_sums(uint corner, float factor) {
    uint lane = gl_SubgroupInvocationID;
    for (uint i = lane % ROW_LANES; i < MATRIX_N / 4; i += ROW_LANES) {
        tiles[corner + lane / ROW_LANES * S_STRIDE + FACTORS + i] = uvec4(floatBitsToUint(factor));
    }
    sync_subgroup();
    MatrixC factors;
    coopMatLoad(factors, tiles, corner + FACTORS, S_STRIDE, ROW_MAJOR);
    [[unroll]] for (uint c = 0; c < MATRICES_D; c++) {
        sums[c] = sums[c] * factors;
    }
}

MatrixC scores[MATRICES_P];

void multiply_keys(MatrixA a, uint k) {
    [[unroll]] for (uint j = 0; j < MATRICES_P; j++) {
        MatrixB b;
        coopMatLoad(b, tiles, j * MATRIX_N * D_STRIDE + k * MATRIX_K / 8, D_STRIDE, COLUMN_MAJOR);
        scores[j] = coopMatMulAdd(a, b, scores[j]);
    }
}

// The step of positions from `first` on, of which the lane's row sees those from `low` to before `high`.
void attend(uint turn, uint first, uint low, uint high, float scale) {
    uint corner = SCORES + gl_SubgroupID * MATRIX_M * S_STRIDE;
    [[unroll]] for (uint j = 0; j < MATRICES_P; j++) {
        scores[j] = MatrixC(0.0);
    }
    if (HOLD_Q) {
        [[unroll]] for (uint k = 0; k < STEPS_D; k++) {
            multiply_keys(held[k], k);
        }
    } else {
        for (uint k = 0; k < STEPS_D; k++) {
            MatrixA a;
            coopMatLoad(a, tiles, q_place(k), D_STRIDE, ROW_MAJOR);
            multiply_keys(a, k);
        }
    }
    [[unroll]] for (uint j = 0; j < MATRICES_P; j++) {
        coopMatStore(scores[j], tiles, corner + j * MATRIX_N / 4, S_STRIDE, ROW_MAJOR);
    }
    sync_subgroup();

    uint lane = gl_SubgroupInvocationID;
    uint part = lane % ROW_LANES * QUADS;
    uint row = corner + lane / ROW_LANES * S_STRIDE;
    vec4 weights[QUADS];
    float most = running_max;
    [[unroll]] for (uint i = 0; i < QUADS; i++) {
        vec4 s = uintBitsToFloat(tiles[row + part + i]) * scale;
        uvec4 there = present[turn * (POSITIONS / 4) + part + i];
        [[unroll]] for (uint j = 0; j < 4; j++) {
            uint position = first + (part + i) * 4 + j;
            bool seen = there[j] != 0 && position >= low && position < high;
            weights[i][j] = seen ? soft_cap(s[j], pc.cap) : LOWEST;
            most = max(most, weights[i][j]);
        }
    }
    for (uint m = 1; m < ROW_LANES; m *= 2) {
        most = max(most, subgroupShuffleXor(most, m));
    }
    float factor = exp(running_max - most);
    running_max = most;
    running_sum *= factor;
    [[unroll]] for (uint i = 0; i < QUADS; i++) {
        [[unroll]] for (uint j = 0; j < 4; j++) {
            weights[i][j] = weights[i][j] > LOWEST ? exp(weights[i][j] - most) : 0.0;
            running_sum += weights[i][j];
        }
    }
    // Every lane has read its scores.
    sync_subgroup();
    [[unroll]] for (uint i = 0; i < QUADS; i += 2) {
        tiles[row + (part + i) / 2] = uvec4(
            packHalf2x16(weights[i].xy), packHalf2x16(weights[i].zw),
            packHalf2x16(weights[i + 1].xy), packHalf2x16(weights[i + 1].zw)
        );
    }
    multiply_sums(corner, factor);
    for (uint k = 0; k < STEPS_P; k++) {
        MatrixA a;
        coopMatLoad(a, tiles, corner + k * MATRIX_K / 8, S_STRIDE, ROW_MAJOR);
        [[unroll]] for (uint c = 0; c < MATRICES_D; c++) {
            MatrixB b;
            coopMatLoad(b, tiles, VALUES + (first_column() + c) * MATRIX_N * P_STRIDE + k * MATRIX_K / 8, P_STRIDE, COLUMN_MAJOR);
            sums[c] = coopMatMulAdd(a, b, sums[c]);
        }
    }
}

// Writes the rows of the tile's tokens from `start` to before `end`.
void store_rows(uint token0, uint start, uint end) {
    uint corner = SCORES + gl_SubgroupID * MATRIX_M * S_STRIDE;
    for (uint m = 1; m < ROW_LANES; m *= 2) {
        running_sum += subgroupShuffleXor(running_sum, m);
    }
    sync_subgroup();
    multiply_sums(corner, running_sum > 0.0 ? 1.0 / running_sum : 0.0);
    [[unroll]] for (uint c = 0; c < MATRICES_D; c++) {
        sync_subgroup();
        coopMatStore(sums[c], tiles, corner, S_STRIDE, ROW_MAJOR);
        sync_subgroup();
        for (uint i = gl_SubgroupInvocationID; i < MATRIX_M * (MATRIX_N / 4); i += SUBGROUP) {
            uint row = first_row() + i / (MATRIX_N / 4);
            uint token = row / GROUP;
            if (token >= start && token < end) {
                uint head = gl_WorkGroupID.y * GROUP + row % GROUP;
                uint to = ((token0 + token) * pc.kv.n_heads + head) * (HEAD_DIM / 4);
                vec4 value = uintBitsToFloat(tiles[corner + i / (MATRIX_N / 4) * S_STRIDE + i % (MATRIX_N / 4)]);
                Vec4sOut(pc.y).v[to + (first_column() + c) * (MATRIX_N / 4) + i % (MATRIX_N / 4)] = value;
            }
        }
    }
}

// The first position that a token sees.
uint first_seen(uint last) {
    return pc.window != 0 && last + 1 > pc.window ? last + 1 - pc.window : 0;
}

void main() {
    KvStep kv = pc.kv;
    uint n = rows_of_step(kv.step_address, 0, kv.max_rows);
    uint token0 = (gl_NumWorkGroups.x - 1 - gl_WorkGroupID.x) * TOKENS;
    if (token0 >= n) {
        return;
    }
    uint count = min(TOKENS, n - token0);
    uint lane = gl_SubgroupInvocationID;
    Words slots = Words(advance(kv.step_address, 4 * (kv.slots_word + token0)));
    float scale = 0.0;
    bool has_queries = false;
    // The tile's token that the lane's row belongs to, and what it sees.
    uint mine = (first_row() + lane / ROW_LANES) / GROUP;
    uint my_last = kv_last(kv, token0 + min(mine, count - 1));
    uint run = 0;
    uint end = 0;
    for (uint start = 0; start < count; start = end) {
        uint slot = slots.v[start];
        end = count;
        for (uint i = start + 1 + lane; i < count; i += SUBGROUP) {
            if (slots.v[i] != slot) {
                end = i;
                break;
            }
        }
        end = subgroupMin(end);
        if (run++ % gl_NumWorkGroups.z != gl_WorkGroupID.z) {
            continue;
        }
        uint from = 0xFFFFFFFFu;
        uint last = 0;
        for (uint i = start + lane; i < end; i += SUBGROUP) {
            uint one = kv_last(kv, token0 + i);
            from = min(from, first_seen(one));
            last = max(last, one);
        }
        from = subgroupMin(from);
        last = subgroupMax(last);
        // Nobody reads what the run before left in shared memory.
        barrier();
        if (!has_queries) {
            scale = bring_queries(token0, count) * pc.scale;
            has_queries = true;
        }
        bool in_run = mine >= start && mine < end;
        uint low = in_run ? first_seen(my_last) : 0;
        uint high = in_run ? my_last + 1 : 0;
        running_max = LOWEST;
        running_sum = 0.0;
        [[unroll]] for (uint c = 0; c < MATRICES_D; c++) {
            sums[c] = MatrixC(0.0);
        }
        look_up(slot, from, last + 1);
        store_places(0);
        barrier();
        load_step(0);
        look_up(slot, from + POSITIONS, last + 1);
        uint turn = 0;
        for (uint first = from; first <= last; first += POSITIONS) {
            barrier();
            store_step();
            store_places(1 - turn);
            barrier();
            load_step(1 - turn);
            look_up(slot, first + 2 * POSITIONS, last + 1);
            attend(turn, first, low, high, scale);
            turn = 1 - turn;
        }
        store_rows(token0, start, end);
    }
}
