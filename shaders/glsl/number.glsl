// The functions of `biga_hal::sample::number`, to the last bit: f32 sums and products in the same order, none of
// them fused. 64-bit integers are pairs of words, low word first.

float ln(float x) {
    uint bits = floatBitsToUint(x);
    float m = uintBitsToFloat((bits & 0x007FFFFFu) | 0x3F000000u);
    bool low = m < 0.707106781;
    precise float e = float(int(bits >> 23) - (low ? 127 : 126));
    precise float f = (low ? m + m : m) - 1.0;
    precise float z = f * f;
    precise float p = 7.0376836e-2;
    p = p * f + -1.151461e-1;
    p = p * f + 1.1676999e-1;
    p = p * f + -1.2420141e-1;
    p = p * f + 1.4249323e-1;
    p = p * f + -1.6668058e-1;
    p = p * f + 2.0000715e-1;
    p = p * f + -2.4999994e-1;
    p = p * f + 3.333333e-1;
    precise float y = p * f * z + e * -2.1219444e-4 - 0.5 * z;
    precise float sum = f + y + e * 0.6933594;
    return sum;
}

float exp_below_zero(float x) {
    x = x > -87.0 ? x : -87.0;
    precise float scaled = x * 1.44269504 + 0.5;
    precise float n = floor(scaled);
    precise float r = x - n * 0.6933594 - n * -2.1219444e-4;
    precise float p = 1.9875691e-4;
    p = p * r + 1.3981999e-3;
    p = p * r + 8.333452e-3;
    p = p * r + 4.1665796e-2;
    p = p * r + 1.6666665e-1;
    p = p * r + 0.5;
    precise float y = p * (r * r) + r + 1.0;
    precise float power = uintBitsToFloat(uint(int(n) + 127) << 23);
    precise float product = y * power;
    return product;
}

uvec2 add64(uvec2 a, uvec2 b) {
    uint carry;
    uint low = uaddCarry(a.x, b.x, carry);
    return uvec2(low, a.y + b.y + carry);
}

uvec2 multiply64(uvec2 a, uvec2 b) {
    uint high, low;
    umulExtended(a.x, b.x, high, low);
    return uvec2(low, high + a.x * b.y + a.y * b.x);
}

uvec2 fold64(uvec2 a, uint shift) {
    return a ^ uvec2((a.x >> shift) | (a.y << (32 - shift)), a.y >> shift);
}

const uvec2 GOLDEN = uvec2(0x7F4A7C15u, 0x9E3779B9u);

// SplitMix64's output from a state.
uvec2 mix64(uvec2 state) {
    uvec2 value = add64(state, GOLDEN);
    value = multiply64(fold64(value, 30), uvec2(0x1CE4E5B9u, 0xBF58476Du));
    value = multiply64(fold64(value, 27), uvec2(0x133111EBu, 0x94D049BBu));
    return fold64(value, 31);
}

uvec2 noise_state(uvec2 seed, uint position) {
    return mix64(mix64(seed) ^ multiply64(uvec2(position, 0), GOLDEN));
}

// More than any noise.
#define MAX_NOISE 16.75

float noise_of(uvec2 state, uint token) {
    uvec2 bits = mix64(add64(state, multiply64(uvec2(token, 0), GOLDEN)));
    precise float uniform_number = (float(bits.y >> 9) + 0.5) * (1.0 / 8388608.0);
    return -ln(-ln(uniform_number));
}
