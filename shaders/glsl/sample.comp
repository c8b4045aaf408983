#version 460
// Chooses the token that follows each output row: an entry of the results ring, and a row of the next step.
// What is chosen, to the last bit, is `biga_hal::SampleRow`'s. Grid: x = outputs.
#extension GL_KHR_memory_scope_semantics : require
#include "common.glsl"
#include "sample.glsl"
#include "number.glsl"

layout(push_constant, scalar) uniform Push {
    uvec2 logits;
    uvec2 records;
    uvec2 ring;
    uvec2 step_address;
    uint max_outputs;
    uint vocab;
    uint n_parts;
    uint part_shift;       // a part has two to the power of this logits
    uint record_words;
    uint ring_rows;        // rows of one step in the ring
    uint ring_steps;
    uint tokens_word;      // where sections start in the step buffer
    uint positions_word;
    uint slots_word;
    uint outputs_word;
    uint sampling_word;
} pc;

// Words of a row's parameters.
#define ROW_WORDS 8
// Parts of a row, and the most tokens kept by count.
#define MOST 256
// Candidates that are looked at together; more than MOST.
#define CAPACITY 1024

shared uvec2 best_of_parts[MOST];
shared uvec2 found[CAPACITY];
shared uvec2 kept[MOST];
shared float weights[MOST];
shared uint seen[MOST];
shared uint n_seen;
shared uvec2 threshold;
shared uint n_found;
shared uint n_kept;

struct Draw {
    float inverse_temperature;
    float least;
    float top;
    uvec2 noise;
};

// Whether a candidate is in the set, and may beat the winner so far.
bool is_worth(Draw draw, uvec2 c, uvec2 winner) {
    precise float below = logit_of(c) - draw.top;
    precise float scaled = below * draw.inverse_temperature;
    return c.x != 0 && below >= draw.least && !(winner.x != 0 && scaled + MAX_NOISE < logit_of(winner));
}

// The candidate with its score in place of its logit; 0 if it is not worth it.
uvec2 scored(Draw draw, uvec2 c, uvec2 winner) {
    if (!is_worth(draw, c, winner)) {
        return uvec2(0);
    }
    precise float below = logit_of(c) - draw.top;
    precise float scaled = below * draw.inverse_temperature;
    precise float score = scaled + noise_of(draw.noise, id_of(c));
    return candidate(score, id_of(c));
}

// Begins a list of parts to look at. All invocations must call it, and wait before they read the list.
void see_nothing() {
    if (gl_LocalInvocationID.x == 0) {
        n_seen = 0;
    }
    barrier();
}

// One more of what the workgroup counts. A device that knows memory models may not know this one's usual scope.
#define NEXT(count) atomicAdd(count, 1, gl_ScopeWorkgroup, 0, gl_SemanticsRelaxed)

void see_part(uint part) {
    seen[NEXT(n_seen)] = part;
}

// So many candidates are loaded before the first is looked at.
#define TOGETHER 8

// The candidates of the parts in the list that are this invocation's, from the `first` on, each a workgroup
// further; 0 beyond the ends.
void load_candidates(uint row, uint first, out uvec2 candidates[TOGETHER]) {
    uint total = n_seen << pc.part_shift;
    Floats logits = Floats(pc.logits);
    [[unroll]] for (uint k = 0; k < TOGETHER; k++) {
        uint at = first + k * gl_WorkGroupSize.x;
        uint part = seen[min(at, total - 1) >> pc.part_shift];
        uint id = (part << pc.part_shift) + (at & ((1u << pc.part_shift) - 1));
        uvec2 c = candidate(logits.v[row * pc.vocab + min(id, pc.vocab - 1)], id);
        candidates[k] = at < total && id < pc.vocab ? c : uvec2(0);
    }
}

// The winner among all logits.
uvec2 draw_of_all(Draw draw, uint row, uvec2 best) {
    // The best logit's score is what the others have to beat; parts whose best logit cannot are left out.
    uvec2 winner = scored(draw, best, uvec2(0));
    see_nothing();
    for (uint part = gl_LocalInvocationID.x; part < pc.n_parts; part += gl_WorkGroupSize.x) {
        if (is_worth(draw, best_of_parts[part], winner)) {
            see_part(part);
        }
    }
    barrier();
    uint total = n_seen << pc.part_shift;
    for (uint first = gl_LocalInvocationID.x; first < total; first += TOGETHER * gl_WorkGroupSize.x) {
        uvec2 candidates[TOGETHER];
        load_candidates(row, first, candidates);
        [[unroll]] for (uint k = 0; k < TOGETHER; k++) {
            winner = better_of(scored(draw, candidates[k], winner), winner);
        }
    }
    return workgroup_best(winner);
}

