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
    // A load and a choice: no branch, so that several are on their way at a time.
    bool known = slot < step_data.max_slots && index < step_data.max_blocks;
    uvec2 table = advance(step_data.step_address, step_data.table_bytes);
    uvec2 entry = Addresses(table).v[mix(0, slot * step_data.max_blocks + index, known)];
    return mix(uvec2(0), entry, bvec2(known));
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
