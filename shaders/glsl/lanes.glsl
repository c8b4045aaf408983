// Products of some rows of x, as quants, with quantised weights, by matrix instructions whose factors the lanes
// make in registers (held.glsl): of a weight as matrix_weights.glsl says, of x from its quants, times a power of two for
// each row that keeps it in range. Four lanes share a row. A subgroup takes TILES times 16 rows of SETS weights;
// SHARERS subgroups share the columns, 256 at a time. The including kernel declares SETS, `pc.x`, `pc.x_scales` and
// `pc.chunks`.
#include "held.glsl"

layout(constant_id = 2) const uint TOKENS = 8;
layout(constant_id = 3) const uint TILES = 1;
layout(constant_id = 4) const uint SHARERS = 1;

#ifdef FORMAT_Q8_0
const bool NATURAL = true;
#else
const bool NATURAL = false;
#endif
#include "weights.glsl"
uvec2 planes[4];
#define PLANES planes
#if defined(FORMAT_Q4_K) || defined(FORMAT_Q5_K) || defined(FORMAT_Q6_K)
#define X_CHUNK(run, lane, slot) ((run) * 8 + ((slot) == 0 ? FIRST_SLOT(lane) : SECOND_SLOT(lane)))
#else
// Neighbouring lanes load neighbouring chunks.
#define CHUNK_OF(run, lane, slot) ((run) * 8 + (lane) + 4 * (slot))
#define X_CHUNK CHUNK_OF
#endif
#include "matrix_weights.glsl"

const uint SUBGROUPS = (gl_WorkGroupSize.x + SUBGROUP - 1) / SUBGROUP;
// Rows that the subgroups compute side by side.
const uint ABREAST = SUBGROUPS / SHARERS * TILES * 16;
// Matrices of 8 rows of x.
const uint N_TILES = (TOKENS + 7) / 8;
const uint UNITS = SETS * TILES;

// For each row of x a power of two that keeps it in range, and its inverse.
shared float x_up[TOKENS];
shared float x_down[TOKENS];

void find_ranges() {
    for (uint token = gl_SubgroupID; token < TOKENS; token += SUBGROUPS) {
        float largest = 0.0;
        // Several on their way at a time; at the end of a row the last one.
        for (uint c = gl_SubgroupInvocationID; c < pc.chunks; c += 8 * SUBGROUP) {
            [[unroll]] for (uint i = 0; i < 8; i++) {
                uint chunk = min(c + i * SUBGROUP, pc.chunks - 1);
                largest = max(largest, Pairs(pc.x_scales).v[token * pc.chunks + chunk].x);
            }
        }
        largest = subgroupMax(largest);
        // 2^7 over the power of two below it, where both have an inverse: 127 quants of it stay below 2^15.
        int exponent = clamp(134 - int(floatBitsToUint(largest) >> 23), -126, 126);
        if (subgroupElect()) {
            x_up[token] = uintBitsToFloat(uint(127 + exponent) << 23);
            x_down[token] = uintBitsToFloat(uint(127 - exponent) << 23);
        }
    }
}

// Four quants in the order 0, 2, 1, 3.
uvec2 quants_to_halves(uint q, float16_t scale) {
    q ^= 0x80808080u;
    f16vec2 even = unpackFloat2x16((q & 0x00FF00FFu) | 0x64006400u) - float16_t(1152.0);
    f16vec2 odd = unpackFloat2x16(((q >> 8) & 0x00FF00FFu) | 0x64006400u) - float16_t(1152.0);
    return uvec2(packFloat2x16(even * scale), packFloat2x16(odd * scale));
}

// What a lane holds of a block of 256 columns of a row of x.
struct HeldX {
    uvec4 q[4];
    float scale[4];
};

HeldX load_x(uint token, uint block, uint lane) {
    HeldX x;
    [[unroll]] for (uint i = 0; i < (NATURAL ? 4 : 2); i++) {
        uint chunk = NATURAL ? block * 8 + i * 2 + lane / 2 : X_CHUNK(block, lane, i);
        uint place = token * pc.chunks + min(chunk, pc.chunks - 1);
        if (NATURAL) {
            x.q[i] = Quads(pc.x).v[place * 2 + (lane & 1u)];
        } else {
            x.q[2 * i] = Quads(pc.x).v[place * 2];
            x.q[2 * i + 1] = Quads(pc.x).v[place * 2 + 1];
        }
        x.scale[i] = chunk < pc.chunks ? Pairs(pc.x_scales).v[place].x : 0.0;
    }
    return x;
}

// The halves of a lane's slot of slab `w` of the block.
uvec4 halves_of(HeldX x, uint w, uint slot, float up) {
    if (NATURAL) {
        float16_t scale = float16_t(x.scale[w] * up);
        return uvec4(quants_to_halves(x.q[w][2 * slot], scale), quants_to_halves(x.q[w][2 * slot + 1], scale));
    }
    float16_t scale = float16_t(x.scale[slot] * up);
    return uvec4(quants_to_halves(x.q[2 * slot][w], scale), quants_to_halves(x.q[2 * slot + 1][w], scale));
}

// What a lane holds of a block of a weight: rows g and g + 8 of each tile.
struct Held {
    Raw raw[4 / LOAD_SLABS];
    RawScales scales[4 / LOAD_SLABS];
};

