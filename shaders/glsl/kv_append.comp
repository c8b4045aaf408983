#version 460
// Stores k and v of a qkv row at the token's position. An invocation stores one element of a plain
// format, or one quant block. Grid: x = k and v items of a row / lanes, y = tokens.
#include "common.glsl"
#include "kv.glsl"

layout(push_constant, scalar) uniform Push {
    KvStep kv;
    uvec2 qkv;
} pc;

#if defined(FORMAT_Q8_0)
#define ITEM 32
#else
#define ITEM 1
#endif

void main() {
    KvStep kv = pc.kv;
    uint n = rows_of_step(kv.step_address, 0, kv.max_rows);
    uint token = gl_WorkGroupID.y;
    uint kv_width = kv.n_kv_heads * kv.head_dim;
    uint column = gl_GlobalInvocationID.x * ITEM;
    if (token >= n || column >= 2 * kv_width) {
        return;
    }
    uint position = Words(kv.step_address).v[kv.positions_word + token];
    uint slot = Words(kv.step_address).v[kv.slots_word + token];
    uvec2 block = kv_block(kv, slot, position);
    if ((block.x | block.y) == 0) {
        return;
    }
    bool is_value = column >= kv_width;
    uint within = is_value ? column - kv_width : column;
    uint head = within / kv.head_dim;
    uint i = within - head * kv.head_dim;
    uint row_index = head * kv.block_len + position % kv.block_len;
    // Stores are indexed from the block, whose address all lanes share: a reference of each lane's own makes
    // Mesa 26.1's driver on the CPU overrun its stack at 16 lanes.
    uint first = (is_value ? kv.v_offset : kv.k_offset) + row_index * KV_ROW_BYTES(kv.head_dim);
    Floats source = Floats(pc.qkv);
    uint from = token * (kv.n_heads + 2 * kv.n_kv_heads) * kv.head_dim + kv.n_heads * kv.head_dim + column;
#if defined(FORMAT_F32)
    Floats(block).v[first / 4 + i] = source.v[from];
#elif defined(FORMAT_F16)
    // The largest finite half; beyond it the conversion would give infinity and poison the softmax.
    Shorts(block).v[first / 2 + i] = uint16_t(float_to_f16(clamp(source.v[from], -65504.0, 65504.0)));
#elif defined(FORMAT_BF16)
    Shorts(block).v[first / 2 + i] = uint16_t(float_to_bf16(source.v[from]));
#else
    float largest = 0.0;
    for (uint j = 0; j < 32; j++) {
        largest = max(largest, abs(source.v[from + j]));
    }
    float scale = min(largest / 127.0, 65504.0);
    float inverse = scale > 0.0 ? 1.0 / scale : 0.0;
    uint start = first + i / 32 * 34;
    Shorts(block).v[start / 2] = uint16_t(float_to_f16(scale));
    for (uint j = 0; j < 32; j++) {
        float q = source.v[from + j] * inverse;
        Chars(block).v[start + 2 + j] = int8_t(clamp(int(sign(q) * floor(abs(q) + 0.5)), -127, 127));
    }
#endif
}
