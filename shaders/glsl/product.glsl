// What the three product kernels share: y = x Wt (+ bias), rows of x being those of the step.
#include "common.glsl"

// True where the columns are no whole number of chunks (plain formats only): x is read one by one.
layout(constant_id = 2) const bool RAGGED = false;
// Rows of x that one invocation or workgroup works on.
layout(constant_id = 3) const uint TOKENS = 4;

layout(push_constant, scalar) uniform Push {
    uvec2 planes[4];
    uvec2 x;
    uvec2 y;
    uvec2 bias;          // 0 for none
    uvec2 step_address;
    uint header_word;
    uint max_rows;
    uint rows;           // of the weight
    uint columns;
    uint chunks;         // of a row of the weight
    uint y_stride;
    uint y_offset;
    float cap;           // 0 for none
} pc;

#include "weights.glsl"

vec4 load_x(uint token, uint column) {
    if (RAGGED) {
        Floats x = Floats(pc.x);
        uint base = token * pc.columns;
        vec4 value = vec4(0.0);
        [[unroll]] for (uint i = 0; i < 4; i++) {
            if (column + i < pc.columns) {
                value[i] = x.v[base + column + i];
            }
        }
        return value;
    }
    return Vec4s(pc.x).v[(token * pc.columns + column) >> 2];
}

void store_y(uint token, uint row, float value) {
    if ((pc.bias.x | pc.bias.y) != 0) {
        value += Floats(pc.bias).v[row];
    }
    Floats(pc.y).v[token * pc.y_stride + pc.y_offset + row] = soft_cap(value, pc.cap);
}
