// Weights as halves for matrix instructions. A step of a product covers 32 columns; an invocation brings
// half of them of one row: it loads their bits (`load_raw`), and later turns them into two runs of eight
// halves (`expand`), the slots FIRST_SLOT and SECOND_SLOT of the step's four.
//
// The order of columns within a product is free as long as x keeps to the same one. So
// - of each four columns the order is 0, 2, 1, 3, which is how masks find bytes and nibbles in words;
// - the columns of a step are those whose bits lie together, see `step_source`.
//
// A quant becomes a half by its bits: 0x6400 | q is 1024 + q, and 0x5400 | q << 4 is 64 + q, both exactly.
//
// The including kernel declares `pc.planes[4]` and `pc.chunks`, the chunks of a row.

layout(buffer_reference, scalar, buffer_reference_align = 8) readonly buffer WordPairs { uvec2 v[]; };

#if defined(FORMAT_Q4_0) || defined(FORMAT_Q4_1) || defined(FORMAT_Q5_0) || defined(FORMAT_Q5_1)
#define NIBBLES
#define SCALES_SPAN 1
#elif defined(FORMAT_Q4_K) || defined(FORMAT_Q5_K) || defined(FORMAT_Q6_K)
#define NIBBLES
#define SCALES_SPAN 8
#else
#define SCALES_SPAN 1
#endif

#ifdef NIBBLES
#define FIRST_SLOT(part) (part)
#define SECOND_SLOT(part) (2 + (part))
#else
#define FIRST_SLOT(part) (2 * (part))
#define SECOND_SLOT(part) (2 * (part) + 1)
#endif

// Where a slot of a step lies: the chunk of 32 columns, and its quarter.
uvec2 step_source(uint chunk, uint slot) {
#if defined(FORMAT_Q4_K) || defined(FORMAT_Q5_K)
    // 64 columns share 32 bytes of nibbles, 32 apart.
    return uvec2((chunk & ~1u) + (slot >> 1), (chunk & 1u) * 2 + (slot & 1u));
#elif defined(FORMAT_Q6_K)
    // 128 columns share 64 bytes of nibbles, 64 apart.
    uint i = chunk & 3u;
    return uvec2((chunk & ~3u) + (i & 1u) + (slot & 2u), (i >> 1) * 2 + (slot & 1u));
#else
    return uvec2(chunk, slot);
#endif
}

// The bits of half a step of a row.
struct Raw {
#if defined(FORMAT_F16) || defined(FORMAT_BF16)
    uvec4 a;
    uvec4 b;
#elif defined(FORMAT_Q8_0)
    uvec4 q;
#else
    uvec2 q;
#endif
#if defined(FORMAT_Q5_0) || defined(FORMAT_Q5_1)
    uint above;
#elif defined(FORMAT_Q5_K) || defined(FORMAT_Q6_K)
    uvec2 above;
#endif
};

// The bits of the scales of SCALES_SPAN steps, from one that is a multiple of it.
struct Scales {
#if defined(FORMAT_Q4_K) || defined(FORMAT_Q5_K)
    uvec3 small;
#elif defined(FORMAT_Q6_K)
    uvec4 small;
#endif
    uint d;
};

Raw load_raw(uint row, uint chunk, uint part) {
    uint half_block = (row * pc.chunks + chunk) * 2 + part;
    Raw raw;
#if defined(FORMAT_F16) || defined(FORMAT_BF16)
    raw.a = Quads(pc.planes[0]).v[half_block * 2];
    raw.b = Quads(pc.planes[0]).v[half_block * 2 + 1];
#elif defined(FORMAT_Q8_0)
    raw.q = Quads(pc.planes[0]).v[half_block];
#elif defined(FORMAT_Q6_K)
    uint super_block = half_block >> 4;
    uint i = chunk & 3u;
    uint side = (chunk >> 2) & 1u;
    raw.q = WordPairs(pc.planes[0]).v[super_block * 16 + side * 8 + (i & 1u) * 4 + (i >> 1) * 2 + part];
    raw.above = WordPairs(pc.planes[1]).v[super_block * 8 + side * 4 + (i >> 1) * 2 + part];
#else
    raw.q = WordPairs(pc.planes[0]).v[half_block];
#endif
#if defined(FORMAT_Q5_0) || defined(FORMAT_Q5_1)
    raw.above = Words(pc.planes[1]).v[half_block >> 1] >> (8 * part);
#elif defined(FORMAT_Q5_K)
    raw.above = WordPairs(pc.planes[1]).v[(half_block >> 4) * 4 + (half_block & 3u)];
#endif
    return raw;
}

