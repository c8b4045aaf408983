#version 460
// Some rows of x, by matrix instructions, where a device has told which elements of a matrix each invocation holds
// (matrix_layout.comp): an invocation decodes just those weights, so that they never pass through shared memory. The
// order of columns within a product is free, so it takes neighbouring ones, 256 columns of a row in four
// slabs at a time. x goes through shared memory, for the subgroups stand beside each other along the rows of the weight.
// Workgroups may share the columns of a tile: they leave sums, and who finishes last adds them up. Grid: x = rows of
// x / TILE_TOKENS, y = rows / TILE_ROWS, z = SPLITS.
#define SPLIT_TILES
#include "matrix.glsl"

// Rows of the weight that a subgroup computes.
layout(constant_id = 8) const uint PART_ROWS = 32;
// Slabs of x that are stored at a time: 1, 2 or 4. There is room for twice as many, to store some while others are read.
layout(constant_id = 9) const uint STAGE = 4;
// Workgroups that share a tile.
layout(constant_id = 10) const uint SPLITS = 1;
// Neighbouring invocations that share a row of a matrix, and rows that an invocation has a part of.
layout(constant_id = 11) const uint ROW_LANES = 4;
layout(constant_id = 12) const uint LANE_ROWS = 2;
// Whether pairs of components alternate between these rows: in the weight's matrices, in those of x.
layout(constant_id = 13) const bool W_ALTERNATES = false;
layout(constant_id = 14) const bool X_ALTERNATES = false;

layout(buffer_reference, scalar, buffer_reference_align = 16) coherent buffer Sums { vec4 v[]; };

const uint SUBGROUPS = TILE_ROWS / PART_ROWS;
const uint LANES = SUBGROUPS * SUBGROUP;
const uint MATRICES_M = PART_ROWS / MATRIX_M;
const uint MATRICES_N = TILE_TOKENS / MATRIX_N;
// Of a slab's row: slots that an invocation has, and the quarters that it decodes for them.
const uint OWN_SLOTS = SLOTS / ROW_LANES;
const uint QUARTERS = (OWN_SLOTS + 1) / 2;
const uint WORDS = 4 * OWN_SLOTS;
// Components that an invocation has of a row of one matrix.
const uint OWN = MATRIX_K / ROW_LANES;
// What an invocation loads of a row's 256 columns, and of how many rows' quarters.
const uint LOADS = 4 / LOAD_SLABS;
const uint BROUGHT = MATRICES_M * LANE_ROWS * QUARTERS;

const uint SLAB = TILE_TOKENS * SLOTS;
const uint X_UNITS = (STAGE * SLAB + LANES - 1) / LANES;
const bool X_EVEN = STAGE * SLAB % LANES == 0;
const uint STAGED = STAGE * TILE_TOKENS * SLOT_STRIDE;
// Where a subgroup lays out its sums: PART_ROWS of MATRIX_N tokens.
const uint PATCH_STRIDE = PART_ROWS / 4 + 1;
const uint PATCH = MATRIX_N * PATCH_STRIDE;
const uint SHARED = 2 * STAGED > SUBGROUPS * PATCH ? 2 * STAGED : SUBGROUPS * PATCH;

shared uvec4 tiles[SHARED];
shared bool is_last;

Raw w_next[BROUGHT * LOADS];
RawScales w_next_scales[BROUGHT * LOADS];
uvec4 x_next[X_UNITS];

uint quarter(uint i) {
    return gl_SubgroupInvocationID % ROW_LANES * OWN_SLOTS / 2 + i;
}

uint slot(uint i) {
    uint of_quarter = OWN_SLOTS == 1 ? gl_SubgroupInvocationID & 1u : i & 1u;
    return of_quarter == 0 ? FIRST_SLOT(quarter(i / 2)) : SECOND_SLOT(quarter(i / 2));
}

// The `i`-th row that an invocation has of a matrix of so many.
uint row_of(uint rows, uint i) {
    return i * (rows / LANE_ROWS) + gl_SubgroupInvocationID / ROW_LANES % (rows / LANE_ROWS);
}

// Which of the halves that an invocation has of a slab a component of the `k`-th matrix is.
uint half_of(bool alternates, uint k, uint component) {
    uint row = alternates ? component / 2 % LANE_ROWS : component / OWN;
    uint place = alternates ? component / 2 / LANE_ROWS * 2 + component % 2 : component % OWN;
    return row * WORDS * 2 + k * OWN + place;
}

