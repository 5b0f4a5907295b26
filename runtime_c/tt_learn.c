#include "tt_learn.h"

#include "tt_head.h"

void tt_effective(const tt_learn_params *p, const tt_learn_state *s, int8_t *weights, int32_t *bias,
                  tt_conv_params *effective)
{
    *effective = *p->pretrained;
    effective->bias = bias;
    for (int32_t o = 0; o < p->outputs; o++) {
        bias[o] = p->pretrained->bias[o] + s->bias[o];
    }
    if (weights == NULL) {
        return;
    }
    effective->weights = weights;
    memcpy(weights, p->pretrained->weights, (size_t)(p->outputs * p->row_bytes));
    int32_t index = 0;
    for (int32_t o = 0; o < p->outputs; o++, weights += p->row_bytes) {
        int32_t moved = 0; /* keeps the input's zero point folded into the bias */
        for (int32_t tap = 0; tap < p->taps; tap++) {
            for (int32_t i = 0; i < s->chosen; i++) {
                int8_t *const w = weights + tap * p->inputs + s->channels[i];
                const int8_t value = tt_clamp(*w + tt_delta_steps(s, index++), -128, 127);
                moved += value - *w;
                *w = value;
            }
        }
        bias[o] -= moved * p->pretrained->input_zero;
    }
}

/* The library's frexpf and ldexpf set errno; these do not, and flush what is not a normal number. */
static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float tt_scaled(float value, int32_t exponent)
{
    const uint32_t bits = bits_of(value);
    const int32_t field = (int32_t)(bits >> 23) + exponent;
    if (bits >> 23 == 0 || field <= 0) {
        return 0.0f;
    }
    const uint32_t result = field >= 254 ? UINT32_C(254) << 23 : (bits & 0x7FFFFFu) | (uint32_t)field << 23;
    float scaled_value;
    memcpy(&scaled_value, &result, sizeof scaled_value);
    return scaled_value;
}

/* Square root of a normal float, to 23 bits and rounded down: mean = m * 2^e with m in [2^46, 2^48) and e even. */
static float root_of(float mean)
{
    const uint32_t bits = bits_of(mean);
    const int32_t e = (int32_t)(bits >> 23) - 150; /* mean = significand * 2^e */
    const uint64_t significand = (bits & 0x7FFFFFu) | 0x800000u;
    const int32_t odd = e & 1;
    return tt_scaled((float)tt_square_root(significand << (24 - odd)), (e - 24 + odd) / 2);
}

float tt_step_length(const tt_rate *rate, const tt_running *running, float norm)
{
    if (bits_of(running->mean) >> 23 == 0) {
        return 0.0f;
    }
    const float per_sample = rate->rate / (float)rate->samples;
    const float length = per_sample * norm / root_of(running->mean);
    return bits_of(length) >> 23 == 0 ? 0.0f : length;
}

tt_step tt_step_size(const tt_rate *rate, const tt_running *running, float norm)
{
    tt_step step = { 0, 0 };
    const uint32_t bits = bits_of(tt_step_length(rate, running, norm));
    if (bits != 0) { /* fraction in [2^29, 2^30) */
        step.fraction = (int32_t)(((bits & 0x7FFFFFu) | 0x800000u) << 6);
        step.exponent = (int32_t)(bits >> 23) - 126;
    }
    return step;
}

void tt_running_add(tt_running *running, uint64_t sum, int32_t exponent)
{
    tt_running_fold(running, tt_scaled((float)sum, exponent));
}

void tt_running_fold(tt_running *running, float square)
{
    square = tt_scaled(square, 0);
    running->seen += running->seen < INT32_MAX;
    running->mean += (square - running->mean) / (float)running->seen;
}

void tt_learn_bias(const tt_learn_params *p, const tt_learn_state *s, tt_rate *rate, const int16_t *g, int32_t pixels,
                   int32_t exponent, int32_t magnitude)
{
    const int32_t norm_shift = tt_headroom((uint64_t)magnitude * (uint32_t)pixels, 23);
    const tt_step step = tt_step_size(rate, s->bias_running, p->bias_norm);
    uint64_t squares = 0;
    for (int32_t o = 0; o < p->outputs; o++) {
        int32_t sum = 0;
        for (int32_t pixel = 0; pixel < pixels; pixel++) {
            sum += g[pixel * p->outputs + o];
        }
        const uint64_t part = (uint32_t)(sum < 0 ? -sum : sum) >> norm_shift;
        squares += part * part;
        const int64_t moved = s->bias[o] - tt_move(sum, tt_mover_of(step, &p->bias_inverse, o, exponent));
        const int64_t limit = INT32_MAX;
        rate->saturated += moved > limit || moved < -limit;
        s->bias[o] = (int32_t)(moved > limit ? limit : moved < -limit ? -limit : moved);
    }
    tt_running_add(s->bias_running, squares, 2 * (exponent + norm_shift));
}

