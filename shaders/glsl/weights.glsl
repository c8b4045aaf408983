// Weights in the layout that `load_weight` gives them, decoded 32 columns (a chunk) at a time.
//
// Plain formats are rows padded with zeros to whole chunks. Quantised formats are the file's quant
// blocks taken apart into planes, so that every load is aligned:
//
//   format  plane 0              plane 1           plane 2         plane 3
//   q8_0    32 B quants          f16 scale
//   q4_0    16 B nibbles         f16 scale
//   q4_1    16 B nibbles         f16 scale, min
//   q5_0    16 B nibbles         4 B fifth bits    f16 scale
//   q5_1    16 B nibbles         4 B fifth bits    f16 scale, min
//   q4_k    128 B nibbles        12 B scales       f16 scale, min
//   q5_k    128 B nibbles        32 B fifth bits   12 B scales     f16 scale, min
//   q6_k    128 B low nibbles    64 B high pairs   16 B scales     f16 scale
//
// A quantised weight is `scale * quant + minimum` with a quant of a signed byte. Products take it so
// (`load_quants`), against activations of the same form; tables want it decoded (`decode_chunk`).
//
// The including kernel declares `pc.chunks`, the chunks of a row.

#define CHUNK 32

#if !defined(FORMAT_F32) && !defined(FORMAT_F16) && !defined(FORMAT_BF16)
#define QUANTISED
#endif

// Four bits of `bits`, each moved to bit 4 of its byte.
uint fifth_bits(uint bits) {
    return ((bits & 1u) << 4) | ((bits & 2u) << 11) | ((bits & 4u) << 18) | ((bits & 8u) << 25);
}

#ifdef QUANTISED
// Bytes of each plane, for a chunk or, where the format's quant block is one, for 256 columns.
#if defined(FORMAT_Q8_0)
const uvec4 PLANE_BYTES = uvec4(32, 2, 0, 0);
#elif defined(FORMAT_Q4_0)
const uvec4 PLANE_BYTES = uvec4(16, 2, 0, 0);
#elif defined(FORMAT_Q4_1)
const uvec4 PLANE_BYTES = uvec4(16, 4, 0, 0);
#elif defined(FORMAT_Q5_0)
const uvec4 PLANE_BYTES = uvec4(16, 4, 2, 0);
#elif defined(FORMAT_Q5_1)
const uvec4 PLANE_BYTES = uvec4(16, 4, 4, 0);
#elif defined(FORMAT_Q4_K)
const uvec4 PLANE_BYTES = uvec4(128, 12, 4, 0);
#elif defined(FORMAT_Q5_K)
const uvec4 PLANE_BYTES = uvec4(128, 32, 12, 4);
#else
const uvec4 PLANE_BYTES = uvec4(128, 64, 16, 2);
#endif
#if defined(FORMAT_Q4_K) || defined(FORMAT_Q5_K) || defined(FORMAT_Q6_K)
#define BLOCK_CHUNKS 8
#else
#define BLOCK_CHUNKS 1
#endif

// Where the planes of a weight start that has so many chunks in all.
void planes_of(uvec2 address, uint all_chunks, out uvec2 planes[4]) {
    [[unroll]] for (uint i = 0; i < 4; i++) {
        planes[i] = address;
        uint high;
        uint low;
        umulExtended(all_chunks / BLOCK_CHUNKS, PLANE_BYTES[i], high, low);
        address = advance(address, low);
        address.y += high;
    }
}

// A chunk as it lies in memory: what a kernel holds while the loads are on their way.
struct Packed {
    uvec4 q[2];
    uvec4 high[2];
    uint scale;
    uint more[3];
};

