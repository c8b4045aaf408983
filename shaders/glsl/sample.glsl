// What the two launches of a sampling share: keys that order the logits, and the record that the first
// leaves for the second.
//
// A key is two words, the larger one the better: the logit's bits in an order of unsigned numbers, then the
// complement of the id, so that of equal logits the lowest id wins. No finite logit: both 0.

// The record of a row, in words: what the second launch needs of the step, which it overwrites, then the best
// key of each part.
#define RECORD_POSITION 0
#define RECORD_SLOT 1
#define RECORD_NUMBER 2
#define RECORD_PARTS 4

uvec2 key_of(float logit, uint id) {
    uint bits = floatBitsToUint(logit);
    if ((bits & 0x7F800000u) == 0x7F800000u) {
        return uvec2(0);
    }
    // Both zeros are one number.
    bits = (bits << 1) == 0 ? 0 : bits;
    bool negative = (bits >> 31) != 0;
    return uvec2(bits ^ (negative ? 0xFFFFFFFFu : 0x80000000u), ~id);
}

bool better(uvec2 a, uvec2 b) {
    return a.x > b.x || (a.x == b.x && a.y > b.y);
}

shared uvec2 subgroup_keys[256];

// The best key of the workgroup, in every invocation. All invocations must call it.
uvec2 workgroup_best(uvec2 key) {
    uint high = subgroupMax(key.x);
    uvec2 best = uvec2(high, subgroupMax(key.x == high ? key.y : 0));
    if (gl_WorkGroupSize.x > SUBGROUP) {
        if (subgroupElect()) {
            subgroup_keys[gl_SubgroupID] = best;
        }
        barrier();
        best = uvec2(0);
        for (uint i = 0; i < gl_NumSubgroups; i++) {
            uvec2 other = subgroup_keys[i];
            best = better(other, best) ? other : best;
        }
        barrier();
    }
    return best;
}
