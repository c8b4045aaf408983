// What the product kernels share: y = x Wt (+ bias), rows of x being those of the step. Plain weights
// take x as it is; quantised ones take it as quants of 8 bits, in groups of a chunk (quantise.comp),
// unless the including kernel defines X_F32.
#include "common.glsl"

// True where the columns are no whole number of chunks (plain formats only): x is read one by one.
layout(constant_id = 2) const bool RAGGED = false;
// Rows of x that one invocation or workgroup works on.
layout(constant_id = 3) const uint TOKENS = 4;

layout(push_constant, scalar) uniform Push {
    uvec2 planes[4];
    uvec2 x;             // f32, or quants
    uvec2 x_scales;      // of quants: (scale, scale * sum of the quants) of each chunk
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

#if !defined(FORMAT_F32) && !defined(FORMAT_F16) && !defined(FORMAT_BF16) && !defined(X_F32)
#define QUANTISED_X
#include "dot.glsl"
#define Chunk Quants
#define X QuantisedX

Chunk load_chunk(uint row, uint chunk) {
    return load_quants(pc.planes, row, chunk);
}

X load_x(uint token, uint chunk) {
    return load_quantised_x(token, chunk);
}

float chunk_dot(Chunk w, X x) {
    return quants_dot(w, x);
}
#else
#include "weights.glsl"

struct Chunk {
    vec4 w[8];
};

Chunk load_chunk(uint row, uint chunk) {
    Chunk loaded;
    decode_chunk(pc.planes, row, chunk, loaded.w);
    return loaded;
}

// Four columns of x.
vec4 load_x4(uint token, uint column) {
    if (RAGGED) {
        uint base = token * pc.columns;
        vec4 value = vec4(0.0);
        [[unroll]] for (uint i = 0; i < 4; i++) {
            if (column + i < pc.columns) {
                value[i] = Floats(pc.x).v[base + column + i];
            }
        }
        return value;
    }
    return Vec4s(pc.x).v[(token * pc.columns + column) >> 2];
}

struct X {
    vec4 v[8];
};

X load_x(uint token, uint chunk) {
    X x;
    [[unroll]] for (uint i = 0; i < 8; i++) {
        x.v[i] = load_x4(token, chunk * CHUNK + 4 * i);
    }
    return x;
}

float chunk_dot(Chunk w, X x) {
    vec4 sum = vec4(0.0);
    [[unroll]] for (uint i = 0; i < 8; i++) {
        sum = fma(w.w[i], x.v[i], sum);
    }
    return (sum.x + sum.y) + (sum.z + sum.w);
}
#endif

void store_y(uint token, uint row, float value) {
    if ((pc.bias.x | pc.bias.y) != 0) {
        value += Floats(pc.bias).v[row];
    }
    Floats(pc.y).v[token * pc.y_stride + pc.y_offset + row] = soft_cap(value, pc.cap);
}
