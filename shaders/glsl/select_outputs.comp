#version 460
// Copies the rows that want logits. Grid: x = columns / lanes, y = outputs.
#include "common.glsl"

layout(push_constant, scalar) uniform Push {
    uvec2 x;
    uvec2 y;
    uvec2 step_address;
    uint max_outputs;
    uint max_tokens;
    uint outputs_word;
    uint columns;
} pc;

void main() {
    uint n = rows_of_step(pc.step_address, 2, pc.max_outputs);
    uint output_row = gl_WorkGroupID.y;
    uint column = gl_GlobalInvocationID.x;
    if (output_row >= n || column >= pc.columns) {
        return;
    }
    uint row = min(Words(pc.step_address).v[pc.outputs_word + output_row], pc.max_tokens - 1);
    Floats(pc.y).v[output_row * pc.columns + column] = Floats(pc.x).v[row * pc.columns + column];
}
