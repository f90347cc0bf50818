/* The logarithm of softmax. */
static void log_softmax_f32(const float *restrict x, int count, float *restrict y)
{
    float most = x[0], sum = 0.0f;
    for (int i = 1; i < count; i++)
        most = x[i] > most ? x[i] : most;
    for (int i = 0; i < count; i++)
        sum += exp_f32(x[i] - most);
    sum = log_f32(sum);
    for (int i = 0; i < count; i++)
        y[i] = x[i] - most - sum;
}
