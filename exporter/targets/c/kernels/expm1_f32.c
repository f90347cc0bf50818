/* e^x - 1 = tanh(x / 2) (e^x + 1), as exact near 0. */
static inline float expm1_f32(float x)
{
    return tanh_f32(0.5f * x) * (exp_f32(x) + 1.0f);
}
