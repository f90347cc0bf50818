/* 1 / (1 + e^-x). Within 3 units of the last place; 0 below -88.7, where it is less than 3e-39. */
static inline float sigmoid_f32(float x)
{
    return 1.0f / (1.0f + exp_f32(-x));
}
