#version 460
// Reads a buffer once and leaves one sum per workgroup, so that no read can be dropped. For measuring.
// Neighbouring lanes read neighbouring 16 bytes. Grid: x = any.
#define WORKGROUP_SUM
#include "common.glsl"

layout(push_constant, scalar) uniform Push {
    uvec2 x;
    uvec2 y;
    uint quads;
} pc;

void main() {
    Quads x = Quads(pc.x);
    uint stride = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    uvec4 sum = uvec4(0);
    uint i = gl_GlobalInvocationID.x;
    for (; i + 3 * stride < pc.quads; i += 4 * stride) {
        uvec4 a = x.v[i];
        uvec4 b = x.v[i + stride];
        uvec4 c = x.v[i + 2 * stride];
        uvec4 d = x.v[i + 3 * stride];
        sum += (a + b) + (c + d);
    }
    for (; i < pc.quads; i += stride) {
        sum += x.v[i];
    }
    float whole = workgroup_sum(float(sum.x ^ sum.y ^ sum.z ^ sum.w));
    if (gl_LocalInvocationID.x == 0) {
        Floats(pc.y).v[gl_WorkGroupID.x] = whole;
    }
}
