/* e^x = 2^n e^r with n whole and |r| <= ln(2) / 2. Within 2 units of the last place; 0, infinity and NaN as they should. */
static inline float exp_f32(float x)
{
    const float low = -104.0f, high = 89.0f; /* where floats end */
    float z = x < low ? low : x;
    z = z > high ? high : z;
    const float above = z * 1.44269504f + 256.5f; /* n + 256, before it is rounded down; NaN is no whole number */
    const unsigned whole = (unsigned)(int)(above > 0.0f ? above : 0.0f);
    const int n = (int)whole - 256, half = (int)(whole / 2) - 128;
    const float r = (z - (float)n * 0.693359375f) + (float)n * 2.12194440e-4f;
    const float t = r * r, end = (0.041666854f + 0.008363214f * r) + t * 0.0013901313f;
    const float p = 1.0f + (r + t * ((0.5f + 0.16666576f * r) + t * end));
    return p * power_of_two_f32(half) * power_of_two_f32(n - half); /* in two: 2^n alone may be no float */
}
