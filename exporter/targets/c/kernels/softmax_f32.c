/* e^(beta x), scaled so that their sum is 1. */
static void softmax_f32(const float *restrict x, int count, float beta, float *restrict y)
{
    float most = x[0], sum = 0.0f;
    for (int i = 1; i < count; i++)
        most = x[i] > most ? x[i] : most;
    for (int i = 0; i < count; i++)
        y[i] = exp_f32(beta * (x[i] - most));
    for (int i = 0; i < count; i++)
        sum += y[i];
    for (int i = 0; i < count; i++)
        y[i] /= sum;
}
