#version 460
// Some rows of x, by matrix instructions, where reading the weight takes the time: the subgroups of a
// workgroup share the columns, 256 at a time, and add up their sums at the end, so that few workgroups keep
// much of the weight on its way. A subgroup lays out a slab of the weight, as halves, and of x in its own part
// of shared memory. Grid: x = rows of x / TILE_TOKENS, y = rows / TILE_ROWS.
#include "matrix.glsl"

layout(constant_id = 8) const uint SUBGROUPS = 8;
// Slabs in a subgroup's shared memory: with two, one needs one barrier, and is laid out during the products
// of another. 0 stands for one, whose x is loaded when it is stored, which takes fewer registers.
layout(constant_id = 9) const uint BUFFERS = 1;

const uint MATRICES_M = TILE_ROWS / MATRIX_M;
const uint MATRICES_N = TILE_TOKENS / MATRIX_N;
// Parts of rows of the weight, and slots of x, that a lane brings.
const uint W_UNITS = TILE_ROWS * 4 / SUBGROUP;
const uint X_UNITS = TILE_TOKENS * SLOTS / SUBGROUP;
const uint W_TILE = TILE_ROWS * SLOT_STRIDE;
const uint TILE = W_TILE + TILE_TOKENS * SLOT_STRIDE;
const uint PATCH_STRIDE = TILE_ROWS / 4 + 1;
const uint PATCH = MATRIX_N * PATCH_STRIDE;
const uint TILES = BUFFERS == 2 ? 2 * TILE : TILE;
const uint LARGEST = TILES > PATCH ? TILES : PATCH;

shared uvec4 tiles[SUBGROUPS * LARGEST];

Raw w_raw[W_UNITS];
RawScales w_raw_scales[W_UNITS];
Scales w_scales[W_UNITS];
uvec4 x_raw[X_UNITS];

void load_w(uint slab, uint row0) {
    uint lane = gl_SubgroupInvocationID;
    [[unroll]] for (uint i = 0; i < W_UNITS; i++) {
        uint row = min(row0 + (lane + i * SUBGROUP) / 4, pc.rows - 1);
        w_raw[i] = load_raw(row, slab, lane & 3u);
        w_raw_scales[i] = load_scales(row, slab, lane & 3u);
    }
}

void load_x(uint slab, uint token0) {
    uint first = (slab * pc.x_stride + token0) * SLOTS + gl_SubgroupInvocationID;
    [[unroll]] for (uint i = 0; i < X_UNITS; i++) {
        x_raw[i] = Quads(pc.x).v[first + i * SUBGROUP];
    }
}

void store_slab(bool new_scales, uint base) {
    uint lane = gl_SubgroupInvocationID;
    if (new_scales) {
        [[unroll]] for (uint i = 0; i < W_UNITS; i++) {
            w_scales[i] = to_scales(w_raw_scales[i], lane & 3u);
        }
    }
    [[unroll]] for (uint i = 0; i < W_UNITS; i++) {
        uvec4 first;
        uvec4 second;
        expand(w_raw[i], w_scales[i], lane & 3u, first, second);
        uint place = base + (lane + i * SUBGROUP) / 4 * SLOT_STRIDE;
        tiles[place + FIRST_SLOT(lane & 3u)] = first;
        tiles[place + SECOND_SLOT(lane & 3u)] = second;
    }
    [[unroll]] for (uint i = 0; i < X_UNITS; i++) {
        uint unit = lane + i * SUBGROUP;
        tiles[base + W_TILE + unit / SLOTS * SLOT_STRIDE + unit % SLOTS] = x_raw[i];
    }
}

void main() {
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    uint token0 = gl_WorkGroupID.x * TILE_TOKENS;
    uint row0 = gl_WorkGroupID.y * TILE_ROWS;
    if (token0 >= n) {
        return;
    }
    MatrixC sums[MATRICES_M * MATRICES_N];
    [[unroll]] for (uint i = 0; i < MATRICES_M * MATRICES_N; i++) {
        sums[i] = MatrixC(0.0);
    }
    uint base = gl_SubgroupID * LARGEST;
    uint end = slabs();
    uint slab = gl_SubgroupID * 4;
    if (slab < end) {
        load_w(slab, row0);
        if (BUFFERS != 0) {
            load_x(slab, token0);
        }
    }
    // Every subgroup goes round as often as the first: Mesa 26.1's driver on the CPU takes a subgroup's barrier
    // for one of the workgroup.
    uint turns = (end + SUBGROUPS * 4 - 1) / (SUBGROUPS * 4) * 4;
    for (uint turn = 0; turn < turns; turn++) {
        bool mine = slab < end;
        uint tile = BUFFERS != 2 ? base : base + (turn & 1u) * TILE;
        if (BUFFERS == 0 && mine) {
            load_x(slab, token0);
        }
        slab += (turn & 3u) == 3 ? SUBGROUPS * 4 - 3 : 1;
        if (mine) {
            store_slab(turn % LOAD_SLABS == 0, tile);
            if (slab < end) {
                if ((turn + 1) % LOAD_SLABS == 0) {
                    load_w(slab, row0);
                }
                if (BUFFERS != 0) {
                    load_x(slab, token0);
                }
            }
        }
        subgroupMemoryBarrierShared();
        subgroupBarrier();
        if (mine) {
            [[unroll]] for (uint k = 0; k < STEPS_K; k++) {
                uint slot = k * MATRIX_K / 8;
                MatrixB b[MATRICES_N];
                [[unroll]] for (uint j = 0; j < MATRICES_N; j++) {
                    uint place = tile + W_TILE + j * MATRIX_N * SLOT_STRIDE + slot;
                    coopMatLoad(b[j], tiles, place, SLOT_STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
                }
                [[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
                    MatrixA a;
                    uint place = tile + i * MATRIX_M * SLOT_STRIDE + slot;
                    coopMatLoad(a, tiles, place, SLOT_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
                    [[unroll]] for (uint j = 0; j < MATRICES_N; j++) {
                        sums[j * MATRICES_M + i] = coopMatMulAdd(a, b[j], sums[j * MATRICES_M + i]);
                    }
                }
            }
        }
        if (BUFFERS != 2) {
            subgroupMemoryBarrierShared();
            subgroupBarrier();
        }
    }
    // The sums may lie where another lane still reads.
    subgroupMemoryBarrierShared();
    subgroupBarrier();
    [[unroll]] for (uint j = 0; j < MATRICES_N; j++) {
        [[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
            uint place = base + i * (MATRIX_M / 4);
            coopMatStore(sums[j * MATRICES_M + i], tiles, place, PATCH_STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
        }
        barrier();
        for (uint i = gl_LocalInvocationID.x; i < MATRIX_N * (TILE_ROWS / 4); i += gl_WorkGroupSize.x) {
            uint token = i / (TILE_ROWS / 4);
            uint quad = i % (TILE_ROWS / 4);
            vec4 sum = vec4(0.0);
            [[unroll]] for (uint g = 0; g < SUBGROUPS; g++) {
                sum += uintBitsToFloat(tiles[g * LARGEST + token * PATCH_STRIDE + quad]);
            }
            store_sums(token0 + j * MATRIX_N + token, row0 + quad * 4, sum, n);
        }
        barrier();
    }
}
