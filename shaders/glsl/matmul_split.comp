#version 460
// Some rows of x, by matrix instructions, where reading the weight takes the time: the subgroups of a
// workgroup share the columns, DEPTH steps of 32 at a time, and add up their sums at the end, so that few
// workgroups keep much of the weight on its way. A subgroup lays out what it decodes in its own part of
// shared memory; x is read where it lies. Grid: x = rows of x / TILE_TOKENS, y = rows / TILE_ROWS.
#include "matrix.glsl"

layout(constant_id = 7) const uint SUBGROUPS = 8;
layout(constant_id = 8) const uint DEPTH = 2;

const uint MATRICES_M = TILE_ROWS / MATRIX_M;
const uint MATRICES_N = TILE_TOKENS / MATRIX_N;
const uint UNITS = TILE_ROWS * 2 / SUBGROUP;
const uint SPANS = (DEPTH + SCALES_SPAN - 1) / SCALES_SPAN;
const uint W_TILE = TILE_ROWS * SLOT_STRIDE;
const uint PATCH_STRIDE = TILE_ROWS / 4 + 1;
const uint PATCH = MATRIX_N * PATCH_STRIDE;
const uint LARGEST = DEPTH * W_TILE > PATCH ? DEPTH * W_TILE : PATCH;

shared uvec4 tiles[SUBGROUPS * LARGEST];

Raw w_raw[DEPTH * UNITS];
Scales w_scales[SPANS * UNITS];
uint w_row[UNITS];

void load_steps(uint first_chunk) {
    uint part = gl_SubgroupInvocationID & 1u;
    [[unroll]] for (uint d = 0; d < DEPTH; d++) {
        uint chunk = min(first_chunk + d, pc.chunks - 1);
        [[unroll]] for (uint i = 0; i < UNITS; i++) {
            w_raw[d * UNITS + i] = load_raw(w_row[i], chunk, part);
            if (d % SCALES_SPAN == 0) {
                w_scales[d / SCALES_SPAN * UNITS + i] = load_scales(w_row[i], chunk);
            }
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
    uint part = gl_SubgroupInvocationID & 1u;
    [[unroll]] for (uint i = 0; i < UNITS; i++) {
        w_row[i] = min(row0 + (gl_SubgroupInvocationID + i * SUBGROUP) / 2, pc.rows - 1);
    }
    MatrixC sums[MATRICES_M * MATRICES_N];
    [[unroll]] for (uint i = 0; i < MATRICES_M * MATRICES_N; i++) {
        sums[i] = MatrixC(0.0);
    }
    uint base = gl_SubgroupID * LARGEST;
    load_steps(gl_SubgroupID * DEPTH);
    // Every subgroup goes round as often as the first: Mesa 26.1's driver on the CPU takes a subgroup's barrier
    // for one of the workgroup.
    for (uint round = 0; round < pc.chunks; round += SUBGROUPS * DEPTH) {
        uint first_chunk = round + gl_SubgroupID * DEPTH;
        [[unroll]] for (uint d = 0; d < DEPTH; d++) {
            [[unroll]] for (uint i = 0; i < UNITS; i++) {
                uint place = base + d * W_TILE + (gl_SubgroupInvocationID + i * SUBGROUP) / 2 * SLOT_STRIDE;
                uvec4 first;
                uvec4 second;
                expand(w_raw[d * UNITS + i], w_scales[d / SCALES_SPAN * UNITS + i], first_chunk + d, first, second);
                tiles[place + FIRST_SLOT(part)] = first;
                tiles[place + SECOND_SLOT(part)] = second;
            }
        }
        load_steps(first_chunk + SUBGROUPS * DEPTH);
        subgroupMemoryBarrierShared();
        subgroupBarrier();
        [[unroll]] for (uint d = 0; d < DEPTH; d++) {
            uint chunk = first_chunk + d;
            if (chunk < pc.chunks) {
                [[unroll]] for (uint k = 0; k < STEPS_K; k++) {
                    uint slot = k * MATRIX_K / 8;
                    uvec2 source = step_source(chunk, slot);
                    MatrixB b[MATRICES_N];
                    [[unroll]] for (uint j = 0; j < MATRICES_N; j++) {
                        uint from = (source.x * pc.x_stride + token0 + j * MATRIX_N) * SLOTS + source.y;
                        coopMatLoad(b[j], Tiles(pc.x).v, from, SLOTS, gl_CooperativeMatrixLayoutColumnMajor);
                    }
                    [[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
                        MatrixA a;
                        uint place = base + d * W_TILE + i * MATRIX_M * SLOT_STRIDE + slot;
                        coopMatLoad(a, tiles, place, SLOT_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
                        [[unroll]] for (uint j = 0; j < MATRICES_N; j++) {
                            sums[j * MATRICES_M + i] = coopMatMulAdd(a, b[j], sums[j * MATRICES_M + i]);
                        }
                    }
                }
            }
        }
        subgroupMemoryBarrierShared();
        subgroupBarrier();
    }
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
