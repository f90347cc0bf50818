/* 2^n for -127 < n < 128, from its bits. */
static inline float power_of_two_f32(int n)
{
    const uint32_t bits = (uint32_t)(n + 127) << 23;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