Packed load_packed(uvec2 planes[4], uint row, uint chunk) {
    uint block = row * pc.chunks + chunk;
    Packed p;
#if defined(FORMAT_Q8_0)
    p.q[0] = Quads(planes[0]).v[block * 2];
    p.q[1] = Quads(planes[0]).v[block * 2 + 1];
    p.scale = load_bits16(planes[1], block);
#elif defined(FORMAT_Q4_0) || defined(FORMAT_Q4_1) || defined(FORMAT_Q5_0) || defined(FORMAT_Q5_1)
    p.q[0] = Quads(planes[0]).v[block];
#if defined(FORMAT_Q4_0)
    p.scale = load_bits16(planes[1], block);
#elif defined(FORMAT_Q4_1)
    p.scale = Words(planes[1]).v[block];
#else
    p.more[0] = Words(planes[1]).v[block];
#if defined(FORMAT_Q5_0)
    p.scale = load_bits16(planes[2], block);
#else
    p.scale = Words(planes[2]).v[block];
#endif
#endif
#else
    uint super_block = block >> 3;
    uint sub = block & 7u;
#if defined(FORMAT_Q4_K)
    p.scale = Words(planes[2]).v[super_block];
    uvec2 scales = planes[1];
#elif defined(FORMAT_Q5_K)
    p.scale = Words(planes[3]).v[super_block];
    uvec2 scales = planes[2];
#endif
#if defined(FORMAT_Q4_K) || defined(FORMAT_Q5_K)
    [[unroll]] for (uint i = 0; i < 3; i++) {
        p.more[i] = Words(scales).v[super_block * 3 + i];
    }
    [[unroll]] for (uint i = 0; i < 2; i++) {
        // Two sub-blocks share 32 bytes: the even one has the low nibbles, the odd one the high ones.
        p.q[i] = Quads(planes[0]).v[super_block * 8 + (sub >> 1) * 2 + i];
#if defined(FORMAT_Q5_K)
        p.high[i] = Quads(planes[1]).v[super_block * 2 + i];
#endif
    }
#else
    p.scale = load_bits16(planes[3], super_block);
    p.more[0] = Words(planes[2]).v[super_block * 4 + (sub >> 1)];
    [[unroll]] for (uint i = 0; i < 2; i++) {
        // A half of the super-block: 64 bytes of nibbles, 32 bytes of bit pairs.
        p.q[i] = Quads(planes[0]).v[super_block * 8 + (sub >> 2) * 4 + (sub & 1u) * 2 + i];
        p.high[i] = Quads(planes[1]).v[super_block * 4 + (sub >> 2) * 2 + i];
    }
#endif
#endif
    return p;
}

// 32 quants, four to a word, with their scale and minimum. q6_k alone has a scale for each 16.
struct Quants {
    uint q[8];
    vec2 scale;
    float minimum;
};

float half_of(uint bits) {
    return unpackHalf2x16(bits).x;
}

