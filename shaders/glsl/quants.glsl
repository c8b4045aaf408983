// Activations to 8 bits, in groups of a chunk of 32: a scale, the largest magnitude over 127, and the
// quants; with them `scale * sum of the quants`, which weights with a minimum need.

// The scale and its inverse; a scale below the least normal float has none.
vec2 quant_scale(float largest) {
    float scale = largest / 127.0;
    return vec2(scale, scale >= 1.17549435e-38 ? 1.0 / scale : 0.0);
}

ivec4 quantise4(vec4 x, float inverse) {
    return clamp(ivec4(roundEven(x * inverse)), -127, 127);
}

uint pack_quants(ivec4 q) {
    uvec4 bytes = uvec4(q) & 0xFFu;
    return bytes.x | (bytes.y << 8) | (bytes.z << 16) | (bytes.w << 24);
}

float largest4(vec4 x) {
    vec4 a = abs(x);
    return max(max(a.x, a.y), max(a.z, a.w));
}

#ifdef STAGED
// Values that a workgroup has computed, four to an entry, STAGED entries.
shared vec4 staged[STAGED];
shared int staged_sums[STAGED];

// Quantises the first `n_quads` entries, whole chunks, to `chunk0` and every `stride`-th chunk after it. All
// invocations call it.
void quantise_staged(uint n_quads, uvec2 quants, uvec2 scales, uint chunk0, uint stride) {
    barrier();
    for (uint i = gl_LocalInvocationID.x; i < n_quads; i += gl_WorkGroupSize.x) {
        float largest = 0.0;
        [[unroll]] for (uint j = 0; j < 8; j++) {
            largest = max(largest, largest4(staged[(i & ~7u) + j]));
        }
        ivec4 q = quantise4(staged[i], quant_scale(largest).y);
        Words(quants).v[(chunk0 + i / 8 * stride) * 8 + i % 8] = pack_quants(q);
        staged_sums[i] = (q.x + q.y) + (q.z + q.w);
    }
    barrier();
    for (uint i = gl_LocalInvocationID.x; i < n_quads / 8; i += gl_WorkGroupSize.x) {
        float largest = 0.0;
        int sum = 0;
        [[unroll]] for (uint j = 0; j < 8; j++) {
            largest = max(largest, largest4(staged[i * 8 + j]));
            sum += staged_sums[i * 8 + j];
        }
        float scale = quant_scale(largest).x;
        Pairs(scales).v[chunk0 + i * stride] = vec2(scale, scale * float(sum));
    }
}

#ifdef STAGED_BY_LANES
// The same where each invocation wrote the entries that it reads here, by its own index, and subgroups hold whole
// chunks: nobody waits.
void quantise_own(uint n_quads, uvec2 quants, uvec2 scales, uint chunk0) {
    for (uint i = gl_LocalInvocationID.x; i < n_quads; i += gl_WorkGroupSize.x) {
        vec4 x = staged[i];
        float largest = largest4(x);
        [[unroll]] for (uint m = 1; m < 8; m *= 2) {
            largest = max(largest, subgroupShuffleXor(largest, m));
        }
        vec2 scale = quant_scale(largest);
        ivec4 q = quantise4(x, scale.y);
        Words(quants).v[chunk0 * 8 + i] = pack_quants(q);
        int sum = (q.x + q.y) + (q.z + q.w);
        [[unroll]] for (uint m = 1; m < 8; m *= 2) {
            sum += subgroupShuffleXor(sum, m);
        }
        if (i % 8 == 0) {
            Pairs(scales).v[chunk0 + i / 8] = vec2(scale.x, scale.x * float(sum));
        }
    }
}
#endif
#endif
