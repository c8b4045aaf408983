#version 460
// Which elements of a matrix each invocation of a subgroup holds, which every device settles for itself: fills a
// matrix of each factor with the numbers of its elements and writes what the invocations find.
#include "common.glsl"
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require

layout(constant_id = 2) const uint MATRIX_M = 16;
layout(constant_id = 3) const uint MATRIX_N = 16;
layout(constant_id = 4) const uint MATRIX_K = 16;

layout(push_constant, scalar) uniform Push {
    uvec2 found;         // u32 [factor, invocation, MOST]: an element's number from 1 on, 0 for none
} pc;

// Components that are written of an invocation's: all or, where there are more, none.
const uint MOST = 16;

const uint ELEMENTS = (MATRIX_M > MATRIX_N ? MATRIX_M : MATRIX_N) * MATRIX_K;

shared uvec4 elements[ELEMENTS / 8];

void main() {
    for (uint i = gl_SubgroupInvocationID; i < ELEMENTS / 8; i += SUBGROUP) {
        [[unroll]] for (uint j = 0; j < 4; j++) {
            elements[i][j] = packHalf2x16(vec2(i * 8 + 2 * j + 1, i * 8 + 2 * j + 2));
        }
    }
    barrier();
    coopmat<float16_t, gl_ScopeSubgroup, MATRIX_M, MATRIX_K, gl_MatrixUseA> a;
    coopmat<float16_t, gl_ScopeSubgroup, MATRIX_K, MATRIX_N, gl_MatrixUseB> b;
    coopMatLoad(a, elements, 0, MATRIX_K / 8, gl_CooperativeMatrixLayoutRowMajor);
    coopMatLoad(b, elements, 0, MATRIX_K / 8, gl_CooperativeMatrixLayoutColumnMajor);
    Words found = Words(pc.found);
    uint of_a = gl_SubgroupInvocationID * MOST;
    uint of_b = (SUBGROUP + gl_SubgroupInvocationID) * MOST;
    [[unroll]] for (uint i = 0; i < MOST; i++) {
        found.v[of_a + i] = a.length() <= MOST && i < a.length() ? uint(a[i]) : 0;
        found.v[of_b + i] = b.length() <= MOST && i < b.length() ? uint(b[i]) : 0;
    }
}
