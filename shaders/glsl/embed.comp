#version 460
// y = table[token id] * scale. An invocation decodes one chunk. Grid: x = chunks / lanes, y = tokens.
#include "common.glsl"

layout(push_constant, scalar) uniform Push {
    uvec2 planes[4];
    uvec2 y;
    uvec2 step_address;
    uint max_rows;
    uint tokens_word;    // where the token ids start in the step buffer
    uint vocab;
    uint columns;
    uint chunks;
    float scale;
} pc;

#include "weights.glsl"

void main() {
    uint n = rows_of_step(pc.step_address, 0, pc.max_rows);
    uint token = gl_WorkGroupID.y;
    uint chunk = gl_GlobalInvocationID.x;
    if (token >= n || chunk >= pc.chunks) {
        return;
    }
    uint id = Words(pc.step_address).v[pc.tokens_word + token];
    vec4 w[8];
    decode_chunk(pc.planes, id < pc.vocab ? id : 0, chunk, w);
    Floats y = Floats(pc.y);
    uint base = token * pc.columns;
    [[unroll]] for (uint i = 0; i < 8; i++) {
        [[unroll]] for (uint j = 0; j < 4; j++) {
            uint column = chunk * CHUNK + 4 * i + j;
            if (column < pc.columns) {
                y.v[base + column] = w[i][j] * pc.scale;
            }
        }
    }
}
