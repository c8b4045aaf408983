// Stores keys and values in the cache, an item at a time: one element of a plain format, or one quant
// block. The including kernel defines `float kv_source(uint i)`, element `i` of the head's row.

#if defined(FORMAT_Q8_0)
#define ITEM 32
#else
#define ITEM 1
#endif

// Stores the item that begins at element `i` of a KV head's key or value row.
void kv_store(KvStep kv, uvec2 block, bool is_value, uint head, uint position, uint head_dim, uint i) {
    uint row_index = head * kv.block_len + position % kv.block_len;
    // Stores are indexed from the block, whose address all lanes share: a reference of each lane's own makes
    // Mesa 26.1's driver on the CPU overrun its stack at 16 lanes.
    uint first = (is_value ? kv.v_offset : kv.k_offset) + row_index * KV_ROW_BYTES(head_dim);
#if defined(FORMAT_F32)
    Floats(block).v[first / 4 + i] = kv_source(i);
#elif defined(FORMAT_F16)
    // The largest finite half; beyond it the conversion would give infinity and poison the softmax.
    Shorts(block).v[first / 2 + i] = uint16_t(float_to_f16(clamp(kv_source(i), -65504.0, 65504.0)));
#elif defined(FORMAT_BF16)
    Shorts(block).v[first / 2 + i] = uint16_t(float_to_bf16(kv_source(i)));
#else
    float largest = 0.0;
    for (uint j = 0; j < 32; j++) {
        largest = max(largest, abs(kv_source(i + j)));
    }
    float scale = min(largest / 127.0, 65504.0);
    float inverse = scale > 0.0 ? 1.0 / scale : 0.0;
    uint start = first + i / 32 * 34;
    Shorts(block).v[start / 2] = uint16_t(float_to_f16(scale));
    for (uint j = 0; j < 32; j++) {
        float q = kv_source(i + j) * inverse;
        Chars(block).v[start + 2 + j] = int8_t(clamp(int(sign(q) * floor(abs(q) + 0.5)), -127, 127));
    }
#endif
}
