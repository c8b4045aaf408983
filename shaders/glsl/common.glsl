// What every kernel shares: extensions, addresses, the step header, and sums over a workgroup.
//
// There are no descriptor sets. A buffer is a 64-bit device address, handled as two 32-bit words so
// that no kernel needs 64-bit integers. Nothing depends on the subgroup's size: SUBGROUP only sizes
// arrays and drops the code that joins subgroups where there is one.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_scalar_block_layout : require
#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_shader_8bit_storage : require
#extension GL_EXT_shader_explicit_arithmetic_types : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_ballot : require

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint SUBGROUP = 32;

layout(buffer_reference, scalar, buffer_reference_align = 4) buffer Floats { float v[]; };
layout(buffer_reference, scalar, buffer_reference_align = 8) buffer Pairs { vec2 v[]; };
layout(buffer_reference, scalar, buffer_reference_align = 16) readonly buffer Vec4s { vec4 v[]; };
layout(buffer_reference, scalar, buffer_reference_align = 4) buffer Words { uint v[]; };
layout(buffer_reference, scalar, buffer_reference_align = 8) readonly buffer Addresses { uvec2 v[]; };
layout(buffer_reference, scalar, buffer_reference_align = 16) readonly buffer Quads { uvec4 v[]; };
layout(buffer_reference, scalar, buffer_reference_align = 16) writeonly buffer QuadsOut { uvec4 v[]; };
layout(buffer_reference, scalar, buffer_reference_align = 2) buffer Halves { float16_t v[]; };
layout(buffer_reference, scalar, buffer_reference_align = 2) buffer Shorts { uint16_t v[]; };
layout(buffer_reference, scalar, buffer_reference_align = 1) buffer Chars { int8_t v[]; };

uvec2 advance(uvec2 address, uint bytes) {
    uint carry;
    uint low = uaddCarry(address.x, bytes, carry);
    return uvec2(low, address.y + carry);
}

// How many rows this step has: a word of the step header, never more than the recording was made for.
uint rows_of_step(uvec2 step_address, uint header_word, uint max_rows) {
    return min(Words(step_address).v[header_word], max_rows);
}

uint load_bits16(uvec2 plane, uint index) {
    return uint(Shorts(plane).v[index]);
}

float load_f16(uvec2 plane, uint index) {
    return float(Halves(plane).v[index]);
}

float bf16_to_float(uint bits) {
    return uintBitsToFloat(bits << 16);
}

// Round to nearest even, as the host does; a NaN keeps its sign and stays one.
uint float_to_bf16(float x) {
    uint bits = floatBitsToUint(x);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) {
        return (bits >> 16) | 0x40u;
    }
    return (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
}

// Round to nearest even: Vulkan leaves the rounding of its own conversion open.
uint float_to_f16(float x) {
    uint bits = floatBitsToUint(x);
    uint sign = (bits >> 16) & 0x8000u;
    uint magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) {
        return sign | 0x7E00u;
    }
    if (magnitude < 0x38800000u) {
        // Below the least normal half: 0.5 has the step of the subnormal halves, so the sum rounds.
        precise float rounded = uintBitsToFloat(magnitude) + 0.5;
        return sign | (floatBitsToUint(rounded) - 0x3F000000u);
    }
    uint rounded = magnitude - 0x38000000u + 0xFFFu + ((magnitude >> 13) & 1u);
    return sign | min(rounded >> 13, 0x7C00u);
}

float soft_cap(float x, float cap) {
    // tanh by one exponential; for large arguments the quotient goes to zero, never to NaN.
    return cap > 0.0 ? cap * (1.0 - 2.0 / (exp(2.0 * x / cap) + 1.0)) : x;
}

#ifdef WORKGROUP_SUM
shared float subgroup_sums[256];

// The sum of `x` over the workgroup, in every invocation. All invocations must call it.
float workgroup_sum(float x) {
    float sum = subgroupAdd(x);
    if (gl_WorkGroupSize.x > SUBGROUP) {
        if (subgroupElect()) {
            subgroup_sums[gl_SubgroupID] = sum;
        }
        barrier();
        sum = 0.0;
        for (uint i = 0; i < gl_NumSubgroups; i++) {
            sum += subgroup_sums[i];
        }
        barrier();
    }
    return sum;
}

// The largest `x` of the workgroup, likewise.
float workgroup_max(float x) {
    float largest = subgroupMax(x);
    if (gl_WorkGroupSize.x > SUBGROUP) {
        if (subgroupElect()) {
            subgroup_sums[gl_SubgroupID] = largest;
        }
        barrier();
        for (uint i = 0; i < gl_NumSubgroups; i++) {
            largest = max(largest, subgroup_sums[i]);
        }
        barrier();
    }
    return largest;
}
#endif
