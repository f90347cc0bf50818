/* A number from 0 to count - 1: itself, or the nearest one. */
static inline int within(int64_t number, int count)
{
    return number < 0 ? 0 : number >= count ? count - 1 : (int)number;
}
