/* y += a b for a [rows, inner] and b [inner, columns]; neighbours along their axes are so many numbers apart. */
static void matmul_f32(const float *restrict a, const float *restrict b, float *restrict y, int rows, int inner, int columns,
                       int a_row, int a_inner, int b_inner, int b_column)
{
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < inner; k++)
            for (int j = 0; j < columns; j++)
                y[i * columns + j] += a[i * a_row + k * a_inner] * b[k * b_inner + j * b_column];
}
