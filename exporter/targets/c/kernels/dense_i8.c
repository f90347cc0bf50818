/* y += x W for W [in, out] of integers, scale[j] for each 1 in column j; columns in panels of 32, each by rows. */
static void dense_i8(const float *restrict x, int in, const int8_t *restrict weights,
                           const float *restrict scale, int out, float *restrict y)
{
    for (; out > 0; out -= 32, y += 32, scale += 32, weights += 32 * in) {
        float sum[32] = {0.0f};
        if (out >= 32)
            for (int k = 0; k < in; k++)
                for (int j = 0; j < 32; j++)
                    sum[j] += x[k] * (float)weights[32 * k + j];
        else
            for (int k = 0; k < in; k++)
                for (int j = 0; j < out; j++)
                    sum[j] += x[k] * (float)weights[out * k + j];
        for (int j = 0; j < (out < 32 ? out : 32); j++)
            y[j] += scale[j] * sum[j];
    }
}
