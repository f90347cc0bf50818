/* What is left of x after the whole multiples of y, with the sign of y. */
static inline float floor_mod_f32(float x, float y)
{
    const float left = fmodf(x, y);
    return left != 0.0f && (left < 0.0f) != (y < 0.0f) ? left + y : left;
}
