#version 460
// Rotates the q and k heads of a qkv row by position * inv_freq; v is copied unless it lies in place.
// An invocation turns one pair. Grid: x = pairs of a row / lanes, y = tokens.
//
// Vulkan promises sin and cos only near zero, and only to 2^-11. Positions reach a hundred thousand,
// so the angle is reduced here, in steps whose products are exact in f32 with or without fused
// multiply-add, and the two functions are polynomials on [-pi/4, pi/4].
#include "common.glsl"

layout(push_constant, scalar) uniform Push {
    uvec2 x;
    uvec2 y;
    uvec2 inv_freqs;
    uvec2 step_address;
    uint max_rows;
    uint positions_word;
    uint n_heads;
    uint n_kv_heads;
    uint head_dim;
    uint interleaved;
} pc;

// cos and sin of an angle >= 0.
vec2 cos_sin(float angle) {
    // The quadrant in two parts of few bits each; pi/2 in four of eight to twelve.
    float quadrant = floor(angle * 0.636619772 + 0.5);
    float high = floor(quadrant * (1.0 / 2048.0)) * 2048.0;
    float low = quadrant - high;
    precise float r = angle - high * 1.5703125;
    r = r - low * 1.5703125;
    r = r - high * 4.837512969970703e-4;
    r = r - low * 4.837512969970703e-4;
    r = r - high * 7.549789954891882e-8;
    r = r - low * 7.549789954891882e-8;
    float z = r * r;
    float s = r + r * z * (-1.6666654611e-1 + z * (8.3321608736e-3 + z * -1.9515295891e-4));
    float c = 1.0 - 0.5 * z + z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5));
    uint q = uint(quadrant) & 3u;
    float cosine = (q & 1u) == 0 ? c : s;
    float sine = (q & 1u) == 0 ? s : c;
    return vec2((q == 1 || q == 2) ? -cosine : cosine, q >= 2 ? -sine : sine);
}

void main() {
    uint n = rows_of_step(pc.step_address, 0, pc.max_rows);
    uint token = gl_WorkGroupID.y;
    uint half_dim = pc.head_dim / 2;
    uint pair = gl_GlobalInvocationID.x;
    uint head = pair / half_dim;
    uint i = pair - head * half_dim;
    if (token >= n || head >= pc.n_heads + 2 * pc.n_kv_heads) {
        return;
    }
    uint base = (token * (pc.n_heads + 2 * pc.n_kv_heads) + head) * pc.head_dim;
    bool interleaved = pc.interleaved != 0;
    uint first = base + (interleaved ? 2 * i : i);
    uint second = first + (interleaved ? 1 : half_dim);
    Floats x = Floats(pc.x);
    Floats y = Floats(pc.y);
    float a = x.v[first];
    float b = x.v[second];
    if (head < pc.n_heads + pc.n_kv_heads) {
        uint position = Words(pc.step_address).v[pc.positions_word + token];
        vec2 cs = cos_sin(float(position) * Floats(pc.inv_freqs).v[i]);
        float turned = a * cs.x - b * cs.y;
        b = b * cs.x + a * cs.y;
        a = turned;
    }
    y.v[first] = a;
    y.v[second] = b;
}