void load_w(uint run, uint row0) {
    [[unroll]] for (uint m = 0; m < MATRICES_M; m++) {
        [[unroll]] for (uint r = 0; r < LANE_ROWS; r++) {
            uint row = min(row0 + m * MATRIX_M + row_of(MATRIX_M, r), pc.rows - 1);
            [[unroll]] for (uint q = 0; q < QUARTERS; q++) {
                [[unroll]] for (uint l = 0; l < LOADS; l++) {
                    uint i = ((m * LANE_ROWS + r) * QUARTERS + q) * LOADS + l;
                    w_next[i] = load_raw(row, run * 4 + l, quarter(q));
                    w_next_scales[i] = load_scales(row, run * 4 + l, quarter(q));
                }
            }
        }
    }
}

void load_x(uint slab, uint token0) {
    [[unroll]] for (uint i = 0; i < X_UNITS; i++) {
        uint unit = gl_LocalInvocationID.x + i * LANES;
        if (!X_EVEN) {
            unit = min(unit, STAGE * SLAB - 1);
        }
        x_next[i] = Quads(pc.x).v[((slab + unit / SLAB) * pc.x_stride + token0) * SLOTS + unit % SLAB];
    }
}

void store_x(uint base) {
    [[unroll]] for (uint i = 0; i < X_UNITS; i++) {
        uint unit = gl_LocalInvocationID.x + i * LANES;
        if (X_EVEN || unit < STAGE * SLAB) {
            tiles[base + unit / SLOTS * SLOT_STRIDE + unit % SLOTS] = x_next[i];
        }
    }
}

