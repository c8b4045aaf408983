// The paged KV cache: a table per layer group, a row per sequence slot, an entry per block. An entry is
// the block's device address; 0 means that there is none.
struct KvStep {
    uvec2 step_address;
    uint max_rows;
    uint positions_word;
    uint slots_word;
    uint table_bytes;    // where the table starts in the step buffer
    uint max_slots;
    uint max_blocks;
    uint block_len;
    uint k_offset;       // bytes from a block's start
    uint v_offset;
    uint n_heads;
    uint n_kv_heads;
    uint head_dim;
};

#if defined(FORMAT_F32)
#define KV_ROW_BYTES(head_dim) ((head_dim) * 4)
#elif defined(FORMAT_F16) || defined(FORMAT_BF16)
#define KV_ROW_BYTES(head_dim) ((head_dim) * 2)
#elif defined(FORMAT_Q8_0)
#define KV_ROW_BYTES(head_dim) ((head_dim) / 32 * 34)
#else
#error "no format of the cache chosen"
#endif

// The address of the block of a position, or 0 if the sequence has none there.
uvec2 kv_block(KvStep step_data, uint slot, uint position) {
    uint index = position / step_data.block_len;
    if (slot >= step_data.max_slots || index >= step_data.max_blocks) {
        return uvec2(0);
    }
    uvec2 table = advance(step_data.step_address, step_data.table_bytes);
    return Addresses(table).v[slot * step_data.max_blocks + index];
}

// The last position that a token sees, never beyond its table: the step does not decide how long a loop runs.
uint kv_last(KvStep step_data, uint token) {
    uint position = Words(step_data.step_address).v[step_data.positions_word + token];
    return min(position, step_data.max_blocks * step_data.block_len - 1);
}

// One element of a key or value row.
float kv_load(uvec2 row, uint i) {
#if defined(FORMAT_F32)
    return Floats(row).v[i];
#elif defined(FORMAT_F16)
    return float(Halves(row).v[i]);
#elif defined(FORMAT_BF16)
    return bf16_to_float(uint(Shorts(row).v[i]));
#else
    uint start = i / 32 * 34;
    return float(Halves(row).v[start / 2]) * float(int(Chars(row).v[start + 2 + i % 32]));
#endif
}

// Elements `8 * octet ..` of a key or value row; plain formats' rows start at multiples of 16 bytes.
void kv_load_octet(uvec2 row, uint octet, out float v[8]) {
#if defined(FORMAT_F32)
    [[unroll]] for (uint i = 0; i < 2; i++) {
        vec4 quad = Vec4s(row).v[octet * 2 + i];
        [[unroll]] for (uint j = 0; j < 4; j++) {
            v[4 * i + j] = quad[j];
        }
    }
#elif defined(FORMAT_F16) || defined(FORMAT_BF16)
    uvec4 words = Quads(row).v[octet];
    [[unroll]] for (uint i = 0; i < 4; i++) {
#if defined(FORMAT_F16)
        vec2 pair = unpackHalf2x16(words[i]);
#else
        vec2 pair = uintBitsToFloat(uvec2(words[i] << 16, words[i] & 0xFFFF0000u));
#endif
        v[2 * i] = pair.x;
        v[2 * i + 1] = pair.y;
    }
#else
    [[unroll]] for (uint i = 0; i < 8; i++) {
        v[i] = kv_load(row, octet * 8 + i);
    }
#endif
}
