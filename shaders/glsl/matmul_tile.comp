#version 460
// Many tokens and plain weights, on a GPU: a workgroup of 128 computes 64 rows by 32 tokens, 4 by 4 an invocation, from
// tiles of 64 columns that it decodes into shared memory. Grid: x = rows / 64, y = tokens / 32.
#include "product.glsl"

#define TILE_ROWS 64
#define TILE_TOKENS 32
#define TILE_COLUMNS 64
#define LANES 128

shared vec4 w_tile[TILE_COLUMNS * TILE_ROWS / 4];   // [column, row]
shared vec4 x_tile[TILE_COLUMNS * TILE_TOKENS / 4]; // [column, token]

void main() {
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    uint row0 = gl_WorkGroupID.x * TILE_ROWS;
    uint token0 = gl_WorkGroupID.y * TILE_TOKENS;
    if (token0 >= n) {
        return;
    }
    uint lane = gl_LocalInvocationID.x;
    uint my_rows = lane % (TILE_ROWS / 4);
    uint my_tokens = lane / (TILE_ROWS / 4);
    vec4 acc[4];
    [[unroll]] for (uint t = 0; t < 4; t++) {
        acc[t] = vec4(0.0);
    }
    for (uint chunk0 = 0; chunk0 < pc.chunks; chunk0 += TILE_COLUMNS / CHUNK) {
        // Each lane decodes one chunk of one row.
        uint tile_row = lane % TILE_ROWS;
        uint chunk = chunk0 + lane / TILE_ROWS;
        vec4 w[8];
        if (chunk < pc.chunks) {
            decode_chunk(pc.planes, min(row0 + tile_row, pc.rows - 1), chunk, w);
        } else {
            [[unroll]] for (uint i = 0; i < 8; i++) {
                w[i] = vec4(0.0);
            }
        }
        uint column0 = (lane / TILE_ROWS) * CHUNK;
        [[unroll]] for (uint i = 0; i < 8; i++) {
            [[unroll]] for (uint j = 0; j < 4; j++) {
                w_tile[(column0 + 4 * i + j) * (TILE_ROWS / 4) + tile_row / 4][tile_row % 4] = w[i][j];
            }
        }
        uint tile_token = lane % TILE_TOKENS;
        uint token = min(token0 + tile_token, n - 1);
        [[unroll]] for (uint i = 0; i < 4; i++) {
            uint column = ((lane / TILE_TOKENS) * 4 + i) * 4;
            uint from = chunk0 * CHUNK + column;
            vec4 x = from < pc.columns ? load_x4(token, from) : vec4(0.0);
            [[unroll]] for (uint j = 0; j < 4; j++) {
                x_tile[(column + j) * (TILE_TOKENS / 4) + tile_token / 4][tile_token % 4] = x[j];
            }
        }
        barrier();
        for (uint k = 0; k < TILE_COLUMNS; k++) {
            vec4 wv = w_tile[k * (TILE_ROWS / 4) + my_rows];
            vec4 xv = x_tile[k * (TILE_TOKENS / 4) + my_tokens];
            [[unroll]] for (uint t = 0; t < 4; t++) {
                acc[t] = fma(wv, vec4(xv[t]), acc[t]);
            }
        }
        barrier();
    }
    [[unroll]] for (uint t = 0; t < 4; t++) {
        uint token = token0 + my_tokens * 4 + t;
        if (token < n) {
            [[unroll]] for (uint r = 0; r < 4; r++) {
                uint row = row0 + my_rows * 4 + r;
                if (row < pc.rows) {
                    store_y(token, row, acc[t][r]);
                }
            }
        }
    }
}
