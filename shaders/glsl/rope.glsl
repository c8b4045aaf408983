// Vulkan promises sin and cos only near zero, and only to 2^-11. Positions reach a hundred thousand,
// so the angle is reduced here, in steps whose products are exact in f32 with or without fused
// multiply-add, and the two functions are polynomials on [-pi/4, pi/4].

// cos and sin of an angle >= 0.
vec2 cos_sin(float angle) {
    // The quadrant in two parts of few bits each; pi/2 in four of eight to twelve.
    float quadrant = floor(angle * 0.636619772 + 0.5);
    float high = floor(quadrant * (1.0 / 2048.0)) * 2048.0;
    float low = quadrant - high;
    precise float r = angle - high * 1.5703125;
    r = r - low * 1.5703125;
    r = r - high * 4.837512969970703e-4;
    r = r - low * 4.837512969970703e-4;
    r = r - high * 7.549789954891882e-8;
    r = r - low * 7.549789954891882e-8;
    float z = r * r;
    float s = r + r * z * (-1.6666654611e-1 + z * (8.3321608736e-3 + z * -1.9515295891e-4));
    float c = 1.0 - 0.5 * z + z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5));
    uint q = uint(quadrant) & 3u;
    float cosine = (q & 1u) == 0 ? c : s;
    float sine = (q & 1u) == 0 ? s : c;
    return vec2((q == 1 || q == 2) ? -cosine : cosine, q >= 2 ? -sine : sine);
}

// The pair (a, b) turned by position * inv_freq.
vec2 turned(float a, float b, uint position, float inv_freq) {
    vec2 cs = cos_sin(float(position) * inv_freq);
    return vec2(a * cs.x - b * cs.y, b * cs.x + a * cs.y);
}
