// Weights as halves for matrix instructions. A slab of a product covers 64 of 256 columns, in eight slots of
// eight halves for each row; four neighbouring lanes bring a row, two slots each: they load its bits
// (`load_raw`), and later turn them into halves (`expand`), the slots FIRST_SLOT and SECOND_SLOT.
//
// The order of columns within a product is free as long as x keeps to the same one. So
// - of each four columns the order is 0, 2, 1, 3, which is how masks find bytes and nibbles in words;
// - slab w of 256 columns takes every fourth run of four columns, from the w-th on, which are the nibbles of
//   one word in each 16 bytes: a lane loads 32 bytes for four slabs at once, next to its neighbour's.
// Where all weights of an op have at least 8 bits, slabs are NATURAL instead: 64 consecutive columns.
//
// A quant becomes a half by its bits: 0x6400 | q is 1024 + q, and 0x5400 | q << 4 is 64 + q, both exactly.
//
// The including kernel declares NATURAL, `pc.planes[4]` or PLANES in its place, and `pc.chunks`: chunks of 32 columns of
// a row. Where it defines CHUNK_OF, it says which chunk a slot of a lane comes from.

#ifndef PLANES
#define PLANES pc.planes
#endif
#ifndef CHUNK_OF
#define CHUNK_OF(run, lane, slot) ((run) * 8 + (lane) * 2 + (slot))
#endif

layout(buffer_reference, scalar, buffer_reference_align = 8) readonly buffer WordPairs { uvec2 v[]; };

// How many slabs one load serves.
#if defined(FORMAT_F16) || defined(FORMAT_BF16) || defined(FORMAT_Q8_0)
#define LOAD_SLABS 1
#else
#define LOAD_SLABS 4
#endif

#ifdef FORMAT_Q6_K
#define FIRST_SLOT(lane) (((lane) & 2u) * 2 + ((lane) & 1u))
#define SECOND_SLOT(lane) (FIRST_SLOT(lane) + 2)
#else
#define FIRST_SLOT(lane) (2 * (lane))
#define SECOND_SLOT(lane) (2 * (lane) + 1)
#endif

// The bits of a lane's part of a row; of the words of four slabs, the first are the next.
struct Raw {
#if defined(FORMAT_Q8_0)
    uvec4 q;
#else
    uvec4 q[2];
#endif
#if defined(FORMAT_Q5_0) || defined(FORMAT_Q5_1)
    uint above[2];
#elif defined(FORMAT_Q5_K) || defined(FORMAT_Q6_K)
    uvec4 above[2];
#endif
};

// The bits of the scales of a lane's part of a row.
struct RawScales {
#if defined(FORMAT_Q4_K) || defined(FORMAT_Q5_K)
    uvec3 small;
    uint d;
#elif defined(FORMAT_Q6_K)
    uint small[2];
    uint d;
#else
    uint d[2];
#endif
};

// Two pairs, see `scale_of`.
struct Scales {
    f16vec2 pair[2];
};

// The 32 columns that a slot of a lane comes from, as an index into the weight's; at the end of a row the last ones.
uint block_of(uint row, uint slab, uint lane, uint slot) {
    uint chunk = NATURAL ? slab * 2 + (lane >> 1) : CHUNK_OF(slab >> 2, lane, slot);
    return row * pc.chunks + min(chunk, pc.chunks - 1);
}

Raw load_raw(uint row, uint slab, uint lane) {
    Raw raw;
#if defined(FORMAT_Q8_0)
    if (NATURAL) {
        raw.q = Quads(PLANES[0]).v[block_of(row, slab, lane, 0) * 2 + (lane & 1u)];
    } else {
        Words words = Words(PLANES[0]);
        uint first = block_of(row, slab, lane, 0) * 8 + (slab & 3u);
        uint second = block_of(row, slab, lane, 1) * 8 + (slab & 3u);
        raw.q = uvec4(words.v[first], words.v[first + 4], words.v[second], words.v[second + 4]);
    }
#else
    [[unroll]] for (uint i = 0; i < 2; i++) {
        uint block = block_of(row, slab, lane, i);
#if defined(FORMAT_F16) || defined(FORMAT_BF16)
        if (NATURAL) {
            raw.q[i] = Quads(PLANES[0]).v[block * 4 + (lane & 1u) * 2 + i];
        } else {
            WordPairs pairs = WordPairs(PLANES[0]);
            raw.q[i] = uvec4(pairs.v[block * 8 + (slab & 3u)], pairs.v[block * 8 + 4 + (slab & 3u)]);
        }
#else
        raw.q[i] = Quads(PLANES[0]).v[block];
#endif
#if defined(FORMAT_Q5_0) || defined(FORMAT_Q5_1)
        raw.above[i] = Words(PLANES[1]).v[block];
#elif defined(FORMAT_Q5_K)
        raw.above[i] = Quads(PLANES[1]).v[(block >> 3) * 2 + i];
#elif defined(FORMAT_Q6_K)
        raw.above[i] = Quads(PLANES[1]).v[(block >> 3) * 4 + (lane & 2u) + i];
#endif
    }
#endif
    return raw;
}

