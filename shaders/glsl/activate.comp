#version 460
// y = activation(gate) * up, where a row of x is [gate | up]. Grid: x = ff / lanes, y = tokens.
#include "common.glsl"
#include "activation.glsl"

layout(constant_id = 2) const bool GELU = false;

layout(push_constant, scalar) uniform Push {
    uvec2 x;
    uvec2 y;
    uvec2 step_address;
    uint header_word;
    uint max_rows;
    uint ff;
} pc;

void main() {
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    uint token = gl_WorkGroupID.y;
    uint i = gl_GlobalInvocationID.x;
    if (token >= n || i >= pc.ff) {
        return;
    }
    Floats x = Floats(pc.x);
    float gate = x.v[token * 2 * pc.ff + i];
    float up = x.v[token * 2 * pc.ff + pc.ff + i];
    Floats(pc.y).v[token * pc.ff + i] = activated(gate, GELU) * up;
}
