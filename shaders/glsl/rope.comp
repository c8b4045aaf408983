#version 460
// Rotates the q and k heads of a qkv row by position * inv_freq; v is copied unless it lies in place.
// An invocation turns one pair. Grid: x = pairs of a row / lanes, y = tokens.
#include "common.glsl"
#include "rope.glsl"

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
        vec2 pair = turned(a, b, position, Floats(pc.inv_freqs).v[i]);
        a = pair.x;
        b = pair.y;
    }
    y.v[first] = a;
    y.v[second] = b;
}