// Leaves the best `top_k` candidates in `kept`, best first.
//
// No fewer than `top_k` candidates reach the threshold: at first the `top_k`-th best of the parts' bests, and as
// long as too many do, the `top_k`-th best of some of them.
void keep_best(uint row, uint top_k) {
    uint lane = gl_LocalInvocationID.x;
    if (lane == 0) {
        threshold = uvec2(0, 1);
    }
    barrier();
    for (uint part = lane; part < pc.n_parts; part += gl_WorkGroupSize.x) {
        uvec2 own = best_of_parts[part];
        uint rank = 0;
        for (uint i = 0; i < pc.n_parts; i++) {
            rank += better(best_of_parts[i], own) ? 1 : 0;
        }
        if (rank == top_k - 1 && own.x != 0) {
            threshold = own;
        }
    }
    barrier();
    uint n;
    while (true) {
        uvec2 least = threshold;
        if (lane == 0) {
            n_found = 0;
        }
        see_nothing();
        for (uint part = lane; part < pc.n_parts; part += gl_WorkGroupSize.x) {
            if (!better(least, best_of_parts[part])) {
                see_part(part);
            }
        }
        barrier();
        uint total = n_seen << pc.part_shift;
        for (uint first = lane; first < total; first += TOGETHER * gl_WorkGroupSize.x) {
            uvec2 candidates[TOGETHER];
            load_candidates(row, first, candidates);
            [[unroll]] for (uint k = 0; k < TOGETHER; k++) {
                if (!better(least, candidates[k])) {
                    uint at = NEXT(n_found);
                    if (at < CAPACITY) {
                        found[at] = candidates[k];
                    }
                }
            }
        }
        barrier();
        n = n_found;
        if (n <= CAPACITY) {
            break;
        }
        for (uint at = lane; at < CAPACITY; at += gl_WorkGroupSize.x) {
            uint rank = 0;
            for (uint i = 0; i < CAPACITY; i++) {
                rank += better(found[i], found[at]) ? 1 : 0;
            }
            if (rank == top_k - 1) {
                threshold = found[at];
            }
        }
        barrier();
    }
    for (uint at = lane; at < n; at += gl_WorkGroupSize.x) {
        uint rank = 0;
        for (uint i = 0; i < n; i++) {
            rank += better(found[i], found[at]) ? 1 : 0;
        }
        if (rank < top_k) {
            kept[rank] = found[at];
        }
    }
    if (lane == 0) {
        n_kept = min(n, top_k);
    }
    barrier();
}

// Leaves as many of `kept` as reach the probability `top_p`.
void keep_probable(float top_p, float top) {
    for (uint i = gl_LocalInvocationID.x; i < n_kept; i += gl_WorkGroupSize.x) {
        precise float below = logit_of(kept[i]) - top;
        weights[i] = exp_below_zero(below);
    }
    barrier();
    if (gl_LocalInvocationID.x == 0) {
        precise float total = 0.0;
        for (uint i = 0; i < n_kept; i++) {
            total = total + weights[i];
        }
        precise float wanted = top_p * total;
        precise float sum = 0.0;
        for (uint i = 0; i < n_kept; i++) {
            sum = sum + weights[i];
            if (sum >= wanted) {
                n_kept = i + 1;
            }
        }
    }
    barrier();
}

uvec2 draw_of_best(Draw draw, uint row, uint top_k, float top_p) {
    keep_best(row, top_k);
    if (top_p < 1.0) {
        keep_probable(top_p, draw.top);
    }
    uvec2 winner = uvec2(0);
    for (uint i = gl_LocalInvocationID.x; i < n_kept; i += gl_WorkGroupSize.x) {
        winner = better_of(scored(draw, kept[i], winner), winner);
    }
    return workgroup_best(winner);
}

void main() {
    // This word stays as it is.
    uint n = rows_of_step(pc.step_address, 2, pc.max_outputs);
    uint row = gl_WorkGroupID.x;
    if (row >= n) {
        return;
    }
    Words records = Words(pc.records);
    uint record = row * pc.record_words;
    uvec2 best = uvec2(0);
    for (uint part = gl_LocalInvocationID.x; part < pc.n_parts; part += gl_WorkGroupSize.x) {
        uint at = record + RECORD_PARTS + 2 * part;
        uvec2 c = uvec2(records.v[at], records.v[at + 1]);
        best_of_parts[part] = c;
        best = better_of(c, best);
    }
    best = workgroup_best(best);
    uint position = records.v[record + RECORD_POSITION];
    Words step_words = Words(pc.step_address);
    uint word = pc.sampling_word + ROW_WORDS * row;
    if (step_words.v[word] != 0 && best.x != 0) {
        // Also between the writes of the bests and their reads: where there is one subgroup, nothing above waits.
        barrier();
        Draw draw;
        draw.inverse_temperature = uintBitsToFloat(step_words.v[word + 1]);
        draw.least = uintBitsToFloat(step_words.v[word + 2]);
        draw.top = logit_of(best);
        draw.noise = noise_state(uvec2(step_words.v[word + 6], step_words.v[word + 7]), position);
        uint top_k = min(step_words.v[word + 3], MOST);
        float top_p = uintBitsToFloat(step_words.v[word + 4]);
        uvec2 winner = top_k == 0 ? draw_of_all(draw, row, best) : draw_of_best(draw, row, top_k, top_p);
        best = winner.x == 0 ? best : winner;
    }
    if (gl_LocalInvocationID.x != 0) {
        return;
    }
    bool none = best.x == 0;
    uint number = records.v[record + RECORD_NUMBER];
    Words ring = Words(pc.ring);
    uint entry = 2 * (number % pc.ring_steps * pc.ring_rows + row);
    ring.v[entry] = none ? 0xFFFFFFFFu : id_of(best);
    ring.v[entry + 1] = number;
    step_words.v[pc.tokens_word + row] = none ? 0 : id_of(best);
    step_words.v[pc.positions_word + row] = position + 1;
    step_words.v[pc.slots_word + row] = records.v[record + RECORD_SLOT];
    step_words.v[pc.outputs_word + row] = row;
    if (row == 0) {
        step_words.v[0] = n;
        step_words.v[3] = number + 1;
    }
}
