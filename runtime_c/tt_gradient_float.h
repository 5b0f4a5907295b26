/*
 * Gradients in float32: the pieces of backward passes generated with --gradients float32.
 *
 * Every sum has one order (docs/reference/numerics.md, "Float gradients"): what runs in parallel are sums of different
 * results. With IEEE 754 single precision and no contraction all cores and the host give the same bytes.
 */
#ifndef TT_GRADIENT_FLOAT_H
#define TT_GRADIENT_FLOAT_H

#include "tt_learn.h"

/* Results that a kernel computes side by side: rows of TT_LANES. Same results whatever the number. */
#define TT_ROWS 4

/* --- The gradient of the embedding ------------------------------------------------------------ */

/* In place: count int16 mantissas at the start of g become floats, mantissa * 2^exponent. Exact. */
void tt_float_gradient(float *g, int32_t count, int32_t exponent);

/* --- Gradients -------------------------------------------------------------------------------- */

/* Zero the gradient where the forward pass clipped. */
void tt_float_mask(float *g, const uint32_t *bits, int32_t count);

/* g[i] *= factors[i % channels]. */
void tt_float_scale(float *g, int32_t count, int32_t channels, const float *factors);

/* a += b. */
void tt_float_add(float *a, const float *b, int32_t count);

/* acc[lane] += a[k * a_step] * (b[k * b_step + lane] - zero) for k = 0 .. count - 1, in this order. */
TT_INLINE void tt_float_row(float *acc, const float *a, int32_t a_step, const int8_t *b, int32_t b_step, int32_t zero,
                            int32_t count, int32_t lanes)
{
    for (int32_t k = 0; k < count; k++, a += a_step, b += b_step) {
        if (lanes == TT_LANES) {
            for (int32_t lane = 0; lane < TT_LANES; lane++) {
                acc[lane] += *a * (float)(b[lane] - zero);
            }
        } else {
            for (int32_t lane = 0; lane < lanes; lane++) {
                acc[lane] += *a * (float)(b[lane] - zero);
            }
        }
    }
}

/* The same for TT_ROWS rows that share b: acc[row * TT_LANES + lane], a[row * a_row + k * a_step]. */
TT_INLINE void tt_float_rows(float *acc, const float *a, int32_t a_row, int32_t a_step, const int8_t *b, int32_t b_step,
                             int32_t zero, int32_t count, int32_t lanes)
{
    if (lanes < TT_LANES) {
        for (int32_t row = 0; row < TT_ROWS; row++) {
            tt_float_row(acc + row * TT_LANES, a + row * a_row, a_step, b, b_step, zero, count, lanes);
        }
        return;
    }
    float sums[TT_ROWS][TT_LANES];
    memcpy(sums, acc, sizeof sums);
    for (int32_t k = 0; k < count; k++, a += a_step, b += b_step) {
        float factors[TT_LANES];
        for (int32_t lane = 0; lane < TT_LANES; lane++) {
            factors[lane] = (float)(b[lane] - zero);
        }
        for (int32_t lane = 0; lane < TT_LANES; lane++) {
            sums[0][lane] += a[0] * factors[lane];
            sums[1][lane] += a[a_row] * factors[lane];
            sums[2][lane] += a[2 * a_row] * factors[lane];
            sums[3][lane] += a[3 * a_row] * factors[lane];
        }
    }
    memcpy(acc, sums, sizeof sums);
}

/* tt_fisher_add() of a float gradient. */
void tt_float_fisher_add(float *scores, const int8_t *x, const float *dx, int32_t pixels, int32_t channels,
                         int32_t zero);

/* --- Updates ---------------------------------------------------------------------------------- */

/* A float move as steps of a delta: rounded half up, within +-2147483520. */
TT_INLINE int32_t tt_float_move(float move)
{
    const float limit = 2147483520.0f; /* the largest float below 2^31 */
    move += 0.5f;
    move = !(move < limit) ? limit : !(move > -limit) ? -limit : move;
    const int32_t whole = (int32_t)move; /* toward zero */
    return whole - ((float)whole > move);
}

/* Bias gradient: column sums of g (pixels x outputs), and its update. inverse: 1 / (s_w s_x), per output. */
void tt_float_learn_bias(const tt_learn_params *p, const tt_learn_state *s, tt_rate *rate, const float *inverse,
                         const float *g, int32_t pixels);

#endif
