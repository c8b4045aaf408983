#version 460
// Multiplies two matrices of small whole numbers that the lanes make as held.glsl says, so that the product tells
// whether they hold those elements. A subgroup.
#include "common.glsl"
#include "held.glsl"

layout(push_constant, scalar) uniform Push {
    uvec2 product;       // f32 [row of x, row of the weight]
} pc;

shared float product[16 * 8];

// The four columns of a lane, the quarter `part` of a row.
uvec2 numbers(uvec4 factors, uint row, uint part, uint modulus) {
    vec4 v;
    [[unroll]] for (uint i = 0; i < 4; i++) {
        uint column = 4 * part + i;
        v[i] = float((factors.x * row + factors.y * column + factors.z * row * column + factors.w) % modulus);
    }
    return uvec2(packHalf2x16(v.xy), packHalf2x16(v.zw));
}

void main() {
    uint row = gl_SubgroupInvocationID / 4;
    uint part = gl_SubgroupInvocationID % 4;
    const uvec4 WEIGHT = uvec4(7, 5, 1, 3);
    MatrixA a = held_of_weight(numbers(WEIGHT, row, part, 17), numbers(WEIGHT, row + 8, part, 17));
    MatrixB b = held_of_x(numbers(uvec4(3, 2, 1, 1), row, part, 19));
    MatrixC c = coopMatMulAdd(a, b, MatrixC(0.0));
    coopMatStore(c, product, 0, 16, gl_CooperativeMatrixLayoutColumnMajor);
    barrier();
    for (uint i = gl_SubgroupInvocationID; i < 16 * 8; i += SUBGROUP) {
        Floats(pc.product).v[i] = product[i];
    }
}
