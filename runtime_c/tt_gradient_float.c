#include "tt_gradient_float.h"

void tt_float_gradient(float *g, int32_t count, int32_t exponent)
{
    const float unit = tt_scaled(1.0f, exponent);
    for (int32_t i = count - 1; i >= 0; i--) { /* from the end: a float covers two mantissas */
        int16_t mantissa;
        memcpy(&mantissa, (const char *)g + (size_t)i * sizeof mantissa, sizeof mantissa);
        g[i] = (float)mantissa * unit;
    }
}

void tt_float_mask(float *g, const uint32_t *bits, int32_t count)
{
    for (int32_t i = 0; i < count; i += 32) {
        const int32_t lanes = count - i < 32 ? count - i : 32;
        const uint32_t word = bits[i / 32];
        for (int32_t lane = 0; lane < lanes; lane++) {
            g[i + lane] = (word >> lane & 1u) != 0 ? g[i + lane] : 0.0f;
        }
    }
}

void tt_float_scale(float *g, int32_t count, int32_t channels, const float *factors)
{
    for (int32_t i = 0; i < count; i += channels) {
        for (int32_t c = 0; c < channels; c++) {
            g[i + c] *= factors[c];
        }
    }
}

void tt_float_add(float *a, const float *b, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        a[i] += b[i];
    }
}

void tt_float_fisher_add(float *scores, const int8_t *x, const float *dx, int32_t pixels, int32_t channels,
                         int32_t zero)
{
    for (int32_t c = 0; c < channels; c++) {
        float sum = 0.0f;
        for (int32_t i = c; i < pixels * channels; i += channels) {
            sum += dx[i] * (float)(x[i] - zero);
        }
        scores[c] += tt_scaled(sum * sum, 0);
    }
}

void tt_float_learn_bias(const tt_learn_params *p, const tt_learn_state *s, tt_rate *rate, const float *inverse,
                         const float *g, int32_t pixels)
{
    const float step = tt_step_length(rate, s->bias_running, p->bias_norm);
    float squares = 0.0f;
    for (int32_t first = 0; first < p->outputs; first += TT_LANES) {
        const int32_t lanes = p->outputs - first < TT_LANES ? p->outputs - first : TT_LANES;
        float sums[TT_LANES] = { 0 };
        for (int32_t pixel = 0; pixel < pixels; pixel++) {
            const float *const from = g + pixel * p->outputs + first;
            for (int32_t lane = 0; lane < lanes; lane++) {
                sums[lane] += from[lane];
            }
        }
        for (int32_t lane = 0; lane < lanes; lane++) {
            const int32_t o = first + lane;
            const int64_t limit = p->bias_limit;
            const int64_t moved = (int64_t)s->bias[o] - tt_float_move(sums[lane] * (step * inverse[o]));
            squares += sums[lane] * sums[lane];
            rate->saturated += moved > limit || moved < -limit;
            s->bias[o] = (int32_t)(moved > limit ? limit : moved < -limit ? -limit : moved);
        }
    }
    tt_running_fold(s->bias_running, squares);
}
