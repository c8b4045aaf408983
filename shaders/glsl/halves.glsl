// x as halves for products by matrix instructions. A row is first multiplied by a power of two that brings its
// largest magnitude to at least 2^14 and below 2^15, because activations pass a half's range; its inverse is
// kept. The result lies as [slab of 64 columns, row, 64], padded with zeros to a multiple of 256 columns; 8 halves of
// a slab's row are a slot.
//
// The order of columns (matrix_weights.glsl): slabs are NATURAL, 64 consecutive columns, or slab w of 256 columns
// takes every fourth run of four columns, from the w-th on. Of each four the order is 0, 2, 1, 3.
//
// The including kernel declares NATURAL.

layout(buffer_reference, scalar, buffer_reference_align = 8) writeonly buffer WordPairsOut { uvec2 v[]; };

// The exponent of that power of two, whose inverse is no less than the least normal float.
int exponent_for(float largest) {
    return clamp(141 - int(floatBitsToUint(largest) >> 23), -126, 126);
}

float power_of_two(int exponent) {
    return uintBitsToFloat(uint(127 + exponent) << 23);
}

uvec2 to_halves(vec4 x) {
    return uvec2(packHalf2x16(x.xz), packHalf2x16(x.yw));
}

uint place_of_slot(uint stride, uint slab, uint row, uint slot) {
    return (slab * stride + row) * 8 + slot;
}

// Where four columns, the `quad`-th of a row, lie, in units of four halves.
uint place_of_quad(uint stride, uint row, uint quad) {
    uint slab = NATURAL ? quad / 16 : quad / 64 * 4 + quad % 4;
    uint slot = NATURAL ? quad / 2 % 8 : quad / 8 % 8;
    uint high = NATURAL ? quad % 2 : quad / 4 % 2;
    return place_of_slot(stride, slab, row, slot) * 2 + high;
}
