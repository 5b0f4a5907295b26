#include "tt_learn.h"

#include "tt_math.h"
#include "tt_port.h"

void tt_effective(const tt_learn_params *p, const tt_learn_state *s, int8_t *weights, int32_t *bias,
                  tt_conv_params *effective)
{
    *effective = *p->pretrained;
    effective->bias = bias;
    for (int32_t o = 0; o < p->outputs; o++) {
        bias[o] = p->pretrained->bias[o] + s->bias[o];
    }
    if (weights == NULL || s->chosen == 0) {
        return;
    }
    effective->weights = weights;
    const tt_weight_layout *const l = &p->layout;
    const int32_t chosen = s->chosen, outputs = l->group_outputs, taps = l->taps, zero = p->pretrained->input_zero;
    const int32_t to_output = l->output_stride, to_tap = l->tap_stride;
    memcpy(weights, p->pretrained->weights, (size_t)l->bytes);
    for (int32_t i = 0; i < chosen; i++) {
        TT_ASSERT(s->channels[i] * outputs < p->outputs * l->group_inputs);
        const int32_t group = s->channels[i] / l->group_inputs, within = s->channels[i] % l->group_inputs;
        int8_t *row = weights + group * l->group_stride + within;
        int32_t *const biases = bias + group * outputs;
        int32_t delta = i;
        for (int32_t o = 0; o < outputs; o++, row += to_output) {
            int8_t *w = row;
            int32_t moved = 0; /* keeps the input's zero point folded into the bias */
            for (int32_t tap = 0; tap < taps; tap++, w += to_tap, delta += chosen) {
                const int32_t before = *w, value = before + tt_delta_steps(s, delta);
                const int32_t after = value < -128 ? -128 : value > 127 ? 127 : value;
                moved += after - before;
                *w = (int8_t)after;
            }
            biases[o] -= moved * zero;
        }
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
    const float per_sample = rate->rate / root_of((float)rate->samples);
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

uint64_t tt_learn_nearest(int16_t *deltas, const int32_t *gradients, int32_t count, tt_update update,
                          int32_t norm_shift, uint32_t *random, tt_rate *rate)
{
    const int32_t shift = update.shift - 32; /* of the product's upper word: from 1 on it alone decides */
    const int32_t upper = shift >= 1 && shift <= 30, half = upper ? 1 << (shift - 1) : 0;
    uint64_t squares = 0;
    uint32_t saturated = 0;
    (void)random;
    for (int32_t i = 0; i < count; i++) {
        const int32_t value = gradients[i];
        const uint32_t part = (uint32_t)(value < 0 ? -value : value) >> norm_shift;
        squares += (uint64_t)part * part;
        int32_t move;
        if (upper) {
            move = ((int32_t)(((int64_t)value * update.multiplier) >> 32) + half) >> shift;
        } else {
            const int64_t far = tt_move(value, update), limit = 4 * TT_MANTISSA_MAX; /* saturates any delta */
            move = (int32_t)(far > limit ? limit : far < -limit ? -limit : far);
        }
        int32_t moved = deltas[i] - move;
        if (moved > TT_MANTISSA_MAX || moved < -TT_MANTISSA_MAX) {
            moved = moved < 0 ? -TT_MANTISSA_MAX : TT_MANTISSA_MAX;
            saturated++;
        }
        deltas[i] = (int16_t)moved;
    }
    rate->saturated += saturated;
    return squares;
}

uint64_t tt_learn_stochastic(int8_t *deltas, const int32_t *gradients, int32_t count, tt_update update,
                             int32_t norm_shift, uint32_t *random, tt_rate *rate)
{
    uint64_t squares = 0;
    for (int32_t i = 0; i < count; i++) {
        const uint32_t part = (uint32_t)(gradients[i] < 0 ? -gradients[i] : gradients[i]) >> norm_shift;
        squares += (uint64_t)part * part;
        tt_move_stochastic(deltas + i, tt_move(gradients[i], update), random, rate);
    }
    return squares;
}

/* Sums over all pixels of `columns` neighbouring channels, at most four; each value loses `shift` bits first. */
static void column_sums(int32_t *sums, const int16_t *g, int32_t pixels, int32_t channels, int32_t columns,
                        int32_t shift)
{
    int32_t sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
    if (columns == 4 && shift == 0) {
        for (int32_t pixel = 0; pixel < pixels; pixel++, g += channels) {
            sum0 += g[0];
            sum1 += g[1];
            sum2 += g[2];
            sum3 += g[3];
        }
    } else {
        for (int32_t pixel = 0; pixel < pixels; pixel++, g += channels) {
            sum0 += tt_shift_round(g[0], shift);
            sum1 += columns > 1 ? tt_shift_round(g[1], shift) : 0;
            sum2 += columns > 2 ? tt_shift_round(g[2], shift) : 0;
            sum3 += columns > 3 ? tt_shift_round(g[3], shift) : 0;
        }
    }
    sums[0] = sum0;
    sums[1] = sum1;
    sums[2] = sum2;
    sums[3] = sum3;
}

void tt_learn_bias(const tt_learn_params *p, const tt_learn_state *s, tt_rate *rate, const int16_t *g, int32_t pixels,
                   int32_t exponent, int32_t magnitude)
{
    const int32_t shift = tt_safe_shift(magnitude, (uint64_t)pixels); /* 0 up to 65,538 pixels */
    const int32_t norm_shift = tt_headroom((uint64_t)magnitude * (uint32_t)pixels >> shift, 23);
    const tt_step step = tt_step_size(rate, s->bias_running, p->bias_norm);
    uint64_t squares = 0;
    int32_t sums[4] = { 0 };
    exponent += shift;
    for (int32_t o = 0; o < p->outputs; o++) {
        if (o % 4 == 0) {
            column_sums(sums, g + o, pixels, p->outputs, p->outputs - o < 4 ? p->outputs - o : 4, shift);
        }
        const int32_t sum = sums[o % 4];
        const uint64_t part = (uint32_t)(sum < 0 ? -sum : sum) >> norm_shift;
        squares += part * part;
        const int64_t moved = s->bias[o] - tt_move(sum, tt_update_of(step, &p->bias_inverse, o, exponent));
        const int64_t limit = p->bias_limit;
        rate->saturated += moved > limit || moved < -limit;
        s->bias[o] = (int32_t)(moved > limit ? limit : moved < -limit ? -limit : moved);
    }
    tt_running_add(s->bias_running, squares, 2 * (exponent + norm_shift));
}
