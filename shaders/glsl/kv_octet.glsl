// Rows of the cache eight elements at a time, as they are stored and as numbers. The including kernel has HEAD_DIM.
struct KvOctet {
#if defined(FORMAT_F32)
    uvec4 words[2];
#elif defined(FORMAT_Q8_0)
    uvec2 quants;
    uint scale;          // a half
#else
    uvec4 words;
#endif
};

// Elements `8 * octet ..` of the key or value row that is the given number from the one at `first`; plain formats'
// rows start at multiples of 16 bytes.
KvOctet kv_fetch(uvec2 first, uint row, uint octet) {
    KvOctet stored;
#if defined(FORMAT_F32)
    uint at = row * (HEAD_DIM / 4) + octet * 2;
    stored.words[0] = Quads(first).v[at];
    stored.words[1] = Quads(first).v[at + 1];
#elif defined(FORMAT_Q8_0)
    uint start = row * (HEAD_DIM / 32 * 17) + octet / 4 * 17;
    uint at = start + 1 + octet % 4 * 4;
    stored.scale = load_bits16(first, start);
    stored.quants.x = load_bits16(first, at) | load_bits16(first, at + 1) << 16;
    stored.quants.y = load_bits16(first, at + 2) | load_bits16(first, at + 3) << 16;
#else
    stored.words = Quads(first).v[row * (HEAD_DIM / 8) + octet];
#endif
    return stored;
}

// What is stored, or zeros: the bits are masked, because what lies where nothing is may be no number.
void kv_decode(KvOctet stored, bool there, out float v[8]) {
    uint mask = mix(0, 0xFFFFFFFFu, there);
#if defined(FORMAT_F32)
    [[unroll]] for (uint i = 0; i < 8; i++) {
        v[i] = uintBitsToFloat(stored.words[i / 4][i % 4] & mask);
    }
#elif defined(FORMAT_Q8_0)
    float scale = unpackHalf2x16(stored.scale & mask).x;
    [[unroll]] for (uint i = 0; i < 8; i++) {
        v[i] = scale * float(bitfieldExtract(int(stored.quants[i / 4]), int(i % 4 * 8), 8));
    }
#else
    [[unroll]] for (uint i = 0; i < 4; i++) {
        uint word = stored.words[i] & mask;
#if defined(FORMAT_F16)
        vec2 pair = unpackHalf2x16(word);
#else
        vec2 pair = uintBitsToFloat(uvec2(word << 16, word & 0xFFFF0000u));
#endif
        v[2 * i] = pair.x;
        v[2 * i + 1] = pair.y;
    }
#endif
}
