#version 460
// The best candidate of each part of a row, and what the choice needs of the step.
// Grid: x = parts, y = outputs.
#include "common.glsl"
#include "sample.glsl"

layout(push_constant, scalar) uniform Push {
    uvec2 logits;
    uvec2 records;
    uvec2 step_address;
    uint max_outputs;
    uint max_tokens;
    uint vocab;
    uint part_shift;       // a part has two to the power of this logits
    uint record_words;
    uint positions_word;   // where sections start in the step buffer
    uint slots_word;
    uint outputs_word;
} pc;

void main() {
    uint n = rows_of_step(pc.step_address, 2, pc.max_outputs);
    uint row = gl_WorkGroupID.y;
    if (row >= n) {
        return;
    }
    uint part = gl_WorkGroupID.x;
    uint end = min((part + 1) << pc.part_shift, pc.vocab);
    Floats logits = Floats(pc.logits);
    uint base = row * pc.vocab;
    uvec2 best = uvec2(0);
    for (uint id = (part << pc.part_shift) + gl_LocalInvocationID.x; id < end; id += gl_WorkGroupSize.x) {
        best = better_of(candidate(logits.v[base + id], id), best);
    }
    best = workgroup_best(best);
    if (gl_LocalInvocationID.x != 0) {
        return;
    }
    Words records = Words(pc.records);
    uint record = row * pc.record_words;
    records.v[record + RECORD_PARTS + 2 * part] = best.x;
    records.v[record + RECORD_PARTS + 2 * part + 1] = best.y;
    if (part == 0) {
        Words step_words = Words(pc.step_address);
        uint from = min(step_words.v[pc.outputs_word + row], pc.max_tokens - 1);
        records.v[record + RECORD_POSITION] = step_words.v[pc.positions_word + from];
        records.v[record + RECORD_SLOT] = step_words.v[pc.slots_word + from];
        records.v[record + RECORD_NUMBER] = step_words.v[3];
    }
}
