// What the products by matrix instructions share: y = x Wt (+ bias) with both factors as halves and sums
// in f32. How x lies, halves.glsl says: times a power of two for each row, by which the result is divided.
#include "common.glsl"
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require

// One matrix instruction: rows of the weight, rows of x, columns.
layout(constant_id = 2) const uint MATRIX_M = 16;
layout(constant_id = 3) const uint MATRIX_N = 16;
layout(constant_id = 4) const uint MATRIX_K = 16;
// What a workgroup computes: rows of the weight, rows of x.
layout(constant_id = 5) const uint TILE_ROWS = 64;
layout(constant_id = 6) const uint TILE_TOKENS = 64;
// Which columns a slab has, see matrix_weights.glsl.
layout(constant_id = 7) const bool NATURAL = false;

layout(push_constant, scalar) uniform Push {
    uvec2 planes[4];
    uvec2 x;
    uvec2 x_scales;      // what to multiply each row of the result by
    uvec2 y;
    uvec2 bias;          // 0 for none
    uvec2 step_address;
    uint header_word;
    uint max_rows;
    uint rows;           // of the weight
    uint chunks;         // of a row of the weight
    uint x_stride;       // rows of x that are stored, a multiple of TILE_TOKENS
    uint y_stride;
    uint y_offset;
    float cap;           // 0 for none
#ifdef SPLIT_TILES
    uvec2 sums;          // vec4 [tile, split, row of x, rows / 4]
    uvec2 counters;      // u32 [tile], 0 between launches
#endif
} pc;

#include "matrix_weights.glsl"

layout(buffer_reference, scalar, buffer_reference_align = 16) writeonly buffer Vec4sOut { vec4 v[]; };

// 16-byte slots of a slab's 64 halves in a tile, and a pad that spreads rows over the banks.
#define SLOTS 8
#define SLOT_STRIDE 9
#define STEPS_K (64 / MATRIX_K)

#define MatrixA coopmat<float16_t, gl_ScopeSubgroup, MATRIX_M, MATRIX_K, gl_MatrixUseA>
#define MatrixB coopmat<float16_t, gl_ScopeSubgroup, MATRIX_K, MATRIX_N, gl_MatrixUseB>
#define MatrixC coopmat<float, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator>

uint slabs() {
    return (pc.chunks + 7) / 8 * 4;
}

float finished(float sum, float scale, uint row) {
    float value = sum * scale;
    if ((pc.bias.x | pc.bias.y) != 0) {
        value += Floats(pc.bias).v[row];
    }
    return soft_cap(value, pc.cap);
}

// Four rows of the weight from `row` on, of one row of x. Places outside are left out.
void store_sums(uint token, uint row, vec4 sums, uint n) {
    if (token >= n || row >= pc.rows) {
        return;
    }
    float scale = Floats(pc.x_scales).v[token];
    uint place = token * pc.y_stride + pc.y_offset + row;
    // All four together where they lie so.
    if (((pc.y_stride | pc.y_offset | pc.rows) & 3u) == 0) {
        vec4 value;
        [[unroll]] for (uint i = 0; i < 4; i++) {
            value[i] = finished(sums[i], scale, row + i);
        }
        Vec4sOut(pc.y).v[place >> 2] = value;
        return;
    }
    [[unroll]] for (uint i = 0; i < 4; i++) {
        if (row + i < pc.rows) {
            Floats(pc.y).v[place + i] = finished(sums[i], scale, row + i);
        }
    }
}