/* exp(-d / 2^15) with 15 fraction bits: 2^-x by a polynomial, the whole part by a shift. */
static int32_t exp_negative(int64_t d)
{
    const int64_t t = (d * 47274) >> 15; /* log2(e) */
    const int32_t x = (int32_t)(t & 32767);
    if (t >> 15 > 15) {
        return 0;
    }
    int32_t e = 315;
    e = 1819 - ((x * e) >> 15);
    e = 7872 - ((x * e) >> 15);
    e = 22713 - ((x * e) >> 15);
    e = 32768 - ((x * e) >> 15);
    return e >> (t >> 15);
}

int32_t tt_loss(const tt_model *model, const int16_t *sums, const uint16_t *shots, const int8_t *features,
                int32_t label, int16_t *gradient, int32_t *exponent, int64_t *scratch)
{
    const int32_t scale = 10;
    const int32_t one = 1 << 15;
    const int32_t zero = model->features_zero;
    const int64_t length = tt_head_length(model, features);
    int32_t top = INT32_MIN;
    for (uint32_t c = 0; c < model->classes; c++) {
        if (shots[c] != 0) {
            const tt_similarity s = tt_head_similarity(model, sums, shots, features, length, c);
            scratch[2 * c] = s.cosine;
            scratch[2 * c + 1] = s.class_length;
            top = s.cosine > top ? s.cosine : top;
        }
    }
    *exponent = 0;
    if (length == 0) {
        memset(gradient, 0, sizeof *gradient * model->features);
        return one;
    }

    int64_t total = 0;
    for (uint32_t c = 0; c < model->classes; c++) {
        if (shots[c] != 0) {
            total += exp_negative((int64_t)scale * (top - scratch[2 * c]));
        }
    }
    int64_t along = 0;
    int32_t error = one;
    for (uint32_t c = 0; c < model->classes; c++) {
        if (shots[c] != 0) {
            const int64_t cosine = scratch[2 * c];
            const int64_t p = ((int64_t)exp_negative(scale * (top - cosine)) << 15) / total;
            int64_t a = p;
            if ((int32_t)c == label) {
                error = one - (int32_t)p;
                a -= one;
            }
            along += a * cosine;
            const int64_t class_length = scratch[2 * c + 1];
            scratch[2 * c] = class_length == 0 ? 0 : a * (INT64_C(1) << 31) / class_length;
        }
    }
    const int64_t toward = (along >> 15) * (INT64_C(1) << 40) / length;
    const int64_t inverse = (INT64_C(1) << 46) / length;

    /* Twice over the embedding: for the largest magnitude, then for the mantissas. */
    int32_t shift = 0;
    for (int32_t pass = 0; pass < 2; pass++) {
        uint64_t largest = 0;
        for (uint32_t i = 0; i < model->features; i++) {
            int64_t sum = 0;
            for (uint32_t c = 0; c < model->classes; c++) {
                if (shots[c] != 0) {
                    sum += scratch[2 * c] * (sums[(size_t)c * model->features + i] - zero * (int32_t)shots[c]);
                }
            }
            const int64_t value = ((sum - toward * (features[i] - zero)) >> 16) * inverse;
            if (pass == 0) {
                const uint64_t size = (uint64_t)(value < 0 ? -value : value);
                largest = size > largest ? size : largest;
            } else {
                const int64_t m = shift == 0 ? value : (value + (INT64_C(1) << (shift - 1))) >> shift;
                gradient[i] = (int16_t)(m > TT_MANTISSA_MAX ? TT_MANTISSA_MAX : m < -TT_MANTISSA_MAX ? -TT_MANTISSA_MAX : m);
            }
        }
        if (pass == 0) {
            shift = tt_headroom(largest, TT_MANTISSA_BITS);
        }
    }
    *exponent = shift - 53;
    return error;
}
