#ifdef __GNUC__
#define APART __attribute__((noinline)) /* GCC unrolls what has constant sizes until it takes half as long again */
#else
#define APART
#endif

/* y += x W for W [in, out], whose columns lie in panels of 64, then 32, then what is left; each panel by rows. */
static APART void dense_f32(const float *restrict x, int in, const float *restrict weights, int out, float *restrict y)
{
    for (; out >= 64; out -= 64, y += 64, weights += 64 * in)
        panel_f32(x, in, weights, 64, y);
    for (; out >= 32; out -= 32, y += 32, weights += 32 * in)
        panel_f32(x, in, weights, 32, y);
    for (int k = 0; k < in; k++)
        for (int j = 0; j < out; j++)
            y[j] += x[k] * weights[k * out + j];
}
