/* The same for up to 64 columns, whose sums stay in registers. */
static inline void panel_f32(const float *restrict x, int in, const float *restrict weights, int width, float *restrict y)
{
    float sums[64];
    for (int j = 0; j < width; j++)
        sums[j] = y[j];
    for (int k = 0; k < in; k++)
        for (int j = 0; j < width; j++)
            sums[j] += x[k] * weights[k * width + j];
    for (int j = 0; j < width; j++)
        y[j] = sums[j];
}