Scales load_scales(uint row, uint chunk) {
    uint block = row * pc.chunks + chunk;
    Scales s;
    s.d = 0;
#if defined(FORMAT_Q8_0) || defined(FORMAT_Q4_0)
    s.d = load_bits16(pc.planes[1], block);
#elif defined(FORMAT_Q4_1)
    s.d = Words(pc.planes[1]).v[block];
#elif defined(FORMAT_Q5_0)
    s.d = load_bits16(pc.planes[2], block);
#elif defined(FORMAT_Q5_1)
    s.d = Words(pc.planes[2]).v[block];
#elif defined(FORMAT_Q4_K) || defined(FORMAT_Q5_K)
    uint super_block = block >> 3;
#if defined(FORMAT_Q4_K)
    Words small = Words(pc.planes[1]);
    s.d = Words(pc.planes[2]).v[super_block];
#else
    Words small = Words(pc.planes[2]);
    s.d = Words(pc.planes[3]).v[super_block];
#endif
    s.small = uvec3(small.v[super_block * 3], small.v[super_block * 3 + 1], small.v[super_block * 3 + 2]);
#elif defined(FORMAT_Q6_K)
    s.small = Quads(pc.planes[2]).v[block >> 3];
    s.d = load_bits16(pc.planes[3], block >> 3);
#endif
    return s;
}

f16vec2 both(uint bits) {
    return unpackFloat2x16(bits | (bits << 16));
}

// Two bytes as halves.
f16vec2 byte_pair(uint bits) {
    return unpackFloat2x16((bits & 0xFFu) | ((bits & 0xFF00u) << 8) | 0x64006400u) - f16vec2(1024.0);
}

// The scales and the minima of a step's first and second slots; `chunk` says which step.
void step_scales(Scales s, uint chunk, out f16vec2 scale[2], out f16vec2 minimum[2]) {
#if defined(FORMAT_Q4_K) || defined(FORMAT_Q5_K)
    uint sub = chunk & 6u;
    uvec3 bits = s.small >> (8 * (sub & 2u));
    // The pair's two scales in 16 bits, and its minima.
    bool low = sub < 4;
    uint scales = low ? bits.x & 0x3F3Fu : (bits.z & 0x0F0Fu) | ((bits.x >> 2) & 0x3030u);
    uint minima = low ? bits.y & 0x3F3Fu : ((bits.z >> 4) & 0x0F0Fu) | ((bits.y >> 2) & 0x3030u);
    f16vec2 d = unpackFloat2x16(s.d);
    f16vec2 both_scales = byte_pair(scales) * d.x;
    f16vec2 both_minima = byte_pair(minima) * -d.y;
    scale[0] = both_scales.xx;
    scale[1] = both_scales.yy;
    minimum[0] = both_minima.xx;
    minimum[1] = both_minima.yy;
#elif defined(FORMAT_Q6_K)
    uint i = chunk & 3u;
    uvec2 words = (chunk & 4u) == 0 ? s.small.xy : s.small.zw;
    uint shift = 24 - 8 * ((i & 1u) * 2 + (i >> 1));
    ivec2 bytes = ivec2(words << shift) >> 24;
    f16vec2 both_scales = f16vec2(vec2(bytes) * unpackHalf2x16(s.d).x);
    scale[0] = both_scales.xx;
    scale[1] = both_scales.yy;
    minimum[0] = f16vec2(0.0);
    minimum[1] = f16vec2(0.0);
#elif defined(FORMAT_Q4_1) || defined(FORMAT_Q5_1)
    f16vec2 d = unpackFloat2x16(s.d);
    scale[0] = d.xx;
    scale[1] = d.xx;
    minimum[0] = d.yy;
    minimum[1] = d.yy;
#else
    scale[0] = both(s.d);
    scale[1] = scale[0];
    minimum[0] = f16vec2(0.0);
    minimum[1] = f16vec2(0.0);
#endif
}

// A pair of quants, given as the bits of `from + q`.
uint scaled_pair(uint bits, float16_t from, f16vec2 scale, f16vec2 minimum) {
    f16vec2 q = unpackFloat2x16(bits) - from;
#if defined(FORMAT_Q4_1) || defined(FORMAT_Q5_1) || defined(FORMAT_Q4_K) || defined(FORMAT_Q5_K)
    return packFloat2x16(fma(q, scale, minimum));
#else
    return packFloat2x16(q * scale);
#endif
}

