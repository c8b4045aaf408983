#version 460
// Rows of x as halves for products by matrix instructions. A row is first multiplied by a power of two that
// brings its largest magnitude to at least 2^14 and below 2^15, because activations pass a half's range; its
// inverse is kept. The result lies as [slab of 64 columns, row, 64], padded with zeros to a multiple of 256
// columns, in the order that matrix_weights.glsl says. A workgroup a row. Grid: x = rows of x.
#include "common.glsl"

// True where the columns are no multiple of 4: x is read one by one.
layout(constant_id = 2) const bool RAGGED = false;
// Which columns a slab has.
layout(constant_id = 3) const bool NATURAL = false;

layout(push_constant, scalar) uniform Push {
    uvec2 x;             // f32 [rows, columns]
    uvec2 halves;
    uvec2 scales;
    uvec2 step_address;
    uint header_word;
    uint max_rows;
    uint columns;
    uint slabs;          // a multiple of 4
    uint stride;         // rows of x that are stored
} pc;

shared float largest_of[256];

vec4 load_x(uint row, uint column) {
    if (RAGGED) {
        vec4 value = vec4(0.0);
        [[unroll]] for (uint i = 0; i < 4; i++) {
            if (column + i < pc.columns) {
                value[i] = Floats(pc.x).v[row * pc.columns + column + i];
            }
        }
        return value;
    }
    return column < pc.columns ? Vec4s(pc.x).v[(row * pc.columns + column) >> 2] : vec4(0.0);
}

uvec2 to_halves(vec4 x) {
    return uvec2(packHalf2x16(x.xz), packHalf2x16(x.yw));
}

void main() {
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    uint row = gl_WorkGroupID.x;
    if (row >= n) {
        return;
    }
    vec4 most = vec4(0.0);
    for (uint unit = gl_LocalInvocationID.x; unit * 4 < pc.columns; unit += gl_WorkGroupSize.x) {
        most = max(most, abs(load_x(row, unit * 4)));
    }
    float largest = subgroupMax(max(max(most.x, most.y), max(most.z, most.w)));
    if (gl_WorkGroupSize.x > SUBGROUP) {
        if (subgroupElect()) {
            largest_of[gl_SubgroupID] = largest;
        }
        barrier();
        for (uint i = 0; i < gl_NumSubgroups; i++) {
            largest = max(largest, largest_of[i]);
        }
    }
    // 2^14 over the power of two below it, where both have an inverse.
    int exponent = clamp(141 - int(floatBitsToUint(largest) >> 23), -126, 126);
    float scale = uintBitsToFloat(uint(127 + exponent) << 23);
    for (uint unit = gl_LocalInvocationID.x; unit < pc.slabs * 8; unit += gl_WorkGroupSize.x) {
        // Neighbours write a slab's slots side by side, or read what does.
        uint slab = NATURAL ? unit / 8 : unit / 32 * 4 + unit % 4;
        uint slot = NATURAL ? unit % 8 : unit / 4 % 8;
        uint column = NATURAL ? unit * 8 : unit / 4 * 32 + unit % 4 * 4;
        uvec2 low = to_halves(load_x(row, column) * scale);
        uvec2 high = to_halves(load_x(row, column + (NATURAL ? 4 : 16)) * scale);
        QuadsOut(pc.halves).v[(slab * pc.stride + row) * 8 + slot] = uvec4(low, high);
    }
    if (gl_LocalInvocationID.x == 0) {
        Floats(pc.scales).v[row] = uintBitsToFloat(uint(127 - exponent) << 23);
    }
}
