// Launches that wait for each other without a pipeline barrier, which drains the device: every workgroup of
// a launch counts itself when it is done, and a workgroup of a later launch waits for that count when it
// first needs what the earlier launch wrote; until then it loads what does not depend on it. That rests on
// workgroups being started in the order of their launches, so that nobody waits for one that cannot start.
//
// What an earlier launch of the chain wrote is read through the Shared types only, which no cache of a
// compute unit answers for.
#extension GL_KHR_memory_scope_semantics : require

layout(constant_id = 15) const bool CHAINED = false;

struct Chain {
    uvec2 counters;      // 32 words apart
    uint indices;        // the counter to wait for, and from bit 16 on the one to count in
    uint target;         // 0: nothing to wait for
};

layout(buffer_reference, scalar, buffer_reference_align = 4) coherent volatile buffer SharedWords { uint v[]; };
layout(buffer_reference, scalar, buffer_reference_align = 4) coherent buffer SharedFloats { float v[]; };
layout(buffer_reference, scalar, buffer_reference_align = 8) coherent readonly buffer SharedPairs { vec2 v[]; };
layout(buffer_reference, scalar, buffer_reference_align = 16) coherent readonly buffer SharedVec4s { vec4 v[]; };
layout(buffer_reference, scalar, buffer_reference_align = 16) coherent readonly buffer SharedQuads { uvec4 v[]; };

// All invocations of a workgroup call it, once.
void chain_await(Chain chain) {
    if (!CHAINED || chain.target == 0) {
        return;
    }
    if (gl_LocalInvocationID.x == 0) {
        SharedWords counters = SharedWords(chain.counters);
        uint index = (chain.indices & 0xFFFFu) * 32;
        while (counters.v[index] < chain.target) {
        }
        memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer, gl_SemanticsAcquire);
    }
    barrier();
}

// All invocations of a workgroup call it, last. Every workgroup of the launch must.
void chain_arrive(Chain chain) {
    if (!CHAINED) {
        return;
    }
    barrier();
    if (gl_LocalInvocationID.x == 0) {
        memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer, gl_SemanticsRelease);
        atomicAdd(Words(chain.counters).v[(chain.indices >> 16) * 32], 1);
    }
}
