#version 460
// For drivers that run on the CPU: a lane owns a row of the weight and TOKENS rows of x. The weight is
// decoded once a tile; x is the same for all lanes, so its loads become scalar; no shared memory, no
// barrier, and no integer dot product: all three cost such drivers dearly. Grid: x = rows / lanes,
// y = tokens / TOKENS.
#define X_F32
#include "product.glsl"

void main() {
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    uint token0 = gl_WorkGroupID.y * TOKENS;
    if (token0 >= n) {
        return;
    }
    uint row = gl_GlobalInvocationID.x;
    uint weight_row = min(row, pc.rows - 1);
    float acc[TOKENS];
    [[unroll]] for (uint t = 0; t < TOKENS; t++) {
        acc[t] = 0.0;
    }
    for (uint chunk = 0; chunk < pc.chunks; chunk++) {
        Chunk w = load_chunk(weight_row, chunk);
        [[unroll]] for (uint t = 0; t < TOKENS; t++) {
            acc[t] += chunk_dot(w, load_x(min(token0 + t, n - 1), chunk));
        }
    }
    if (row >= pc.rows) {
        return;
    }
    [[unroll]] for (uint t = 0; t < TOKENS; t++) {
        if (token0 + t < n) {
            store_y(token0 + t, row, acc[t]);
        }
    }
}