// The chunk that was loaded; where a quant block is longer than a chunk, `chunk` says which part it is.
Quants unpack(Packed p, uint chunk) {
    Quants w;
    w.minimum = 0.0;
#if defined(FORMAT_Q8_0)
    w.scale = vec2(half_of(p.scale));
    [[unroll]] for (uint i = 0; i < 8; i++) {
        w.q[i] = p.q[i / 4][i % 4];
    }
#elif defined(FORMAT_Q4_0) || defined(FORMAT_Q4_1) || defined(FORMAT_Q5_0) || defined(FORMAT_Q5_1)
    [[unroll]] for (uint i = 0; i < 4; i++) {
        w.q[i] = p.q[0][i] & 0x0F0F0F0Fu;
        w.q[4 + i] = (p.q[0][i] >> 4) & 0x0F0F0F0Fu;
    }
#if defined(FORMAT_Q5_0) || defined(FORMAT_Q5_1)
    [[unroll]] for (uint i = 0; i < 8; i++) {
        w.q[i] |= fifth_bits(p.more[0] >> (4 * i));
    }
#endif
#if defined(FORMAT_Q4_0) || defined(FORMAT_Q5_0)
    w.scale = vec2(half_of(p.scale));
#if defined(FORMAT_Q4_0)
    w.minimum = -8.0 * w.scale.x;
#else
    w.minimum = -16.0 * w.scale.x;
#endif
#else
    vec2 scale_min = unpackHalf2x16(p.scale);
    w.scale = scale_min.xx;
    w.minimum = scale_min.y;
#endif
#else
    // Rows are whole quant blocks.
    uint sub = chunk & 7u;
#if defined(FORMAT_Q4_K) || defined(FORMAT_Q5_K)
    // The 6-bit scale and minimum of the sub-block out of 12 packed bytes.
    uint shift = 8 * (sub & 3u);
    uint a = p.more[0] >> shift;
    uint b = p.more[1] >> shift;
    uint c = p.more[2] >> shift;
    bool low = sub < 4;
    uint scale = low ? (a & 63u) : ((c & 0xFu) | ((a >> 2) & 0x30u));
    uint minimum = low ? (b & 63u) : (((c >> 4) & 0xFu) | ((b >> 2) & 0x30u));
    vec2 d = unpackHalf2x16(p.scale);
    w.scale = vec2(d.x * float(scale));
    w.minimum = -d.y * float(minimum);
#else
    uint part = sub & 3u;
    int scales = int(p.more[0] >> (16 * (sub & 1u)));
    w.scale = half_of(p.scale) * vec2(scales << 24 >> 24, scales << 16 >> 24);
#endif
    [[unroll]] for (uint i = 0; i < 2; i++) {
#if defined(FORMAT_Q6_K)
        uvec4 q = ((p.q[i] >> (4 * (part >> 1))) & 0x0F0F0F0Fu) | (((p.high[i] >> (2 * part)) & 0x03030303u) << 4);
        // 32 less in each byte: with its top bit set no byte borrows from the next.
        q = ((q | 0x80808080u) - 0x20202020u) ^ 0x80808080u;
#else
        uvec4 q = (p.q[i] >> (4 * (sub & 1u))) & 0x0F0F0F0Fu;
#if defined(FORMAT_Q5_K)
        q |= ((p.high[i] >> sub) & 0x01010101u) << 4;
#endif
#endif
        [[unroll]] for (uint j = 0; j < 4; j++) {
            w.q[4 * i + j] = q[j];
        }
    }
#endif
    return w;
}

Quants load_quants(uvec2 planes[4], uint row, uint chunk) {
    return unpack(load_packed(planes, row, chunk), chunk);
}
#endif

vec4 signed_bytes_to_vec4(uint word) {
    int s = int(word);
    return vec4(float(s << 24 >> 24), float(s << 16 >> 24), float(s << 8 >> 24), float(s >> 24));
}

// The columns `32 * chunk ..` of `row`.
void decode_chunk(uvec2 planes[4], uint row, uint chunk, out vec4 w[8]) {
#ifdef QUANTISED
    Quants quants = load_quants(planes, row, chunk);
    [[unroll]] for (uint i = 0; i < 8; i++) {
        w[i] = quants.scale[i / 4] * signed_bytes_to_vec4(quants.q[i]) + quants.minimum;
    }
#else
    uint block = row * pc.chunks + chunk;
#if defined(FORMAT_F32)
    [[unroll]] for (uint i = 0; i < 8; i++) {
        w[i] = Vec4s(planes[0]).v[block * 8 + i];
    }
#elif defined(FORMAT_F16)
    [[unroll]] for (uint i = 0; i < 4; i++) {
        uvec4 q = Quads(planes[0]).v[block * 4 + i];
        w[2 * i] = vec4(unpackHalf2x16(q.x), unpackHalf2x16(q.y));
        w[2 * i + 1] = vec4(unpackHalf2x16(q.z), unpackHalf2x16(q.w));
    }
#else
    [[unroll]] for (uint i = 0; i < 4; i++) {
        uvec4 q = Quads(planes[0]).v[block * 4 + i];
        uvec4 even = q << 16;
        uvec4 odd = q & 0xFFFF0000u;
        w[2 * i] = uintBitsToFloat(uvec4(even.x, odd.x, even.y, odd.y));
        w[2 * i + 1] = uintBitsToFloat(uvec4(even.z, odd.z, even.w, odd.w));
    }
#endif
#endif
}