RawScales load_scales(uint row, uint slab, uint lane) {
    RawScales s;
#if defined(FORMAT_Q4_K) || defined(FORMAT_Q5_K)
    uint super_block = block_of(row, slab, lane, 0) >> 3;
#if defined(FORMAT_Q4_K)
    Words small = Words(PLANES[1]);
    s.d = Words(PLANES[2]).v[super_block];
#else
    Words small = Words(PLANES[2]);
    s.d = Words(PLANES[3]).v[super_block];
#endif
    s.small = uvec3(small.v[super_block * 3], small.v[super_block * 3 + 1], small.v[super_block * 3 + 2]);
#elif defined(FORMAT_Q6_K)
    uint super_block = block_of(row, slab, lane, 0) >> 3;
    uint pair = super_block * 8 + (lane & 2u) * 2 + (lane & 1u);
    s.small[0] = load_bits16(PLANES[2], pair);
    s.small[1] = load_bits16(PLANES[2], pair + 2);
    s.d = load_bits16(PLANES[3], super_block);
#else
    [[unroll]] for (uint i = 0; i < 2; i++) {
        uint block = block_of(row, slab, lane, i);
#if defined(FORMAT_Q8_0) || defined(FORMAT_Q4_0)
        s.d[i] = load_bits16(PLANES[1], block);
#elif defined(FORMAT_Q5_0)
        s.d[i] = load_bits16(PLANES[2], block);
#elif defined(FORMAT_Q4_1)
        s.d[i] = Words(PLANES[1]).v[block];
#elif defined(FORMAT_Q5_1)
        s.d[i] = Words(PLANES[2]).v[block];
#else
        s.d[i] = 0;
#endif
    }
#endif
    return s;
}

Scales to_scales(RawScales raw, uint lane) {
    Scales s;
#if defined(FORMAT_Q4_K) || defined(FORMAT_Q5_K)
    uvec3 bits = raw.small >> (16 * (lane & 1u));
    // The scales of two runs of 32 columns in 16 bits, and their minima.
    uint scales = lane < 2 ? bits.x & 0x3F3Fu : (bits.z & 0x0F0Fu) | ((bits.x >> 2) & 0x3030u);
    uint minima = lane < 2 ? bits.y & 0x3F3Fu : ((bits.z >> 4) & 0x0F0Fu) | ((bits.y >> 2) & 0x3030u);
    f16vec2 d = unpackFloat2x16(raw.d) * f16vec2(1.0, -1.0);
    [[unroll]] for (uint i = 0; i < 2; i++) {
        uint both = ((scales >> (8 * i)) & 0xFFu) | (((minima >> (8 * i)) & 0xFFu) << 16);
        s.pair[i] = (unpackFloat2x16(both | 0x64006400u) - f16vec2(1024.0)) * d;
    }
#elif defined(FORMAT_Q6_K)
    [[unroll]] for (uint i = 0; i < 2; i++) {
        ivec2 bytes = ivec2(int(raw.small[i] << 24), int(raw.small[i] << 16)) >> 24;
        s.pair[i] = f16vec2(vec2(bytes) * unpackHalf2x16(raw.d).x);
    }
#else
    s.pair[0] = unpackFloat2x16(raw.d[0]);
    s.pair[1] = unpackFloat2x16(raw.d[1]);
#endif
    return s;
}

