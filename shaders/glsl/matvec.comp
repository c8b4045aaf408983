#version 460
// Few tokens and plain weights, on a GPU: the lanes of a workgroup share a row's chunks, several rows a workgroup.
// Neighbouring lanes read neighbouring chunks. Rows of x beyond the step's are computed and not stored. Grid: x = rows / ROWS.
#define WORKGROUP_SUM
#include "product.glsl"

layout(constant_id = 4) const uint ROWS = 4;

void main() {
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    uint row0 = gl_WorkGroupID.x * ROWS;
    float acc[ROWS][TOKENS];
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        [[unroll]] for (uint t = 0; t < TOKENS; t++) {
            acc[r][t] = 0.0;
        }
    }
    for (uint chunk = gl_LocalInvocationID.x; chunk < pc.chunks; chunk += gl_WorkGroupSize.x) {
        Chunk w[ROWS];
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            w[r] = load_chunk(min(row0 + r, pc.rows - 1), chunk);
        }
        [[unroll]] for (uint t = 0; t < TOKENS; t++) {
            X x = load_x(t, chunk);
            [[unroll]] for (uint r = 0; r < ROWS; r++) {
                acc[r][t] += chunk_dot(w[r], x);
            }
        }
    }
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        [[unroll]] for (uint t = 0; t < TOKENS; t++) {
            float value = workgroup_sum(acc[r][t]);
            if (gl_LocalInvocationID.x == 0 && row0 + r < pc.rows && t < n) {
                store_y(t, row0 + r, value);
            }
        }
    }
}
