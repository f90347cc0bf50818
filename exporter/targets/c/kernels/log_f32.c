/* ln(x) = n ln(2) + ln(m) with n whole and m from 0.7 to 1.4. Within 3 units of the last place; 0, infinity and NaN too. */
static inline float log_f32(float x)
{
    const int small = x < 1.17549435e-38f; /* scaled by 2^23 then, so that it has all its bits */
    const float z = x * (small ? 8388608.0f : 1.0f);
    uint32_t bits;
    float m;
    memcpy(&bits, &z, sizeof bits);
    const uint32_t above = bits - 0x3f3504f3u; /* of the bits of sqrt(0.5), whose exponent begins there */
    const int n = (int)((above >> 23) ^ 0x100u) - 0x100 - (small ? 23 : 0);
    bits = (above & 0x007fffffu) + 0x3f3504f3u;
    memcpy(&m, &bits, sizeof m);
    const float s = (m - 1.0f) / (m + 1.0f), t = s * s;
    float p = 0.23328799f;
    p = p * t + 0.28550917f;
    p = p * t + 0.4000012f;
    p = p * t + 0.6666667f;
    p = (float)n * 0.693359375f + ((float)n * -2.12194440e-4f + p * (t * s) + 2.0f * s);
    const float infinite = x > 3.40282347e+38f ? x : 0.0f, none = x < 0.0f ? NAN : x - INFINITY;
    return p + (x > 0.0f ? infinite : none);
}
