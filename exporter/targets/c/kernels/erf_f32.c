/* The error function as a quotient of polynomials. Within 5e-7 of it, relative to it. */
static inline float erf_f32(float x)
{
    const float limit = 3.93f; /* from where it is 1 */
    float z = x < -limit ? -limit : x;
    z = z > limit ? limit : z;
    const float s = z * z;
    float p = 2.041908e-06f, q = 3.8002618e-05f;
    p = p * s + 0.00028479286f;
    p = p * s + 0.0037792737f;
    p = p * s + 0.05278919f;
    p = p * s + 0.1907771f;
    p = p * s + 1.1283791f;
    q = q * s + 0.0011651169f;
    q = q * s + 0.014996759f;
    q = q * s + 0.11425455f;
    q = q * s + 0.5024045f;
    q = q * s + 1.0f;
    z = z * p / q;
    z = z < -1.0f ? -1.0f : z;
    z = z > 1.0f ? 1.0f : z;
    z = x >= limit ? 1.0f : z;
    return x <= -limit ? -1.0f : z;
}
