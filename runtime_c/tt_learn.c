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
    if (weights == NULL || s->chosen == 0) {
        return;
    }
    effective->weights = weights;
    const tt_weight_layout *const l = &p->layout;
    memcpy(weights, p->pretrained->weights, (size_t)l->bytes);
    for (int32_t i = 0; i < s->chosen; i++) {
        const int32_t group = s->channels[i] / l->group_inputs, within = s->channels[i] % l->group_inputs;
        int32_t delta = i;
        for (int32_t o = 0; o < l->group_outputs; o++) {
            int8_t *w = weights + group * l->group_stride + o * l->output_stride + within;
            int32_t moved = 0; /* keeps the input's zero point folded into the bias */
            for (int32_t tap = 0; tap < l->taps; tap++, w += l->tap_stride, delta += s->chosen) {
                const int8_t value = tt_clamp(*w + tt_delta_steps(s, delta), -128, 127);
                moved += value - *w;
                *w = value;
            }
            bias[group * l->group_outputs + o] -= moved * p->pretrained->input_zero;
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
    const int32_t shift = tt_safe_shift(magnitude, (uint64_t)pixels); /* 0 up to 65,538 pixels */
    const int32_t norm_shift = tt_headroom((uint64_t)magnitude * (uint32_t)pixels >> shift, 23);
    const tt_step step = tt_step_size(rate, s->bias_running, p->bias_norm);
    uint64_t squares = 0;
    exponent += shift;
    for (int32_t o = 0; o < p->outputs; o++) {
        int32_t sum = 0;
        for (int32_t pixel = 0; pixel < pixels; pixel++) {
            sum += tt_shift_round(g[pixel * p->outputs + o], shift);
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
