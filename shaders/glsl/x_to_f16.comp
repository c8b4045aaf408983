#version 460
// Rows of x as halves (halves.glsl), or what an activation makes of rows of [gate | up]. A workgroup a row, which
// it keeps in registers. Grid: x = rows of x.
#define WORKGROUP_SUM
#include "common.glsl"
#include "activation.glsl"

// True where the columns are no multiple of 4: x is read one by one.
layout(constant_id = 2) const bool RAGGED = false;
layout(constant_id = 3) const bool NATURAL = false;
// Slots that an invocation holds.
layout(constant_id = 4) const uint HELD = 2;
layout(constant_id = 5) const bool ACTIVATE = false;
layout(constant_id = 6) const bool GELU = false;

layout(push_constant, scalar) uniform Push {
    uvec2 x;             // f32 [rows, columns], or [rows, 2, columns]
    uvec2 halves;
    uvec2 scales;        // one over the power of two
    uvec2 step_address;
    uint header_word;
    uint max_rows;
    uint columns;
    uint slabs;          // a multiple of 4
    uint stride;         // rows of x that are stored
} pc;

#include "halves.glsl"

// Four columns of a row of floats that starts at `row0`; zeros behind its end.
vec4 load4(uint row0, uint column) {
    vec4 value = vec4(0.0);
    if (RAGGED) {
        [[unroll]] for (uint i = 0; i < 4; i++) {
            if (column + i < pc.columns) {
                value[i] = Floats(pc.x).v[row0 + column + i];
            }
        }
        return value;
    }
    return column < pc.columns ? Vec4s(pc.x).v[(row0 + column) >> 2] : value;
}

vec4 load_x(uint row, uint column) {
    if (!ACTIVATE) {
        return load4(row * pc.columns, column);
    }
    vec4 value = load4((row * 2 + 1) * pc.columns, column);
    vec4 gate = load4(row * 2 * pc.columns, column);
    [[unroll]] for (uint i = 0; i < 4; i++) {
        value[i] *= activated(gate[i], GELU);
    }
    return value;
}

void main() {
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    uint row = gl_WorkGroupID.x;
    if (row >= n) {
        return;
    }
    vec4 low[HELD];
    vec4 high[HELD];
    float largest = 0.0;
    // Neighbours write a slab's slots side by side, or read what does.
    [[unroll]] for (uint i = 0; i < HELD; i++) {
        uint unit = gl_LocalInvocationID.x + i * gl_WorkGroupSize.x;
        uint column = NATURAL ? unit * 8 : unit / 4 * 32 + unit % 4 * 4;
        low[i] = load_x(row, column);
        high[i] = load_x(row, column + (NATURAL ? 4 : 16));
        vec4 most = max(abs(low[i]), abs(high[i]));
        largest = max(largest, max(max(most.x, most.y), max(most.z, most.w)));
    }
    int exponent = exponent_for(workgroup_max(largest));
    float scale = power_of_two(exponent);
    [[unroll]] for (uint i = 0; i < HELD; i++) {
        uint unit = gl_LocalInvocationID.x + i * gl_WorkGroupSize.x;
        if (unit < pc.slabs * 8) {
            uint slab = NATURAL ? unit / 8 : unit / 32 * 4 + unit % 4;
            uint slot = NATURAL ? unit % 8 : unit / 4 % 8;
            uvec4 halves = uvec4(to_halves(low[i] * scale), to_halves(high[i] * scale));
            QuadsOut(pc.halves).v[place_of_slot(pc.stride, slab, row, slot)] = halves;
        }
    }
    if (gl_LocalInvocationID.x == 0) {
        Floats(pc.scales).v[row] = power_of_two(-exponent);
    }
}