void main() {
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    uint token0 = gl_WorkGroupID.x * TILE_TOKENS;
    uint part_row = gl_SubgroupID * PART_ROWS;
    uint row0 = gl_WorkGroupID.y * TILE_ROWS;
    if (token0 >= n) {
        return;
    }
    MatrixC sums[MATRICES_M * MATRICES_N];
    [[unroll]] for (uint i = 0; i < MATRICES_M * MATRICES_N; i++) {
        sums[i] = MatrixC(0.0);
    }
    uint runs = slabs() / 4;
    uint base = 0;
    uint first = min(gl_WorkGroupID.z, runs - 1);
    load_x(first * 4, token0);
    store_x(base);
    load_w(first, row0 + part_row);
    for (uint run = gl_WorkGroupID.z; run < runs; run += SPLITS) {
        // Behind the last run, what is brought is the last of all, which nothing reads.
        uint next = min(run + SPLITS, runs - 1);
        Raw w[BROUGHT * LOADS];
        Scales scales[BROUGHT * LOADS];
        [[unroll]] for (uint i = 0; i < BROUGHT * LOADS; i++) {
            w[i] = w_next[i];
            scales[i] = to_scales(w_next_scales[i], quarter(i / LOADS % QUARTERS));
        }
        // Not unrolled: the drivers' compilers would not, and indices by `slab` would then send `w` to memory.
        [[dont_unroll]] for (uint slab = 0; slab < 4; slab++) {
            if (slab % STAGE == 0) {
                barrier();
                // x first, because what is loaded later returns later.
                load_x(slab + STAGE < 4 ? run * 4 + slab + STAGE : next * 4, token0);
                if (slab + STAGE == 4) {
                    load_w(next, row0 + part_row);
                }
            }
            uint x_words[MATRICES_N * LANE_ROWS * WORDS];
            uint tile = base + slab % STAGE * (TILE_TOKENS * SLOT_STRIDE);
            [[unroll]] for (uint j = 0; j < MATRICES_N * LANE_ROWS; j++) {
                uint token = j / LANE_ROWS * MATRIX_N + row_of(MATRIX_N, j % LANE_ROWS);
                [[unroll]] for (uint i = 0; i < OWN_SLOTS; i++) {
                    uvec4 halves = tiles[tile + token * SLOT_STRIDE + slot(i)];
                    [[unroll]] for (uint word = 0; word < 4; word++) {
                        x_words[j * WORDS + i * 4 + word] = halves[word];
                    }
                }
            }
            [[unroll]] for (uint m = 0; m < MATRICES_M; m++) {
                uint w_words[LANE_ROWS * WORDS];
                [[unroll]] for (uint r = 0; r < LANE_ROWS * QUARTERS; r++) {
                    uint q = r % QUARTERS;
                    uint i = (m * LANE_ROWS * QUARTERS + r) * LOADS;
                    uvec4 both[2];
                    expand(w[i], scales[i], quarter(q), both[0], both[1]);
                    // What was loaded for the next slab comes to the front.
                    [[unroll]] for (uint l = 1; l < LOADS; l++) {
                        w[i + l - 1] = w[i + l];
                        scales[i + l - 1] = scales[i + l];
                    }
                    if (OWN_SLOTS == 1) {
                        both[0] = (gl_SubgroupInvocationID & 1u) == 0 ? both[0] : both[1];
                    }
                    [[unroll]] for (uint word = 0; word < 4 * min(OWN_SLOTS, 2); word++) {
                        w_words[r / QUARTERS * WORDS + q * 8 + word] = both[word / 4][word % 4];
                    }
                }
                [[unroll]] for (uint k = 0; k < STEPS_K; k++) {
                    MatrixA a;
                    [[unroll]] for (uint c = 0; c < LANE_ROWS * OWN; c++) {
                        uint i = half_of(W_ALTERNATES, k, c);
                        a[c] = unpackFloat2x16(w_words[i / 2])[i % 2];
                    }
                    [[unroll]] for (uint j = 0; j < MATRICES_N; j++) {
                        MatrixB b;
                        [[unroll]] for (uint c = 0; c < LANE_ROWS * OWN; c++) {
                            uint i = half_of(X_ALTERNATES, k, c);
                            b[c] = unpackFloat2x16(x_words[j * LANE_ROWS * WORDS + i / 2])[i % 2];
                        }
                        sums[j * MATRICES_M + m] = coopMatMulAdd(a, b, sums[j * MATRICES_M + m]);
                    }
                }
            }
            if (slab % STAGE == STAGE - 1) {
                base = STAGED - base;
                store_x(base);
            }
        }
    }
    // The sums lie where others may still read x.
    barrier();
    const uint QUADS = TILE_ROWS / 4;
    uint tile = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    uint corner = gl_SubgroupID * PATCH;
    [[unroll]] for (uint j = 0; j < MATRICES_N; j++) {
        [[unroll]] for (uint m = 0; m < MATRICES_M; m++) {
            uint place = corner + m * (MATRIX_M / 4);
            coopMatStore(sums[j * MATRICES_M + m], tiles, place, PATCH_STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
        }
        subgroupMemoryBarrierShared();
        subgroupBarrier();
        for (uint i = gl_SubgroupInvocationID; i < MATRIX_N * (PART_ROWS / 4); i += SUBGROUP) {
            uint token = j * MATRIX_N + i / (PART_ROWS / 4);
            uint quad = i % (PART_ROWS / 4);
            vec4 sum = uintBitsToFloat(tiles[corner + i / (PART_ROWS / 4) * PATCH_STRIDE + quad]);
            if (SPLITS == 1) {
                store_sums(token0 + token, row0 + part_row + quad * 4, sum, n);
            } else {
                uint row = (tile * SPLITS + gl_WorkGroupID.z) * TILE_TOKENS + token;
                Sums(pc.sums).v[row * QUADS + part_row / 4 + quad] = sum;
            }
        }
        subgroupMemoryBarrierShared();
        subgroupBarrier();
    }
    if (SPLITS == 1) {
        return;
    }
    // What this workgroup wrote is there before it counts; who counts last sees what all wrote.
    memoryBarrierBuffer();
    barrier();
    if (gl_LocalInvocationID.x == 0) {
        Words counter = Words(advance(pc.counters, 4 * tile));
        is_last = atomicAdd(counter.v[0], 1) + 1 == SPLITS;
        if (is_last) {
            counter.v[0] = 0;
        }
    }
    memoryBarrierBuffer();
    barrier();
    if (!is_last) {
        return;
    }
    for (uint i = gl_LocalInvocationID.x; i < TILE_TOKENS * QUADS; i += LANES) {
        vec4 sum = vec4(0.0);
        for (uint split = 0; split < SPLITS; split++) {
            sum += Sums(pc.sums).v[(tile * SPLITS + split) * TILE_TOKENS * QUADS + i];
        }
        store_sums(token0 + i / QUADS, row0 + i % QUADS * 4, sum, n);
    }
}
