// Products of quantised weights with quantised activations. The including kernel declares `pc.x`,
// `pc.x_scales` and `pc.chunks`, unless it defines STAGED_X and loads activations by itself.
#extension GL_EXT_integer_dot_product : require
#include "weights.glsl"

// 32 activations: their quants, then (scale, scale * sum of the quants).
struct QuantisedX {
    uvec4 q[2];
    vec2 scale;
};

#ifndef STAGED_X
QuantisedX load_quantised_x(uint token, uint chunk) {
    uint block = token * pc.chunks + chunk;
    QuantisedX x;
    x.q[0] = Quads(pc.x).v[block * 2];
    x.q[1] = Quads(pc.x).v[block * 2 + 1];
    x.scale = Pairs(pc.x_scales).v[block];
    return x;
}
#endif

// Four products of signed bytes, added to `sum`.
int dot4(uint a, uint b, int sum) {
    return sum + dotPacked4x8EXT(int(a), int(b));
}

float scaled(Quants w, ivec2 sums, vec2 x_scale) {
#ifdef FORMAT_Q6_K
    return x_scale.x * dot(w.scale, vec2(sums));
#elif defined(FORMAT_Q8_0)
    return x_scale.x * (w.scale.x * float(sums.x + sums.y));
#else
    return fma(x_scale.x * w.scale.x, float(sums.x + sums.y), x_scale.y * w.minimum);
#endif
}

// The part of row and token that lies in a chunk.
float quants_dot(Quants w, QuantisedX x) {
    ivec2 sums = ivec2(0);
    [[unroll]] for (uint i = 0; i < 2; i++) {
        [[unroll]] for (uint j = 0; j < 4; j++) {
            sums[i] = dot4(w.q[4 * i + j], x.q[i][j], sums[i]);
        }
    }
    return scaled(w, sums, x.scale);
}
