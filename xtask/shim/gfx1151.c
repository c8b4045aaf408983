/* Makes Mesa's RADV compile for a gfx1151 (Strix Halo), with no GPU.
 *
 * Mesa's libamdgpu_noop_drm_shim.so answers the system calls of the driver `amdgpu` out of a table of
 * recorded devices (src/amd/common/amdgpu_devices.c), and does nothing when work is submitted. Of our targets
 * the table of Mesa 26.1 holds gfx1103 (`phoenix`) and gfx1150 (`strix1`), but not gfx1151. This library is
 * preloaded before the shim, lets it answer as `strix1`, and rewrites in two answers what tells the chips
 * apart for a compiler:
 *
 *   device info   external revision 0xc1: with the family 150 (GFX11.5), which stays, Mesa takes it for gfx1151
 *                 (ASICREV_IS_GFX1151 in addrlib's amdgpu_asic_addr.h, read by src/amd/common/ac_gpu_info.c)
 *                 vector registers of a SIMD unit: 1536, where gfx1150 has 1024 (LLVM gives its
 *                 FeatureISAVersion11_5_1, and no other GFX11.5 chip, half as many again)
 *                 PCI device 0x1586, the name in listings
 *   hardware IP   graphics version 11.5.1, where gfx1150 has 11.5.0
 *
 * Everything else stays that of gfx1150: clocks, caches and counts of compute units are not those of a Strix
 * Halo, and a compiler asks for none of them. `cargo xtask shaders` checks by the device's name that Mesa
 * understood. Once Mesa's table holds the chip, this file can go.
 *
 * Layouts: Linux, include/uapi/drm/amdgpu_drm.h: drm_amdgpu_info, drm_amdgpu_info_device,
 * drm_amdgpu_info_hw_ip, AMDGPU_INFO_*, DRM_AMDGPU_INFO. They are a stable interface, given here so that no
 * package of headers is needed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum {
    DRM_TYPE = 'd',
    DRM_AMDGPU_INFO_NUMBER = 0x40 + 0x05,
    INFO_HW_IP_INFO = 0x02,
    INFO_DEV_INFO = 0x16,
    HW_IP_COMPUTE = 1, /* and graphics is 0 */
};

/* The head of drm_amdgpu_info. */
struct request {
    uint64_t answer_address;
    uint32_t answer_bytes;
    uint32_t query;
    uint32_t ip_type;
};

/* The head of drm_amdgpu_info_device; what lies between is left alone. */
struct device_info {
    uint32_t pci_device;
    uint32_t chip_revision;
    uint32_t external_revision;
    uint32_t pci_revision;
    uint32_t family;
    uint32_t between[56];
    uint32_t vector_registers;
};
_Static_assert(offsetof(struct device_info, vector_registers) == 244, "num_shader_visible_vgprs is word 61");

/* drm_amdgpu_info_hw_ip. */
struct ip_info {
    uint32_t version_major;
    uint32_t version_minor;
    uint64_t capabilities;
    uint32_t ib_start_alignment;
    uint32_t ib_size_alignment;
    uint32_t available_rings;
    uint32_t discovery_version;
};
_Static_assert(offsetof(struct ip_info, discovery_version) == 28, "ip_discovery_version is word 7");

static void rewrite(const struct request *request) {
    void *answer = (void *)(uintptr_t)request->answer_address;
    if (request->query == INFO_DEV_INFO && request->answer_bytes >= sizeof(struct device_info)) {
        struct device_info *device = answer;
        device->pci_device = 0x1586;
        device->external_revision = 0xc1;
        device->vector_registers = 1536;
    }
    if (request->query == INFO_HW_IP_INFO && request->ip_type <= HW_IP_COMPUTE &&
        request->answer_bytes >= sizeof(struct ip_info)) {
        struct ip_info *ip = answer;
        ip->version_major = 11;
        ip->version_minor = 5;
        ip->discovery_version = 11 << 16 | 5 << 8 | 1;
    }
}

int ioctl(int file, unsigned long command, ...) {
    static int (*next)(int, unsigned long, ...);
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (!next) {
        next = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
        if (!next) {
            abort();
        }
    }
    int result = next(file, command, argument);
    if (result == 0 && (command >> 8 & 0xff) == DRM_TYPE && (command & 0xff) == DRM_AMDGPU_INFO_NUMBER) {
        rewrite(argument);
    }
    return result;
}
