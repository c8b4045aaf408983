// What the product kernels for one token share: x in shared memory, loaded once a workgroup. The including
// kernel declares `pc.x`, `pc.x_scales`, `pc.chunks` and CHUNKS, which is the same number.
#define STAGED_X
#include "dot.glsl"

// The first half of every chunk, then the second: neighbouring lanes read neighbouring banks.
shared uvec4 x_quants[2][CHUNKS];
shared vec2 x_scales[CHUNKS];

// All invocations call it.
void stage_x() {
    for (uint i = gl_LocalInvocationID.x; i < CHUNKS * 2; i += gl_WorkGroupSize.x) {
        x_quants[i % 2][i / 2] = SharedQuads(pc.x).v[i];
    }
    for (uint i = gl_LocalInvocationID.x; i < CHUNKS; i += gl_WorkGroupSize.x) {
        x_scales[i] = SharedPairs(pc.x_scales).v[i];
    }
    barrier();
}

QuantisedX staged_x(uint chunk) {
    QuantisedX x;
    x.q[0] = x_quants[0][chunk];
    x.q[1] = x_quants[1][chunk];
    x.scale = x_scales[chunk];
    return x;
}