// A pair of quants of a lane's load `i`, given as the bits of `from + q`; `high` says from which nibbles.
uint scaled_pair(uint bits, float16_t from, Scales s, uint i, uint high) {
    f16vec2 q = unpackFloat2x16(bits) - from;
#if defined(FORMAT_Q4_1) || defined(FORMAT_Q5_1)
    return packFloat2x16(fma(q, s.pair[i].xx, s.pair[i].yy));
#elif defined(FORMAT_Q4_K) || defined(FORMAT_Q5_K)
    return packFloat2x16(fma(q, s.pair[high].xx, s.pair[high].yy));
#elif defined(FORMAT_Q6_K)
    return packFloat2x16(q * (i == 0 ? s.pair[high].xx : s.pair[high].yy));
#else
    return packFloat2x16(q * s.pair[i].xx);
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

// The halves of a lane's slots of a slab; the words of the next slab move to the front.
void expand(inout Raw raw, Scales s, uint lane, out uvec4 first, out uvec4 second) {
#if defined(FORMAT_F16)
    first = uvec4(reordered(raw.q[0].xy), reordered(raw.q[0].zw));
    second = uvec4(reordered(raw.q[1].xy), reordered(raw.q[1].zw));
#elif defined(FORMAT_BF16)
    first = uvec4(bf16_reordered(raw.q[0].xy), bf16_reordered(raw.q[0].zw));
    second = uvec4(bf16_reordered(raw.q[1].xy), bf16_reordered(raw.q[1].zw));
#elif defined(FORMAT_Q8_0)
    uvec4 q = raw.q ^ 0x80808080u;
    uvec4 even = (q & 0x00FF00FFu) | 0x64006400u;
    uvec4 odd = ((q >> 8) & 0x00FF00FFu) | 0x64006400u;
    [[unroll]] for (uint i = 0; i < 2; i++) {
        first[2 * i] = scaled_pair(even[i], float16_t(1152.0), s, 0, 0);
        first[2 * i + 1] = scaled_pair(odd[i], float16_t(1152.0), s, 0, 0);
        second[2 * i] = scaled_pair(even[2 + i], float16_t(1152.0), s, 1, 0);
        second[2 * i + 1] = scaled_pair(odd[2 + i], float16_t(1152.0), s, 1, 0);
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
    uvec2 low[2];
    uvec2 high[2];
    [[unroll]] for (uint i = 0; i < 2; i++) {
        uint q = raw.q[i].x;
        raw.q[i] = raw.q[i].yzwx;
        // Bits above the nibbles: at bit 4 of a half for the low nibble, at bit 8 for the high one.
        uvec4 above = uvec4(0);
#if defined(FORMAT_Q5_0) || defined(FORMAT_Q5_1)
        uint low_bits = raw.above[i] & 0xFu;
        uint high_bits = (raw.above[i] >> 16) & 0xFu;
        raw.above[i] >>= 4;
        low_bits |= low_bits << 14;
        high_bits |= high_bits << 14;
        above = uvec4(low_bits << 4, low_bits << 3, high_bits << 8, high_bits << 7);
        above &= uvec4(uvec2(0x00100010u), uvec2(0x01000100u));
#elif defined(FORMAT_Q5_K)
        uint bits = raw.above[i].x >> (2 * lane);
        raw.above[i] = raw.above[i].yzwx;
        above = uvec4(bits << 4, bits >> 4, bits << 7, bits >> 1) & uvec4(uvec2(0x00100010u), uvec2(0x01000100u));
#elif defined(FORMAT_Q6_K)
        uint bits = raw.above[i].x >> (2 * (lane & 1u));
        raw.above[i] = raw.above[i].yzwx;
        above = uvec4(bits << 4, bits >> 4, bits << 4, bits >> 4) & uvec4(uvec2(0x00300030u), uvec2(0x03000300u));
#endif
        uint next = q >> 8;
        uvec2 low_quants = (uvec2(q, next) & 0x000F000Fu) | above.xy | 0x64006400u;
        uvec2 high_quants = (uvec2(q, next) & 0x00F000F0u) | above.zw | 0x54005400u;
        [[unroll]] for (uint j = 0; j < 2; j++) {
            low[i][j] = scaled_pair(low_quants[j], float16_t(1024.0) + MIDDLE, s, i, 0);
            high[i][j] = scaled_pair(high_quants[j], float16_t(64.0) + MIDDLE, s, i, 1);
        }
    }
#if defined(FORMAT_Q4_K) || defined(FORMAT_Q5_K) || defined(FORMAT_Q6_K)
    first = uvec4(low[0], low[1]);
    second = uvec4(high[0], high[1]);
#else
    first = uvec4(low[0], high[0]);
    second = uvec4(low[1], high[1]);
#endif
#endif
}