// Four consecutive halves in the order 0, 2, 1, 3.
uvec2 reordered(uvec2 pairs) {
    return uvec2((pairs.x & 0xFFFFu) | (pairs.y << 16), (pairs.x >> 16) | (pairs.y & 0xFFFF0000u));
}

uvec2 bf16_reordered(uvec2 pairs) {
    const float LARGEST = 65504.0;
    vec2 even = clamp(uintBitsToFloat(pairs << 16), -LARGEST, LARGEST);
    vec2 odd = clamp(uintBitsToFloat(pairs & 0xFFFF0000u), -LARGEST, LARGEST);
    return uvec2(packHalf2x16(even), packHalf2x16(odd));
}

// The halves of the slots FIRST_SLOT and SECOND_SLOT.
void expand(Raw raw, Scales s, uint chunk, out uvec4 first, out uvec4 second) {
#if defined(FORMAT_F16)
    first = uvec4(reordered(raw.a.xy), reordered(raw.a.zw));
    second = uvec4(reordered(raw.b.xy), reordered(raw.b.zw));
#elif defined(FORMAT_BF16)
    first = uvec4(bf16_reordered(raw.a.xy), bf16_reordered(raw.a.zw));
    second = uvec4(bf16_reordered(raw.b.xy), bf16_reordered(raw.b.zw));
#else
    f16vec2 scale[2];
    f16vec2 minimum[2];
    step_scales(s, chunk, scale, minimum);
#if defined(FORMAT_Q8_0)
    uvec4 q = raw.q ^ 0x80808080u;
    uvec4 even = (q & 0x00FF00FFu) | 0x64006400u;
    uvec4 odd = ((q >> 8) & 0x00FF00FFu) | 0x64006400u;
    [[unroll]] for (uint i = 0; i < 2; i++) {
        first[2 * i] = scaled_pair(even[i], float16_t(1152.0), scale[0], minimum[0]);
        first[2 * i + 1] = scaled_pair(odd[i], float16_t(1152.0), scale[0], minimum[0]);
        second[2 * i] = scaled_pair(even[2 + i], float16_t(1152.0), scale[1], minimum[1]);
        second[2 * i + 1] = scaled_pair(odd[2 + i], float16_t(1152.0), scale[1], minimum[1]);
    }
#else
#if defined(FORMAT_Q4_0)
    const float16_t MIDDLE = float16_t(8.0);
#elif defined(FORMAT_Q5_0)
    const float16_t MIDDLE = float16_t(16.0);
#elif defined(FORMAT_Q6_K)
    const float16_t MIDDLE = float16_t(32.0);
#else
    const float16_t MIDDLE = float16_t(0.0);
#endif
    [[unroll]] for (uint i = 0; i < 2; i++) {
        uint q = raw.q[i];
        // Bits above the nibbles: at bit 4 of a half for the low nibble, at bit 8 for the high one.
        uvec4 above = uvec4(0);
#if defined(FORMAT_Q5_0) || defined(FORMAT_Q5_1)
        uint low = raw.above >> (4 * i);
        uint high = low >> 16;
        low &= 0xFFFFu;
        low |= low << 14;
        high |= high << 14;
        above = uvec4(low << 4, low << 3, high << 8, high << 7) & uvec4(uvec2(0x00100010u), uvec2(0x01000100u));
#elif defined(FORMAT_Q5_K)
        uint bits = raw.above[i] >> (chunk & 6u);
        above = uvec4(bits << 4, bits >> 4, bits << 7, bits >> 1) & uvec4(uvec2(0x00100010u), uvec2(0x01000100u));
#elif defined(FORMAT_Q6_K)
        uint bits = raw.above[i] >> (2 * (chunk & 1u));
        above = uvec4(bits << 4, bits >> 4, bits << 4, bits >> 4) & uvec4(uvec2(0x00300030u), uvec2(0x03000300u));
#endif
        uint next = q >> 8;
        uvec2 low_bits = (uvec2(q, next) & 0x000F000Fu) | above.xy | 0x64006400u;
        uvec2 high_bits = (uvec2(q, next) & 0x00F000F0u) | above.zw | 0x54005400u;
        [[unroll]] for (uint j = 0; j < 2; j++) {
            first[2 * i + j] = scaled_pair(low_bits[j], float16_t(1024.0) + MIDDLE, scale[0], minimum[0]);
            second[2 * i + j] = scaled_pair(high_bits[j], float16_t(64.0) + MIDDLE, scale[1], minimum[1]);
        }
    }
#endif
#endif
}
