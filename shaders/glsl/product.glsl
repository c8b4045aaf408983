// What the product kernels share: y = x Wt (+ bias), rows of x being those of the step. Plain weights
// take x as it is; quantised ones take it as quants of 8 bits, in groups of a chunk (quantise.comp),
// unless the including kernel defines X_F32.
#include "common.glsl"
#extension GL_EXT_integer_dot_product : require

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

#include "weights.glsl"

#if defined(QUANTISED) && !defined(X_F32)
#define Chunk Quants

Chunk load_chunk(uint row, uint chunk) {
    return load_quants(row, chunk);
}

// Four products of signed bytes, added to `sum`.
int dot4(uint a, uint b, int sum) {
    return sum + dotPacked4x8EXT(int(a), int(b));
}

float scaled(Chunk w, ivec2 sums, vec2 x_scale) {
#ifdef FORMAT_Q6_K
    return x_scale.x * dot(w.scale, vec2(sums));
#elif defined(FORMAT_Q8_0)
    return x_scale.x * (w.scale.x * float(sums.x + sums.y));
#else
    return fma(x_scale.x * w.scale.x, float(sums.x + sums.y), x_scale.y * w.minimum);
#endif
}

// The part of row and token that lies in a chunk.
float chunk_dot(Chunk w, uint token, uint chunk) {
    uint block = token * pc.chunks + chunk;
    ivec2 sums = ivec2(0);
    [[unroll]] for (uint i = 0; i < 2; i++) {
        uvec4 x = Quads(pc.x).v[block * 2 + i];
        [[unroll]] for (uint j = 0; j < 4; j++) {
            sums[i] = dot4(w.q[4 * i + j], x[j], sums[i]);
        }
    }
    return scaled(w, sums, Pairs(pc.x_scales).v[block]);
}
#else
struct Chunk {
    vec4 w[8];
};

Chunk load_chunk(uint row, uint chunk) {
    Chunk loaded;
    decode_chunk(row, chunk, loaded.w);
    return loaded;
}

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

float chunk_dot(Chunk w, uint token, uint chunk) {
    vec4 sum = vec4(0.0);
    [[unroll]] for (uint i = 0; i < 8; i++) {
        sum = fma(w.w[i], load_x(token, chunk * CHUNK + 4 * i), sum);
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