Held held[UNITS][2];

void load_held(uvec2 sets[SETS][4], uint row0, uint last_row, uint block) {
    uint lane = gl_SubgroupInvocationID;
    [[unroll]] for (uint u = 0; u < UNITS; u++) {
        planes = sets[u / TILES];
        [[unroll]] for (uint i = 0; i < 2; i++) {
            uint row = min(row0 + (u % TILES) * 16 + i * 8 + lane / 4, last_row);
            [[unroll]] for (uint w = 0; w < 4 / LOAD_SLABS; w++) {
                held[u][i].raw[w] = load_raw(row, block * 4 + w, lane & 3u);
                held[u][i].scales[w] = load_scales(row, block * 4 + w, lane & 3u);
            }
        }
    }
}

// Sums of the subgroups that share columns: [set, sharer, token, row abreast].
shared float parts[SETS * SHARERS * N_TILES * 8 * ABREAST];

// Leaves in `parts` the subgroup's rows from `row0` on, over its columns.
void multiply(uvec2 sets[SETS][4], uint row0, uint last_row) {
    uint lane = gl_SubgroupInvocationID;
    uint share = gl_SubgroupID % SHARERS;
    uint mine = gl_SubgroupID / SHARERS * TILES * 16;
    row0 += mine;
    uint blocks = (pc.chunks + 7) / 8;
    MatrixC total[UNITS * N_TILES];
    [[unroll]] for (uint i = 0; i < UNITS * N_TILES; i++) {
        total[i] = MatrixC(0.0);
    }
    HeldX next_x[N_TILES];
    load_held(sets, row0, last_row, min(share, blocks - 1));
    [[unroll]] for (uint j = 0; j < N_TILES; j++) {
        next_x[j] = load_x(min(j * 8 + lane / 4, TOKENS - 1), share, lane & 3u);
    }
    find_ranges();
    barrier();
    float up[N_TILES];
    [[unroll]] for (uint j = 0; j < N_TILES; j++) {
        up[j] = x_up[min(j * 8 + lane / 4, TOKENS - 1)];
    }
    uint block = share;
    for (uint turn = 0; turn < blocks; turn += SHARERS) {
        Held now[UNITS][2];
        HeldX now_x[N_TILES];
        [[unroll]] for (uint u = 0; u < UNITS; u++) {
            now[u][0] = held[u][0];
            now[u][1] = held[u][1];
        }
        [[unroll]] for (uint j = 0; j < N_TILES; j++) {
            now_x[j] = next_x[j];
        }
        block += SHARERS;
        // The next ones are on their way while these are multiplied. Without a barrier the compiler would move
        // the loads to where their results are wanted.
        load_held(sets, row0, last_row, min(block, blocks - 1));
        [[unroll]] for (uint j = 0; j < N_TILES; j++) {
            next_x[j] = load_x(min(j * 8 + lane / 4, TOKENS - 1), block, lane & 3u);
        }
        barrier();
        [[unroll]] for (uint w = 0; w < 4; w++) {
            MatrixB x[N_TILES][4];
            [[unroll]] for (uint j = 0; j < N_TILES; j++) {
                [[unroll]] for (uint slot = 0; slot < 2; slot++) {
                    uvec4 v = halves_of(now_x[j], w, slot, up[j]);
                    x[j][2 * slot] = held_of_x(v.xy);
                    x[j][2 * slot + 1] = held_of_x(v.zw);
                }
            }
            [[unroll]] for (uint u = 0; u < UNITS; u++) {
                uvec4 halves[2][2];
                [[unroll]] for (uint i = 0; i < 2; i++) {
                    Scales s = to_scales(now[u][i].scales[w / LOAD_SLABS], lane & 3u);
                    expand(now[u][i].raw[w / LOAD_SLABS], s, lane & 3u, halves[i][0], halves[i][1]);
                }
                [[unroll]] for (uint k = 0; k < 4; k++) {
                    uvec4 upper = halves[0][k / 2];
                    uvec4 lower = halves[1][k / 2];
                    MatrixA a = held_of_weight(k % 2 == 0 ? upper.xy : upper.zw, k % 2 == 0 ? lower.xy : lower.zw);
                    [[unroll]] for (uint j = 0; j < N_TILES; j++) {
                        total[u * N_TILES + j] = coopMatMulAdd(a, x[j][k], total[u * N_TILES + j]);
                    }
                }
            }
        }
    }
    [[unroll]] for (uint u = 0; u < UNITS; u++) {
        [[unroll]] for (uint j = 0; j < N_TILES; j++) {
            uint place = ((u / TILES * SHARERS + share) * N_TILES + j) * 8 * ABREAST + mine + u % TILES * 16;
            coopMatStore(total[u * N_TILES + j], parts, place, ABREAST, gl_CooperativeMatrixLayoutColumnMajor);
        }
    }
    barrier();
}

// The whole sum of a row abreast.
float whole_sum(uint set, uint token, uint row) {
    float sum = 0.0;
    [[unroll]] for (uint i = 0; i < SHARERS; i++) {
        sum += parts[((set * SHARERS + i) * N_TILES * 8 + token) * ABREAST + row];
    }
    return sum * x_down[token];
}
