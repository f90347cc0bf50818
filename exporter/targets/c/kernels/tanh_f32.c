/* tanh(x) as a quotient of polynomials. Within 4e-7 of it, relative to it. */
static inline float tanh_f32(float x)
{
    const float limit = 9.0f; /* from where it is 1 */
    float z = x < -limit ? -limit : x;
    z = z > limit ? limit : z;
    const float s = z * z, t = s * s;
    const float end = (0.0029207966f + 9.267704e-06f * s) + t * (1.8256707e-11f * s - 1.2781149e-08f);
    const float p = (0.99999994f + 0.12919262f * s) + t * end;
    const float q = (1.0f + 0.46252546f * s) + t * (0.023763316f + 0.00022810478f * s);
    z = z * p / q;
    z = z < -1.0f ? -1.0f : z;
    z = z > 1.0f ? 1.0f : z;
    z = x >= limit ? 1.0f : z;
    return x <= -limit ? -1.0f : z;
}
