#version 460
// y = a + b. In place is allowed. Grid: x = columns / lanes, y = rows.
#include "common.glsl"

layout(push_constant, scalar) uniform Push {
    uvec2 a;
    uvec2 b;
    uvec2 y;
    uvec2 step_address;
    uint header_word;
    uint max_rows;
    uint columns;
} pc;

void main() {
    uint n = rows_of_step(pc.step_address, pc.header_word, pc.max_rows);
    uint column = gl_GlobalInvocationID.x;
    if (gl_WorkGroupID.y >= n || column >= pc.columns) {
        return;
    }
    uint i = gl_WorkGroupID.y * pc.columns + column;
    Floats(pc.y).v[i] = Floats(pc.a).v[i] + Floats(pc.b).v[i];
}
