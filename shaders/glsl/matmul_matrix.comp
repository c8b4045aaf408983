#version 460
// Many rows of x, by matrix instructions: the subgroups of a workgroup share a tile of the weight and one
// of x in shared memory, and each computes a part of the tile's product. While they multiply a slab of 64
// columns, x of the next one and weights that no slab has used yet are on their way into registers. Grid:
// x = rows of x / TILE_TOKENS, y = rows / TILE_ROWS, so that workgroups that run at once share the weight.
#include "matrix.glsl"

// What a subgroup computes of the tile.
layout(constant_id = 8) const uint PART_ROWS = 32;
layout(constant_id = 9) const uint PART_TOKENS = 32;
// Tiles in shared memory: with two, a slab needs one barrier. 0 stands for one, whose x is loaded when it is
// stored, which takes fewer registers.
layout(constant_id = 10) const uint BUFFERS = 2;

const uint ROW_PARTS = TILE_ROWS / PART_ROWS;
const uint SUBGROUPS = ROW_PARTS * (TILE_TOKENS / PART_TOKENS);
const uint LANES = SUBGROUPS * SUBGROUP;
const uint MATRICES_M = PART_ROWS / MATRIX_M;
const uint MATRICES_N = PART_TOKENS / MATRIX_N;
// Parts of rows of the weight, and slots of x, that an invocation brings.
const uint W_UNITS = (TILE_ROWS * 4 + LANES - 1) / LANES;
const uint X_UNITS = (TILE_TOKENS * SLOTS + LANES - 1) / LANES;
const bool W_EVEN = TILE_ROWS * 4 % LANES == 0;
const bool X_EVEN = TILE_TOKENS * SLOTS % LANES == 0;
const uint W_TILE = TILE_ROWS * SLOT_STRIDE;
const uint TILE = W_TILE + TILE_TOKENS * SLOT_STRIDE;
// Where a subgroup lays out its sums: PART_ROWS of MATRIX_N tokens.
const uint PATCH_STRIDE = PART_ROWS / 4 + 1;
const uint PATCH = MATRIX_N * PATCH_STRIDE;
const uint TILES = BUFFERS == 2 ? 2 * TILE : TILE;
const uint SHARED = TILES > SUBGROUPS * PATCH ? TILES : SUBGROUPS * PATCH;

shared uvec4 tiles[SHARED];

Raw w_raw[W_UNITS];
RawScales w_raw_scales[W_UNITS];
Scales w_scales[W_UNITS];
uvec4 x_raw[X_UNITS];

void load_w(uint slab, uint row0) {
    [[unroll]] for (uint i = 0; i < W_UNITS; i++) {
        uint unit = gl_LocalInvocationID.x + i * LANES;
        uint row = min(row0 + unit / 4, pc.rows - 1);
        w_raw[i] = load_raw(row, slab, unit & 3u);
        w_raw_scales[i] = load_scales(row, slab, unit & 3u);
    }
}

void load_x(uint slab, uint token0) {
    [[unroll]] for (uint i = 0; i < X_UNITS; i++) {
        uint unit = gl_LocalInvocationID.x + i * LANES;
        if (!X_EVEN) {
            unit = min(unit, TILE_TOKENS * SLOTS - 1);
        }
        x_raw[i] = Quads(pc.x).v[(slab * pc.x_stride + token0) * SLOTS + unit];
    }
}

