// The elements that a lane holds of the factors of a matrix instruction, 16 rows of a weight by 16 columns and 8 rows
// of x by as many. Vulkan leaves them to the driver; where they are as here, which a device shows when it is
// opened (prove_held.comp), lanes make them by themselves, and neither factor passes through shared memory.
//
// Lane l holds of rows l / 4 and 8 + l / 4 of the weight, and of row l / 4 of x, the same four columns. Which they are
// does not matter: the order of columns within a product is free.
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require

#define MatrixA coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseA>
#define MatrixB coopmat<float16_t, gl_ScopeSubgroup, 16, 8, gl_MatrixUseB>
#define MatrixC coopmat<float, gl_ScopeSubgroup, 16, 8, gl_MatrixUseAccumulator>

MatrixA held_of_weight(uvec2 upper, uvec2 lower) {
    uint words[4] = uint[4](upper.x, upper.y, lower.x, lower.y);
    MatrixA a;
    [[unroll]] for (uint i = 0; i < 4; i++) {
        f16vec2 pair = unpackFloat2x16(words[i]);
        a[2 * i] = pair.x;
        a[2 * i + 1] = pair.y;
    }
    return a;
}

MatrixB held_of_x(uvec2 halves) {
    MatrixB b;
    [[unroll]] for (uint i = 0; i < 2; i++) {
        f16vec2 pair = unpackFloat2x16(halves[i]);
        b[2 * i] = pair.x;
        b[2 * i + 1] = pair.y;
    }
    return b;
}
