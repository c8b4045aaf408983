#version 460
// Stores k and v of a qkv row at the token's position. An invocation stores one element of a plain
// format, or one quant block. Grid: x = k and v items of a row / lanes, y = tokens.
#include "common.glsl"
#include "kv.glsl"

layout(push_constant, scalar) uniform Push {
    KvStep kv;
    uvec2 qkv;
} pc;

uint source_word;

float kv_source(uint i) {
    return Floats(pc.qkv).v[source_word + i];
}

#include "kv_store.glsl"

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
    source_word = (token * (kv.n_heads + 2 * kv.n_kv_heads) + kv.n_heads) * kv.head_dim + column - i;
    kv_store(kv, block, is_value, head, position, kv.head_dim, i);
}