void store_slab(uint slab, uint base) {
    uint lane = gl_LocalInvocationID.x & 3u;
    if (slab % LOAD_SLABS == 0) {
        [[unroll]] for (uint i = 0; i < W_UNITS; i++) {
            w_scales[i] = to_scales(w_raw_scales[i], lane);
        }
    }
    [[unroll]] for (uint i = 0; i < W_UNITS; i++) {
        uint unit = gl_LocalInvocationID.x + i * LANES;
        uvec4 first;
        uvec4 second;
        expand(w_raw[i], w_scales[i], lane, first, second);
        if (W_EVEN || unit < TILE_ROWS * 4) {
            uint place = base + (unit / 4) * SLOT_STRIDE;
            tiles[place + FIRST_SLOT(lane)] = first;
            tiles[place + SECOND_SLOT(lane)] = second;
        }
    }
    [[unroll]] for (uint i = 0; i < X_UNITS; i++) {
        uint unit = gl_LocalInvocationID.x + i * LANES;
        if (X_EVEN || unit < TILE_TOKENS * SLOTS) {
            tiles[base + W_TILE + (unit / SLOTS) * SLOT_STRIDE + unit % SLOTS] = x_raw[i];
        }
    }
}

void main() {
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    uint token0 = gl_WorkGroupID.x * TILE_TOKENS;
    uint row0 = gl_WorkGroupID.y * TILE_ROWS;
    if (token0 >= n) {
        return;
    }
    uint part_row = (gl_SubgroupID % ROW_PARTS) * PART_ROWS;
    uint part_token = (gl_SubgroupID / ROW_PARTS) * PART_TOKENS;
    MatrixC sums[MATRICES_M * MATRICES_N];
    [[unroll]] for (uint i = 0; i < MATRICES_M * MATRICES_N; i++) {
        sums[i] = MatrixC(0.0);
    }
    uint last = slabs() - 1;
    load_w(0, row0);
    load_x(0, token0);
    store_slab(0, 0);
    if (LOAD_SLABS == 1) {
        load_w(1, row0);
    }
    barrier();
    // What is stored behind the last slab, nothing reads.
    for (uint slab = 0; slab <= last; slab++) {
        uint next = slab + 1;
        if (BUFFERS != 0) {
            load_x(min(next, last), token0);
        }
        uint base = BUFFERS != 2 ? 0 : (slab & 1u) * TILE;
        [[unroll]] for (uint k = 0; k < STEPS_K; k++) {
            uint slot = k * MATRIX_K / 8;
            MatrixA a[MATRICES_M];
            [[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
                uint place = base + (part_row + i * MATRIX_M) * SLOT_STRIDE + slot;
                coopMatLoad(a[i], tiles, place, SLOT_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
            }
            [[unroll]] for (uint j = 0; j < MATRICES_N; j++) {
                MatrixB b;
                uint place = base + W_TILE + (part_token + j * MATRIX_N) * SLOT_STRIDE + slot;
                coopMatLoad(b, tiles, place, SLOT_STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
                [[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
                    sums[j * MATRICES_M + i] = coopMatMulAdd(a[i], b, sums[j * MATRICES_M + i]);
                }
            }
        }
        if (BUFFERS != 2) {
            barrier();
        }
        if (BUFFERS == 0) {
            load_x(min(next, last), token0);
        }
        store_slab(next, BUFFERS != 2 ? 0 : TILE - base);
        if ((next + 1) % LOAD_SLABS == 0 && next < last) {
            load_w(next + 1, row0);
        }
        barrier();
    }
    uint corner = gl_SubgroupID * PATCH;
    [[unroll]] for (uint j = 0; j < MATRICES_N; j++) {
        [[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
            uint place = corner + i * (MATRIX_M / 4);
            coopMatStore(sums[j * MATRICES_M + i], tiles, place, PATCH_STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
        }
        subgroupMemoryBarrierShared();
        subgroupBarrier();
        for (uint i = gl_SubgroupInvocationID; i < MATRIX_N * (PART_ROWS / 4); i += SUBGROUP) {
            uint token = i / (PART_ROWS / 4);
            uint quad = i % (PART_ROWS / 4);
            vec4 sum = uintBitsToFloat(tiles[corner + token * PATCH_STRIDE + quad]);
            store_sums(token0 + part_token + j * MATRIX_N + token, row0 + part_row + quad * 4, sum, n);
        }
        subgroupMemoryBarrierShared();
        subgroupBarrier();
    }
}
