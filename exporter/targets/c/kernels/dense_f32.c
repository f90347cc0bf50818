#ifdef __GNUC__
#define APART __attribute__((noinline)) /* GCC unrolls what has constant sizes until it takes half as long again */
#else
#define APART
#endif

/* y += x W for W [in, out], whose columns lie in panels of 64, then 48 or 32, then what is left; each panel by rows. */
static APART void dense_f32(const float *restrict x, int in, const float *restrict weights, int out, float *restrict y)
{
    int k = 0;
    for (; out >= 64 && out != 96; out -= 64, y += 64, weights += 64 * in)
        panel_f32(x, in, weights, 64, y);
    for (; out >= 48; out -= 48, y += 48, weights += 48 * in)
        panel_f32(x, in, weights, 48, y);
    for (; out >= 32; out -= 32, y += 32, weights += 32 * in)
        panel_f32(x, in, weights, 32, y);
    for (; k + 4 <= in; k += 4, weights += 4 * out)
        for (int j = 0; j < out; j++)
            y[j] += x[k] * weights[j] + x[k + 1] * weights[out + j] + x[k + 2] * weights[2 * out + j]
                    + x[k + 3] * weights[3 * out + j];
    for (; k < in; k++, weights += out)
        for (int j = 0; j < out; j++)
            y[j] += x[k] * weights[j];
}
