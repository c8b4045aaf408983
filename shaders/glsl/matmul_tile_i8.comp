#version 460
// Many tokens and quantised weights, on a GPU: a workgroup of 128 computes 64 rows by 32 tokens, 4 by 4
// an invocation, from tiles of two chunks whose quants it lays out in shared memory by integer dot
// products. Grid: x = rows / 64, y = tokens / 32.
#include "product.glsl"

#define TILE_ROWS 64
#define TILE_TOKENS 32
#define TILE_CHUNKS 2
#define WORDS 8

shared uvec4 w_tile[TILE_CHUNKS * WORDS * TILE_ROWS / 4];   // [chunk, word, row]
shared uvec4 x_tile[TILE_CHUNKS * WORDS * TILE_TOKENS / 4]; // [chunk, word, token]
shared vec3 w_scales[TILE_CHUNKS * TILE_ROWS];              // scale of each half, minimum
shared vec2 x_scales[TILE_CHUNKS * TILE_TOKENS];

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
    float acc[4][4];
    [[unroll]] for (uint t = 0; t < 4; t++) {
        [[unroll]] for (uint r = 0; r < 4; r++) {
            acc[t][r] = 0.0;
        }
    }
    for (uint chunk0 = 0; chunk0 < pc.chunks; chunk0 += TILE_CHUNKS) {
        // Each lane lays out one chunk of one row, and half a chunk of one token.
        uint tile_row = lane % TILE_ROWS;
        uint c = lane / TILE_ROWS;
        Quants w;
        [[unroll]] for (uint i = 0; i < WORDS; i++) {
            w.q[i] = 0;
        }
        w.scale = vec2(0.0);
        w.minimum = 0.0;
        if (chunk0 + c < pc.chunks) {
            w = load_quants(pc.planes, min(row0 + tile_row, pc.rows - 1), chunk0 + c);
        }
        [[unroll]] for (uint i = 0; i < WORDS; i++) {
            w_tile[(c * WORDS + i) * (TILE_ROWS / 4) + tile_row / 4][tile_row % 4] = w.q[i];
        }
        w_scales[c * TILE_ROWS + tile_row] = vec3(w.scale, w.minimum);
        uint tile_token = lane % TILE_TOKENS;
        uint token = min(token0 + tile_token, n - 1);
        uint part = lane / TILE_TOKENS;
        uint x_chunk = part / 2;
        uint block = token * pc.chunks + min(chunk0 + x_chunk, pc.chunks - 1);
        uvec4 x = Quads(pc.x).v[block * 2 + part % 2];
        [[unroll]] for (uint i = 0; i < 4; i++) {
            uint word = x_chunk * WORDS + (part % 2) * 4 + i;
            x_tile[word * (TILE_TOKENS / 4) + tile_token / 4][tile_token % 4] = x[i];
        }
        if (part % 2 == 0) {
            x_scales[x_chunk * TILE_TOKENS + tile_token] = Pairs(pc.x_scales).v[block];
        }
        barrier();
        [[unroll]] for (uint chunk = 0; chunk < TILE_CHUNKS; chunk++) {
            ivec2 sums[4][4];
            [[unroll]] for (uint t = 0; t < 4; t++) {
                [[unroll]] for (uint r = 0; r < 4; r++) {
                    sums[t][r] = ivec2(0);
                }
            }
            [[unroll]] for (uint i = 0; i < WORDS; i++) {
                uvec4 wv = w_tile[(chunk * WORDS + i) * (TILE_ROWS / 4) + my_rows];
                uvec4 xv = x_tile[(chunk * WORDS + i) * (TILE_TOKENS / 4) + my_tokens];
                [[unroll]] for (uint t = 0; t < 4; t++) {
                    [[unroll]] for (uint r = 0; r < 4; r++) {
                        sums[t][r][i / 4] = dot4(wv[r], xv[t], sums[t][r][i / 4]);
                    }
                }
            }
            [[unroll]] for (uint r = 0; r < 4; r++) {
                vec3 loaded = w_scales[chunk * TILE_ROWS + my_rows * 4 + r];
                Quants scales;
                scales.scale = loaded.xy;
                scales.minimum = loaded.z;
                [[unroll]] for (uint t = 0; t < 4; t++) {
                    acc[t][r] += scaled(scales, sums[t][r], x_scales[chunk * TILE_TOKENS + my_tokens * 4 + t]);
                }
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
