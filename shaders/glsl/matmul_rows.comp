#version 460
// For drivers that run on the CPU: a lane owns a row of the weight and TOKENS rows of x. The weight is
// decoded once a tile; x is the same for all lanes, so its loads become scalar; no shared memory, no
// barrier, both of which cost such drivers dearly. Grid: x = rows / lanes, y = tokens / TOKENS.
#include "product.glsl"

void main() {
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    uint token0 = gl_WorkGroupID.y * TOKENS;
    if (token0 >= n) {
        return;
    }
    uint row = gl_GlobalInvocationID.x;
    uint weight_row = min(row, pc.rows - 1);
    // One accumulator a token hides the latency of the additions only from four tokens on.
    const uint SPLIT = TOKENS < 4 ? 4 : 1;
    float acc[TOKENS * SPLIT];
    [[unroll]] for (uint i = 0; i < TOKENS * SPLIT; i++) {
        acc[i] = 0.0;
    }
    for (uint chunk = 0; chunk < pc.chunks; chunk++) {
        vec4 w[8];
        decode_chunk(weight_row, chunk, w);
        [[unroll]] for (uint i = 0; i < 8; i++) {
            [[unroll]] for (uint t = 0; t < TOKENS; t++) {
                vec4 x = load_x(min(token0 + t, n - 1), chunk * CHUNK + 4 * i);
                [[unroll]] for (uint j = 0; j < 4; j++) {
                    uint a = t * SPLIT + j % SPLIT;
                    acc[a] = fma(w[i][j], x[j], acc[a]);
                }
            }
        }
    }
    if (row >= pc.rows) {
        return;
    }
    [[unroll]] for (uint t = 0; t < TOKENS; t++) {
        float value = 0.0;
        [[unroll]] for (uint j = 0; j < SPLIT; j++) {
            value += acc[t * SPLIT + j];
        }
        if (token0 + t < n) {
            store_y(token0 + t, row, value);
        }
    }
}
