// What the two launches of a choice of tokens share: candidates, in the order of `biga_hal::Candidate`, and
// the record that the first leaves for the second.
//
// A candidate is two words, the larger the better: the logit's bits in an order of unsigned numbers, then the
// complement of the id, so that of equal logits the lowest id wins. No finite logit: both 0.

// The record of a row, in words: what the second launch needs of the step, which it overwrites, then the best
// candidate of each part.
#define RECORD_POSITION 0
#define RECORD_SLOT 1
#define RECORD_NUMBER 2
#define RECORD_PARTS 4

uvec2 candidate(float logit, uint id) {
    uint bits = floatBitsToUint(logit);
    if ((bits & 0x7F800000u) == 0x7F800000u) {
        return uvec2(0);
    }
    // Both zeros are one number.
    bits = (bits << 1) == 0 ? 0 : bits;
    return uvec2(bits ^ ((bits >> 31) != 0 ? 0xFFFFFFFFu : 0x80000000u), ~id);
}

float logit_of(uvec2 c) {
    return uintBitsToFloat(c.x ^ ((c.x >> 31) != 0 ? 0x80000000u : 0xFFFFFFFFu));
}

uint id_of(uvec2 c) {
    return ~c.y;
}

bool better(uvec2 a, uvec2 b) {
    return a.x > b.x || (a.x == b.x && a.y > b.y);
}

uvec2 better_of(uvec2 a, uvec2 b) {
    return better(a, b) ? a : b;
}

shared uvec2 best_of_subgroups[256];

// The best candidate of the workgroup, in every invocation. All invocations must call it.
uvec2 workgroup_best(uvec2 c) {
    uint high = subgroupMax(c.x);
    uvec2 best = uvec2(high, subgroupMax(c.x == high ? c.y : 0));
    if (gl_WorkGroupSize.x > SUBGROUP) {
        if (subgroupElect()) {
            best_of_subgroups[gl_SubgroupID] = best;
        }
        barrier();
        best = uvec2(0);
        for (uint i = 0; i < gl_NumSubgroups; i++) {
            best = better_of(best_of_subgroups[i], best);
        }
        barrier();
    }
    return best;
}
