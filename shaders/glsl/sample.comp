#version 460
// Chooses the token that follows each output row: an entry of the results ring, and a row of the next step.
// Grid: x = outputs.
#include "common.glsl"
#include "sample.glsl"

layout(push_constant, scalar) uniform Push {
    uvec2 records;
    uvec2 ring;
    uvec2 step_address;
    uint max_outputs;
    uint ring_rows;        // rows of one step in the ring
    uint ring_steps;
    uint record_words;
    uint n_parts;
    uint tokens_word;      // where sections start in the step buffer
    uint positions_word;
    uint slots_word;
    uint outputs_word;
} pc;

void main() {
    // This word stays as it is.
    uint n = rows_of_step(pc.step_address, 2, pc.max_outputs);
    uint row = gl_WorkGroupID.x;
    if (row >= n) {
        return;
    }
    Words records = Words(pc.records);
    uint record = row * pc.record_words;
    uvec2 key = uvec2(0);
    for (uint part = gl_LocalInvocationID.x; part < pc.n_parts; part += gl_WorkGroupSize.x) {
        uint at = record + RECORD_PARTS + 2 * part;
        uvec2 other = uvec2(records.v[at], records.v[at + 1]);
        key = better(other, key) ? other : key;
    }
    key = workgroup_best(key);
    if (gl_LocalInvocationID.x != 0) {
        return;
    }
    bool found = (key.x | key.y) != 0;
    uint number = records.v[record + RECORD_NUMBER];
    Words ring = Words(pc.ring);
    uint entry = 2 * (number % pc.ring_steps * pc.ring_rows + row);
    ring.v[entry] = found ? ~key.y : 0xFFFFFFFFu;
    ring.v[entry + 1] = number;
    Words step_words = Words(pc.step_address);
    step_words.v[pc.tokens_word + row] = found ? ~key.y : 0;
    step_words.v[pc.positions_word + row] = records.v[record + RECORD_POSITION] + 1;
    step_words.v[pc.slots_word + row] = records.v[record + RECORD_SLOT];
    step_words.v[pc.outputs_word + row] = row;
    if (row == 0) {
        step_words.v[0] = n;
        step_words.v[3] = number + 1;
    }
}
